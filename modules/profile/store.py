"""All SQL of profile: the two JSON columns of `users` that it owns, and who shares a course with whom.

One statement a function; decides nothing. `classmates` is a view that the classroom's tables carry (migration 0004).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from server.database import Connection

Json = dict[str, Any]  # Any: a stored object


@dataclass(frozen=True, slots=True)
class Stored:
    """What is stored about a person, as it is."""

    user_id: UUID
    profile: Json
    preferences: Json


@dataclass(frozen=True, slots=True)
class Acquaintance:
    """Somebody with whom a person shares a course; `taught` says that they are taught by that person somewhere."""

    stored: Stored
    taught: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """Somebody who was found; `rank` is higher for better matches."""

    id: UUID
    name: str
    avatar_url: str | None
    rank: float


async def read_stored(conn: Connection, user_id: UUID) -> Stored | None:
    row = await conn.fetchrow("SELECT id, profile_data, preferences FROM users WHERE id = $1", user_id)
    return _stored(row) if row else None


async def lock_stored(conn: Connection, user_id: UUID) -> Stored | None:
    """Like `read_stored`; nobody else changes it until the transaction ends."""
    row = await conn.fetchrow(
        "SELECT id, profile_data, preferences FROM users WHERE id = $1 FOR NO KEY UPDATE", user_id
    )
    return _stored(row) if row else None


async def write_profile(conn: Connection, user_id: UUID, profile: Json, now: datetime) -> None:
    await conn.execute(
        "UPDATE users SET profile_data = $2::text::jsonb, updated_at = $3 WHERE id = $1", user_id, _text(profile), now
    )


async def write_preferences(conn: Connection, user_id: UUID, preferences: Json, now: datetime) -> None:
    await conn.execute(
        "UPDATE users SET preferences = $2::text::jsonb, updated_at = $3 WHERE id = $1",
        user_id,
        _text(preferences),
        now,
    )


async def find_acquaintance(conn: Connection, viewer_id: UUID, user_id: UUID, *, is_admin: bool) -> Acquaintance | None:
    """Somebody who shares a course with the viewer; admins have a place in every course."""
    row = await conn.fetchrow(
        """
        SELECT u.id, u.profile_data, u.preferences, $3 OR mates.taught AS taught
        FROM users u CROSS JOIN LATERAL (
            SELECT bool_or(role IN ('owner', 'instructor')) AS taught
            FROM classmates WHERE user_id = $1 AND mate_id = u.id
        ) AS mates
        WHERE u.id = $2 AND u.disabled_at IS NULL AND ($3 OR mates.taught IS NOT NULL)
        """,
        viewer_id,
        user_id,
        is_admin,
    )
    return Acquaintance(_stored(row), row["taught"]) if row else None


async def search(
    conn: Connection,
    viewer_id: UUID,
    *,
    prefix_query: str,
    whole_query: str,
    is_admin: bool,
    after: tuple[float, UUID] | None,
    limit: int,
) -> list[Hit]:
    """People who share a course with the viewer by their names, best first; for admins all people.

    The queries are texts of a tsquery: one whose last word is a prefix, and one of whole words, which count more.
    """
    rows = await conn.fetch(
        """
        SELECT * FROM (
            SELECT u.id, coalesce(u.profile_data ->> 'name', '') AS name, u.profile_data ->> 'avatar_url' AS avatar_url,
                   (ts_rank(u.name_vector, query.prefix, 2) + (u.name_vector @@ query.whole)::int)::float8 AS rank
            FROM users u, (SELECT to_tsquery('simple', fold_name($2)) AS prefix,
                                  to_tsquery('simple', fold_name($3)) AS whole) AS query
            WHERE u.name_vector @@ query.prefix AND u.disabled_at IS NULL AND u.id <> $1
              AND ($4 OR u.id IN (SELECT mate_id FROM classmates WHERE user_id = $1))
        ) AS found
        WHERE $5::float8 IS NULL OR (-rank, id) > (-$5::float8, $6::uuid)
        ORDER BY -rank, id LIMIT $7
        """,
        viewer_id,
        prefix_query,
        whole_query,
        is_admin,
        *(after or (None, None)),
        limit,
    )
    return [Hit(**row) for row in rows]


def _stored(row: Any) -> Stored:  # Any: a record of asyncpg
    return Stored(row["id"], orjson.loads(row["profile_data"]), orjson.loads(row["preferences"]))


def _text(value: Json) -> str:
    return orjson.dumps(value).decode()
