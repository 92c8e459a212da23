"""A school to measure: private services, and a course with as many rooms and signed-in students as are wanted."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from modules.auth.tokens import keyring
from modules.classroom import initial_state
from scripts.benches.machine import family_cpu_seconds
from server.clock import Clock
from server.database import Database
from server.demo import seed_demo
from server.embedded import EmbeddedServices
from server.migrate import migrate
from server.realtime.wire import dumps
from server.settings import Settings, load_settings

SECRET = "a secret for benchmarks only, long enough"  # noqa: S105 - protects nothing
TOKEN_SECONDS = 3600  # the most that is allowed; every generator gets new ones
# A user id ends with the number of its student, so that the generator knows whose event it reads.
NUMBER_BITS = 32


@dataclass(frozen=True, slots=True)
class Student:
    user_id: UUID
    session_id: UUID


@dataclass(frozen=True, slots=True)
class School:
    """An installation without a server. `class_id` is a live class; all students may enter it and every room."""

    settings: Settings
    students: list[Student]
    class_id: str
    room_ids: list[str]
    services: EmbeddedServices

    def token(self, student: Student) -> str:
        """An access token, as a login gives it."""
        ids = {"user_id": student.user_id, "session_id": student.session_id, "token_id": Clock().uuid7()}
        return keyring(self.settings).sign(**ids, now=time.time())

    def services_cpu_seconds(self) -> float:
        """Processor time that PostgreSQL and Valkey have used so far."""
        return sum(family_cpu_seconds(self.services.pid_of(name)) for name in ("PostgreSQL", "Valkey"))


@asynccontextmanager
async def school(*, students: int, rooms: int = 0) -> AsyncIterator[School]:
    """Start the services in a directory of their own, and end them and all they hold."""
    with tempfile.TemporaryDirectory(prefix="lectern-bench-") as directory:
        private = load_settings(data_dir=directory, secret=SECRET)
        services = EmbeddedServices(private)
        async with services as urls:
            settings = load_settings(
                data_dir=directory,
                secret=SECRET,
                database={"url": urls.database_url},
                redis={"url": urls.redis_url},
                auth={"access_token_seconds": TOKEN_SECONDS},
            )
            yield await _fill(settings, services, students, rooms)


async def _fill(settings: Settings, services: EmbeddedServices, count: int, rooms: int) -> School:
    """The demo school with many more students, each with a login session, and many more lounges."""
    await migrate(settings.database)
    database = Database(settings.database)
    await seed_demo(database, settings)
    await database.close()
    clock = Clock()
    users = [(_numbered(clock.uuid7(), number), clock.uuid7()) for number in range(count)]
    room_ids = [clock.uuid7() for _ in range(rooms)]
    conn = await asyncpg.connect(settings.database.url)
    try:
        class_id = await conn.fetchval("SELECT id FROM rooms WHERE kind = 'class'")
        course_id = await conn.fetchval("SELECT course_id FROM rooms WHERE id = $1", class_id)
        await _enrol(conn, course_id, users)
        await _add_lounges(conn, course_id, room_ids)
        await conn.execute("ANALYZE")
    finally:
        await conn.close()
    students = [Student(user, UUID(int=session.int)) for user, session in users]
    return School(settings, students, str(class_id), [str(room_id) for room_id in room_ids], services)


def _numbered(user_id: UUID, number: int) -> UUID:
    return UUID(int=user_id.int >> NUMBER_BITS << NUMBER_BITS | number)


async def _enrol(conn: asyncpg.Connection, course_id: UUID, users: list[tuple[UUID, UUID]]) -> None:
    now = datetime.now(UTC)
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


async def _add_lounges(conn: asyncpg.Connection, course_id: UUID, room_ids: list[UUID]) -> None:
    teacher = await conn.fetchval("SELECT created_by FROM courses WHERE id = $1", course_id)
    state = dumps(initial_state("lounge")).decode()
    await conn.copy_records_to_table(
        "rooms",
        records=[(room_id, course_id, f"Room {n}", "lounge", state, teacher) for n, room_id in enumerate(room_ids)],
        columns=("id", "course_id", "name", "kind", "state", "created_by"),
    )
