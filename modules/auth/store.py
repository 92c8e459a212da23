"""All SQL of auth: one statement a function. It decides nothing; times come from the caller's clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from server.actor import SiteRole
from server.database import Connection

RevokedWhy = Literal["logout", "logout_all", "reuse"]


@dataclass(frozen=True, slots=True)
class User:
    id: UUID
    email: str
    name: str
    avatar_url: str | None
    role: SiteRole
    verified: bool


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a login is checked against."""

    user: User
    password_hash: str
    disabled: bool


@dataclass(frozen=True, slots=True)
class NewUser:
    id: UUID
    email: str  # in its normal form (schemas.normalise_email)
    password_hash: str
    name: str
    role: SiteRole
    verified: bool


@dataclass(frozen=True, slots=True)
class NewSession:
    """A login; `device` and `ip` are shown to the user in the list of sessions."""

    id: UUID
    user_id: UUID
    salt: bytes
    expires_at: datetime
    device: str
    ip: str


@dataclass(frozen=True, slots=True)
class Session:
    """A login session under its lock, and its user."""

    user: User
    id: UUID
    salt: bytes
    generation: int
    rotated_at: datetime
    expires_at: datetime
    revoked: bool
    disabled: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """The person behind a session that lives."""

    user_id: UUID
    name: str
    avatar_url: str | None
    role: SiteRole


@dataclass(frozen=True, slots=True)
class Proof:
    """What shows that it is the owner of an account who asks."""

    password_hash: str
    signed_in_at: datetime  # of the session that asks


async def insert_user(conn: Connection, user: NewUser, now: datetime) -> bool:
    """Create an account; False when its address is taken."""
    created = await conn.fetchval(
        """
        INSERT INTO users (id, email, password_hash, role, verified_at, profile_data, created_at, updated_at)
        VALUES ($1, $2, $3, $4, CASE WHEN $5::boolean THEN $7::timestamptz END,
                jsonb_build_object('name', $6::text, 'avatar_url', NULL), $7, $7)
        ON CONFLICT (email) DO NOTHING
        RETURNING true
        """,
        user.id,
        user.email,
        user.password_hash,
        user.role,
        user.verified,
        user.name,
        now,
    )
    return created is not None


async def find_user(conn: Connection, user_id: UUID) -> User | None:
    row = await conn.fetchrow(
        """
        SELECT id, email, profile_data ->> 'name' AS name, profile_data ->> 'avatar_url' AS avatar_url, role,
               verified_at IS NOT NULL AS verified
        FROM users WHERE id = $1
        """,
        user_id,
    )
    return User(*row) if row else None


async def find_user_id(conn: Connection, email: str) -> UUID | None:
    user_id: UUID | None = await conn.fetchval("SELECT id FROM users WHERE email = $1", email)
    return user_id


async def find_credentials(conn: Connection, email: str) -> Credentials | None:
    row = await conn.fetchrow(
        """
        SELECT id, email, profile_data ->> 'name' AS name, profile_data ->> 'avatar_url' AS avatar_url, role,
               verified_at IS NOT NULL AS verified, password_hash, disabled_at IS NOT NULL AS disabled
        FROM users WHERE email = $1
        """,
        email,
    )
    if row is None:
        return None
    *user, password_hash, disabled = row
    return Credentials(User(*user), password_hash, disabled)


async def replace_password_hash(conn: Connection, user_id: UUID, old: str, new: str) -> None:
    """Store the same password under new parameters, unless the password was changed in the meantime."""
    await conn.execute(
        "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2",
        user_id,
        old,
        new,
    )


async def read_summaries(conn: Connection, user_ids: Iterable[UUID]) -> list[tuple[UUID, str, str | None]]:
    """(id, name, avatar_url) of those that exist."""
    rows = await conn.fetch(
        """
        SELECT id, profile_data ->> 'name' AS name, profile_data ->> 'avatar_url' AS avatar_url
        FROM users WHERE id = ANY($1::uuid[])
        """,
        list(user_ids),
    )
    return [(row["id"], row["name"], row["avatar_url"]) for row in rows]


async def insert_session(conn: Connection, session: NewSession, now: datetime) -> None:
    await conn.execute(
        """
        INSERT INTO auth_sessions (id, user_id, salt, generation, rotated_at, created_at, expires_at, device, ip)
        VALUES ($1, $2, $3, 1, $5, $5, $4, $6, $7)
        """,
        session.id,
        session.user_id,
        session.salt,
        session.expires_at,
        now,
        session.device,
        session.ip,
    )


async def lock_session(conn: Connection, session_id: UUID) -> Session | None:
    """Read a session and lock its row until the end of the transaction: rotations happen one after the other."""
    row = await conn.fetchrow(
        """
        SELECT u.id AS user_id, u.email, u.profile_data ->> 'name' AS name,
               u.profile_data ->> 'avatar_url' AS avatar_url, u.role, u.verified_at IS NOT NULL AS verified,
               s.id, s.salt, s.generation, s.rotated_at, s.expires_at, s.revoked_at IS NOT NULL AS revoked,
               u.disabled_at IS NOT NULL AS disabled
        FROM auth_sessions s JOIN users u ON u.id = s.user_id
        WHERE s.id = $1
        FOR UPDATE OF s
        """,
        session_id,
    )
    if row is None:
        return None
    fields = tuple(row)
    return Session(User(*fields[:6]), *fields[6:])


async def rotate_session(conn: Connection, session_id: UUID, *, now: datetime, expires_at: datetime) -> None:
    """Make the next generation the current one."""
    await conn.execute(
        "UPDATE auth_sessions SET generation = generation + 1, rotated_at = $2, expires_at = $3 WHERE id = $1",
        session_id,
        now,
        expires_at,
    )


async def revoke_session(conn: Connection, session_id: UUID, why: RevokedWhy, now: datetime) -> None:
    """End a session; one that has ended keeps its first reason."""
    await conn.execute(
        "UPDATE auth_sessions SET revoked_at = $3, revoked_why = $2 WHERE id = $1 AND revoked_at IS NULL",
        session_id,
        why,
        now,
    )


async def revoke_sessions_of(conn: Connection, user_id: UUID, why: RevokedWhy, now: datetime) -> list[UUID]:
    """End all sessions of a user and tell which."""
    rows = await conn.fetch(
        """
        UPDATE auth_sessions SET revoked_at = $3, revoked_why = $2
        WHERE user_id = $1 AND revoked_at IS NULL
        RETURNING id
        """,
        user_id,
        why,
        now,
    )
    return [row["id"] for row in rows]


async def read_live_sessions(conn: Connection, session_ids: Sequence[UUID], now: datetime) -> set[UUID]:
    """Of these sessions, those that live and whose user may sign in; the rule is that of `find_identity`."""
    rows = await conn.fetch(
        """
        SELECT s.id FROM auth_sessions s JOIN users u ON u.id = s.user_id
        WHERE s.id = ANY($1::uuid[]) AND s.revoked_at IS NULL AND s.expires_at > $2 AND u.disabled_at IS NULL
        """,
        session_ids,
        now,
    )
    return {row["id"] for row in rows}


async def find_identity(conn: Connection, session_id: UUID, now: datetime) -> Identity | None:
    """Whose session this is, if it lives and its user may sign in."""
    row = await conn.fetchrow(
        """
        SELECT u.id, u.profile_data ->> 'name' AS name, u.profile_data ->> 'avatar_url' AS avatar_url, u.role
        FROM auth_sessions s JOIN users u ON u.id = s.user_id
        WHERE s.id = $1 AND s.revoked_at IS NULL AND s.expires_at > $2 AND u.disabled_at IS NULL
        """,
        session_id,
        now,
    )
    return Identity(*row) if row else None


async def find_proof(conn: Connection, user_id: UUID, session_id: UUID) -> Proof | None:
    row = await conn.fetchrow(
        """
        SELECT u.password_hash, s.created_at FROM users u JOIN auth_sessions s ON s.user_id = u.id
        WHERE u.id = $1 AND s.id = $2
        """,
        user_id,
        session_id,
    )
    return Proof(*row) if row else None


async def read_account(conn: Connection, user_id: UUID) -> dict[str, Any] | None:
    """What an account says about its owner."""
    row = await conn.fetchrow(
        "SELECT id, email, role, verified_at, created_at, updated_at FROM users WHERE id = $1", user_id
    )
    return dict(row) if row else None


async def list_sessions_for_export(conn: Connection, user_id: UUID) -> list[dict[str, Any]]:
    """The sessions of a user, ended ones too, oldest first."""
    rows = await conn.fetch(
        """
        SELECT id, device, ip, created_at, rotated_at AS last_used_at, expires_at, revoked_at, revoked_why
        FROM auth_sessions WHERE user_id = $1 ORDER BY created_at, id
        """,
        user_id,
    )
    return [dict(row) for row in rows]


async def anonymise_user(conn: Connection, user_id: UUID, email: str, now: datetime) -> None:
    """Empty an account but for its id, under an address that is nobody's; no password fits it any more."""
    await conn.execute(
        """
        UPDATE users SET email = $2, password_hash = '', role = 'user', verified_at = NULL, disabled_at = $3,
                         updated_at = $3
        WHERE id = $1
        """,
        user_id,
        email,
        now,
    )


async def delete_sessions_of(conn: Connection, user_id: UUID) -> list[UUID]:
    """Remove all sessions of a user, with the devices and addresses that they name, and tell which."""
    rows = await conn.fetch("DELETE FROM auth_sessions WHERE user_id = $1 RETURNING id", user_id)
    return [row["id"] for row in rows]
