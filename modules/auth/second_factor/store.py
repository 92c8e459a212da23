"""SQL of second factors, recovery codes and proofs: one statement a function."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from modules.auth.records import Factor, Proof
from server.database import Connection


async def find_proof(conn: Connection, user_id: UUID, session_id: UUID) -> Proof | None:
    row = await conn.fetchrow(
        """
        SELECT u.password_hash, s.proved_at,
               EXISTS (SELECT FROM auth_totp t WHERE t.user_id = u.id AND t.confirmed_at IS NOT NULL) AS second_factor
        FROM users u JOIN auth_sessions s ON s.user_id = u.id
        WHERE u.id = $1 AND s.id = $2
        """,
        user_id,
        session_id,
    )
    return Proof(*row) if row else None


async def prove_session(conn: Connection, session_id: UUID, now: datetime) -> None:
    """Note that the person behind a session gave a password or a code."""
    await conn.execute("UPDATE auth_sessions SET proved_at = $2, last_used_at = $2 WHERE id = $1", session_id, now)


async def has_factor(conn: Connection, user_id: UUID) -> bool:
    found = await conn.fetchval("SELECT true FROM auth_totp WHERE user_id = $1 AND confirmed_at IS NOT NULL", user_id)
    return found is not None


async def count_recovery_codes(conn: Connection, user_id: UUID) -> int:
    """How many can still be used."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM auth_recovery_codes WHERE user_id = $1 AND used_at IS NULL", user_id
    )
    return count


async def save_unconfirmed(conn: Connection, user_id: UUID, secret: bytes, now: datetime) -> bool:
    """Keep a sealed secret that is not in force yet, instead of an earlier one; False when one is in force."""
    saved = await conn.fetchval(
        """
        INSERT INTO auth_totp (user_id, secret, created_at) VALUES ($1, $2, $3)
        ON CONFLICT (user_id) DO UPDATE SET secret = $2, created_at = $3, last_step = 0, failures = 0, failed_at = NULL
        WHERE auth_totp.confirmed_at IS NULL
        RETURNING true
        """,
        user_id,
        secret,
        now,
    )
    return saved is not None


async def lock_factor(conn: Connection, user_id: UUID, *, confirmed: bool) -> Factor | None:
    """Read a factor and lock it until the end of the transaction: a code is checked by one at a time."""
    row = await conn.fetchrow(
        """
        SELECT secret, last_step, failures, failed_at FROM auth_totp
        WHERE user_id = $1 AND (confirmed_at IS NOT NULL) = $2 FOR UPDATE
        """,
        user_id,
        confirmed,
    )
    return Factor(*row) if row else None


async def confirm_factor(conn: Connection, user_id: UUID, now: datetime) -> None:
    await conn.execute("UPDATE auth_totp SET confirmed_at = $2 WHERE user_id = $1", user_id, now)


async def accept_step(conn: Connection, user_id: UUID, step: int) -> None:
    """Note that the code of a time step was used: it and all before it are spent."""
    await conn.execute("UPDATE auth_totp SET last_step = $2, failures = 0 WHERE user_id = $1", user_id, step)


async def reseal(conn: Connection, user_id: UUID, secret: bytes) -> None:
    await conn.execute("UPDATE auth_totp SET secret = $2 WHERE user_id = $1", user_id, secret)


async def count_failure(conn: Connection, user_id: UUID, failures: int, now: datetime) -> None:
    await conn.execute("UPDATE auth_totp SET failures = $2, failed_at = $3 WHERE user_id = $1", user_id, failures, now)


async def delete_factor(conn: Connection, user_id: UUID) -> bool:
    """Remove the factor with its recovery codes; False when there is none."""
    removed = await conn.fetchval(
        """
        WITH codes AS (DELETE FROM auth_recovery_codes WHERE user_id = $1)
        DELETE FROM auth_totp WHERE user_id = $1 AND confirmed_at IS NOT NULL RETURNING true
        """,
        user_id,
    )
    return removed is not None


async def delete_recovery_codes(conn: Connection, user_id: UUID) -> None:
    await conn.execute("DELETE FROM auth_recovery_codes WHERE user_id = $1", user_id)


async def insert_recovery_codes(conn: Connection, user_id: UUID, digests: Sequence[bytes]) -> None:
    await conn.execute(
        "INSERT INTO auth_recovery_codes (user_id, code_hash) SELECT $1, unnest($2::bytea[])", user_id, list(digests)
    )


async def spend_recovery_code(conn: Connection, user_id: UUID, code_hash: bytes, now: datetime) -> bool:
    """Use a recovery code up; False when there is no such one any more."""
    spent = await conn.fetchval(
        """
        UPDATE auth_recovery_codes SET used_at = $3
        WHERE user_id = $1 AND code_hash = $2 AND used_at IS NULL RETURNING true
        """,
        user_id,
        code_hash,
        now,
    )
    return spent is not None
