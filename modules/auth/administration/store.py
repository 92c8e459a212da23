"""SQL of the administration of accounts: one statement a function."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from modules.auth.records import Account, User
from server.actor import SiteRole
from server.database import Connection


async def list_accounts(
    conn: Connection, *, words: str | None, disabled: bool | None, after: UUID | None, limit: int
) -> list[Account]:
    """Accounts in the order of their making. `words` is a tsquery, e.g. `'ada':* & 'love':*`."""
    rows = await conn.fetch(
        """
        SELECT id, email, profile_data ->> 'name' AS name, profile_data ->> 'avatar_url' AS avatar_url, role,
               verified_at IS NOT NULL AS verified, disabled_at IS NOT NULL AS disabled, created_at
        FROM users
        WHERE ($1::text IS NULL OR search_vector @@ $1::tsquery)
          AND ($2::boolean IS NULL OR (disabled_at IS NOT NULL) = $2)
          AND ($3::uuid IS NULL OR id > $3)
        ORDER BY id LIMIT $4
        """,
        words,
        disabled,
        after,
        limit,
    )
    return [_account(row) for row in rows]


async def lock_accounts(conn: Connection, user_ids: list[UUID]) -> dict[UUID, Account]:
    """Read accounts and lock them in the order of their ids, so that two administrators cannot wait for each other."""
    rows = await conn.fetch(
        """
        SELECT id, email, profile_data ->> 'name' AS name, profile_data ->> 'avatar_url' AS avatar_url, role,
               verified_at IS NOT NULL AS verified, disabled_at IS NOT NULL AS disabled, created_at
        FROM users WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE
        """,
        user_ids,
    )
    return {row["id"]: _account(row) for row in rows}


async def change_account(conn: Connection, user_id: UUID, *, role: SiteRole, disabled: bool, now: datetime) -> None:
    """Set role and standing; an account that is disabled already keeps since when."""
    await conn.execute(
        """
        UPDATE users SET role = $2, updated_at = $4,
                         disabled_at = CASE WHEN $3::boolean THEN COALESCE(disabled_at, $4::timestamptz) END
        WHERE id = $1
        """,
        user_id,
        role,
        disabled,
        now,
    )


def _account(row: Any) -> Account:  # Any: asyncpg's record
    *user, disabled, created_at = row
    return Account(User(*user), disabled, created_at)
