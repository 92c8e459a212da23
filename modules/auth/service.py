"""The use cases of auth: accounts, login, refresh rotation, logout.

Passwords are hashed in `rt.cpu` while no connection is held. A session that was ended is forgotten by this replica at
once and by the others within authentication.REVOCATION_INTERVAL.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from modules.auth import authentication, passwords, store, tokens
from modules.auth.errors import EmailTaken, InvalidCredentials, RefreshReused
from modules.auth.schemas import UserSummary, normalise_email
from modules.auth.store import Credentials, NewSession, NewUser, Session, User
from modules.auth.tokens import RefreshToken
from server.actor import Actor, SiteRole
from server.database import Connection
from server.errors import DomainError, Unauthenticated
from server.metrics import USER_REGISTRATIONS
from server.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Login:
    """The tokens of a session, as login and refresh hand them out."""

    access_token: str
    expires_in: int  # seconds
    refresh_token: str
    user: User


async def register(rt: Runtime, *, email: str, password: str, name: str) -> User:
    """Open an account for somebody who asks; the address is not yet verified.

    Raises:
        EmailTaken: there is an account with this address.
        Unavailable: too many passwords wait to be hashed.
    """
    user = await create_user(rt, email=email, password=password, name=name, verified=False)
    USER_REGISTRATIONS.inc()
    return user


async def create_user(
    rt: Runtime, *, email: str, password: str, name: str, role: SiteRole = "user", verified: bool = True
) -> User:
    """Create an account. The caller has checked name and password (schemas.py).

    Raises:
        EmailTaken: there is an account with this address.
        ValueError: `email` is not an address.
        Unavailable: too many passwords wait to be hashed.
    """
    email = normalise_email(email)
    new = NewUser(rt.clock.uuid7(), email, await hash_password(rt, password), name, role, verified)
    async with rt.database.transaction() as conn:
        if not await store.insert_user(conn, new, rt.clock.now()):
            raise EmailTaken
    return User(new.id, email, name, None, role, verified)


async def ensure_user(
    rt: Runtime,
    conn: Connection,
    *,
    email: str,
    password_hash: str,
    name: str,
    role: SiteRole = "user",
    verified: bool = True,
) -> UUID:
    """Return the id of the account with this address; create it when there is none, leave it as it is otherwise.

    Takes a hash (`hash_password`), so that many accounts can share the work for one password.

    Raises:
        ValueError: `email` is not an address.
        EmailTaken: the account was there and was deleted in this moment.
    """
    email = normalise_email(email)
    new = NewUser(rt.clock.uuid7(), email, password_hash, name, role, verified)
    if await store.insert_user(conn, new, rt.clock.now()):
        return new.id
    existing = await store.find_user_id(conn, email)
    if existing is None:
        raise EmailTaken
    return existing


async def hash_password(rt: Runtime, password: str) -> str:
    """Hash a password for storing.

    Raises:
        Unavailable: too many wait already.
    """
    return await rt.cpu.run(passwords.hash_password, rt.settings.auth, password)


async def login(rt: Runtime, *, email: str, password: str, device: str, ip: str) -> Login:
    """Begin a session.

    Raises:
        InvalidCredentials: no such account, wrong password, or disabled account; all take the same work.
        Unavailable: too many passwords wait to be checked.
    """
    found = await _find_credentials(rt, email)
    stored = found.password_hash if found else None
    right, new_hash = await rt.cpu.run(passwords.verify_password, rt.settings.auth, stored, password)
    if found is None or found.disabled or not right:
        raise InvalidCredentials
    now = rt.clock.now()
    session = NewSession(
        rt.clock.uuid7(), found.user.id, os.urandom(tokens.SALT_LENGTH), _expiry(rt, now), device=device, ip=ip
    )
    async with rt.database.transaction() as conn:
        if new_hash is not None:
            await store.replace_password_hash(conn, found.user.id, found.password_hash, new_hash)
        await store.insert_session(conn, session, now)
    return _login(rt, found.user, session.id, generation=1, salt=session.salt)


async def refresh(rt: Runtime, token: str) -> Login:
    """Give new tokens for a refresh token, and make it the old one.

    The token before the current one gets the current one again for `refresh_grace_seconds` after it was replaced: many
    tabs at once end up with one token, and an answer that was lost is asked for again. Any older one, and that one
    later on, was copied: its session ends (RFC 9700 section 4.14.2).

    Raises:
        RefreshReused: an old token came back; the session has ended.
        Unauthenticated: not a token of ours, or its session or account has ended.
    """
    presented = tokens.parse_refresh_token(token)
    # Returned, not raised: an exception would roll the revocation back.
    async with rt.database.transaction() as conn:
        outcome = await _rotate(rt, conn, presented)
    if isinstance(outcome, DomainError):
        authentication.forget([presented.session_id])
        raise outcome
    return outcome


async def logout(rt: Runtime, actor: Actor) -> None:
    """End the actor's session."""
    async with rt.database.transaction() as conn:
        await store.revoke_session(conn, actor.session_id, "logout", rt.clock.now())
    authentication.forget([actor.session_id])


async def logout_all(rt: Runtime, actor: Actor) -> None:
    """End all sessions of the actor, this one too."""
    async with rt.database.transaction() as conn:
        ended = await store.revoke_sessions_of(conn, actor.user_id, "logout_all", rt.clock.now())
    authentication.forget([*ended, actor.session_id])


async def own_user(rt: Runtime, actor: Actor) -> User:
    """Read the actor's own account.

    Raises:
        Unauthenticated: it was deleted a moment ago.
    """
    async with rt.database.connection() as conn:
        user = await store.find_user(conn, actor.user_id)
    if user is None:
        raise Unauthenticated
    return user


async def summaries(conn: Connection, user_ids: Iterable[UUID]) -> dict[UUID, UserSummary]:
    """How users look to others; users that do not exist are missing."""
    rows = await store.read_summaries(conn, user_ids)
    return {user_id: UserSummary(id=user_id, name=name, avatar_url=avatar_url) for user_id, name, avatar_url in rows}


async def _find_credentials(rt: Runtime, email: str) -> Credentials | None:
    try:
        email = normalise_email(email)
    except ValueError:
        return None
    async with rt.database.connection() as conn:
        return await store.find_credentials(conn, email)


async def _rotate(rt: Runtime, conn: Connection, presented: RefreshToken) -> Login | DomainError:
    """Decide about a refresh token under the lock of its session."""
    session = await store.lock_session(conn, presented.session_id)
    now = rt.clock.now()
    if session is None or not tokens.keyring(rt.settings).is_genuine(presented, session.salt):
        return Unauthenticated()
    if session.revoked or session.disabled or session.expires_at <= now:
        return Unauthenticated()
    generation = session.generation
    if presented.generation == generation:
        generation += 1
        await store.rotate_session(conn, session.id, now=now, expires_at=_expiry(rt, now))
    elif not _in_grace(rt, session, presented, now):
        await store.revoke_session(conn, session.id, "reuse", now)
        return RefreshReused()
    return _login(rt, session.user, session.id, generation=generation, salt=session.salt)


def _in_grace(rt: Runtime, session: Session, presented: RefreshToken, now: datetime) -> bool:
    grace = timedelta(seconds=rt.settings.auth.refresh_grace_seconds)
    return presented.generation == session.generation - 1 and now - session.rotated_at <= grace


def _expiry(rt: Runtime, now: datetime) -> datetime:
    return now + timedelta(seconds=rt.settings.auth.refresh_token_seconds)


def _login(rt: Runtime, user: User, session_id: UUID, *, generation: int, salt: bytes) -> Login:
    keys = tokens.keyring(rt.settings)
    access = keys.sign(user_id=user.id, session_id=session_id, token_id=rt.clock.uuid7(), now=rt.clock.unix())
    refresh = keys.refresh_token(session_id, generation, salt)
    return Login(access, rt.settings.auth.access_token_seconds, refresh, user)
