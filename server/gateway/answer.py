"""JsonAnswer: the usual answer of an endpoint, whose head is written as one piece of text.

aiohttp builds the headers of each answer in a map and serialises it: 18 of the 82 us of a small request. Nearly every
answer has the same headers but three, so they are kept ready. Anything unusual (headers of the handler, an older HTTP,
a connection that ends, CORS) goes aiohttp's way. Overrides `_start` of aiohttp's Response (pinned); the canary is
test_answer.py, which compares both ways.
"""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from multidict import CIMultiDict

from server.gateway.edge import QUOTA, REQUEST_ID
from server.gateway.headers import Headers

JSON = "application/json"
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class JsonAnswer(web.Response):
    """A complete JSON answer; `headers` holds only what the handler adds."""

    _zlib_executor = None
    _zlib_executor_size = 0

    def __init__(self, status: int, body: bytes, ready: Headers) -> None:
        # Not aiohttp's: it would make the maps that this class is there to avoid.
        self._state = {}
        self._headers = CIMultiDict()
        self._status = status
        self._reason = _REASONS.get(status, "")
        self._body = body
        self._length = len(body)
        self._ready = ready

    async def _start(self, request: web.BaseRequest) -> AbstractStreamWriter:
        head = self._ready.json_head
        usual = head and not self._headers and not self._cookies and self._keep_alive is None
        if not usual or request.version != HttpVersion11 or not request.keep_alive:
            self._headers.setdefault(hdrs.CONTENT_TYPE, JSON)
            return await super()._start(request)
        quota = request.get(QUOTA)
        limits = (
            f"RateLimit-Limit: {quota.limit}\r\nRateLimit-Remaining: {quota.remaining}\r\n"
            f"RateLimit-Reset: {quota.reset}\r\n"
            if quota is not None and quota.limit
            else ""
        )
        self._req = request
        self._keep_alive = True
        writer = self._payload_writer = request._payload_writer
        # What `write_headers` of the writer leaves there; it sends them together with the body.
        writer._headers_buf = (  # type: ignore[attr-defined]
            f"HTTP/1.1 {self._status} {self._reason}\r\nContent-Length: {self._length}\r\n"
            f"Date: {rfc822_formatted_time()}\r\nX-Request-ID: {request[REQUEST_ID]}\r\n{limits}{head}"
        ).encode()
        return writer
