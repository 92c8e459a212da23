"""The use cases of the second factor and of step-up: proof, not older than a few minutes, that it is really the person.

What is dangerous (another address, another second factor, roles of others, erasure) asks for such a proof. A login is
one; `step_up` makes one later. Where there is a second factor, only its codes prove anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO

import pyotp
import segno

from modules.auth import authentication, sealing
from modules.auth import store as account_store
from modules.auth.errors import InvalidCredentials, NotConfirmed, SecondFactorExists
from modules.auth.hashing import check_own_password
from modules.auth.letters import requests
from modules.auth.second_factor import store
from modules.auth.second_factor.codes import STEP, accept, check_code
from server.actor import Actor
from server.database import Connection
from server.errors import NotFound
from server.runtime import Runtime

TRIES_RATE, TRIES_BURST = 1 / 30, 10  # codes tried while setting a factor up


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an authenticator app needs."""

    secret: str
    uri: str
    qr_svg: str


@dataclass(frozen=True, slots=True)
class Status:
    totp: bool
    recovery_codes_left: int


async def status(rt: Runtime, actor: Actor) -> Status:
    """Whether the actor has a second factor, and how many recovery codes are left."""
    async with rt.database.connection() as conn:
        return Status(
            await store.has_factor(conn, actor.user_id), await store.count_recovery_codes(conn, actor.user_id)
        )


async def begin_totp(rt: Runtime, actor: Actor) -> Enrolment:
    """Make a secret for an authenticator app; it is in force when a code of it was given (`confirm_totp`).

    Raises:
        NotConfirmed: the last proof is too old.
        SecondFactorExists: there is a factor in force.
    """
    await require_step_up(rt, actor)
    secret = pyotp.random_base32()
    sealed = sealing.seal(rt.settings, secret.encode(), actor.user_id)
    async with rt.database.transaction() as conn:
        user = await account_store.find_user(conn, actor.user_id)
        if not await store.save_unconfirmed(conn, actor.user_id, sealed, rt.clock.now()):
            raise SecondFactorExists
    name = user.email if user else str(actor.user_id)
    uri = pyotp.TOTP(secret, interval=STEP).provisioning_uri(name=name, issuer_name=rt.settings.auth.issuer)
    return Enrolment(secret, uri, await rt.cpu.run(_qr_svg, uri))


async def confirm_totp(rt: Runtime, actor: Actor, code: str) -> tuple[str, ...]:
    """Put the factor in force and give out recovery codes; the other sessions, which never showed it, end.

    Raises:
        NotConfirmed: the last proof is too old.
        NotFound: no factor is being set up.
        InvalidCredentials: the code is wrong.
        RateLimited: too many codes were tried.
    """
    rt.limits.take("confirm_totp", actor.user_id, rate=TRIES_RATE, burst=TRIES_BURST)
    await require_step_up(rt, actor)
    now = rt.clock.now()
    async with rt.database.transaction() as conn:
        await account_store.lock_user(conn, actor.user_id)
        factor = await store.lock_factor(conn, actor.user_id, confirmed=False)
        if factor is None:
            raise NotFound("No second factor is being set up. Begin with `POST /api/auth/mfa/totp`.")
        if not await accept(rt, conn, actor.user_id, factor, code):
            raise InvalidCredentials("The code is wrong. Check the clock of your device.")
        await store.confirm_factor(conn, actor.user_id, now)
        codes = await _replace_recovery_codes(conn, actor)
        ended = await account_store.revoke_sessions_of(conn, actor.user_id, "second_factor", now, but=actor.session_id)
        await requests.ask_for(conn, "second_factor_on", user_id=actor.user_id)
    authentication.forget(ended)
    return codes


async def remove_totp(rt: Runtime, actor: Actor) -> None:
    """Do without the second factor.

    Raises:
        NotConfirmed: the last proof is too old.
        NotFound: there is none.
    """
    await require_step_up(rt, actor)
    async with rt.database.transaction() as conn:
        await account_store.lock_user(conn, actor.user_id)
        if not await store.delete_factor(conn, actor.user_id):
            raise NotFound("This account has no second factor.")
        await requests.ask_for(conn, "second_factor_off", user_id=actor.user_id)


async def renew_recovery_codes(rt: Runtime, actor: Actor) -> tuple[str, ...]:
    """Give out new recovery codes; the old ones end.

    Raises:
        NotConfirmed: the last proof is too old.
        NotFound: there is no second factor.
    """
    await require_step_up(rt, actor)
    async with rt.database.transaction() as conn:
        await account_store.lock_user(conn, actor.user_id)
        if not await store.has_factor(conn, actor.user_id):
            raise NotFound("This account has no second factor.")
        return await _replace_recovery_codes(conn, actor)


async def step_up(rt: Runtime, actor: Actor, *, password: str | None, totp: str | None, ip: str) -> None:
    """Prove again who is asking: by a code where there is a second factor, by the password elsewhere.

    Raises:
        TotpRequired: there is a second factor and no code.
        InvalidCredentials: the code or password is wrong, or there is neither.
        RateLimited: too many were tried.
        Unavailable: too many passwords wait to be checked.
    """
    now = rt.clock.now()
    async with rt.database.transaction() as conn:
        needs_password = not await store.has_factor(conn, actor.user_id)
        refusal = None if needs_password else await check_code(rt, conn, actor.user_id, totp)
        if not needs_password and refusal is None:
            await store.prove_session(conn, actor.session_id, now)
    if refusal is not None:  # after the commit: the count of wrong codes stays
        raise refusal
    if needs_password:
        if password is None:
            raise InvalidCredentials("Give your password.")
        await check_own_password(rt, actor, password, ip=ip)
        async with rt.database.transaction() as conn:
            await store.prove_session(conn, actor.session_id, now)


async def require_step_up(rt: Runtime, actor: Actor) -> None:
    """Let only those go on who proved a moment ago that it is they.

    Raises:
        NotConfirmed: the last proof is older than `step_up_seconds`.
    """
    async with rt.database.connection() as conn:
        proof = await store.find_proof(conn, actor.user_id, actor.session_id)
    fresh = timedelta(seconds=rt.settings.auth.step_up_seconds)
    if proof is None or proof.proved_at is None or rt.clock.now() - proof.proved_at > fresh:
        raise NotConfirmed


async def require_fresh_factor(rt: Runtime, actor: Actor) -> None:
    """Let those with a second factor go on only after a proof a moment ago; others give their password anyway.

    Raises:
        NotConfirmed: there is a second factor and the last proof is older than `step_up_seconds`.
    """
    async with rt.database.connection() as conn:
        has_factor = await store.has_factor(conn, actor.user_id)
    if has_factor:
        await require_step_up(rt, actor)


async def confirm_identity(rt: Runtime, actor: Actor, password: str | None, *, ip: str = "") -> None:
    """Let the actor do what cannot be undone: by the password, or because of a proof a moment ago.

    With a second factor the password alone is not enough.

    Raises:
        NotConfirmed: the password is wrong, or there is no fresh proof.
        RateLimited: too many passwords were tried.
        Unavailable: too many passwords wait to be checked.
    """
    await (require_step_up if password is None else require_fresh_factor)(rt, actor)
    if password is not None:
        try:
            await check_own_password(rt, actor, password, ip=ip)
        except InvalidCredentials as error:
            raise NotConfirmed("The password is wrong.") from error


async def _replace_recovery_codes(conn: Connection, actor: Actor) -> tuple[str, ...]:
    codes = sealing.new_recovery_codes()
    await store.delete_recovery_codes(conn, actor.user_id)
    digests = [sealing.recovery_digest(actor.user_id, code) for code in codes]
    await store.insert_recovery_codes(conn, actor.user_id, digests)
    return codes


def _qr_svg(uri: str) -> str:
    image = BytesIO()
    segno.make(uri, error="m").save(image, kind="svg", scale=4, xmldecl=False, nl=False)
    return image.getvalue().decode()
