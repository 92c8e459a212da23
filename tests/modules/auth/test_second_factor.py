from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pyotp
import pytest
from aiohttp import ClientSession

from modules.auth import authenticate, confirm_identity, service
from modules.auth.errors import InvalidCredentials, NotConfirmed, SecondFactorExists, TotpRequired
from modules.auth.second_factor import codes
from modules.auth.second_factor import service as factor
from modules.auth.service import Login
from server.actor import Actor
from server.errors import DomainError, NotFound, RateLimited, Unauthenticated
from server.runtime import Runtime
from tests.modules.auth.conftest import EMAIL, PASSWORD, Mailbox

Later = Callable[[float], Runtime]
Configured = Callable[..., Runtime]
HERE = "127.0.0.1"


async def sign_in(rt: Runtime, totp: str | None = None, *, password: str = PASSWORD, ip: str = HERE) -> Login:
    return await service.login(rt, email=EMAIL, password=password, device="tests", ip=ip, totp=totp)


def code(rt: Runtime, secret: str, steps: int = 0) -> str:
    """What an authenticator shows, so many steps from now."""
    return str(pyotp.TOTP(secret).generate_otp(int(rt.clock.unix()) // codes.STEP + steps))


@pytest.fixture
async def enrolled(rt: Runtime, actor: Actor) -> tuple[str, tuple[str, ...]]:
    """Ada with a second factor: its secret and the recovery codes."""
    enrolment = await factor.begin_totp(rt, actor)
    return enrolment.secret, await factor.confirm_totp(rt, actor, code(rt, enrolment.secret, -1))


async def test_enrolment_shows_one_secret_in_three_forms(rt: Runtime, actor: Actor) -> None:
    enrolment = await factor.begin_totp(rt, actor)
    uri = pyotp.parse_uri(enrolment.uri)
    assert (uri.secret, uri.name, uri.issuer) == (enrolment.secret, EMAIL, rt.settings.auth.issuer)
    assert enrolment.qr_svg.startswith("<svg ")
    assert enrolment.qr_svg.endswith("</svg>")


async def test_secret_is_stored_sealed_and_codes_hashed(rt: Runtime, enrolled: tuple[str, tuple[str, ...]]) -> None:
    secret, recovery = enrolled
    async with rt.database.connection() as conn:
        sealed = await conn.fetchval("SELECT secret FROM auth_totp")
        hashes = [row["code_hash"] for row in await conn.fetch("SELECT code_hash FROM auth_recovery_codes")]
    assert secret.encode() not in sealed
    assert len(hashes) == len(set(recovery)) == 10
    assert not any(written.replace("-", "").encode() in stored for written in recovery for stored in hashes)


async def test_unconfirmed_factor_is_not_asked_for(rt: Runtime, actor: Actor) -> None:
    await factor.begin_totp(rt, actor)
    await sign_in(rt)
    assert not (await factor.status(rt, actor)).totp


async def test_beginning_again_replaces_the_secret(rt: Runtime, actor: Actor) -> None:
    first, second = await factor.begin_totp(rt, actor), await factor.begin_totp(rt, actor)
    with pytest.raises(InvalidCredentials):
        await factor.confirm_totp(rt, actor, code(rt, first.secret))
    await factor.confirm_totp(rt, actor, code(rt, second.secret))
    with pytest.raises(SecondFactorExists):
        await factor.begin_totp(rt, actor)


async def test_confirming_nothing_is_not_found(rt: Runtime, actor: Actor) -> None:
    with pytest.raises(NotFound):
        await factor.confirm_totp(rt, actor, "123456")


async def test_confirming_ends_the_sessions_that_never_showed_it(
    rt: Runtime, signed_in: Login, actor: Actor, mailbox: Mailbox
) -> None:
    other = await sign_in(rt)
    enrolment = await factor.begin_totp(rt, actor)
    await factor.confirm_totp(rt, actor, code(rt, enrolment.secret))
    with pytest.raises(Unauthenticated):
        await authenticate(rt, other.access_token)
    await authenticate(rt, signed_in.access_token)
    await mailbox.letter("A second factor was set up")


async def test_login_asks_for_a_code_only_after_the_right_password(rt: Runtime, enrolled: Any) -> None:
    with pytest.raises(TotpRequired):
        await sign_in(rt)
    with pytest.raises(InvalidCredentials):
        await sign_in(rt, password="wrong password")
    with pytest.raises(InvalidCredentials):
        await sign_in(rt, "000000", password="wrong password")


async def test_code_signs_in_once(rt: Runtime, enrolled: Any) -> None:
    now = code(rt, enrolled[0])
    outcomes = await asyncio.gather(*(sign_in(rt, now) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(outcome, Login) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, InvalidCredentials) for outcome in outcomes) == 4


async def test_code_of_the_enrolment_is_spent(rt: Runtime, actor: Actor) -> None:
    enrolment = await factor.begin_totp(rt, actor)
    shown = code(rt, enrolment.secret)
    await factor.confirm_totp(rt, actor, shown)
    with pytest.raises(InvalidCredentials):
        await sign_in(rt, shown)


async def test_clocks_may_differ_by_one_step(rt: Runtime, later: Later, enrolled: Any) -> None:
    for far in (-2, 2):
        with pytest.raises(InvalidCredentials):
            await sign_in(later(600), code(later(600), enrolled[0], far))
    await sign_in(later(600), code(later(600), enrolled[0], -1))
    await sign_in(later(600), code(later(600), enrolled[0], 1))
    with pytest.raises(InvalidCredentials):  # older than one that was used
        await sign_in(later(600), code(later(600), enrolled[0]))


async def test_recovery_code_signs_in_once_however_it_is_written(rt: Runtime, actor: Actor, enrolled: Any) -> None:
    await sign_in(rt, enrolled[1][0])
    with pytest.raises(InvalidCredentials):
        await sign_in(rt, enrolled[1][0])
    await sign_in(rt, enrolled[1][1].replace("-", " ").upper())
    assert (await factor.status(rt, actor)).recovery_codes_left == 8


async def test_many_wrong_codes_from_anywhere_are_stopped(rt: Runtime, later: Later, enrolled: Any) -> None:
    for number in range(codes.FREE_FAILURES):
        with pytest.raises(InvalidCredentials):
            await sign_in(rt, "000000", ip=f"10.0.0.{number}")
    with pytest.raises(RateLimited) as caught:
        await sign_in(rt, code(rt, enrolled[0]), ip="10.0.1.1")
    assert 0 < (caught.value.retry_after or 0) <= codes.FAILURE_PAUSE.total_seconds()
    await sign_in(later(301), code(later(301), enrolled[0]), ip="10.0.1.1")


async def test_secret_survives_a_change_of_the_installation_secret(
    rt: Runtime, configured: Configured, enrolled: Any
) -> None:
    changed = configured(secret="n" * 40, previous_secrets=(rt.settings.secret,))
    await sign_in(changed, code(rt, enrolled[0]))
    forgotten = configured(secret="n" * 40, previous_secrets=())
    await sign_in(forgotten, code(rt, enrolled[0], 1))  # sealed anew when it was used


async def test_removal_ends_factor_and_codes(rt: Runtime, actor: Actor, enrolled: Any, mailbox: Mailbox) -> None:
    await factor.remove_totp(rt, actor)
    await sign_in(rt)
    assert await factor.status(rt, actor) == factor.Status(totp=False, recovery_codes_left=0)
    await mailbox.letter("Your second factor was removed")
    with pytest.raises(NotFound):
        await factor.remove_totp(rt, actor)


async def test_new_recovery_codes_replace_the_old(rt: Runtime, actor: Actor, enrolled: Any) -> None:
    new = await factor.renew_recovery_codes(rt, actor)
    with pytest.raises(InvalidCredentials):
        await sign_in(rt, enrolled[1][0])
    await sign_in(rt, new[0])


async def test_recovery_codes_need_a_factor(rt: Runtime, actor: Actor) -> None:
    with pytest.raises(NotFound):
        await factor.renew_recovery_codes(rt, actor)


@pytest.mark.parametrize("action", ["begin_totp", "remove_totp", "renew_recovery_codes", "confirm_totp"])
async def test_dangerous_actions_need_a_fresh_proof(rt: Runtime, later: Later, actor: Actor, action: str) -> None:
    arguments = ("123456",) if action == "confirm_totp" else ()
    with pytest.raises(NotConfirmed) as caught:
        await getattr(factor, action)(later(301), actor, *arguments)
    assert (caught.value.status, caught.value.code) == (403, "step_up_required")


async def test_password_is_a_proof_without_a_second_factor(rt: Runtime, later: Later, actor: Actor) -> None:
    much_later = later(500)
    with pytest.raises(InvalidCredentials):
        await factor.step_up(much_later, actor, password="wrong password", totp=None, ip=HERE)
    with pytest.raises(InvalidCredentials):
        await factor.step_up(much_later, actor, password=None, totp="123456", ip=HERE)
    with pytest.raises(NotConfirmed):
        await factor.require_step_up(much_later, actor)
    await factor.step_up(much_later, actor, password=PASSWORD, totp=None, ip=HERE)
    await factor.require_step_up(much_later, actor)
    await factor.require_step_up(later(799), actor)


async def test_password_alone_is_no_proof_with_a_second_factor(
    rt: Runtime, later: Later, actor: Actor, enrolled: Any
) -> None:
    much_later = later(500)
    with pytest.raises(TotpRequired):
        await factor.step_up(much_later, actor, password=PASSWORD, totp=None, ip=HERE)
    for refused in (confirm_identity(much_later, actor, PASSWORD), factor.require_fresh_factor(much_later, actor)):
        with pytest.raises(NotConfirmed):
            await refused
    await factor.step_up(much_later, actor, password=None, totp=code(much_later, enrolled[0]), ip=HERE)
    await factor.require_step_up(much_later, actor)
    await confirm_identity(much_later, actor, PASSWORD)


async def test_wrong_password_does_not_confirm_even_after_a_fresh_login(rt: Runtime, actor: Actor) -> None:
    await confirm_identity(rt, actor, None)
    await confirm_identity(rt, actor, PASSWORD)
    with pytest.raises(NotConfirmed):
        await confirm_identity(rt, actor, "wrong password")


async def test_tries_at_the_own_password_are_counted(rt: Runtime, actor: Actor) -> None:
    seen: list[type[DomainError]] = []
    for _ in range(7):
        with pytest.raises(DomainError) as caught:
            await factor.step_up(rt, actor, password="wrong password", totp=None, ip=HERE)
        seen.append(type(caught.value))
    assert seen == [InvalidCredentials] * 5 + [RateLimited] * 2


async def test_flow_over_http(http: ClientSession, rt: Runtime, signed_in: Login) -> None:
    bearer = {"Authorization": f"Bearer {signed_in.access_token}"}
    begun = await http.post("/api/auth/mfa/totp", headers=bearer)
    secret = (await begun.json())["secret"]
    assert (begun.status, begun.headers["Cache-Control"]) == (200, "no-store")
    confirmed = await http.post("/api/auth/mfa/totp/confirm", json={"code": code(rt, secret)}, headers=bearer)
    assert len((await confirmed.json())["recovery_codes"]) == 10
    credentials = {"email": EMAIL, "password": PASSWORD}
    refused = await http.post("/api/auth/login", json=credentials)
    assert (refused.status, (await refused.json())["code"]) == (401, "totp_required")
    entered = await http.post("/api/auth/login", json={**credentials, "totp": code(rt, secret, 1)})
    assert entered.status == 200
    assert await (await http.get("/api/auth/mfa", headers=bearer)).json() == {"totp": True, "recovery_codes_left": 10}
    assert (await http.post("/api/auth/step-up", json={"totp": "000000"}, headers=bearer)).status == 401
    assert (await http.delete("/api/auth/mfa/totp", headers=bearer)).status == 204
    assert (await http.post("/api/auth/login", json=credentials)).status == 200
