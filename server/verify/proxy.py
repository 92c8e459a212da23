"""A userland proxy that misbehaves on demand: one per edge between clients, replicas and their services.

In the mode `blackhole` sockets stay open and bytes vanish, which restarts never show. A mode acts at once on what is
connected already and on what comes; going back to `pass` leaves broken connections broken, as a network does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Literal

Mode = Literal["pass", "delay", "rate", "blackhole", "reset", "half-close", "slices", "stop-accept"]

CHUNK = 65536
DELAY = 0.15  # seconds, one way
RATE = 8192  # bytes per second and direction
SLICE_PAUSE = 0.0005  # seconds between two slices: without it the kernel joins them again
SLICED = 4096  # bytes of a chunk that are sliced; the rest goes whole, or a fault would be a stop
NO_LINGER = struct.pack("ii", 1, 0)  # closing sends RST
# RuntimeError: what uvloop raises where asyncio raises OSError, on a transport that is closed.
ERRORS = (OSError, RuntimeError, asyncio.IncompleteReadError)

Target = tuple[str, int] | str  # host and port, or the path of a unix socket
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Listens on a port of the loopback interface and passes every connection on to `target`."""

    def __init__(self, port: int, target: Target) -> None:
        self.port = port
        self._target = target
        self._mode: Mode = "pass"
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._handlers: set[asyncio.Task[None] | None] = set()
        self._passing = asyncio.Event()

    @property
    def connections(self) -> int:
        """Connections that are open on both sides."""
        return len(self._open) // 2

    async def start(self) -> None:
        self._passing.set()
        await self._listen()

    async def stop(self) -> None:
        await self._unlisten()
        self._abort_all()
        handlers = [task for task in self._handlers if task is not None]
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    async def set_mode(self, mode: Mode) -> None:
        """Misbehave from now on; `reset` and `half-close` act once on what is open."""
        self._mode = mode
        if mode == "stop-accept":
            await self._unlisten()
        elif self._server is None:
            await self._listen()
        if mode == "reset":
            self._abort_all()
        elif mode == "half-close":
            for writer in self._open:
                with contextlib.suppress(*ERRORS):
                    writer.write_eof()
        elif mode == "pass":
            self._passing.set()
        if mode == "blackhole":
            self._passing.clear()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)

    async def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _abort_all(self) -> None:
        for writer in list(self._open):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._handlers.add(task)
        try:
            if self._mode == "blackhole":
                await self._swallow(reader)
            else:
                await self._connect((reader, writer))
        except ERRORS:
            pass  # a side that is gone: so is the other
        finally:
            self._handlers.discard(task)
            _reset(writer)

    async def _swallow(self, reader: asyncio.StreamReader) -> None:
        """Accept a connection made in the dark: it is never answered, nor passed on later."""
        while await reader.read(CHUNK):
            pass
        await self._passing.wait()  # its FIN vanishes too

    async def _connect(self, ours: Streams) -> None:
        if isinstance(self._target, str):
            theirs = await asyncio.open_unix_connection(self._target)
        else:
            theirs = await asyncio.open_connection(*self._target)
        writers = {ours[1], theirs[1]}
        self._open |= writers
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(ours[0], theirs[1]), name="proxy up")
                group.create_task(self._pump(theirs[0], ours[1]), name="proxy down")
        except* ERRORS:
            pass
        finally:
            self._open -= writers
            _reset(theirs[1])

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lost = False
        while data := await self._read(reader):
            if self._mode == "blackhole":
                lost = True  # what is missing now is missing for ever: the stream must never go on
            elif lost:
                raise ConnectionResetError("bytes have vanished")
            else:
                await self._pass(data, writer)
        await self._passing.wait()
        if lost:
            raise ConnectionResetError("bytes have vanished")
        writer.write_eof()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read(CHUNK)
        except ERRORS:
            await self._passing.wait()  # a RST vanishes like all else
            raise

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self._mode == "delay":
            await asyncio.sleep(DELAY)
        elif self._mode == "rate":
            await asyncio.sleep(len(data) / RATE)
        elif self._mode == "slices":
            await _slice(data[:SLICED], writer)
            data = data[SLICED:]
        writer.write(data)
        await writer.drain()


async def _slice(data: bytes, writer: asyncio.StreamWriter) -> None:
    for index in range(len(data)):
        writer.write(data[index : index + 1])
        await asyncio.sleep(SLICE_PAUSE if index % 16 == 0 else 0)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, so that nobody waits for a FIN that a real network would have lost."""
    found = writer.get_extra_info("socket")
    if found is not None and found.fileno() >= 0:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    writer.transport.abort()


def free_ports(count: int, start: int, is_free: Callable[[int], bool] | None = None) -> list[int]:
    """Ports below those that the kernel gives to clients, so that no connection of ours can sit on one."""
    found = []
    for port in range(start, 32_000):
        if (is_free or _is_free)(port):
            found.append(port)
            if len(found) == count:
                return found
    raise OSError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
