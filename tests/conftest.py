"""Fixtures: real servers, a fresh database for each test, and a look for what a test left behind.

One private PostgreSQL and Valkey serve the whole run. The database `template` is migrated and holds the demo school;
each test gets a clone of it and a prefix of its own in Redis, so tests share nothing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from server.app import Server, running
from server.database import Database
from server.demo import seed_demo
from server.embedded import EmbeddedServices, Services
from server.gateway.protocol import GatewayRunner
from server.migrate import migrate
from server.runtime import Runtime
from server.settings import Settings, load_settings
from tests.people import People
from tests.processes import Installation

SECRET = "a secret for tests only, long enough to be one"
# Cheap hashing: what a test measures is never argon2 itself.
FAST_HASHING = {"argon2_time_cost": 1, "argon2_memory_kib": 64}


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    """A short path for this run: unix sockets live in it."""
    memory = Path("/dev/shm")  # where there is one, a commit does not wait for a disk
    directory = Path(tempfile.mkdtemp(prefix="lectern-test-", dir=memory if os.access(memory, os.W_OK) else None))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
async def services(run_directory: Path) -> AsyncIterator[Services]:
    """The private PostgreSQL and Valkey of this run."""
    async with EmbeddedServices(load_settings(data_dir=run_directory, secret=SECRET)) as services:
        yield services


@pytest.fixture(scope="session")
async def template(services: Services, run_directory: Path) -> str:
    """The name of a migrated database that holds the demo school."""
    await _admin(services, "CREATE DATABASE template")
    settings = _settings(run_directory, services, "template", "template")
    await migrate(settings.database)
    database = Database(settings.database)
    await seed_demo(database, settings)
    await database.close()
    return "template"


@pytest.fixture
async def database_name(services: Services, template: str) -> AsyncIterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    await _admin(services, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    yield name
    await _admin(services, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def database_url(services: Services, database_name: str) -> str:
    return _url_of(services, database_name)


@pytest.fixture
def settings_changes() -> dict[str, Any]:
    """What a test file wants to be otherwise in `settings`; it defines a fixture of this name for that."""
    return {}


@pytest.fixture
def settings(services: Services, database_name: str, tmp_path: Path, settings_changes: dict[str, Any]) -> Settings:
    """Settings on a fresh clone of the template, with a Redis prefix of their own."""
    return _settings(tmp_path, services, database_name, database_name, **settings_changes)


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    """A whole server without a port."""
    async with running(settings) as server:
        yield server


@pytest.fixture
def rt(server: Server) -> Runtime:
    return server.rt


@pytest.fixture
async def url(server: Server) -> AsyncIterator[str]:
    """The address of `server`, listening on a free port of the loopback interface."""
    async with listening(server) as url:
        yield url


@pytest.fixture
async def http(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the whole server: paths such as `/api/auth/me`."""
    async with aiohttp.ClientSession(url) as session:
        yield session


@pytest.fixture
async def people(url: str) -> AsyncIterator[People]:
    """Signs people of the demo school in and connects their sockets, see tests/people.py."""
    async with People(url) as people:
        yield people


@pytest.fixture
async def second_url(settings: Settings) -> AsyncIterator[str]:
    """A second replica on the same services, in this process."""
    async with running(settings) as server, listening(server) as url:
        yield url


@pytest.fixture(scope="session")
async def live_server(run_directory: Path) -> AsyncIterator[Installation]:
    """`python -m server up --demo` as its users start it, in processes of its own."""
    async with Installation(run_directory / "live", replicas=1) as installation:
        yield installation


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    """No task outlives its test, and no timer of ours that would fire long after it; open sockets warn, as errors."""
    before = asyncio.all_tasks()
    yield
    itself = asyncio.current_task()
    left: list[asyncio.Task[Any]] = []
    for _ in range(100):
        left = [task for task in asyncio.all_tasks() - before if task is not itself and not task.done()]
        if not left:
            assert not (timers := _late_timers()), f"timers outlive the test: {timers}"
            return
        await asyncio.sleep(0.01)
    names = ", ".join(sorted(f"{task.get_name()} {task.get_coro()}" for task in left))
    assert not left, f"tasks outlive the test: {names}"


def _late_timers() -> list[str]:
    """Timers of the server that are due in more than three seconds: what closes sockets politely is due before."""
    loop = asyncio.get_running_loop()
    scheduled = [handle for handle in getattr(loop, "_scheduled", []) if not handle.cancelled()]
    late = [repr(handle) for handle in scheduled if handle.when() > loop.time() + 3]
    return [handle for handle in late if " server" in handle or "/server/" in handle or "Rooms." in handle]


@asynccontextmanager
async def listening(server: Server) -> AsyncIterator[str]:
    runner = GatewayRunner(server.application, server.rt.settings.http)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        server.engine.close_all("test is over")
        await runner.cleanup()


def _settings(directory: Path, services: Services, database: str, prefix: str, **changes: Any) -> Settings:
    return load_settings(
        data_dir=directory,
        secret=SECRET,
        database={"url": _url_of(services, database)},
        redis={"url": services.redis_url, "prefix": prefix},
        auth={**FAST_HASHING, **changes.pop("auth", {})},
        log={"level": "WARNING"},
        **changes,
    )


def _url_of(services: Services, database: str) -> str:
    """The URL of a database beside the one that the services were made with."""
    head, _, query = services.database_url.partition("?")
    return f"{head.rpartition('/')[0]}/{database}?{query}"


async def _admin(services: Services, statement: str) -> None:
    conn = await asyncpg.connect(services.database_url)
    try:
        await conn.execute(statement)
    finally:
        await conn.close()
