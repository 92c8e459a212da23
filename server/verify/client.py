"""A lean Socket.IO client: one namespace over one WebSocket, without a task per event and with nothing between.

Frames are handled in the order in which they arrive, acks among them, so that what came behind the ack of a join is
known to be behind it. It can also be cut, or stop to read, which ordinary clients cannot.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import orjson

from server.tasks import Tasks

CONNECT_PATIENCE = 4.0  # seconds
TEXT = 0x1
FINAL, MASKED = 0x80, 0x80
NO_MASK = b"\0\0\0\0"  # a key that changes nothing: allowed, and free
GREETING = (
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
LOST_ERRORS = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ValueError)

Json = dict[str, Any]  # Any: JSON
OnEvent = Callable[[str, Json, bytes], None]  # name, data, and the bytes of the data


class Lost(Exception):
    """The connection could not be made, or ended before the answer came."""


class Refused(Lost):
    """The server said no to the connection; the code says why."""


class SocketClient:
    """One connection in one namespace. `on_event` is called for each event as it arrives."""

    def __init__(self, tasks: Tasks, on_event: OnEvent, namespace: str = "/classroom") -> None:
        self._tasks = tasks
        self._on_event = on_event
        self._namespace = namespace
        self._acks: dict[int, Callable[[Json | None], None]] = {}
        self._last_id = 0
        self._heard_at = 0.0
        self._silence = 0.0
        self._stalled = False
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self.closed = asyncio.Event()
        self.closed_at: float | None = None
        self.ended_by_peer = False

    async def connect(self, url: str, token: str) -> None:
        """Open the WebSocket and enter the namespace.

        Raises:
            Lost, Refused: it did not work, for a reason of the network or of the server.
        """
        try:
            async with asyncio.timeout(CONNECT_PATIENCE):
                await self._open(url)
                await self._enter(token)
        except LOST_ERRORS as error:
            self.cut()
            raise Lost(repr(error)) from error
        except Refused:
            self.cut()
            raise
        self._tasks.start(self._read(), name="verify:client")
        self._watch()

    async def call(
        self, name: str, payload: Json, patience: float, on_ack: Callable[[Json], None] | None = None
    ) -> Json:
        """Send a command and wait for its ack; `on_ack` is called in its place among the events.

        Raises:
            Lost: there was no answer.
        """
        if self.closed.is_set():
            raise Lost("closed")
        answered: asyncio.Future[Json | None] = asyncio.get_running_loop().create_future()

        def take(ack: Json | None) -> None:
            if ack is not None and on_ack is not None:
                on_ack(ack)
            if not answered.done():
                answered.set_result(ack)

        self._last_id += 1
        number = self._last_id
        self._acks[number] = take
        self._send(f"42{self._namespace},{number}{orjson.dumps([name, payload]).decode()}")
        try:
            async with asyncio.timeout(patience):
                ack = await answered
        except TimeoutError as error:
            self._acks.pop(number, None)
            raise Lost("no answer") from error
        if ack is None:
            raise Lost("closed")
        return ack

    def stall(self) -> None:
        """Stop to read, and stay."""
        self._stalled = True
        if self._writer is not None:
            self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # typeshed: WriteTransport

    def cut(self) -> None:
        """End the connection at once, without a word."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._end()

    async def _open(self, url: str) -> None:
        address = urlsplit(url)
        self._reader, self._writer = await asyncio.open_connection(address.hostname, address.port, limit=2**22)
        key = base64.b64encode(os.urandom(16)).decode()
        self._writer.write(GREETING.format(host=address.netloc, key=key).encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise Refused(head.partition(b"\r\n")[0].decode())
        opening = orjson.loads((await self._frame())[1:])
        self._silence = (opening["pingInterval"] + opening["pingTimeout"]) / 1000

    async def _enter(self, token: str) -> None:
        self._send(f"40{self._namespace},{orjson.dumps({'token': token}).decode()}")
        while True:
            packet = await self._frame()
            if packet.startswith(f"40{self._namespace},"):
                return
            if packet.startswith("44"):
                raise Refused(str(orjson.loads(packet.partition(",")[2]).get("data", {}).get("code")))
            self._take(packet)

    async def _read(self) -> None:
        try:
            while not self._stalled:
                self._take(await self._frame())
            await self.closed.wait()
        except LOST_ERRORS:
            pass  # however it ended: whoever waits is told
        finally:
            self.ended_by_peer = not self.closed.is_set()
            self.cut()

    async def _frame(self) -> str:
        """The next text message; the server sends each as one frame.

        Raises:
            EOFError: the connection was closed.
        """
        head = await self._reader.readexactly(2)
        size = head[1]
        if size >= 126:
            size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8))
        payload = await self._reader.readexactly(size)
        if head[0] & 0x0F != TEXT:
            raise ConnectionResetError("closed by the server")
        return payload.decode()

    def _send(self, packet: str) -> None:
        payload = packet.encode()
        size = len(payload)
        if size < 126:
            head = bytes((FINAL | TEXT, MASKED | size))
        else:
            head = bytes((FINAL | TEXT, MASKED | 126)) + size.to_bytes(2)
        if self._writer is not None and not self._writer.transport.is_closing():
            self._writer.write(head + NO_MASK + payload)

    def _take(self, packet: str) -> None:
        if self.closed.is_set():
            return  # what was read before the cut and not handled is lost, as with any connection
        if packet == "2":
            self._heard_at = time.monotonic()
            self._send("3")
        elif packet.startswith("42"):
            body = packet[packet.index(",") + 1 :]
            name, data = orjson.loads(body)
            self._on_event(name, data, body[len(name) + 4 : -1].encode())
        elif packet.startswith("43"):
            body = packet[packet.index(",") + 1 :]
            number, bracket, rest = body.partition("[")
            take = self._acks.pop(int(number), None)
            if take is not None:
                take(orjson.loads(bracket + rest)[0])
        elif packet.startswith("41"):
            self.cut()

    def _watch(self) -> None:
        """A server that does not ping is gone, whatever TCP believes."""
        now = time.monotonic()
        self._heard_at = self._heard_at or now
        if now - self._heard_at > self._silence and not self._stalled:
            self.cut()
        if not self.closed.is_set():
            asyncio.get_running_loop().call_later(0.25, self._watch)

    def _end(self) -> None:
        if self.closed.is_set():
            return
        self.closed_at = time.monotonic()
        self.closed.set()
        acks, self._acks = self._acks, {}
        for take in acks.values():
            take(None)
