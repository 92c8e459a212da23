"""Headers that every answer carries: the request id, the security headers as helmet sets them, CORS by allow-list.

They are added in one place (`Headers.add`, when aiohttp prepares an answer), so streams and errors have them too.
A header that a handler has set stays as it is: the web client brings its own Content-Security-Policy.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import hdrs, web
from multidict import CIMultiDict, istr

from server.errors import Forbidden
from server.limits import Quota

REQUEST_ID_HEADER = istr("X-Request-ID")
SERVER = "Lectern"
API_POLICY = "default-src 'none'; frame-ancestors 'none'"
_SECURITY: Mapping[str, str] = {
    "Content-Security-Policy": API_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Origin-Agent-Cluster": "?1",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "X-Frame-Options": "DENY",
    "X-Permitted-Cross-Domain-Policies": "none",
}
_TRANSPORT = {"Strict-Transport-Security": "max-age=31536000; includeSubDomains"}
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Range, X-Request-ID, "
    "Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset"
)
_EXPOSED = (
    "X-Request-ID, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, ETag, Location, "
    "Idempotency-Replayed, "
    "Content-Disposition, Content-Range, Tus-Resumable, Upload-Length, Upload-Offset, Upload-Expires"
)
_PREFLIGHT_SECONDS = "600"
_ANY = "*"


class Headers:
    """What to add to answers, computed once from the settings."""

    def __init__(self, public_url: str, cors_origins: tuple[str, ...]) -> None:
        secure = public_url.startswith("https://")
        self._security = CIMultiDict({**_SECURITY, **(_TRANSPORT if secure else {})})
        self._origins = frozenset(origin.rstrip("/") for origin in cors_origins)

        # What a JSON answer carries besides its own length, date and request id; empty if it depends on the request.
        lines = {hdrs.CONTENT_TYPE: "application/json", hdrs.SERVER: SERVER, **self._security}
        ready = "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        self.json_head = "" if self._origins else ready

    def add(self, request: web.BaseRequest, response: web.StreamResponse, request_id: str) -> None:
        """Complete the headers of an answer."""
        headers = response.headers
        headers[REQUEST_ID_HEADER] = request_id
        headers[hdrs.SERVER] = SERVER  # aiohttp has put its version and Python's there
        headers.merge(self._security)  # only those that are not there yet
        if self._origins:
            self._add_cors(request, response)

    @staticmethod
    def add_quota(response: web.StreamResponse, quota: Quota | None) -> None:
        """Say how much of its limit the caller has left."""
        if quota is not None and quota.limit:
            response.headers["RateLimit-Limit"] = str(quota.limit)
            response.headers["RateLimit-Remaining"] = str(quota.remaining)
            response.headers["RateLimit-Reset"] = str(quota.reset)

    def preflight(self, request: web.Request) -> web.Response | None:
        """Answer the question of a browser whether a page may send a request; None if this is no such question.

        Raises:
            Forbidden: the origin is not on the list.
        """
        if request.method != hdrs.METH_OPTIONS or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
            return None
        if not self._allowed(request):
            raise Forbidden("Pages of this origin may not call this server; see the setting http.cors_origins.")
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _REQUEST_HEADERS,
                hdrs.ACCESS_CONTROL_MAX_AGE: _PREFLIGHT_SECONDS,
            },
        )

    def _add_cors(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        # Also to those that are refused: a cache must not give their answer to an allowed origin.
        if _ANY not in self._origins:
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if self._allowed(request):
            origin = _ANY if _ANY in self._origins else request.headers[hdrs.ORIGIN]
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
            # Without it a browser would keep what it was allowed to read from itself.
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"

    def _allowed(self, request: web.BaseRequest) -> bool:
        origin = request.headers.get(hdrs.ORIGIN)
        return origin is not None and (origin in self._origins or _ANY in self._origins)
