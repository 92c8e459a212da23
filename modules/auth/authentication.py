"""authenticate: from an access token to the Actor behind it, for the gateway and for every namespace.

A token says who signed in; PostgreSQL says whether that still holds. The answer of PostgreSQL is believed for
REVOCATION_INTERVAL, so that a revoked session or a disabled account ends everywhere within that time, and a renamed
user is seen. Without PostgreSQL nobody gets in on an older answer.

The cache is a variable of this file and not of Runtime, which holds no feature. It is keyed by the random ids of
sessions, so two databases in one process (tests) cannot mix.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from modules.auth import store, tokens
from modules.auth.records import Identity
from modules.auth.tokens import Claims
from server.actor import Actor
from server.errors import Unauthenticated
from server.runtime import Runtime

REVOCATION_INTERVAL = 2.0  # seconds (ARCHITECTURE.md section 5)
REMEMBERED_SESSIONS = 10_000
LAST_USE_PRECISION = 300.0  # seconds; a finer one would write a row for every few requests


@dataclass(slots=True)
class _Standing:
    """What PostgreSQL last said about a session; the lock lets one caller ask for all who wait."""

    identity: Identity | None = None
    asked_at: float = float("-inf")  # loop-independent, `time.monotonic`
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def is_fresh(self) -> bool:
        return time.monotonic() - self.asked_at < REVOCATION_INTERVAL


_standings: OrderedDict[UUID, _Standing] = OrderedDict()


async def authenticate(rt: Runtime, token: str) -> Actor:
    """Find out who sent an access token.

    Raises:
        SessionExpired: the token is over its time; a refresh token gets a new one.
        Unauthenticated: it is no token of ours, its session was ended, or its account is disabled.
        Unavailable: PostgreSQL cannot be asked.
    """
    claims = tokens.keyring(rt.settings).verify(token, now=rt.clock.unix())
    standing = _standing_of(claims.sid)
    if not standing.is_fresh():
        async with standing.lock:
            if not standing.is_fresh():
                await _ask(rt, standing, claims)
    return _actor(standing.identity, claims)


def forget(session_ids: Iterable[UUID]) -> None:
    """Drop what is known about sessions that were just ended, so that this replica does not wait for the interval.

    A question that is under way answers into an entry that nobody finds any more.
    """
    for session_id in session_ids:
        _standings.pop(session_id, None)


def clear() -> None:
    """Forget all sessions."""
    _standings.clear()


def _standing_of(session_id: UUID) -> _Standing:
    standing = _standings.setdefault(session_id, _Standing())
    _standings.move_to_end(session_id)
    if len(_standings) > REMEMBERED_SESSIONS:
        _standings.popitem(last=False)
    return standing


async def _ask(rt: Runtime, standing: _Standing, claims: Claims) -> None:
    asked_at = time.monotonic()  # before the question: the answer is at least as old
    now = rt.clock.now()
    async with rt.database.connection() as conn:
        identity = standing.identity = await store.find_identity(conn, claims.sid, now)
        if identity is not None and (now - identity.last_used_at).total_seconds() > LAST_USE_PRECISION:
            await store.touch_session(conn, claims.sid, now)
    standing.asked_at = asked_at


def _actor(identity: Identity | None, claims: Claims) -> Actor:
    if identity is None or identity.user_id != claims.sub:
        raise Unauthenticated
    return Actor(
        user_id=identity.user_id,
        name=identity.name,
        avatar_url=identity.avatar_url,
        role=identity.role,
        session_id=claims.sid,
        expires_at=float(claims.exp),
    )
