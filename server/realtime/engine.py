"""Engine.IO v4 on aiohttp: sessions, the two transports, the upgrade, the heartbeat, one pending list per connection.

The server classes of python-engineio are not used: their queue and tasks per socket are what PITFALLS.md 3-8, 15 and 19
describe. The rules here are those of the published protocol (engine.io-protocol v4) and of Node's server, whose error
codes are answered. It never looks into a packet of type `message`; that is protocol.py.

How bytes leave: whatever is sent to a connection (events, acks, pings) is a finished WebSocket frame that `send`
appends to its one pending list; all lists are flushed once per turn of the loop with one write each. That list alone
makes the order, on WebSockets, in polls and across the upgrade from one to the other.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import Protocol

from aiohttp import WSMsgType, web

from server.realtime import wire
from server.settings import Realtime as RealtimeSettings

logger = logging.getLogger(__name__)

PROTOCOL_VERSION = "4"
SEPARATOR = "\x1e"  # between the packets of a polling payload
CLOSE_GRACE = 2.0  # seconds a closed socket may take to send what was queued, then it is aborted
UPGRADE_TIMEOUT = 10.0  # seconds between the probe and the end of an upgrade
POLICY_VIOLATION = 1008
GOING_AWAY = 1001

# The error codes of Engine.IO, answered as {"code", "message"} with status 400.
UNKNOWN_TRANSPORT = (0, "Transport unknown")
UNKNOWN_SID = (1, "Session ID unknown")
BAD_METHOD = (2, "Bad handshake method")
BAD_REQUEST = (3, "Bad request")
FORBIDDEN = (4, "Forbidden")
UNSUPPORTED_VERSION = (5, "Unsupported protocol version")


class ProtocolError(Exception):
    """The peer broke the protocol; its connection is closed."""


class Session(Protocol):
    """What a connection carries: the Socket.IO client of protocol.py, or the echo of the protocol's own tests."""

    async def receive(self, text: str) -> None:
        """Take one message; waits when too many are queued. Raises ProtocolError."""

    def closed(self, reason: str) -> None:
        """The connection is gone."""

    @property
    def is_idle(self) -> bool:
        """True while the peer has not connected to anything."""


class Connection:
    """One Engine.IO session: a peer, its transport and what is still to be sent to it."""

    def __init__(self, engine: Engine, request: web.Request) -> None:
        self.engine = engine
        self.sid = secrets.token_urlsafe(15)
        self.request = request
        self.session: Session = engine.accept(self)
        self.opened_at = self.heard_at = time.monotonic()
        self.pinged_at: float | None = None
        self.stalled_at: float | None = None
        self.closed = False
        self.upgraded = False
        self._upgrading = False
        self._transport: asyncio.Transport | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._poll: asyncio.Future[None] | None = None

    def send(self, framed: bytes) -> None:
        """Queue one frame; it leaves with all others of this turn of the loop."""
        if self.closed:
            return
        if not self._pending:
            self.engine.schedule(self)
        self._pending.append(framed)
        self._pending_bytes += len(framed)

    def flush(self) -> None:
        """Write what is pending, and cut the connection when its peer does not keep up."""
        if self._transport is None:
            if self._poll is not None and not self._poll.done():
                self._poll.set_result(None)
            unsent = self._pending_bytes
        else:
            self._write_pending()
            unsent = self._transport.get_write_buffer_size()
        if unsent > self.engine.settings.max_pending_bytes:
            self.engine.count_slow()
            self.abort("slow consumer")
        elif not unsent:
            self.stalled_at = None
        elif self.stalled_at is None and self._transport is not None:
            self.stalled_at = time.monotonic()

    def close(self, reason: str, code: int = GOING_AWAY) -> None:
        """End the session after all that is queued; idempotent. The transport is aborted if it does not drain."""
        if self.closed:
            return
        if self._transport is None:
            self.send(wire.CLOSE_PACKET)
            self.flush()
        else:
            self._pending.append(wire.close_frame(code))
            self._write_pending()
            self._transport.close()
            asyncio.get_running_loop().call_later(CLOSE_GRACE, self._transport.abort)
        self._end(reason)

    def abort(self, reason: str) -> None:
        """End the session at once and forget what is queued."""
        if self.closed:
            return
        self._pending.clear()
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    def beat(self, now: float) -> None:
        """One turn of the ping wheel: send a ping, or give up a peer that is silent, stalled or never connected."""
        settings = self.engine.settings
        if self.pinged_at is not None and now - self.pinged_at > settings.ping_timeout:
            self.abort("ping timeout")
        elif self.session.is_idle and now - self.opened_at > settings.connect_timeout:
            self.close("no CONNECT", POLICY_VIOLATION)
        elif self.stalled_at is not None and self._is_stalled(now):
            self.engine.count_slow()
            self.abort("slow consumer")
        elif self.pinged_at is None and now - self.heard_at >= settings.ping_interval:
            self.pinged_at = now
            self.send(wire.PING)

    async def receive(self, packet: str) -> None:
        """Take one Engine.IO packet of the peer.

        Raises:
            ProtocolError: it is none that a client may send here.
        """
        if packet[:1] == "4":
            await self.session.receive(packet[1:])
        elif packet == "3":
            self.heard_at = time.monotonic()
            self.pinged_at = None
        elif packet == "1":
            self.close("client disconnect")
        else:
            raise ProtocolError("unexpected Engine.IO packet")

    async def poll(self) -> str:
        """Answer one long poll: wait until there is something to send.

        Raises:
            ProtocolError: another poll is open already; two would split the order.
        """
        if self._poll is not None:
            raise ProtocolError("two polls at once")
        if not self._pending and not self.closed and not self._upgrading:
            self._poll = asyncio.get_running_loop().create_future()
            try:
                await self._poll
            finally:
                self._poll = None
        packets, self._pending, self._pending_bytes = self._pending, [], 0
        return SEPARATOR.join(wire.payload_of(packet).decode() for packet in packets) or "6"

    async def run_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Serve a WebSocket: the first transport of this session, or the upgrade of one that polls."""
        # Without compression one frame fits all members of a room; the library would accept it when offered.
        socket = web.WebSocketResponse(compress=False, max_msg_size=self.engine.settings.max_packet_bytes)
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket
        if await self._may_serve(socket):
            await self._serve(socket, transport)
        else:
            await socket.close(code=POLICY_VIOLATION)
        return socket

    async def _may_serve(self, socket: web.WebSocketResponse) -> bool:
        if self.upgraded or self._upgrading:  # a second WebSocket for one session must not disturb the first
            return False
        return not self.engine.is_open(self) or await self._upgrade(socket)

    async def _upgrade(self, socket: web.WebSocketResponse) -> bool:
        """Probe the new transport while the old one still carries the session; True when the peer has moved over."""
        self._upgrading = True
        try:
            async with asyncio.timeout(UPGRADE_TIMEOUT):
                if await _next_text(socket) != "2probe":
                    return False
                await socket.send_str("3probe")
                if self._poll is not None:
                    self.send(wire.NOOP)  # ends the poll that waits, so that the peer can pause polling
                return await _next_text(socket) == "5" and not self.closed
        except TimeoutError:
            return False
        finally:
            self._upgrading = False

    async def _serve(self, socket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self.upgraded = True
        self._transport = transport
        self._pending = [packet for packet in self._pending if packet is not wire.NOOP]
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)
        if not self.engine.is_open(self):
            self.engine.opened(self)
        self.engine.schedule(self)  # what was queued for the next poll goes out here, in the same order
        reason = "transport close"
        try:
            while (text := await _next_text(socket)) is not None:
                await self.receive(text)
                if self.closed:
                    break
        except ProtocolError as error:
            self.engine.count_fault(self, str(error))
            self.close("protocol error", POLICY_VIOLATION)
        finally:
            self._end(reason)

    def _write_pending(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if pending and self._transport is not None and not self._transport.is_closing():
            self._transport.write(pending[0] if len(pending) == 1 else b"".join(pending))

    def _is_stalled(self, now: float) -> bool:
        if self._transport is None or not self._transport.get_write_buffer_size():
            self.stalled_at = None
            return False
        return now - (self.stalled_at or now) > self.engine.settings.max_pending_seconds

    def _end(self, reason: str) -> None:
        if not self.closed:
            self.closed = True
            self.engine.forget(self)
            self.session.closed(reason)


class Engine:
    """All connections of one process, and the HTTP endpoint that makes them.

    `accept` gives a new connection its session; `origins` are the browser origins that may connect (None: any).
    """

    def __init__(
        self,
        settings: RealtimeSettings,
        accept: Callable[[Connection], Session],
        *,
        origins: Callable[[web.Request], frozenset[str] | None],
        on_fault: Callable[[str], None] = lambda reason: None,
        on_slow: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.accept = accept
        self.connections: dict[str, Connection] = {}
        self.count_slow = on_slow
        self._origins = origins
        self._on_fault = on_fault
        self._dirty: list[Connection] = []
        self._empty: asyncio.Future[None] | None = None
        self.draining = False

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
        connection = self.connections.get(request.query["sid"])
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
                "pingInterval": int(self.settings.ping_interval * 1000),
                "pingTimeout": int(self.settings.ping_timeout * 1000),
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

    def count_fault(self, connection: Connection, reason: str) -> None:
        """Note that a peer broke the protocol."""
        self._on_fault(reason)

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

    async def _open(self, request: web.Request, transport: str, headers: dict[str, str]) -> web.StreamResponse:
        if request.method != "GET":
            return _refusal(BAD_METHOD, headers)
        if self.draining:
            return web.Response(status=503, headers={**headers, "Retry-After": "1"})
        connection = Connection(self, request)
        if transport == "websocket":
            if not _wants_websocket(request):
                return _refusal(BAD_REQUEST, headers)
            return await connection.run_websocket(request)
        self.opened(connection)
        return web.Response(text=await connection.poll(), headers=headers)

    async def _continue(
        self, request: web.Request, connection: Connection, transport: str, headers: dict[str, str]
    ) -> web.StreamResponse:
        if transport == "websocket":
            if request.method != "GET" or not _wants_websocket(request):
                return _refusal(BAD_REQUEST, headers)
            return await connection.run_websocket(request)
        if connection.upgraded or request.method not in ("GET", "POST"):
            return _refusal(BAD_REQUEST, headers)
        try:
            if request.method == "GET":
                return web.Response(text=await connection.poll(), headers=headers)
            await self._take_payload(request, connection)
        except ProtocolError as error:
            self.count_fault(connection, str(error))
            connection.close("protocol error")
            return _refusal(BAD_REQUEST, headers)
        return web.Response(text="ok", content_type="text/html", headers=headers)

    async def _take_payload(self, request: web.Request, connection: Connection) -> None:
        """Read a polled payload whole: it may arrive in several TCP segments (PITFALLS.md 15)."""
        limit = self.settings.max_packet_bytes
        if (request.content_length or 0) > limit:
            raise ProtocolError("payload too large")
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.ping_interval + self.settings.ping_timeout):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        raise ProtocolError("payload too large")
            packets = body.decode().split(SEPARATOR)
        except (TimeoutError, UnicodeDecodeError) as error:
            raise ProtocolError("unreadable payload") from error
        for packet in packets:
            await connection.receive(packet)

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


async def _next_text(socket: web.WebSocketResponse) -> str | None:
    """The next text message; None at the end of the connection.

    Raises:
        ProtocolError: a binary message, which none of our namespaces speaks (PITFALLS.md 6).
    """
    message = await socket.receive()
    if message.type is WSMsgType.TEXT:
        return str(message.data)
    if message.type is WSMsgType.BINARY:
        raise ProtocolError("binary message")
    return None


def _wants_websocket(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _refusal(error: tuple[int, str], headers: dict[str, str]) -> web.Response:
    code, message = error
    body = wire.dumps({"code": code, "message": message})
    return web.Response(
        status=400 if error is not FORBIDDEN else 403, body=body, content_type="application/json", headers=headers
    )
