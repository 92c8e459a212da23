"""A lean Socket.IO client for load: one asyncio protocol per connection, bytes in and bytes out, no JSON on the way.

It reads frames as Lectern's server writes them (unmasked, unfragmented) and masks its own with a zero key, which
RFC 6455 allows and which costs nothing.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from typing import Any

TEXT = 0x81
MASKED = 0x80
NO_MASK = b"\0\0\0\0"
PATIENCE = 20.0  # seconds


class Peer(asyncio.Protocol):
    """One connection. `on_event(payload)` gets every Socket.IO packet that is no ack."""

    def __init__(self, on_event: Callable[[bytes], None]) -> None:
        self._on_event = on_event
        self._buffer = b""
        self._upgraded = False
        self._acks: dict[int, asyncio.Future[bytes]] = {}
        self._next_ack = 0
        self._transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.connected: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(
        cls, port: int, namespace: bytes, token: str, on_event: Callable[[bytes], None], host: str = "127.0.0.1"
    ) -> Peer:
        """Open a WebSocket and connect to one namespace."""
        loop = asyncio.get_running_loop()
        _, peer = await loop.create_connection(lambda: cls(on_event), host, port)
        peer._request(host, port)
        await asyncio.wait_for(peer.opened, PATIENCE)
        peer._write(b'40%s,{"token":"%s"}' % (namespace, token.encode()))
        await asyncio.wait_for(peer.connected, PATIENCE)
        return peer

    def send(self, namespace: bytes, event: bytes) -> asyncio.Future[bytes]:
        """Send `["name",{…}]`; the future gets the JSON of its ack."""
        number = self._next_ack = self._next_ack + 1
        ack: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._acks[number] = ack
        self._write(b"42%s,%d%s" % (namespace, number, event))
        return ack

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        error = ConnectionError("the server closed the connection")
        waiting: list[asyncio.Future[Any]] = [self.opened, self.connected, *self._acks.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self._upgraded:
            head, found, rest = buffer.partition(b"\r\n\r\n")
            if not found:
                self._buffer = buffer
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._upgraded, buffer = True, rest
        self._buffer = self._take_frames(buffer)

    def _take_frames(self, buffer: bytes) -> bytes:
        position, size = 0, len(buffer)
        while size - position >= 2:
            length, start = buffer[position + 1], position + 2
            if length == 126:
                length, start = int.from_bytes(buffer[position + 2 : position + 4]), position + 4
            elif length == 127:
                length, start = int.from_bytes(buffer[position + 2 : position + 10]), position + 10
            if size < start + length:
                break
            self._take(buffer[start : start + length])
            position = start + length
        return buffer[position:]

    def _take(self, packet: bytes) -> None:
        kind = packet[:2]
        if kind == b"42":
            self._on_event(packet)
        elif kind == b"43":
            head, _, rest = packet.partition(b"[")
            ack = self._acks.pop(int(head.rpartition(b",")[2]), None)
            if ack is not None and not ack.done():
                ack.set_result(rest[:-1])
        elif packet == b"2":
            self._write(b"3")
        elif kind == b"40":
            self.connected.set_result(packet)
        elif kind == b"44":
            self.connected.set_exception(ConnectionRefusedError(packet.decode()))
        elif packet[:1] == b"0":
            self.opened.set_result(None)

    def _write(self, packet: bytes) -> None:
        assert self._transport is not None
        size = len(packet)
        head = bytes((TEXT, MASKED | size)) if size < 126 else bytes((TEXT, MASKED | 126)) + size.to_bytes(2)
        self._transport.write(head + NO_MASK + packet)

    def _request(self, host: str, port: int) -> None:
        assert self._transport is not None
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
