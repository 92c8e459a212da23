"""The bare engine for the protocols' own test suites: `python tests/protocol_server.py --port P --mode eio|sio`.

It is the code that serves classrooms, without Lectern's namespaces and without a token. `eio`: at `/engine.io/` every
message is sent back. `sio`: at `/socket.io/`, the namespaces `/` and `/custom` emit `auth` with the handshake's auth,
answer `message` by `message-back` and ack `message-with-ack`, each with the same arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from aiohttp import web

from server.actor import Actor
from server.realtime import wire
from server.realtime.connection import Connection
from server.realtime.engine import Engine
from server.realtime.protocol import Answer, Client, Namespace, Socket
from server.settings import Realtime, load_settings
from server.tasks import Tasks

PATHS = {"eio": "/engine.io/", "sio": "/socket.io/"}
# What the published suites expect to be announced.
SUITE = {"ping_interval": 0.3, "ping_timeout": 0.2, "max_packet_bytes": 1_000_000, "connect_timeout": 5.0}
PAUSE = 0.01  # seconds between the answer to a CONNECT and the greeting
NOBODY = Actor(UUID(int=0), "nobody", None, "user", UUID(int=0), float("inf"))
ENGINE = web.AppKey("engine", Engine)


class Echo:
    """A session that sends every message back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        connection.mark_connected()  # there is nothing to connect to

    async def receive(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._connection.send(wire.frame(message, wire.BINARY))
        else:
            self._connection.send(wire.frame(b"4" + message.encode()))

    async def finish(self) -> None:
        """Nothing is queued."""

    def lag(self) -> None:
        """There is nothing that could be held back."""

    def closed(self, reason: str) -> None:
        """Nothing is kept."""


class EchoNamespace:
    """A namespace as the suite of socket.io-protocol wants it."""

    binary = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.sockets: dict[Socket, object] = {}  # with the auth of their handshake

    async def connect(self, client: Client, auth: object) -> Socket:
        socket = Socket(client, self.name, NOBODY)
        self.sockets[socket] = {} if auth is None else auth
        return socket

    def connected(self, socket: Socket) -> None:
        # The suite listens for one message after the other and misses the second of two that come in one segment,
        # as they would: all that is sent in one turn of the loop leaves with one write.
        asyncio.get_running_loop().call_later(PAUSE, self._greet, socket)

    async def event(self, socket: Socket, name: str, arguments: list[Any]) -> Answer:
        if name == "message":
            socket.emit("message-back", *arguments)
        return arguments if name == "message-with-ack" else None

    def _greet(self, socket: Socket) -> None:
        if socket in self.sockets:
            socket.emit("auth", self.sockets[socket])

    def lagging(self, socket: Socket) -> None:
        """There is nothing that could be held back."""

    def disconnected(self, socket: Socket, reason: str) -> None:
        del self.sockets[socket]


def protocol_settings(**changes: Any) -> Realtime:
    """The default settings with what the suites expect."""
    settings = load_settings(secret="nothing is derived from this secret here").realtime
    return settings.model_copy(update={**SUITE, **changes})


@asynccontextmanager
async def protocol_application(
    mode: str, settings: Realtime, namespaces: dict[str, Namespace] | None = None
) -> AsyncIterator[web.Application]:
    """An application with the engine at the mode's path; its connections end with it."""
    tasks = Tasks()
    served = namespaces or {name: EchoNamespace(name) for name in ("/", "/custom")}

    def accept(connection: Connection) -> Echo | Client:
        if mode == "eio":
            return Echo(connection)
        limit = settings.max_queued_commands
        return Client(connection, served, tasks, timeout=settings.command_timeout, max_queued=limit)

    engine = Engine(settings, accept, origins=lambda request: None)

    async def beat() -> None:
        engine.beat()

    tasks.forever(beat, name="ping wheel", pause=lambda: engine.beat_interval)
    application = web.Application()
    application[ENGINE] = engine
    application.router.add_route("*", PATHS[mode], engine.handle)
    try:
        yield application
    finally:
        engine.close_all("the server stops")
        await tasks.stop()


@asynccontextmanager
async def listening(application: web.Application, port: int = 0) -> AsyncIterator[str]:
    """Serve on the loopback interface; the address."""
    # Refused bodies are read on for a moment only, as by the gateway's own runner.
    runner = web.AppRunner(application, access_log=None, lingering_time=0.2, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        application[ENGINE].close_all("the server stops")
        await runner.cleanup()


async def _main(mode: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with protocol_application(mode, protocol_settings()) as application, listening(application, port) as url:
        print(f"{mode} at {url}{PATHS[mode]}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=tuple(PATHS), required=True)
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(_main(arguments.mode, arguments.port))
