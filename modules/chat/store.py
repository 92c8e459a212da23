"""All SQL of chat: read marks, and reads of the messages in room logs. One statement a function; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from server.database import Connection
from server.realtime.wire import RoomEvent

END = 2**63 - 1  # behind the last seq that a bigint can hold


@dataclass(frozen=True, slots=True)
class Unread:
    """How far a person has read in a room."""

    room_id: UUID
    last_seq: int
    read_seq: int
    unread: int  # messages of others behind read_seq


async def move_read_mark(conn: Connection, room_id: UUID, user_id: UUID, seq: int) -> int | None:
    """Move a mark forward, at most to the end of the log; where it stands then, None when it has not moved."""
    moved: int | None = await conn.fetchval(
        """
        INSERT INTO read_marks (room_id, user_id, seq)
        SELECT id, $2, least($3, last_seq) FROM rooms WHERE id = $1
        ON CONFLICT (user_id, room_id) DO UPDATE SET seq = excluded.seq WHERE read_marks.seq < excluded.seq
        RETURNING seq
        """,
        room_id,
        user_id,
        seq,
    )
    return moved


async def list_unread(conn: Connection, user_id: UUID, *, most: int) -> list[Unread]:
    """All rooms that a person has a place in, with the number of unread messages, counted up to `most`."""
    rows = await conn.fetch(
        """
        WITH mine AS (
            SELECT r.id, r.last_seq FROM course_members m JOIN rooms r ON r.course_id = m.course_id WHERE m.user_id = $1
            UNION ALL
            SELECT r.id, r.last_seq FROM room_members m JOIN rooms r ON r.id = m.room_id
            WHERE m.user_id = $1 AND r.course_id IS NULL
        )
        SELECT mine.id AS room_id, mine.last_seq, coalesce(mark.seq, 0) AS read_seq, unread.count AS unread
        FROM mine LEFT JOIN read_marks mark ON mark.user_id = $1 AND mark.room_id = mine.id
        CROSS JOIN LATERAL (
            SELECT count(*) FROM (
                SELECT 1 FROM room_events e
                WHERE e.room_id = mine.id AND e.seq > coalesce(mark.seq, 0)
                  AND e.type = 'message' AND e.actor_id IS DISTINCT FROM $1
                LIMIT $2
            ) AS behind
        ) AS unread
        ORDER BY mine.id
        """,
        user_id,
        most,
    )
    return [Unread(**row) for row in rows]


async def read_messages(
    conn: Connection, room_id: UUID, *, after: int, before: int | None, limit: int
) -> list[RoomEvent]:
    """The first `limit` messages of a log behind `after` and in front of `before`, in order."""
    rows = await conn.fetch(
        "SELECT seq, type, body FROM room_events WHERE room_id = $1 AND seq > $2 AND seq < $3 AND type = 'message'"
        " ORDER BY seq LIMIT $4",
        room_id,
        after,
        END if before is None else before,
        limit,
    )
    return [RoomEvent(room_id, row["seq"], row["type"], row["body"].encode()) for row in rows]


async def read_room_names(conn: Connection, room_ids: Iterable[UUID]) -> dict[UUID, str]:
    """The names of the rooms that exist."""
    rows = await conn.fetch("SELECT id, name FROM rooms WHERE id = ANY($1::uuid[])", list(room_ids))
    return {row["id"]: row["name"] for row in rows}


async def list_read_marks(conn: Connection, user_id: UUID) -> list[dict[str, Any]]:
    """How far a person has read, by room."""
    rows = await conn.fetch("SELECT room_id, seq FROM read_marks WHERE user_id = $1 ORDER BY room_id", user_id)
    return [dict(row) for row in rows]


async def delete_read_marks(conn: Connection, user_id: UUID) -> None:
    """Forget how far a person has read."""
    await conn.execute("DELETE FROM read_marks WHERE user_id = $1", user_id)
