"""Asking for a letter: a durable event in the caller's transaction. Names an account or an address, never a token.

Whether the address has an account is found out when the letter is written (jobs.py), not by the request: the answer and
the time it takes are the same for any address.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from server import outbox
from server.database import Connection

EVENT = "auth.letter_requested"

Kind = Literal[
    "verify",
    "reset",
    "change",
    "already_registered",
    "password_changed",
    "email_changed",
    "second_factor_on",
    "second_factor_off",
]


async def ask_for(conn: Connection, kind: Kind, *, user_id: UUID | None = None, email: str | None = None) -> None:
    """Ask for a letter to an account, to whoever has an address, or (with both) to an account at another address."""
    await outbox.add(conn, EVENT, {"kind": kind, "user_id": str(user_id) if user_id else None, "email": email})
