"""The demo school: what CONTRACT §6 promises, made once and cheaply found again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from server.database import Database
from server.demo import seed_demo
from server.settings import Settings

SCHOOL = """
    SELECT c.title, c.join_code, owner.email AS owner,
           (SELECT count(*) FROM course_members m WHERE m.course_id = c.id AND m.role = 'learner') AS learners,
           (SELECT array_agg(r.kind || ':' || r.name ORDER BY r.kind) FROM rooms r WHERE r.course_id = c.id) AS rooms
    FROM courses c
    JOIN course_members m ON m.course_id = c.id AND m.role = 'owner' JOIN users owner ON owner.id = m.user_id
"""
EXPECTED = {
    "title": "Astronomy 101",
    "join_code": "ASTRO101",
    "owner": "teacher@example.com",
    "learners": 30,
    "rooms": ["class:Live class", "lounge:Lounge"],
}


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.database)
    yield database
    await database.close()


async def school(database: Database) -> dict[str, object]:
    async with database.connection() as conn:
        [row] = await conn.fetch(SCHOOL)
    return dict(row)


async def test_the_school_is_what_the_contract_says(database):
    assert await school(database) == EXPECTED
    async with database.connection() as conn:
        people = await conn.fetch("SELECT email, role, verified_at, profile_data ->> 'name' AS name FROM users")
    assert {row["email"] for row in people} == {
        "admin@example.com",
        "teacher@example.com",
        *(f"student{number}@example.com" for number in range(1, 31)),
    }
    assert [row["email"] for row in people if row["role"] == "admin"] == ["admin@example.com"]
    assert all(row["verified_at"] and row["name"] for row in people)
    assert len({row["name"] for row in people}) == len(people)


async def test_the_class_begins_idle(database):
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT state ->> 'status' FROM rooms WHERE kind = 'class'") == "idle"


async def test_seeding_again_changes_nothing_and_is_quick(database, settings):
    async with database.connection() as conn:
        before = await conn.fetch("SELECT * FROM users ORDER BY id")
    began = time.perf_counter()
    await seed_demo(database, settings)
    assert time.perf_counter() - began < 0.5
    async with database.connection() as conn:
        assert await conn.fetch("SELECT * FROM users ORDER BY id") == before
    assert await school(database) == EXPECTED


async def test_two_seeders_at_once_make_one_school(database, settings):
    async with database.connection() as conn:
        await conn.execute("DELETE FROM courses")
        await conn.execute("DELETE FROM users")
    await asyncio.gather(*(seed_demo(database, settings) for _ in range(3)))
    assert await school(database) == EXPECTED


async def test_what_is_missing_is_added_again(database, settings):
    async with database.connection() as conn:
        await conn.execute("DELETE FROM users WHERE email = 'student7@example.com'")
        await conn.execute("DELETE FROM rooms WHERE kind = 'lounge'")
    await seed_demo(database, settings)
    assert await school(database) == EXPECTED
