"""A WebSocket by hand: it can break every rule, and it reads only when it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from typing import Any
from urllib.parse import urlsplit

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
FINAL = 0x80
PATIENCE = 5.0  # seconds


class RawSocket:
    """A TCP connection with a small receive buffer, so that what is not read stays with the server."""

    def __init__(self, receive_buffer: int | None = 4096) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._buffer = b""

    async def connect(self, url: str) -> None:
        parts = urlsplit(url)
        await asyncio.get_running_loop().sock_connect(self._socket, (parts.hostname, parts.port))

    async def open(self, url: str, path: str = "/socket.io/") -> str:
        """Open a WebSocket; the sid."""
        await self.connect(url)
        await self.send(
            f"GET {path}?EIO=4&transport=websocket HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += await self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        return str(json.loads((await self.text())[1:])["sid"])

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def say(self, text: str) -> None:
        """Send one text message."""
        await self.send(frame(text.encode()))

    async def line(self) -> str:
        """Read one line of HTTP."""
        while b"\r\n" not in self._buffer:
            self._buffer += await self._receive()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode()

    async def frame(self) -> tuple[int, bytes]:
        """Read one frame: its opcode and payload; an opcode of 0 at the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            while (read := self._take_frame()) is None:
                data = await self._receive()
                if not data:
                    return 0, b""
                self._buffer += data
        return read

    async def text(self) -> str:
        opcode, payload = await self.frame()
        assert opcode == TEXT, (opcode, payload)
        return payload.decode()

    async def event(self) -> tuple[str, Any]:
        """Read on to the next Socket.IO event: its name and data; pings are answered, acks are the event "ack"."""
        while True:
            text = await self.text()
            if text == "2":
                await self.say("3")
            elif text.startswith("42"):
                name, data = json.loads(text[text.index("[") :])
                return name, data
            elif text.startswith("43"):
                return "ack", json.loads(text[text.index("[") :])[0]

    async def close_code(self) -> int | None:
        """Read on to the close frame; its code, or None when the connection just ended."""
        while True:
            try:
                opcode, payload = await self.frame()
            except ConnectionError:
                return None
            if opcode == CLOSE:
                return int(struct.unpack("!H", payload[:2])[0])
            if opcode == 0:
                return None

    def close(self) -> None:
        self._socket.close()

    async def _receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._socket, 65536)

    def _take_frame(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < 2:
            return None
        size, start = self._buffer[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(self._buffer[2:4]), 4
        elif size == 127:
            size, start = int.from_bytes(self._buffer[2:10]), 10
        if len(self._buffer) < start + size:
            return None
        opcode, payload = self._buffer[0] & 0xF, self._buffer[start : start + size]
        self._buffer = self._buffer[start + size :]
        return opcode, payload


def frame(payload: bytes, opcode: int = TEXT, *, head: int = FINAL, masked: bool = True) -> bytes:
    """A frame of a client; `head` are the bits beside the opcode."""
    size, flag = len(payload), 0x80 if masked else 0
    start = bytes([head | opcode])
    if size < 126:
        start += bytes([flag | size])
    elif size < 65536:
        start += bytes([flag | 126]) + size.to_bytes(2)
    else:
        start += bytes([flag | 127]) + size.to_bytes(8)
    if not masked:
        return start + payload
    mask = os.urandom(4)
    key = mask * (size // 4 + 1)
    whole = int.from_bytes(payload) ^ int.from_bytes(key[:size])
    return start + mask + whole.to_bytes(size)
