"""What the classroom holds about a person: memberships, and what they did in classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from modules.classroom import store
from modules.classroom.errors import SoleOwner
from server.database import Connection
from server.realtime.personal import lock_rooms_of, read_events_of, redact_user

if TYPE_CHECKING:
    from server.module import AfterCommit
    from server.runtime import Runtime


async def export_user(rt: Runtime, conn: Connection, user_id: UUID) -> Mapping[str, Any]:
    """Courses, rooms outside of courses, and all events of the room logs that are no messages."""
    events = await read_events_of(conn, user_id, messages=False)
    return {
        "courses": await store.list_own_courses(conn, user_id),
        "rooms": await store.list_own_rooms(conn, user_id),
        "events": [orjson.Fragment(event.json(rt.log.epoch)) for event in events],
    }


async def erase_user(rt: Runtime, conn: Connection, user_id: UUID) -> AfterCommit:
    """Take a person out of all courses and rooms and out of what the logs say; locks the rooms before anything else.

    Raises:
        SoleOwner: a course would be without an owner.
    """
    rooms = await lock_rooms_of(conn, user_id, await store.list_places(conn, user_id))
    await store.lock_courses_of(conn, user_id)
    if titles := await store.list_solely_owned(conn, user_id):
        raise SoleOwner(titles)
    await store.delete_memberships(conn, user_id)
    await redact_user(conn, user_id, rooms)
    return partial(_put_out, rt, user_id, rooms)


async def _put_out(rt: Runtime, user_id: UUID, rooms: Sequence[UUID]) -> None:
    for room_id in rooms:
        await rt.rooms.revoke(room_id, user_id, "forbidden")
