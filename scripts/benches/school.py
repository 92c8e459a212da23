"""A school to measure: private services, server processes, and a class of as many signed-in students as are wanted."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import aiohttp
import asyncpg

from modules.auth.tokens import keyring
from server.clock import Clock
from server.database import Database
from server.demo import seed_demo
from server.embedded import EmbeddedServices
from server.migrate import migrate
from server.settings import ROOT, Settings, load_settings

SECRET = "a secret for benchmarks only, long enough"  # noqa: S105 - protects nothing
PATIENCE = 30.0  # seconds
# People do not talk this fast, and nobody has this many windows: the limits are for them, not for the figures.
LIMITS = {
    "LECTERN_CHAT__MESSAGE_RATE": "100000",
    "LECTERN_CHAT__MESSAGE_BURST": "100000",
    "LECTERN_REALTIME__CONNECTIONS_PER_USER": "100000",
    "LECTERN_LOG__LEVEL": "WARNING",
}


@dataclass(frozen=True, slots=True)
class School:
    """A running installation; `tokens[n]` signs student n in, all of them are in the class `room_id`."""

    ports: list[int]
    tokens: list[str]
    room_id: str
    processes: list[asyncio.subprocess.Process]

    def kill(self, replica: int) -> None:
        """End a server process as a crash does."""
        self.processes[replica].send_signal(signal.SIGKILL)

    def cpu_seconds(self, replica: int) -> float:
        """Processor time that a server process has used so far."""
        fields = Path(f"/proc/{self.processes[replica].pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def school(*, students: int, replicas: int = 1) -> AsyncIterator[School]:
    """Start everything in a directory of its own, and end all of it."""
    with tempfile.TemporaryDirectory(prefix="lectern-bench-") as directory:
        private = load_settings(data_dir=directory, secret=SECRET)
        async with EmbeddedServices(private) as services:
            settings = load_settings(
                data_dir=directory,
                secret=SECRET,
                database={"url": services.database_url},
                redis={"url": services.redis_url},
            )
            room_id, tokens = await _fill(settings, students)
            ports = [18_200 + os.getpid() % 1000 + number for number in range(replicas)]
            processes = [await _serve(settings, port) for port in ports]
            try:
                await asyncio.gather(*map(_until_ready, ports))
                yield School(ports, tokens, room_id, processes)
            finally:
                await asyncio.gather(*map(_end, processes))


async def _fill(settings: Settings, students: int) -> tuple[str, list[str]]:
    """The demo school with many more students, each with a login session; the class and their access tokens."""
    await migrate(settings.database)
    database = Database(settings.database)
    await seed_demo(database, settings)
    await database.close()
    clock, now = Clock(), datetime.now(UTC)
    users = [(clock.uuid7(), clock.uuid7()) for _ in range(students)]
    conn = await asyncpg.connect(settings.database.url)
    try:
        room_id = await conn.fetchval("SELECT id FROM rooms WHERE kind = 'class'")
        course_id = await conn.fetchval("SELECT course_id FROM rooms WHERE id = $1", room_id)
        await conn.copy_records_to_table(
            "users",
            records=[
                (user, f"bench{number}@example.com", "!", f'{{"name": "Student {number}"}}')
                for number, (user, _) in enumerate(users)
            ],
            columns=("id", "email", "password_hash", "profile_data"),
        )
        await conn.copy_records_to_table(
            "auth_sessions",
            records=[(session, user, b"salt", now, now, now + timedelta(days=1)) for user, session in users],
            columns=("id", "user_id", "salt", "rotated_at", "created_at", "expires_at"),
        )
        await conn.copy_records_to_table(
            "course_members",
            records=[(course_id, user, "learner") for user, _ in users],
            columns=("course_id", "user_id", "role"),
        )
    finally:
        await conn.close()
    keys = keyring(settings)
    sign = [(UUID(int=user.int), UUID(int=session.int)) for user, session in users]
    return str(room_id), [
        keys.sign(user_id=user, session_id=session, token_id=clock.uuid7(), now=time.time()) for user, session in sign
    ]


async def _serve(settings: Settings, port: int) -> asyncio.subprocess.Process:
    environment = os.environ | LIMITS
    environment |= {
        "LECTERN_DATABASE__URL": settings.database.url,
        "LECTERN_REDIS__URL": settings.redis.url,
        "LECTERN_SECRET": SECRET,
        "LECTERN_DATA_DIR": str(settings.data_dir),
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server", "serve", "--port", str(port), cwd=ROOT, env=environment
    )


async def _until_ready(port: int) -> None:
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/health/ready") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()
