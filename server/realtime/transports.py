"""The two transports of Engine.IO: long-polling payloads, and WebSockets with the upgrade to them.

WebSocket framing is aiohttp's, which follows RFC 6455; only the closing handshake is led here, because everything that
is written goes through the connection's pending list. Compression is off: one frame fits all members of a room.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import socket as sockets

from aiohttp import WSMsgType, hdrs, web
from aiohttp.http import WebSocketError

from server.realtime import wire
from server.realtime.connection import CLOSE_GRACE, NORMAL, POLICY_VIOLATION, Connection, ProtocolError

SEPARATOR = "\x1e"  # between the packets of a polling payload
UPGRADE_TIMEOUT = 10.0  # seconds between the probe and the end of an upgrade
NO_STATUS = 1005  # stands for a close frame without a code; it may not be sent back
# What a peer does not take must wait here, where it is counted, and not in the kernel.
UNSENT_IN_KERNEL = 128 * 1024
_ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class PayloadTooLarge(ProtocolError):
    """A polled payload is over the limit that the handshake announced."""


async def read_payload(request: web.Request, connection: Connection) -> None:
    """Take a polled payload: read it whole, for it may arrive in several TCP segments (PITFALLS.md 15), then heed it.

    Raises:
        ProtocolError: it is malformed, too large or too slow, or another one is on its way, which would mix the order.
    """
    if connection.posting:
        raise ProtocolError("two payloads at once")
    connection.posting = True
    try:
        for packet in (await _read_body(request, connection)).split(SEPARATOR):
            if connection.closed:
                break
            await connection.receive(_decode_base64(packet) if packet[:1] == "b" else packet)
    finally:
        connection.posting = False


async def answer_poll(request: web.Request, connection: Connection) -> str:
    """Wait for the payload of one long poll.

    Raises:
        ProtocolError: another poll is open already.
    """
    frames = await connection.poll(request.transport)
    return SEPARATOR.join(map(wire.polled, frames))


async def serve_websocket(request: web.Request, connection: Connection) -> web.WebSocketResponse:
    """Serve a WebSocket: the first transport of this session, or the upgrade of one that polls."""
    limit = connection.engine.settings.max_packet_bytes + 1  # aiohttp refuses what has just that size
    socket = web.WebSocketResponse(compress=False, autoclose=False, timeout=CLOSE_GRACE, max_msg_size=limit)
    await socket.prepare(request)
    transport = request.transport
    if transport is None:
        return socket
    tune(transport, connection)
    is_first = not connection.engine.is_open(connection)
    if connection.upgraded or connection.upgrading:  # a second WebSocket for one session must not disturb the first
        await socket.close(code=POLICY_VIOLATION, message=b"the session has a WebSocket already")
    elif is_first or await _upgrade(socket, connection):
        await _serve(socket, connection, transport)
    else:
        await socket.close(code=POLICY_VIOLATION, message=b"no upgrade")
    return socket


def tune(transport: asyncio.Transport, connection: Connection) -> None:
    """Let the kernel give up a peer that takes nothing, and keep little for it; where the system can do that."""
    raw = transport.get_extra_info("socket")
    if raw is None or raw.family not in (sockets.AF_INET, sockets.AF_INET6):
        return
    settings = connection.engine.settings
    patience = int((settings.ping_interval + settings.ping_timeout) * 1000)
    for option, value in (("TCP_USER_TIMEOUT", patience), ("TCP_NOTSENT_LOWAT", UNSENT_IN_KERNEL)):
        if hasattr(sockets, option):
            raw.setsockopt(sockets.IPPROTO_TCP, getattr(sockets, option), value)


async def _read_body(request: web.Request, connection: Connection) -> str:
    settings = connection.engine.settings
    limit = settings.max_packet_bytes
    if hdrs.CONTENT_ENCODING in request.headers:
        raise ProtocolError("compressed payload")
    if (request.content_length or 0) > limit:
        raise PayloadTooLarge("payload too large")
    body = bytearray()
    try:
        # Who cannot bring a payload through in this time cannot answer a ping either.
        async with asyncio.timeout(settings.ping_timeout):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise PayloadTooLarge("payload too large")
        return body.decode()
    except (TimeoutError, UnicodeDecodeError, web.PayloadAccessError) as error:
        raise ProtocolError("unreadable payload") from error


def _decode_base64(packet: str) -> bytes:
    try:
        return base64.b64decode(packet[1:], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError("malformed base64") from error


async def _upgrade(socket: web.WebSocketResponse, connection: Connection) -> bool:
    """Probe the new transport while the old one still carries the session; True when the peer has moved over."""
    connection.upgrading = True
    try:
        async with asyncio.timeout(UPGRADE_TIMEOUT):
            if await _next_packet(socket) != "2probe":
                return False
            await socket.send_str("3probe")
            connection.end_poll()
            return await _next_packet(socket) == "5" and not connection.closed
    except (TimeoutError, ProtocolError):
        return False
    finally:
        connection.upgrading = False


async def _serve(socket: web.WebSocketResponse, connection: Connection, transport: asyncio.Transport) -> None:
    connection.attach(transport)
    if not connection.engine.is_open(connection):
        connection.engine.opened(connection)
    try:
        while not connection.closed and (packet := await _next_packet(socket)) is not None:
            await connection.receive(packet)
    except ProtocolError as error:
        connection.fail(str(error))
    finally:
        await _part(socket, connection, transport)


async def _part(socket: web.WebSocketResponse, connection: Connection, transport: asyncio.Transport) -> None:
    """Finish the closing handshake, whichever side began it, and let go of the transport."""
    if connection.closed:  # we began it, or the transport was aborted
        await _wait_for_close(socket)
    else:
        await connection.session.finish()
        code = socket.close_code or NORMAL
        connection.close("transport close", NORMAL if code == NO_STATUS else code)
    transport.close()


async def _wait_for_close(socket: web.WebSocketResponse) -> None:
    """Read on until the peer has closed too, so that it sees our close frame and not a reset."""
    try:
        async with asyncio.timeout(CLOSE_GRACE):
            while (await socket.receive()).type not in _ENDS:
                pass
    except TimeoutError:
        return


async def _next_packet(socket: web.WebSocketResponse) -> str | bytes | None:
    """The next message; None at the end of the connection.

    Raises:
        ProtocolError: what came is no message; aiohttp has closed the socket with the code that RFC 6455 wants.
    """
    message = await socket.receive()
    if message.type is WSMsgType.TEXT:
        return str(message.data)
    if message.type is WSMsgType.BINARY:
        return bytes(message.data)
    if message.type is WSMsgType.ERROR and isinstance(message.data, WebSocketError):
        raise ProtocolError("malformed WebSocket frame")
    return None
