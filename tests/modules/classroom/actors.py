"""Actors of the demo school for tests of service functions, which know no tokens."""

from __future__ import annotations

from uuid import UUID

from server.actor import Actor
from server.runtime import Runtime


async def actor_of(rt: Runtime, name: str) -> Actor:
    """E.g. `teacher` or `student1`, as `authenticate` would find them."""
    async with rt.database.connection() as conn:
        row = await conn.fetchrow(
            "SELECT id, role, profile_data ->> 'name' AS name FROM users WHERE email = $1", f"{name}@example.com"
        )
    assert row is not None, name
    return Actor(row["id"], row["name"], None, row["role"], UUID(int=0), float("inf"))


async def room_of(rt: Runtime, name: str) -> UUID:
    async with rt.database.connection() as conn:
        room_id: UUID = await conn.fetchval("SELECT id FROM rooms WHERE name = $1", name)
    return room_id


async def course_of(rt: Runtime) -> UUID:
    async with rt.database.connection() as conn:
        course_id: UUID = await conn.fetchval("SELECT id FROM courses WHERE join_code = 'ASTRO101'")
    return course_id


async def add_room(rt: Runtime, kind: str, *members: Actor) -> UUID:
    """A group or direct room outside of courses."""
    room_id = rt.clock.uuid7()
    async with rt.database.transaction() as conn:
        await conn.execute(
            "INSERT INTO rooms (id, name, kind, created_by) VALUES ($1, $2, $2, $3)", room_id, kind, members[0].user_id
        )
        await conn.executemany(
            "INSERT INTO room_members (room_id, user_id, role) VALUES ($1, $2, 'learner')",
            [(room_id, member.user_id) for member in members],
        )
    return room_id
