"""SQL of letters with links: one statement a function. A token is known by its digest only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from modules.auth.records import Letter, NewLetter, Purpose
from server.database import Connection


async def save_letter(conn: Connection, letter: NewLetter, now: datetime) -> bool:
    """Keep a letter, or keep it for longer when it is sent once more; False when it was used in the meantime."""
    saved = await conn.fetchval(
        """
        INSERT INTO auth_letters (id, user_id, purpose, email, token_hash, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (id) DO UPDATE SET token_hash = $5, expires_at = $7 WHERE auth_letters.used_at IS NULL
        RETURNING true
        """,
        letter.id,
        letter.user_id,
        letter.purpose,
        letter.email,
        letter.token_hash,
        now,
        letter.expires_at,
    )
    return saved is not None


async def count_letters(conn: Connection, user_id: UUID, purpose: Purpose, since: datetime, but: UUID) -> int:
    """How many letters of a kind a user was sent since a moment, besides one."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM auth_letters WHERE user_id = $1 AND purpose = $2 AND created_at > $3 AND id <> $4",
        user_id,
        purpose,
        since,
        but,
    )
    return count


async def find_letter(conn: Connection, token_hash: bytes, purpose: Purpose, now: datetime) -> Letter | None:
    """The letter of a token that can still be used by an account that may sign in."""
    row = await conn.fetchrow(
        """
        SELECT l.id, l.user_id, l.email FROM auth_letters l JOIN users u ON u.id = l.user_id
        WHERE l.token_hash = $1 AND l.purpose = $2 AND l.used_at IS NULL AND l.expires_at > $3
          AND u.disabled_at IS NULL AND (l.email = u.email OR l.purpose = 'change')
        """,
        token_hash,
        purpose,
        now,
    )
    return Letter(*row) if row else None


async def take_code_attempt(conn: Connection, email: str, now: datetime, *, most: int) -> Letter | None:
    """Count one try at the code of the newest letter that verifies an address; None when there is none to try."""
    row = await conn.fetchrow(
        """
        UPDATE auth_letters SET code_attempts = code_attempts + 1
        WHERE id = (
            SELECT l.id FROM auth_letters l JOIN users u ON u.id = l.user_id
            WHERE u.email = $1 AND l.email = $1 AND l.purpose = 'verify' AND u.disabled_at IS NULL
            ORDER BY l.created_at DESC, l.id DESC LIMIT 1)
          AND used_at IS NULL AND expires_at > $2 AND code_attempts < $3
        RETURNING id, user_id, email
        """,
        email,
        now,
        most,
    )
    return Letter(*row) if row else None


async def spend_letter(conn: Connection, letter_id: UUID, now: datetime) -> bool:
    """Use a letter up; False when somebody was faster or it is too late."""
    spent = await conn.fetchval(
        "UPDATE auth_letters SET used_at = $2 WHERE id = $1 AND used_at IS NULL AND expires_at > $2 RETURNING true",
        letter_id,
        now,
    )
    return spent is not None


async def spend_letters_of(conn: Connection, user_id: UUID, purposes: Sequence[Purpose], now: datetime) -> None:
    """Use up all letters of these kinds that a user has."""
    await conn.execute(
        "UPDATE auth_letters SET used_at = $3 WHERE user_id = $1 AND purpose = ANY($2::text[]) AND used_at IS NULL",
        user_id,
        list(purposes),
        now,
    )


async def delete_old_letters(conn: Connection, before: datetime) -> None:
    await conn.execute("DELETE FROM auth_letters WHERE expires_at < $1", before)
