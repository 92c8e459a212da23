"""SQL of accounts and sessions: one statement a function. It decides nothing; times come from the caller's clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from modules.auth.records import (
    Credentials,
    Identity,
    ListedSession,
    NewSession,
    NewUser,
    RevokedWhy,
    Session,
    User,
)
from server.database import Connection


async def insert_user(conn: Connection, user: NewUser, now: datetime) -> bool:
    """Create an account; False when its address is taken, or one that looks the same."""
    created = await conn.fetchval(
        """
        INSERT INTO users (id, email, password_hash, role, verified_at, profile_data, created_at, updated_at, email_key)
        VALUES ($1, $2, $3, $4, CASE WHEN $5::boolean THEN $7::timestamptz END,
                jsonb_build_object('name', $6::text, 'avatar_url', NULL), $7, $7, $8)
        ON CONFLICT DO NOTHING
        RETURNING true
        """,
        user.id,
        user.email,
        user.password_hash,
        user.role,
        user.verified,
        user.name,
        now,
        user.email_key,
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
        INSERT INTO auth_sessions (id, user_id, salt, generation, rotated_at, created_at, expires_at, device, ip,
                                   last_used_at, proved_at)
        VALUES ($1, $2, $3, 1, $5, $5, $4, $6, $7, $5, $5)
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
               s.id, s.salt, s.generation, s.rotated_at, s.earlier_rotations, s.expires_at,
               s.revoked_at IS NOT NULL AS revoked, u.disabled_at IS NOT NULL AS disabled
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
    """Make the next generation the current one; remember when the last few were replaced."""
    await conn.execute(
        """
        UPDATE auth_sessions SET generation = generation + 1, rotated_at = $2, expires_at = $3, last_used_at = $2,
                                 earlier_rotations = (ARRAY[rotated_at] || earlier_rotations)[1:8]
        WHERE id = $1
        """,
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


async def revoke_sessions_of(
    conn: Connection, user_id: UUID, why: RevokedWhy, now: datetime, *, but: UUID | None = None
) -> list[UUID]:
    """End all sessions of a user, except one if it is named, and tell which."""
    rows = await conn.fetch(
        """
        UPDATE auth_sessions SET revoked_at = $3, revoked_why = $2
        WHERE user_id = $1 AND revoked_at IS NULL AND id IS DISTINCT FROM $4
        RETURNING id
        """,
        user_id,
        why,
        now,
        but,
    )
    return [row["id"] for row in rows]


async def revoke_own_session(conn: Connection, user_id: UUID, session_id: UUID, now: datetime) -> bool:
    """End one session of a user; False when they have no such session that lives."""
    ended = await conn.fetchval(
        """
        UPDATE auth_sessions SET revoked_at = $3, revoked_why = 'by_user'
        WHERE id = $2 AND user_id = $1 AND revoked_at IS NULL AND expires_at > $3
        RETURNING true
        """,
        user_id,
        session_id,
        now,
    )
    return ended is not None


async def list_sessions(conn: Connection, user_id: UUID, now: datetime, *, limit: int) -> list[ListedSession]:
    """The sessions of a user that live, the one used last first."""
    rows = await conn.fetch(
        """
        SELECT id, device, ip, created_at, COALESCE(last_used_at, rotated_at) AS last_used_at, expires_at
        FROM auth_sessions WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2
        ORDER BY COALESCE(last_used_at, rotated_at) DESC, id DESC LIMIT $3
        """,
        user_id,
        now,
        limit,
    )
    return [ListedSession(*row) for row in rows]


async def touch_session(conn: Connection, session_id: UUID, now: datetime) -> None:
    """Note that a session is used; without waiting for anybody who is working on it."""
    await conn.execute(
        """
        UPDATE auth_sessions SET last_used_at = $2
        WHERE id = (SELECT id FROM auth_sessions WHERE id = $1 FOR UPDATE SKIP LOCKED)
        """,
        session_id,
        now,
    )


async def delete_old_sessions(conn: Connection, before: datetime, *, limit: int) -> int:
    """Remove sessions that ended before a moment, at most so many; those that another replica removes are skipped."""
    rows = await conn.fetch(
        """
        DELETE FROM auth_sessions WHERE id IN (
            SELECT id FROM auth_sessions WHERE expires_at < $1 OR revoked_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)
        RETURNING id
        """,
        before,
        limit,
    )
    return len(rows)


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
        SELECT u.id, u.profile_data ->> 'name' AS name, u.profile_data ->> 'avatar_url' AS avatar_url, u.role,
               COALESCE(s.last_used_at, s.rotated_at) AS last_used_at
        FROM auth_sessions s JOIN users u ON u.id = s.user_id
        WHERE s.id = $1 AND s.revoked_at IS NULL AND s.expires_at > $2 AND u.disabled_at IS NULL
        """,
        session_id,
        now,
    )
    return Identity(*row) if row else None


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
        SELECT id, device, ip, created_at, COALESCE(last_used_at, rotated_at) AS last_used_at, expires_at, revoked_at,
               revoked_why
        FROM auth_sessions WHERE user_id = $1 ORDER BY created_at, id
        """,
        user_id,
    )
    return [dict(row) for row in rows]


async def anonymise_user(conn: Connection, user_id: UUID, email: str, now: datetime) -> None:
    """Empty an account but for its id, under an address that is nobody's; no password fits it any more."""
    await conn.execute(
        """
        UPDATE users SET email = $2, email_key = NULL, password_hash = '', role = 'user',
                         verified_at = NULL, disabled_at = $3, updated_at = $3
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


async def delete_factors_of(conn: Connection, user_id: UUID) -> None:
    """Remove second factor, recovery codes and letters of a user."""
    await conn.execute(
        """
        WITH letters AS (DELETE FROM auth_letters WHERE user_id = $1),
             codes AS (DELETE FROM auth_recovery_codes WHERE user_id = $1)
        DELETE FROM auth_totp WHERE user_id = $1
        """,
        user_id,
    )


async def lock_user(conn: Connection, user_id: UUID) -> bool:
    """Lock an account until the end of the transaction, before anything else of it; False when there is none."""
    return await conn.fetchval("SELECT true FROM users WHERE id = $1 FOR UPDATE", user_id) is not None


async def hold_credentials(conn: Connection, user_id: UUID, password_hash: str) -> bool:
    """Tell whether an account still has this password and may sign in, and keep that so until the transaction ends."""
    held = await conn.fetchval(
        "SELECT true FROM users WHERE id = $1 AND password_hash = $2 AND disabled_at IS NULL FOR SHARE",
        user_id,
        password_hash,
    )
    return held is not None


async def find_credentials_of(conn: Connection, user_id: UUID) -> Credentials | None:
    row = await conn.fetchrow(
        """
        SELECT id, email, profile_data ->> 'name' AS name, profile_data ->> 'avatar_url' AS avatar_url, role,
               verified_at IS NOT NULL AS verified, password_hash, disabled_at IS NOT NULL AS disabled
        FROM users WHERE id = $1
        """,
        user_id,
    )
    if row is None:
        return None
    *user, password_hash, disabled = row
    return Credentials(User(*user), password_hash, disabled)


async def set_password_hash(conn: Connection, user_id: UUID, new: str, now: datetime) -> None:
    await conn.execute("UPDATE users SET password_hash = $2, updated_at = $3 WHERE id = $1", user_id, new, now)


async def verify_user(conn: Connection, user_id: UUID, now: datetime) -> None:
    """Note that the address is its owner's; the first time counts."""
    await conn.execute(
        "UPDATE users SET verified_at = COALESCE(verified_at, $2), updated_at = $2 WHERE id = $1", user_id, now
    )


async def is_email_taken(conn: Connection, email: str, key: str | None) -> bool:
    """Tell whether somebody has this address, or one that looks the same."""
    found = await conn.fetchval(
        "SELECT true FROM users WHERE COALESCE(email_key, email) = COALESCE($2, $1) LIMIT 1", email, key
    )
    return found is not None


async def set_email(conn: Connection, user_id: UUID, email: str, key: str | None, now: datetime) -> None:
    """Give an account another address, which has been shown to be its owner's.

    Raises:
        UniqueViolationError: somebody else got it in the meantime.
    """
    await conn.execute(
        "UPDATE users SET email = $2, email_key = $3, verified_at = $4, updated_at = $4 WHERE id = $1",
        user_id,
        email,
        key,
        now,
    )
