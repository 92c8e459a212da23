"""What auth holds about a person: giving it out, and taking it away.

Secrets (the hash of the password, what refresh tokens are made of) are never given out: they say nothing about anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from modules.auth import authentication, store
from server.database import Connection

if TYPE_CHECKING:
    from server.module import AfterCommit
    from server.runtime import Runtime


async def export_user(rt: Runtime, conn: Connection, user_id: UUID) -> Mapping[str, Any]:
    """The account and its sessions."""
    return {
        "account": await store.read_account(conn, user_id),
        "sessions": await store.list_sessions_for_export(conn, user_id),
    }


async def erase_user(rt: Runtime, conn: Connection, user_id: UUID) -> AfterCommit:
    """Leave an account that nobody can sign in to and that says nothing, for what others refer to; end its sessions."""
    await store.anonymise_user(conn, user_id, f"deleted-{user_id}@deleted.invalid", rt.clock.now())
    await store.delete_factors_of(conn, user_id)
    ended = await store.delete_sessions_of(conn, user_id)
    return partial(_forget, ended)


async def _forget(session_ids: list[UUID]) -> None:
    authentication.forget(session_ids)
