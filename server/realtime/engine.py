"""Engine.IO v4 on aiohttp: the HTTP endpoint, all connections of one process, the ping wheel and the drain.

The server classes of python-engineio are not used: their queue and tasks per socket are what PITFALLS.md 3-8, 15 and 19
describe. The rules here are those of the published protocol (engine.io-protocol v4) and of Node's server, whose error
codes are answered. It never looks into a packet of type `message`; that is protocol.py.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Network

from aiohttp import web

from server.realtime import wire
from server.realtime.connection import Connection, ProtocolError, Session
from server.realtime.transports import PayloadTooLarge, answer_poll, read_payload, serve_websocket, tune
from server.settings import Realtime as RealtimeSettings

PROTOCOL_VERSION = "4"
IPV6_SITE = 64  # bits of an IPv6 address that a site has in common; it can use any address behind them

# The error codes of Engine.IO, answered as {"code", "message"} with status 400.
UNKNOWN_TRANSPORT = (0, "Transport unknown")
UNKNOWN_SID = (1, "Session ID unknown")
BAD_METHOD = (2, "Bad handshake method")
BAD_REQUEST = (3, "Bad request")
FORBIDDEN = (4, "Forbidden")
UNSUPPORTED_VERSION = (5, "Unsupported protocol version")


class Lobby:
    """Counts connections that are in no namespace yet: what strangers can have here is bounded (PITFALLS.md 5)."""

    def __init__(self, limit: int, per_site: int) -> None:
        self._limit = limit
        self._per_site = per_site
        self._waiting: Counter[str] = Counter()
        self.size = 0

    def is_full(self, site: str) -> bool:
        """True when nobody else may come in from there."""
        return self.size >= self._limit or self._waiting[site] >= self._per_site

    def enter(self, site: str) -> None:
        self._waiting[site] += 1
        self.size += 1

    def leave(self, site: str) -> None:
        self.size -= 1
        self._waiting[site] -= 1
        if not self._waiting[site]:
            del self._waiting[site]


class Engine:
    """All connections of one process, and the HTTP endpoint that makes them.

    `accept` gives a new connection its session; `origins` are the browser origins that may connect (None: any);
    `address` tells where a request comes from.
    """

    def __init__(
        self,
        settings: RealtimeSettings,
        accept: Callable[[Connection], Session],
        *,
        origins: Callable[[web.Request], frozenset[str] | None],
        address: Callable[[web.Request], str] = lambda request: request.remote or "",
        on_fault: Callable[[str], None] = lambda reason: None,
        on_slow: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.accept = accept
        self.connections: dict[str, Connection] = {}
        self.lobby = Lobby(settings.unconnected_limit, settings.unconnected_per_address)
        self.count_slow = on_slow
        self.count_fault = on_fault
        self.draining = False
        self._origins = origins
        self._address = address
        self._dirty: list[Connection] = []
        self._empty: asyncio.Future[None] | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The aiohttp handler of the endpoint, for every method."""
        headers = self._cors_headers(request)
        if headers is None:
            return _refusal(FORBIDDEN, {})
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=headers)
        transport = request.query.get("transport")
        if transport not in ("polling", "websocket"):
            return _refusal(UNKNOWN_TRANSPORT, headers)
        if request.query.get("EIO") != PROTOCOL_VERSION:
            return _refusal(UNSUPPORTED_VERSION, headers)
        if "sid" not in request.query:
            return await self._open(request, transport, headers)
        connection = self._find(request.query["sid"])
        if connection is None:
            return _refusal(UNKNOWN_SID, headers)
        return await self._continue(request, connection, transport, headers)

    def schedule(self, connection: Connection) -> None:
        """Flush a connection in the next turn of the loop."""
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self._flush)
        self._dirty.append(connection)

    def is_open(self, connection: Connection) -> bool:
        return connection.sid in self.connections

    def opened(self, connection: Connection) -> None:
        """Register a session and greet its peer with the OPEN packet."""
        self.connections[connection.sid] = connection
        greeting = wire.dumps(
            {
                "sid": connection.sid,
                "upgrades": [] if connection.upgraded else ["websocket"],
                "pingInterval": round(self.settings.ping_interval * 1000),
                "pingTimeout": round(self.settings.ping_timeout * 1000),
                "maxPayload": self.settings.max_packet_bytes,
            }
        )
        connection.send(wire.frame(b"0" + greeting))

    def forget(self, connection: Connection) -> None:
        self.connections.pop(connection.sid, None)
        if not self.connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def wait_until_empty(self, timeout: float) -> None:
        """Wait until the last connection is gone, or `timeout` seconds."""
        self._empty = asyncio.get_running_loop().create_future()
        if self.connections:
            await asyncio.wait([self._empty], timeout=timeout)

    def beat(self) -> None:
        """One turn of the ping wheel over all connections."""
        now = time.monotonic()
        for connection in list(self.connections.values()):
            connection.beat(now)

    @property
    def beat_interval(self) -> float:
        """Seconds between two turns of the ping wheel."""
        return min(1.0, self.settings.ping_interval / 4, self.settings.ping_timeout / 4)

    def close_all(self, reason: str) -> None:
        for connection in list(self.connections.values()):
            connection.close(reason)

    def _find(self, sid: str) -> Connection | None:
        connection = self.connections.get(sid)
        if connection is not None and connection.is_silent(time.monotonic()):
            connection.abort("ping timeout")  # the wheel would find it a moment later
            return None
        return connection

    async def _open(self, request: web.Request, transport: str, headers: dict[str, str]) -> web.StreamResponse:
        if request.method != "GET":
            return _refusal(BAD_METHOD, headers)
        if transport == "websocket" and not _wants_websocket(request):
            return _refusal(BAD_REQUEST, headers)
        if self.draining:
            return _unavailable(headers)
        site = _site(self._address(request))
        if self.lobby.is_full(site):
            self.count_fault("too many connections without CONNECT")
            return _unavailable(headers)
        connection = Connection(self, site)
        if transport == "polling":
            return await self._open_polling(request, connection, headers)
        try:
            return await serve_websocket(request, connection)
        finally:
            connection.end("transport close")

    async def _open_polling(
        self, request: web.Request, connection: Connection, headers: dict[str, str]
    ) -> web.StreamResponse:
        if request.transport is not None:
            tune(request.transport, connection)
        self.opened(connection)
        return _payload(await answer_poll(request, connection), headers)

    async def _continue(
        self, request: web.Request, connection: Connection, transport: str, headers: dict[str, str]
    ) -> web.StreamResponse:
        if transport == "websocket":
            if request.method != "GET" or not _wants_websocket(request):
                return _refusal(BAD_REQUEST, headers)
            return await serve_websocket(request, connection)
        if connection.upgraded or request.method not in ("GET", "POST"):
            return _refusal(BAD_REQUEST, headers)
        try:
            if request.method == "GET":
                return _payload(await answer_poll(request, connection), headers)
            await read_payload(request, connection)
        except ProtocolError as error:
            connection.fail(str(error))
            return _fault(error, headers)
        return web.Response(text="ok", content_type="text/html", headers=headers)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            if not connection.closed:
                connection.flush()

    def _cors_headers(self, request: web.Request) -> dict[str, str] | None:
        """What a browser of another origin needs to see; None when its origin is not allowed here."""
        origin = request.headers.get("Origin")
        if origin is None:
            return {}
        allowed = self._origins(request)
        if allowed is not None and origin not in allowed:
            return None
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
            "Access-Control-Allow-Headers": "Content-Type",
            "Access-Control-Allow-Credentials": "true",
            "Vary": "Origin",
        }


def _site(address: str) -> str:
    """The address of a client, or as much of an IPv6 address as a site cannot choose."""
    if ":" not in address:
        return address
    try:
        return str(IPv6Network((address.partition("%")[0], IPV6_SITE), strict=False))
    except ValueError:
        return address


def _wants_websocket(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _payload(text: str, headers: dict[str, str]) -> web.Response:
    # Nothing between us and the peer may answer a poll out of its memory.
    return web.Response(text=text, headers={**headers, "Cache-Control": "no-store"})


def _refusal(error: tuple[int, str], headers: dict[str, str], status: int = 400) -> web.Response:
    code, message = error
    body = wire.dumps({"code": code, "message": message})
    status = 403 if error is FORBIDDEN else status
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def _fault(error: ProtocolError, headers: dict[str, str]) -> web.Response:
    code, message = BAD_REQUEST
    return _refusal((code, f"{message}: {error}"), headers, 413 if isinstance(error, PayloadTooLarge) else 400)


def _unavailable(headers: dict[str, str]) -> web.Response:
    return web.Response(status=503, headers={**headers, "Retry-After": "1"})
