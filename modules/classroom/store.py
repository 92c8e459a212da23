"""All SQL of the classroom: courses, their members, rooms. One statement a function; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from server.actor import Actor
from server.database import Connection


@dataclass(frozen=True, slots=True)
class Course:
    """A course as one person sees it; `role` is None for those who are not in it."""

    id: UUID
    title: str
    description: str
    join_code: str
    updated_at: datetime
    role: str | None
    member_count: int


@dataclass(frozen=True, slots=True)
class Room:
    """A room as one person sees it.

    `status` is that of a class ("idle", "live", "ended"), else "open"; `course_id` is None for group and direct rooms.
    """

    id: UUID
    course_id: UUID | None
    name: str
    kind: str
    status: str
    last_seq: int
    updated_at: datetime
    role: str


@dataclass(frozen=True, slots=True)
class Member:
    """A person in a course."""

    user_id: UUID
    name: str
    avatar_url: str | None
    role: str
    joined_at: datetime


async def insert_course(
    conn: Connection, course_id: UUID, title: str, description: str, *, join_code: str, created_by: UUID
) -> bool:
    """Add a course; False when its join code is taken."""
    status = await conn.execute(
        "INSERT INTO courses (id, title, description, join_code, created_by) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (join_code) DO NOTHING",
        course_id,
        title,
        description,
        join_code,
        created_by,
    )
    return bool(status == "INSERT 0 1")


async def read_course(conn: Connection, actor: Actor, course_id: UUID) -> Course | None:
    """A course with the actor's role in it; admins are owners everywhere."""
    row = await conn.fetchrow(
        """
        SELECT c.id, c.title, c.description, c.join_code, c.updated_at,
               CASE WHEN $2 THEN 'owner' ELSE m.role END AS role,
               (SELECT count(*) FROM course_members WHERE course_id = c.id) AS member_count
        FROM courses c LEFT JOIN course_members m ON m.course_id = c.id AND m.user_id = $3
        WHERE c.id = $1
        """,
        course_id,
        actor.is_admin,
        actor.user_id,
    )
    return Course(**row) if row else None


async def list_courses(conn: Connection, actor: Actor, *, before: UUID | None, limit: int) -> list[Course]:
    """The actor's courses, for admins all, newest first."""
    rows = await conn.fetch(
        """
        SELECT c.id, c.title, c.description, c.join_code, c.updated_at,
               CASE WHEN $1 THEN 'owner' ELSE m.role END AS role,
               (SELECT count(*) FROM course_members WHERE course_id = c.id) AS member_count
        FROM courses c LEFT JOIN course_members m ON m.course_id = c.id AND m.user_id = $2
        WHERE ($1 OR m.role IS NOT NULL) AND ($3::uuid IS NULL OR c.id < $3)
        ORDER BY c.id DESC LIMIT $4
        """,
        actor.is_admin,
        actor.user_id,
        before,
        limit,
    )
    return [Course(**row) for row in rows]


async def lock_course(conn: Connection, course_id: UUID) -> None:
    """Let nobody else change the course or its members until the transaction ends; readers are not held up."""
    await conn.execute("SELECT 1 FROM courses WHERE id = $1 FOR NO KEY UPDATE", course_id)


async def update_course(conn: Connection, course_id: UUID, title: str | None, description: str | None) -> None:
    """Change what is not None."""
    await conn.execute(
        "UPDATE courses SET title = coalesce($2, title), description = coalesce($3, description),"
        " updated_at = clock_timestamp() WHERE id = $1",
        course_id,
        title,
        description,
    )


async def delete_course(conn: Connection, course_id: UUID) -> None:
    """Remove a course with its members and rooms."""
    await conn.execute("DELETE FROM courses WHERE id = $1", course_id)


async def find_course(conn: Connection, join_code: str) -> UUID | None:
    """The course that a join code belongs to."""
    course_id: UUID | None = await conn.fetchval("SELECT id FROM courses WHERE join_code = $1", join_code)
    return course_id


async def insert_member(conn: Connection, course_id: UUID, user_id: UUID, role: str) -> bool:
    """Add a member; False when they are one already, whose role then stays, or when there is no such user."""
    status = await conn.execute(
        "INSERT INTO course_members (course_id, user_id, role)"
        " SELECT $1, id, $3 FROM users WHERE id = $2 AND disabled_at IS NULL ON CONFLICT DO NOTHING",
        course_id,
        user_id,
        role,
    )
    return bool(status == "INSERT 0 1")


async def read_member(conn: Connection, course_id: UUID, user_id: UUID) -> Member | None:
    """A member of a course."""
    row = await conn.fetchrow(
        """
        SELECT m.user_id, coalesce(u.profile_data ->> 'name', '') AS name,
               u.profile_data ->> 'avatar_url' AS avatar_url, m.role, m.joined_at
        FROM course_members m JOIN users u ON u.id = m.user_id WHERE m.course_id = $1 AND m.user_id = $2
        """,
        course_id,
        user_id,
    )
    return Member(**row) if row else None


async def list_members(
    conn: Connection, course_id: UUID, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[Member]:
    """The members of a course in the order in which they joined."""
    rows = await conn.fetch(
        """
        SELECT m.user_id, coalesce(u.profile_data ->> 'name', '') AS name,
               u.profile_data ->> 'avatar_url' AS avatar_url, m.role, m.joined_at
        FROM course_members m JOIN users u ON u.id = m.user_id
        WHERE m.course_id = $1 AND ($2::timestamptz IS NULL OR (m.joined_at, m.user_id) > ($2, $3::uuid))
        ORDER BY m.joined_at, m.user_id LIMIT $4
        """,
        course_id,
        *(after or (None, None)),
        limit,
    )
    return [Member(**row) for row in rows]


async def update_member(conn: Connection, course_id: UUID, user_id: UUID, role: str) -> None:
    """Give a member another role."""
    await conn.execute(
        "UPDATE course_members SET role = $3 WHERE course_id = $1 AND user_id = $2", course_id, user_id, role
    )


async def delete_member(conn: Connection, course_id: UUID, user_id: UUID) -> None:
    """Remove a member from a course."""
    await conn.execute("DELETE FROM course_members WHERE course_id = $1 AND user_id = $2", course_id, user_id)


async def count_owners(conn: Connection, course_id: UUID) -> int:
    """How many owners a course has."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM course_members WHERE course_id = $1 AND role = 'owner'", course_id
    )
    return count


async def insert_room(
    conn: Connection, room_id: UUID, course_id: UUID, name: str, *, kind: str, state: str, created_by: UUID
) -> None:
    """Add a room to a course; `state` is the JSON of its state before the first event."""
    await conn.execute(
        "INSERT INTO rooms (id, course_id, name, kind, state, created_by) VALUES ($1, $2, $3, $4, $5::text::json, $6)",
        room_id,
        course_id,
        name,
        kind,
        state,
        created_by,
    )


async def read_room(conn: Connection, actor: Actor, room_id: UUID) -> Room | None:
    """A room that the actor has a role in: as a member of its course or of itself, or as an admin in any course."""
    row = await conn.fetchrow(
        """
        SELECT * FROM (
            SELECT r.id, r.course_id, r.name, r.kind, r.last_seq, r.updated_at,
                   CASE WHEN r.kind = 'class' THEN coalesce(r.state ->> 'status', 'idle') ELSE 'open' END AS status,
                   CASE WHEN r.course_id IS NULL THEN
                       (SELECT role FROM room_members WHERE room_id = r.id AND user_id = $3)
                   WHEN $2 THEN 'owner' ELSE
                       (SELECT role FROM course_members WHERE course_id = r.course_id AND user_id = $3)
                   END AS role
            FROM rooms r WHERE r.id = $1
        ) AS room WHERE role IS NOT NULL
        """,
        room_id,
        actor.is_admin,
        actor.user_id,
    )
    return Room(**row) if row else None


async def list_rooms(conn: Connection, course_id: UUID, *, role: str, after: UUID | None, limit: int) -> list[Room]:
    """The rooms of a course, oldest first; `role` is that of the person who looks."""
    rows = await conn.fetch(
        """
        SELECT id, course_id, name, kind, last_seq, updated_at, $2::text AS role,
               CASE WHEN kind = 'class' THEN coalesce(state ->> 'status', 'idle') ELSE 'open' END AS status
        FROM rooms WHERE course_id = $1 AND ($3::uuid IS NULL OR id > $3) ORDER BY id LIMIT $4
        """,
        course_id,
        role,
        after,
        limit,
    )
    return [Room(**row) for row in rows]


async def list_room_ids(conn: Connection, course_id: UUID) -> list[UUID]:
    """The ids of all rooms of a course."""
    return [row["id"] for row in await conn.fetch("SELECT id FROM rooms WHERE course_id = $1 ORDER BY id", course_id)]


async def lock_rooms(conn: Connection, course_id: UUID) -> list[UUID]:
    """Lock the rooms of a course in the order in which everybody locks rooms, and return their ids."""
    rows = await conn.fetch("SELECT id FROM rooms WHERE course_id = $1 ORDER BY id FOR UPDATE", course_id)
    return [row["id"] for row in rows]


async def update_room(
    conn: Connection, room_id: UUID, name: str | None, *, unless_changed_since: datetime | None
) -> bool:
    """Rename a room; False when it is gone or was renamed since."""
    status = await conn.execute(
        "UPDATE rooms SET name = coalesce($2, name), updated_at = clock_timestamp()"
        " WHERE id = $1 AND ($3::timestamptz IS NULL OR updated_at = $3)",
        room_id,
        name,
        unless_changed_since,
    )
    return bool(status == "UPDATE 1")


async def delete_room(conn: Connection, room_id: UUID) -> None:
    """Remove a room; its log is the room log's to forget."""
    await conn.execute("DELETE FROM rooms WHERE id = $1", room_id)


async def read_roles(conn: Connection, pairs: Sequence[tuple[UUID, Actor]]) -> dict[tuple[UUID, UUID], str]:
    """The role of each (room, actor) that has one, by room id and user id; the rule is that of `read_room`."""
    rows = await conn.fetch(
        """
        SELECT p.room_id, p.user_id,
               CASE WHEN r.course_id IS NULL THEN rm.role WHEN p.is_admin THEN 'owner' ELSE cm.role END AS role
        FROM unnest($1::uuid[], $2::uuid[], $3::boolean[]) AS p (room_id, user_id, is_admin)
        JOIN rooms r ON r.id = p.room_id
        LEFT JOIN course_members cm ON cm.course_id = r.course_id AND cm.user_id = p.user_id
        LEFT JOIN room_members rm ON rm.room_id = r.id AND rm.user_id = p.user_id
        """,
        [room_id for room_id, _ in pairs],
        [actor.user_id for _, actor in pairs],
        [actor.is_admin for _, actor in pairs],
    )
    return {(row["room_id"], row["user_id"]): row["role"] for row in rows if row["role"] is not None}


async def list_places(conn: Connection, user_id: UUID) -> list[UUID]:
    """The ids of all rooms that a person has a place in."""
    rows = await conn.fetch(
        """
        SELECT r.id FROM course_members m JOIN rooms r ON r.course_id = m.course_id WHERE m.user_id = $1
        UNION
        SELECT room_id FROM room_members WHERE user_id = $1
        """,
        user_id,
    )
    return [row["id"] for row in rows]


async def lock_courses_of(conn: Connection, user_id: UUID) -> None:
    """Like `lock_course`, for all courses of a person, in the order of their ids."""
    await conn.execute(
        "SELECT 1 FROM courses WHERE id IN (SELECT course_id FROM course_members WHERE user_id = $1)"
        " ORDER BY id FOR NO KEY UPDATE",
        user_id,
    )


async def list_solely_owned(conn: Connection, user_id: UUID) -> list[str]:
    """The titles of the courses that have no other owner."""
    rows = await conn.fetch(
        """
        SELECT c.title FROM courses c JOIN course_members m ON m.course_id = c.id
        WHERE m.user_id = $1 AND m.role = 'owner' AND NOT EXISTS (
            SELECT 1 FROM course_members o WHERE o.course_id = c.id AND o.role = 'owner' AND o.user_id <> $1)
        ORDER BY c.id
        """,
        user_id,
    )
    return [row["title"] for row in rows]


async def delete_memberships(conn: Connection, user_id: UUID) -> None:
    """Remove a person from all courses and rooms."""
    await conn.execute(
        "WITH courses AS (DELETE FROM course_members WHERE user_id = $1) DELETE FROM room_members WHERE user_id = $1",
        user_id,
    )


async def list_own_courses(conn: Connection, user_id: UUID) -> list[dict[str, Any]]:
    """The courses that a person is in, as an export shows them."""
    rows = await conn.fetch(
        """
        SELECT c.id, c.title, m.role, m.joined_at, c.created_by = $1 AS created_by_you
        FROM course_members m JOIN courses c ON c.id = m.course_id WHERE m.user_id = $1 ORDER BY m.joined_at, c.id
        """,
        user_id,
    )
    return [dict(row) for row in rows]


async def list_own_rooms(conn: Connection, user_id: UUID) -> list[dict[str, Any]]:
    """The rooms outside of courses that a person is in, as an export shows them."""
    rows = await conn.fetch(
        """
        SELECT r.id, r.name, r.kind, m.role, m.joined_at
        FROM room_members m JOIN rooms r ON r.id = m.room_id WHERE m.user_id = $1 ORDER BY m.joined_at, r.id
        """,
        user_id,
    )
    return [dict(row) for row in rows]
