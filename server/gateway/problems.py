"""Errors over HTTP: every refusal, ours or aiohttp's, as `application/problem+json` (RFC 9457).

The codes are those of server/errors.py; which error is raised is never decided here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import orjson
from aiohttp import hdrs, web

from server.errors import (
    Conflict,
    DeadlineExceeded,
    DomainError,
    Forbidden,
    Internal,
    Invalid,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    Unauthenticated,
    Unavailable,
)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER = 1.0  # seconds that a 503 asks for when the refusal does not say
# Headers of aiohttp's own refusals that say what to do next.
_KEPT = (hdrs.ALLOW, hdrs.CONTENT_RANGE, hdrs.RETRY_AFTER)
_BY_STATUS: Mapping[int, type[DomainError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: PayloadTooLarge,
    429: RateLimited,
    503: Unavailable,
    504: DeadlineExceeded,
}
_MESSAGES = {
    405: "This address does not know this method; `Allow` names those that it knows.",
    412: "This was changed in the meantime. Read it again.",
    416: "The range is outside of what is there.",
}


def problem(
    error: DomainError, request_id: str, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer a refusal, e.g.

    {"type": "/api/docs#errors-invalid", "title": "Invalid", "status": 422, "code": "invalid", "detail": "…",
     "request_id": "…", "errors": [{"loc": ["email"], "message": "…"}]}
    """
    status = status or error.status
    body = {
        "type": problem_type(error.code),
        "title": title(error.code),
        "status": status,
        "code": error.code,
        "detail": error.message,
        "request_id": request_id,
        "errors": [{"loc": item.loc, "message": item.message} for item in error.errors],
    }
    answer = web.Response(status=status, body=orjson.dumps(body), headers=headers)
    answer.headers[hdrs.CONTENT_TYPE] = CONTENT_TYPE
    retry_after = RETRY_AFTER if error.retry_after is None and status == 503 else error.retry_after
    if retry_after is not None:
        answer.headers[hdrs.RETRY_AFTER] = str(max(0, math.ceil(retry_after)))
    if status == 401:
        answer.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    return answer


def http_problem(error: web.HTTPException, request_id: str) -> web.Response:
    """Translate a refusal that aiohttp made, e.g. its 404 and 405."""
    headers = {str(name): error.headers[name] for name in _KEPT if name in error.headers}
    return problem(from_status(error.status), request_id, status=error.status, headers=headers)


def from_status(status: int) -> DomainError:
    """Find the refusal for a status that did not begin as one of ours."""
    kind = _BY_STATUS.get(status) or (Invalid if status < 500 else Internal)
    default = "This is not a request that the server understands." if kind is Invalid else None
    return kind(_MESSAGES.get(status, default))


def problem_type(code: str) -> str:
    """The stable reference that identifies a kind of problem and leads to its description."""
    return f"/api/docs#errors-{code}"


def title(code: str) -> str:
    """`payload_too_large` → `Payload too large`."""
    return code.replace("_", " ").capitalize()
