"""What chat holds about a person: their messages, and how far they have read.

That messages become tombstones when a person is erased is the work of the room log, which the classroom asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from modules.chat import store
from server.database import Connection
from server.realtime.personal import read_events_of

if TYPE_CHECKING:
    from server.runtime import Runtime


async def export_user(rt: Runtime, conn: Connection, user_id: UUID) -> Mapping[str, Any]:
    """The person's messages by room, also in rooms that they have left, as they stand in the log; and read marks."""
    messages = await read_events_of(conn, user_id, messages=True)
    names = await store.read_room_names(conn, {message.room_id for message in messages})
    rooms = [
        {
            "id": room_id,
            "name": names.get(room_id),
            "messages": [orjson.Fragment(message.json(rt.log.epoch)) for message in found],
        }
        for room_id, found in groupby(messages, key=lambda message: message.room_id)
    ]
    return {"rooms": rooms, "read_marks": await store.list_read_marks(conn, user_id)}


async def erase_user(rt: Runtime, conn: Connection, user_id: UUID) -> None:
    await store.delete_read_marks(conn, user_id)
