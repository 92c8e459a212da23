"""What profile holds about a person, for an export and an erasure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from modules.profile import store
from server.database import Connection
from server.realtime.personal import DELETED_NAME

if TYPE_CHECKING:
    from server.runtime import Runtime


async def export_user(rt: Runtime, conn: Connection, user_id: UUID) -> Mapping[str, Any]:
    """Profile and preferences as they are stored."""
    stored = await store.read_stored(conn, user_id)
    return {"profile": stored.profile, "preferences": stored.preferences} if stored else {}


async def erase_user(rt: Runtime, conn: Connection, user_id: UUID) -> None:
    """Leave a name that tells nobody's."""
    now = rt.clock.now()
    await store.write_profile(conn, user_id, {"name": DELETED_NAME, "avatar_url": None}, now)
    await store.write_preferences(conn, user_id, {}, now)
