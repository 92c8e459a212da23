"""What auth holds about a person: giving it out, taking it away, and making sure that it is the person who asks.

Secrets (the hash of the password, what refresh tokens are made of) are never given out: they say nothing about anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from modules.auth import authentication, passwords, store
from modules.auth.errors import NotConfirmed
from server.actor import Actor
from server.database import Connection

if TYPE_CHECKING:
    from server.module import AfterCommit
    from server.runtime import Runtime

FRESH_LOGIN = timedelta(minutes=5)
# Guesses at a password by whoever holds a stolen access token; for each user and replica.
GUESS_RATE, GUESS_BURST = 1 / 60, 5


async def confirm_identity(rt: Runtime, actor: Actor, password: str | None) -> None:
    """Let the actor do what cannot be undone: by the password, or because they signed in a moment ago.

    Raises:
        NotConfirmed: the password is wrong, or there is none and the login is older than FRESH_LOGIN.
        RateLimited: too many passwords were tried.
        Unavailable: too many passwords wait to be checked.
    """
    async with rt.database.connection() as conn:
        proof = await store.find_proof(conn, actor.user_id, actor.session_id)
    if proof is None:
        raise NotConfirmed
    if password is None:
        if rt.clock.now() - proof.signed_in_at > FRESH_LOGIN:
            raise NotConfirmed
        return
    rt.limits.take("confirm_identity", actor.user_id, rate=GUESS_RATE, burst=GUESS_BURST)
    right, _ = await rt.cpu.run(passwords.verify_password, rt.settings.auth, proof.password_hash, password)
    if not right:
        raise NotConfirmed("The password is wrong.")


async def export_user(rt: Runtime, conn: Connection, user_id: UUID) -> Mapping[str, Any]:
    """The account and its sessions."""
    return {
        "account": await store.read_account(conn, user_id),
        "sessions": await store.list_sessions_for_export(conn, user_id),
    }


async def erase_user(rt: Runtime, conn: Connection, user_id: UUID) -> AfterCommit:
    """Leave an account that nobody can sign in to and that says nothing, for what others refer to; end its sessions."""
    await store.anonymise_user(conn, user_id, f"deleted-{user_id}@deleted.invalid", rt.clock.now())
    ended = await store.delete_sessions_of(conn, user_id)
    return partial(_forget, ended)


async def _forget(session_ids: list[UUID]) -> None:
    authentication.forget(session_ids)
