"""What auth does without being asked: sending letters, and sweeping out what ended long ago."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from modules.auth import store
from modules.auth.letters import store as letter_store
from modules.auth.letters.requests import EVENT
from modules.auth.letters.writing import Request, write_letter
from server.mail import send
from server.module import Periodic
from server.outbox import Consumer, Delivery
from server.runtime import Runtime

SWEEP_INTERVAL = 3600.0  # seconds
SWEPT_AT_ONCE = 1000  # rows, so that no transaction is long
LETTERS_KEPT = timedelta(days=1)  # after they ran out: they count as sent


async def send_letter(rt: Runtime, delivery: Delivery) -> None:
    """Write and send the letter that an event asks for; again, the same letter goes out again."""
    data = delivery.data
    user_id = UUID(data["user_id"]) if data["user_id"] else None
    letter = await write_letter(rt, Request(delivery.id, data["kind"], user_id, data["email"]))
    if letter is not None:
        await send(rt.settings, letter, rt.clock.now())


async def sweep(rt: Runtime) -> None:
    """Remove sessions and letters that ended long ago."""
    now = rt.clock.now()
    before = now - timedelta(seconds=rt.settings.auth.session_retention_seconds)
    removed = SWEPT_AT_ONCE
    while removed == SWEPT_AT_ONCE:
        async with rt.database.connection() as conn:
            removed = await store.delete_old_sessions(conn, before, limit=SWEPT_AT_ONCE)
    async with rt.database.connection() as conn:
        await letter_store.delete_old_letters(conn, now - LETTERS_KEPT)


CONSUMERS = (Consumer("auth.send_letter", EVENT, send_letter),)
PERIODIC = (Periodic("auth sweep", SWEEP_INTERVAL, sweep),)
