"""A real application on a loopback port, made of endpoints of the test."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web
from redis.asyncio import Redis

from server.actor import Actor
from server.clock import Clock
from server.errors import Unauthenticated, Unavailable
from server.gateway.admission import Admission
from server.gateway.application import build_application
from server.gateway.endpoint import Route
from server.gateway.protocol import GatewayRunner
from server.health import Health
from server.limits import Limits
from server.settings import Settings, load_settings
from server.tasks import Tasks

if TYPE_CHECKING:
    from server.runtime import Runtime

TOKEN = "a-valid-token"
ADA = Actor(UUID(int=1), "Ada", None, "user", UUID(int=2), 4102444800.0)


async def authenticate(_rt: Runtime, token: str) -> Actor:
    if token == "the-database-is-away":
        raise Unavailable
    if token != TOKEN:
        raise Unauthenticated
    return ADA


@dataclass(frozen=True)
class Served:
    """An application that listens, and a client for it that sends a valid token."""

    session: aiohttp.ClientSession
    port: int
    application: web.Application

    def request(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}", **options.pop("headers", {})}
        given = {name: value for name, value in headers.items() if value is not None}
        return self.session.request(method, f"http://127.0.0.1:{self.port}{path}", headers=given, **options)

    async def json(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.request(method, path, **options) as answer:
            return answer.status, await answer.json(content_type=None)

    async def raw(self, request: bytes, *, then: bytes = b"", after: float = 0.0, quiet: float = 0.5) -> bytes:
        """Send bytes on a connection of their own and read until the server closes it or is silent for a while."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            await asyncio.sleep(after)
            writer.write(then)
            received = b""
            while True:
                try:
                    chunk = await asyncio.wait_for(reader.read(65536), quiet)
                except (TimeoutError, ConnectionResetError):
                    return received
                if not chunk:
                    return received
                received += chunk
        finally:
            writer.close()


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve(*routes, http={…}, metrics_port=…)` starts an application with these settings changed."""
    tasks = Tasks()
    running: list[tuple[GatewayRunner, aiohttp.ClientSession]] = []

    async def start(*routes: Route, health: Health | None = None, extend: Any = None, **sections: Any) -> Served:
        settings = _settings(sections)
        limits = Limits(settings.limits, Redis(port=1), "test", tasks)
        limits._windows._breaker.closed = False  # without Redis: this process counts alone
        rt = cast("Runtime", types.SimpleNamespace(settings=settings, limits=limits, clock=Clock(), database=None))
        module = cast(Any, types.SimpleNamespace(name="school", routes=routes, commands=()))
        application = build_application(
            rt,
            [module],
            authenticate,
            health=health or Health({}),
            admission=Admission(settings.limits),
            events_document={"events": []},
        )
        if extend is not None:
            extend(application)
        runner = GatewayRunner(application, settings.http)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        session = aiohttp.ClientSession(auto_decompress=False)
        running.append((runner, session))
        return Served(session, runner.addresses[0][1], application)

    yield start
    for runner, session in running:
        await session.close()
        await runner.cleanup()


def _settings(sections: dict[str, dict[str, Any]]) -> Settings:
    settings = load_settings(secret="s" * 32, environment="development")
    changed = {name: getattr(settings, name).model_copy(update=values) for name, values in sections.items()}
    return settings.model_copy(update=changed)
