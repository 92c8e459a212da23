"""The use cases of accounts and sessions: register, login, refresh rotation, logout, sessions, a new password.

Letters, the second factor and the administration of accounts are packages of their own beside this file.
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
from modules.auth.hashing import check_own_password, hash_new_password, hash_password
from modules.auth.letters import requests
from modules.auth.letters import store as letter_store
from modules.auth.records import Credentials, ListedSession, NewSession, NewUser, Session, User
from modules.auth.schemas import UserSummary, email_key, normalise_email
from modules.auth.second_factor.codes import check_code
from modules.auth.tokens import RefreshToken
from server.actor import Actor, SiteRole
from server.database import Connection
from server.errors import Conflict, DomainError, NotFound, Unauthenticated
from server.metrics import USER_REGISTRATIONS
from server.runtime import Runtime
from server.settings import planted_bugs

LISTED_SESSIONS = 200


@dataclass(frozen=True, slots=True)
class Login:
    """The tokens of a session, as login and refresh hand them out."""

    access_token: str
    expires_in: int  # seconds
    refresh_token: str
    user: User


async def register(rt: Runtime, *, email: str, password: str, name: str) -> User:
    """Open an account for somebody who asks, and send a letter to verify the address.

    Where verification is required, a taken address looks like a free one: its owner gets a letter, the caller an
    answer about an account that does not exist.

    Raises:
        EmailTaken: there is an account with this address, or one that looks the same.
        WeakPassword: the password can be guessed.
        ValueError: `email` is not an address.
        Unavailable: too many passwords wait to be hashed.
    """
    hashed = await hash_new_password(rt, password, about=(email, name))
    new = _new_user(rt, email, hashed, name, "user", verified=False)
    async with rt.database.transaction() as conn:
        created = await store.insert_user(conn, new, rt.clock.now())
        if created:
            await requests.ask_for(conn, "verify", user_id=new.id)
        elif rt.settings.auth.require_verification:
            await requests.ask_for(conn, "already_registered", email=new.email)
        else:
            raise EmailTaken
    USER_REGISTRATIONS.inc(int(created))
    return User(new.id, new.email, name, None, new.role, new.verified)


async def create_user(
    rt: Runtime, *, email: str, password: str, name: str, role: SiteRole = "user", verified: bool = True
) -> User:
    """Create an account. The caller has checked name and password (schemas.py).

    Raises:
        EmailTaken: there is an account with this address.
        ValueError: `email` is not an address.
        Unavailable: too many passwords wait to be hashed.
    """
    new = _new_user(rt, email, await hash_password(rt, password), name, role, verified=verified)
    async with rt.database.transaction() as conn:
        if not await store.insert_user(conn, new, rt.clock.now()):
            raise EmailTaken
    return User(new.id, new.email, name, None, role, verified)


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
    new = _new_user(rt, email, password_hash, name, role, verified=verified)
    if await store.insert_user(conn, new, rt.clock.now()):
        return new.id
    existing = await store.find_user_id(conn, new.email)
    if existing is None:
        raise EmailTaken
    return existing


async def login(rt: Runtime, *, email: str, password: str, device: str, ip: str, totp: str | None = None) -> Login:
    """Begin a session.

    Raises:
        InvalidCredentials: no such account, wrong password, an account that may not sign in (all take the same work),
            or a wrong code.
        TotpRequired: the password is right, and a code is needed.
        RateLimited: too many wrong passwords or codes lately.
        Unavailable: too many passwords wait to be checked.
    """
    async with rt.limits.guess("login", ip, _account_name(email), wrong=InvalidCredentials):
        return await _login_once(rt, email, password, totp, device=device, ip=ip)


async def refresh(rt: Runtime, token: str) -> Login:
    """Give new tokens for a refresh token, and make it the old one.

    For `refresh_grace_seconds` after it was replaced an old token gets the current one again: many tabs at once end up
    with one token, and an answer that was lost is asked for again. Later it was copied: its session ends (RFC 9700
    section 4.14.2).

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


async def list_sessions(rt: Runtime, actor: Actor) -> list[ListedSession]:
    """The actor's sessions that live, the one used last first."""
    async with rt.database.connection() as conn:
        return await store.list_sessions(conn, actor.user_id, rt.clock.now(), limit=LISTED_SESSIONS)


async def find_session(rt: Runtime, actor: Actor, session_id: UUID) -> ListedSession:
    """One of the actor's sessions.

    Raises:
        NotFound: they have no such session, or it has ended.
    """
    for session in await list_sessions(rt, actor):
        if session.id == session_id:
            return session
    raise NotFound


async def end_session(rt: Runtime, actor: Actor, session_id: UUID) -> None:
    """End one of the actor's sessions, on whatever device.

    Raises:
        NotFound: they have no such session, or it has ended.
    """
    async with rt.database.transaction() as conn:
        if not await store.revoke_own_session(conn, actor.user_id, session_id, rt.clock.now()):
            raise NotFound
    authentication.forget([session_id])


async def end_other_sessions(rt: Runtime, actor: Actor) -> None:
    """End all sessions of the actor but the one that asks."""
    async with rt.database.transaction() as conn:
        ended = await store.revoke_sessions_of(conn, actor.user_id, "by_user", rt.clock.now(), but=actor.session_id)
    authentication.forget(ended)


async def change_password(rt: Runtime, actor: Actor, *, current: str, new: str, ip: str) -> None:
    """Set another password and end all other sessions. The caller has seen to a fresh second factor.

    Raises:
        InvalidCredentials: the current password is wrong.
        WeakPassword: the new one can be guessed.
        RateLimited: too many were tried.
        Conflict: it was changed in this moment by somebody else.
        Unavailable: too many passwords wait to be checked.
    """
    found = await check_own_password(rt, actor, current, ip=ip)
    hashed = await hash_new_password(rt, new, about=(found.user.email, found.user.name), field="new_password")
    now = rt.clock.now()
    async with rt.database.transaction() as conn:
        await store.lock_user(conn, actor.user_id)
        if not await store.hold_credentials(conn, actor.user_id, found.password_hash):
            raise Conflict("The password was changed in the meantime. Sign in with the new one.")
        await store.set_password_hash(conn, actor.user_id, hashed, now)
        await letter_store.spend_letters_of(conn, actor.user_id, ("reset",), now)
        ended = await store.revoke_sessions_of(conn, actor.user_id, "password", now, but=actor.session_id)
        await requests.ask_for(conn, "password_changed", user_id=actor.user_id)
    authentication.forget(ended)


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


def _new_user(rt: Runtime, email: str, hashed: str, name: str, role: SiteRole, *, verified: bool) -> NewUser:
    email = normalise_email(email)
    return NewUser(rt.clock.uuid7(), email, email_key(email), hashed, name, role, verified)


async def _login_once(rt: Runtime, email: str, password: str, totp: str | None, *, device: str, ip: str) -> Login:
    for _ in range(2):
        found, new_hash = await _check_password(rt, email, password)
        outcome = await _begin_session(rt, found, totp, device=device, ip=ip)
        if outcome is None:
            continue  # the password was changed or hashed anew between both
        if isinstance(outcome, DomainError):
            raise outcome
        if new_hash is not None:
            async with rt.database.connection() as conn:
                await store.replace_password_hash(conn, found.user.id, found.password_hash, new_hash)
        return outcome
    raise InvalidCredentials


async def _check_password(rt: Runtime, email: str, password: str) -> tuple[Credentials, str | None]:
    """The account of a right password and its new hash, if one is due; the work is the same for whoever is refused."""
    found = await _find_credentials(rt, email)
    stored = found.password_hash if found else None
    right, new_hash = await rt.cpu.run(passwords.verify_password, rt.settings.auth, stored, password)
    if found is None or found.disabled or not right:
        raise InvalidCredentials
    if rt.settings.auth.require_verification and not found.user.verified:
        raise InvalidCredentials  # to say why would tell a stranger that his registration was the first of this address
    return found, new_hash


def _account_name(email: str) -> str:
    """Under which name wrong passwords are counted: for what is no address too."""
    try:
        return normalise_email(email)
    except ValueError:
        return email


async def _find_credentials(rt: Runtime, email: str) -> Credentials | None:
    try:
        email = normalise_email(email)
    except ValueError:
        return None
    async with rt.database.connection() as conn:
        return await store.find_credentials(conn, email)


async def _begin_session(
    rt: Runtime, found: Credentials, totp: str | None, *, device: str, ip: str
) -> Login | DomainError | None:
    """Begin a session unless the second factor is missing; None when the password does not hold any more.

    Returned, not raised: an exception would roll the count of wrong codes back.
    """
    now = rt.clock.now()
    salt = os.urandom(tokens.SALT_LENGTH)
    session = NewSession(rt.clock.uuid7(), found.user.id, salt, _expiry(rt, now), device=device, ip=ip)
    async with rt.database.transaction() as conn:
        if not await store.hold_credentials(conn, found.user.id, found.password_hash):
            return None
        refusal = await check_code(rt, conn, found.user.id, totp)
        if refusal is not None:
            return refusal
        await store.insert_session(conn, session, now)
    return _login(rt, found.user, session.id, generation=1, salt=salt)


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
    elif not _in_grace(rt, session, presented, now) and "reuse-forgiven" not in planted_bugs():
        await store.revoke_session(conn, session.id, "reuse", now)
        return RefreshReused()
    return _login(rt, session.user, session.id, generation=generation, salt=session.salt)


def _in_grace(rt: Runtime, session: Session, presented: RefreshToken, now: datetime) -> bool:
    """Tell whether a token was replaced a moment ago; more than a few replacements in the grace are not known."""
    replaced = [session.rotated_at, *session.earlier_rotations]  # of the generation before the present one, and so on
    behind = session.generation - presented.generation
    if not 1 <= behind <= len(replaced):
        return False
    return now - replaced[behind - 1] <= timedelta(seconds=rt.settings.auth.refresh_grace_seconds)


def _expiry(rt: Runtime, now: datetime) -> datetime:
    return now + timedelta(seconds=rt.settings.auth.refresh_token_seconds)


def _login(rt: Runtime, user: User, session_id: UUID, *, generation: int, salt: bytes) -> Login:
    keys = tokens.keyring(rt.settings)
    access = keys.sign(user_id=user.id, session_id=session_id, token_id=rt.clock.uuid7(), now=rt.clock.unix())
    refresh = keys.refresh_token(session_id, generation, salt)
    return Login(access, rt.settings.auth.access_token_seconds, refresh, user)
