"""The demo school (CONTRACT §6): what `--demo` shows and what tests from outside use.

It writes the tables of several modules by itself, because it runs beside the server (`migrate --demo`, `seed`) with a
database and nothing else. What is there already is left as it is: people may have changed it.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

import orjson
from argon2 import PasswordHasher

from modules.classroom import initial_state
from server.clock import Clock
from server.database import Connection, Database
from server.settings import Auth, Settings

PASSWORD = "lectern-demo"  # noqa: S105 - the demo school has no secrets
COURSE, JOIN_CODE = "Astronomy 101", "ASTRO101"
DESCRIPTION = "The sky with and without a telescope: how to find your way, and how we know what we know."
ROOMS = (("Live class", "class"), ("Lounge", "lounge"))
LOCK = 0x4C656374  # "Lect": two seeders come one after the other

ADMIN, TEACHER = "admin@example.com", "teacher@example.com"
STUDENTS = (
    "Amara Nwosu",
    "Bilal Rahman",
    "Chiara Conti",
    "Daniel Okafor",
    "Elif Yıldız",
    "Felix Baumann",
    "Grace Kamau",
    "Hana Novák",
    "Ibrahim Diallo",
    "Jun Watanabe",
    "Kavya Iyer",
    "Lucas Moreira",
    "Mei-Ling Chen",
    "Noah Whitaker",
    "Olena Kovalenko",
    "Pablo Fuentes",
    "Quynh Tran",
    "Rania Haddad",
    "Saoirse Byrne",
    "Tomasz Wójcik",
    "Uma Pillai",
    "Viktor Lindqvist",
    "William Begay",
    "Ximena Rojas",
    "Yael Ben-David",
    "Zanele Dube",
    "Anahera Parata",
    "Bjarki Jónsson",
    "Camille Laurent",
    "Dimitra Papadaki",
)


async def seed_demo(database: Database, settings: Settings) -> None:
    """Create what is missing of the demo school, all or nothing; quick when nothing is.

    Raises:
        Unavailable: PostgreSQL does not answer.
    """
    async with database.connection() as conn:
        if await _is_complete(conn):
            return
    # Once for all, and not while locks are held: it takes as long as everything else together.
    password_hash = await asyncio.to_thread(_hash, settings.auth)
    clock = Clock()
    async with database.transaction() as conn:
        await conn.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        await _add_people(conn, clock, password_hash)
        course_id = await _add_course(conn, clock)
        await _enrol(conn, course_id)
        await _add_rooms(conn, clock, course_id)


def _emails() -> list[str]:
    return [ADMIN, TEACHER, *(f"student{number}@example.com" for number in range(1, len(STUDENTS) + 1))]


def _hash(auth: Auth) -> str:
    """One lane, as modules/auth hashes (the password is ASCII, so it needs no normal form)."""
    hasher = PasswordHasher(time_cost=auth.argon2_time_cost, memory_cost=auth.argon2_memory_kib, parallelism=1)
    return hasher.hash(PASSWORD)


async def _is_complete(conn: Connection) -> bool:
    return bool(
        await conn.fetchval(
            """
            SELECT (SELECT count(*) FROM users WHERE email = ANY($1::text[])) = cardinality($1::text[])
               AND (SELECT count(*) FROM courses c JOIN course_members m ON m.course_id = c.id
                    JOIN users u ON u.id = m.user_id
                    WHERE c.join_code = $2 AND u.email = ANY($1::text[])) >= cardinality($1::text[]) - 1
               AND (SELECT count(DISTINCT r.kind) FROM courses c JOIN rooms r ON r.course_id = c.id
                    WHERE c.join_code = $2 AND (r.name, r.kind) IN (SELECT * FROM unnest($3::text[], $4::text[]))
                   ) = cardinality($3::text[])
            """,
            _emails(),
            JOIN_CODE,
            [name for name, _ in ROOMS],
            [kind for _, kind in ROOMS],
        )
    )


async def _add_people(conn: Connection, clock: Clock, password_hash: str) -> None:
    emails = _emails()
    await conn.execute(
        """
        INSERT INTO users (id, email, password_hash, role, verified_at, profile_data)
        SELECT p.id, p.email, $4, p.role, now(), jsonb_build_object('name', p.name, 'avatar_url', NULL)
        FROM unnest($1::uuid[], $2::text[], $3::text[], $5::text[]) AS p (id, email, name, role)
        ON CONFLICT (email) DO NOTHING
        """,
        [clock.uuid7() for _ in emails],
        emails,
        ["Ada Lindgren", "Nadia El-Sayed", *STUDENTS],
        password_hash,
        ["admin" if email == ADMIN else "user" for email in emails],
    )


async def _add_course(conn: Connection, clock: Clock) -> UUID:
    await conn.execute(
        """
        INSERT INTO courses (id, title, description, join_code, created_by)
        SELECT $1, $2, $3, $4, id FROM users WHERE email = $5
        ON CONFLICT (join_code) DO NOTHING
        """,
        clock.uuid7(),
        COURSE,
        DESCRIPTION,
        JOIN_CODE,
        TEACHER,
    )
    course_id: UUID = await conn.fetchval("SELECT id FROM courses WHERE join_code = $1", JOIN_CODE)
    return course_id


async def _enrol(conn: Connection, course_id: UUID) -> None:
    await conn.execute(
        """
        INSERT INTO course_members (course_id, user_id, role)
        SELECT $1, id, CASE WHEN email = $3 THEN 'owner' ELSE 'learner' END
        FROM users WHERE email = ANY($2::text[]) AND email <> $4
        ON CONFLICT DO NOTHING
        """,
        course_id,
        _emails(),
        TEACHER,
        ADMIN,
    )


async def _add_rooms(conn: Connection, clock: Clock, course_id: UUID) -> None:
    await conn.execute(
        """
        INSERT INTO rooms (id, course_id, name, kind, state, created_by)
        SELECT r.id, c.id, r.name, r.kind, r.state::json, c.created_by
        FROM courses c, unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) AS r (id, name, kind, state)
        WHERE c.id = $1
          AND NOT EXISTS (SELECT 1 FROM rooms WHERE course_id = c.id AND name = r.name AND kind = r.kind)
        """,
        course_id,
        [clock.uuid7() for _ in ROOMS],
        [name for name, _ in ROOMS],
        [kind for _, kind in ROOMS],
        [orjson.dumps(initial_state(kind)).decode() for _, kind in ROOMS],
    )
