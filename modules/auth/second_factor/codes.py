"""Checking a one-time code: an authenticator's (TOTP, RFC 6238) or a recovery code. Each works once."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from uuid import UUID

import pyotp

from modules.auth import sealing
from modules.auth.errors import InvalidCredentials, TotpRequired
from modules.auth.records import Factor
from modules.auth.second_factor import store
from server.database import Connection
from server.errors import DomainError, RateLimited
from server.runtime import Runtime

STEP = 30  # seconds
WINDOW = (0, -1, 1)  # steps by which the clocks of both sides may differ
# Whoever gets here knows the password. Ten tries in a row, then one each few minutes: a million codes are far away.
FREE_FAILURES = 10
FAILURE_PAUSE = timedelta(minutes=5)


async def check_code(rt: Runtime, conn: Connection, user_id: UUID, code: str | None) -> DomainError | None:
    """Check a code under the lock of the factor and spend it; None when it is right or none is needed.

    A refusal is returned and not raised, so that the caller's transaction keeps the count of wrong codes.
    """
    factor = await store.lock_factor(conn, user_id, confirmed=True)
    if factor is None:
        return None
    if code is None:
        return TotpRequired()
    now = rt.clock.now()
    if wait := _wait(factor, now):
        return RateLimited("Too many wrong codes. Wait before you try again.", retry_after=wait)
    if await accept(rt, conn, user_id, factor, code):
        return None
    if await store.spend_recovery_code(conn, user_id, sealing.recovery_digest(user_id, code), now):
        await store.count_failure(conn, user_id, 0, now)
        return None
    await store.count_failure(conn, user_id, factor.failures + 1, now)
    return InvalidCredentials("The code is wrong, or it was used before. Wait for the next one.")


async def accept(rt: Runtime, conn: Connection, user_id: UUID, factor: Factor, code: str) -> bool:
    """Spend the code of an authenticator; False when it is wrong or was spent."""
    opened = sealing.unseal(rt.settings, factor.secret, user_id)
    if opened is None:
        return False  # its key is gone; recovery codes still work
    secret, is_current = opened
    step = _matching_step(secret.decode(), code, rt.clock.unix())
    if step is None or step <= factor.last_step:
        return False
    await store.accept_step(conn, user_id, step)
    if not is_current:
        await store.reseal(conn, user_id, sealing.seal(rt.settings, secret, user_id))
    return True


def _matching_step(secret: str, code: str, now: float) -> int | None:
    """The time step that a code belongs to; every candidate is compared, whichever fits."""
    generator = pyotp.TOTP(secret, interval=STEP)
    plain = code.replace(" ", "").encode()
    steps = [int(now) // STEP + offset for offset in WINDOW]
    fitting = [step for step in steps if hmac.compare_digest(generator.generate_otp(step).encode(), plain)]
    return max(fitting, default=None)


def _wait(factor: Factor, now: datetime) -> float:
    """Seconds until another code may be tried."""
    if factor.failures < FREE_FAILURES or factor.failed_at is None:
        return 0.0
    return max(0.0, (factor.failed_at + FAILURE_PAUSE - now).total_seconds())
