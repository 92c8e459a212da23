"""What of the room logs is one person's: reading it for an export, and taking it out for an erasure.

Erasing redacts stored events in place: each keeps its `seq`, type and time, so a log has no gap and a class can still
be replayed. It goes by conventions of the events and not by their types, so that an event that a feature adds later is
covered: the actor is `actor`; what a person wrote is `data.text`; whom an event is about, and how that person was
called, are `user_id` and `name` of one object, in `data` or in the state of a room. A message becomes

    {"id", "text": "", "reply_to", "attachments": [], "mentions": [], "deleted": true}

and every name becomes `DELETED_NAME`. Only the log knows the bytes of events, so this is part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import orjson

from server.database import Connection
from server.realtime.wire import RoomEvent, dumps

DELETED_NAME = "Deleted user"


async def read_events_of(conn: Connection, user_id: UUID, *, messages: bool) -> list[RoomEvent]:
    """All events that a person caused, by room and in order of seq: the messages, or everything else."""
    rows = await conn.fetch(
        "SELECT room_id, seq, type, body FROM room_events WHERE actor_id = $1 AND (type = 'message') = $2"
        " ORDER BY room_id, seq",
        user_id,
        messages,
    )
    return [RoomEvent(row["room_id"], row["seq"], row["type"], row["body"].encode()) for row in rows]


async def lock_rooms_of(conn: Connection, user_id: UUID, places: Sequence[UUID]) -> list[UUID]:
    """Lock the rooms in which a person has a place or ever did something, and return their ids.

    In the order in which everybody locks rooms, and before any other lock. Until the transaction ends nothing is
    written there; what was under way is decided afterwards, when the person has no place any more.
    """
    rows = await conn.fetch(
        "SELECT id FROM rooms WHERE id = ANY($2::uuid[])"
        " OR id IN (SELECT room_id FROM room_events WHERE actor_id = $1) ORDER BY id FOR UPDATE",
        user_id,
        places,
    )
    return [row["id"] for row in rows]


async def redact_user(conn: Connection, user_id: UUID, rooms: Sequence[UUID]) -> None:
    """Take a person out of the events and states of rooms that `lock_rooms_of` has locked."""
    await _redact_own_events(conn, user_id)
    await _redact_mentions_by_name(conn, user_id, rooms)
    for row in await conn.fetch("SELECT id, state FROM rooms WHERE id = ANY($1::uuid[])", rooms):
        state = orjson.loads(row["state"])
        if _rename(state, str(user_id)):
            await _replace_state(conn, row["id"], state)


async def _redact_own_events(conn: Connection, user_id: UUID) -> None:
    await conn.execute(
        """
        UPDATE room_events SET body = (body::jsonb || jsonb_build_object(
            'actor', jsonb_build_object('id', $1::uuid, 'name', $2::text, 'avatar_url', NULL),
            'data', (body::jsonb -> 'data') || CASE
                WHEN type = 'message' THEN '{"text": "", "attachments": [], "mentions": [], "deleted": true}'::jsonb
                WHEN body::jsonb -> 'data' ? 'text' THEN '{"text": "", "deleted": true}'::jsonb
                ELSE '{}'::jsonb END
        ))::json
        WHERE actor_id = $1
        """,
        user_id,
        DELETED_NAME,
    )


async def _redact_mentions_by_name(conn: Connection, user_id: UUID, rooms: Sequence[UUID]) -> None:
    """Events about the person, whoever caused them. Messages name nobody, so the bulk of a log is not looked into."""
    await conn.execute(
        """
        UPDATE room_events SET body = jsonb_set(body::jsonb, '{data,name}', to_jsonb($2::text))::json
        WHERE room_id = ANY($3::uuid[]) AND type <> 'message'
          AND body #>> '{data,user_id}' = $1::text AND body #>> '{data,name}' IS NOT NULL
        """,
        str(user_id),
        DELETED_NAME,
        rooms,
    )


async def _replace_state(conn: Connection, room_id: UUID, state: object) -> None:
    """`updated_at` tells the log of every replica that the state which it remembers is not the stored one."""
    await conn.execute(
        "UPDATE rooms SET state = $2::text::json, updated_at = clock_timestamp() WHERE id = $1",
        room_id,
        dumps(state).decode(),
    )


def _rename(value: object, user_id: str) -> bool:
    """Rename a person everywhere in a state, in place; tells whether they were there."""
    found = False
    if isinstance(value, dict):
        if value.get("user_id") == user_id and "name" in value:
            value["name"] = DELETED_NAME
            found = True
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            found |= _rename(item, user_id)
    return found
