from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from argon2 import extract_parameters

from modules.auth import User, authenticate, create_user, ensure_user, hash_password, service, summaries
from modules.auth.errors import EmailTaken, InvalidCredentials, RefreshReused
from modules.auth.schemas import normalise_email
from modules.auth.service import Login
from server.errors import Unauthenticated
from server.runtime import Runtime
from tests.modules.auth.conftest import EMAIL, PASSWORD

Later = Callable[[float], Runtime]
Configured = Callable[..., Runtime]
GRACE = 10.0  # seconds, of the default settings


async def sign_in(rt: Runtime, password: str = PASSWORD, email: str = EMAIL) -> Login:
    return await service.login(rt, email=email, password=password, device="tests", ip="127.0.0.1")


async def value(rt: Runtime, query: str, *arguments: Any) -> Any:
    async with rt.database.connection() as conn:
        return await conn.fetchval(query, *arguments)


def generation(login: Login) -> int:
    return int(login.refresh_token.split(".")[1])


async def test_registering_twins_at_once_makes_one_account(rt: Runtime) -> None:
    emails = ["eve@example.com", "Eve@Example.com", "EVE@EXAMPLE.COM"] * 3
    outcomes = await asyncio.gather(
        *(service.register(rt, email=email, password=PASSWORD, name="Eve") for email in emails), return_exceptions=True
    )
    assert sum(isinstance(outcome, User) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, EmailTaken) for outcome in outcomes) == len(emails) - 1
    assert await value(rt, "SELECT count(*) FROM users WHERE email = 'eve@example.com'") == 1


async def test_postgresql_agrees_on_lower_case(rt: Runtime) -> None:
    """The table checks `email = lower(email)`, with the Unicode tables of PostgreSQL and not of Python."""
    cased = [chr(code) for code in range(0x20000) if chr(code).lower() != chr(code) or chr(code).upper() != chr(code)]
    emails = []
    for letter in cased:
        with suppress(ValueError):
            emails.append(normalise_email(f"{letter}Σ@example.com"))
    assert len(emails) > 2000
    assert await value(rt, "SELECT count(*) FROM unnest($1::text[]) e WHERE e <> lower(e)", emails) == 0


async def test_created_user_is_verified_and_registered_one_is_not(rt: Runtime, ada: User) -> None:
    eve = await service.register(rt, email="eve@example.com", password=PASSWORD, name="Eve")
    assert (ada.verified, eve.verified) == (True, False)
    assert await value(rt, "SELECT verified_at IS NULL FROM users WHERE id = $1", eve.id)


async def test_ensure_user_leaves_an_account_as_it_is(rt: Runtime, ada: User) -> None:
    hashed = await hash_password(rt, "another password")
    async with rt.database.transaction() as conn:
        found = await ensure_user(rt, conn, email="ADA@example.com", password_hash=hashed, name="Somebody")
        made = await ensure_user(rt, conn, email="bob@example.com", password_hash=hashed, name="Bob", role="admin")
        assert await ensure_user(rt, conn, email="bob@example.com", password_hash=hashed, name="Bob") == made
    assert found == ada.id
    assert (await sign_in(rt)).user.name == "Ada"
    bob = (await sign_in(rt, "another password", "bob@example.com")).user
    assert (bob.id, bob.role, bob.verified) == (made, "admin", True)


async def test_summaries_show_what_everybody_may_see(rt: Runtime, ada: User) -> None:
    async with rt.database.connection() as conn:
        found = await summaries(conn, [ada.id, uuid4()])
    assert list(found) == [ada.id]
    assert found[ada.id].model_dump() == {"id": ada.id, "name": "Ada", "avatar_url": None}


async def test_login_finds_the_account_whatever_the_case_of_the_address(rt: Runtime, ada: User) -> None:
    assert (await sign_in(rt, email=" ADA@Example.com")).user == ada


@pytest.mark.parametrize("email", ["nobody@example.com", "no address", "", "a\x00@example.com", "x" * 254])
async def test_unknown_address_is_invalid_credentials(rt: Runtime, ada: User, email: str) -> None:
    with pytest.raises(InvalidCredentials):
        await sign_in(rt, email=email)


async def test_disabled_account_looks_like_a_wrong_password(rt: Runtime, ada: User) -> None:
    await value(rt, "UPDATE users SET disabled_at = now() WHERE id = $1", ada.id)
    with pytest.raises(InvalidCredentials):
        await sign_in(rt)


async def test_login_renews_the_hash_when_the_cost_has_changed(ada: User, configured: Configured) -> None:
    dearer = configured({"argon2_time_cost": 3})
    with pytest.raises(InvalidCredentials):
        await sign_in(dearer, "wrong password")
    for _ in range(2):
        await sign_in(dearer)
        stored = await value(dearer, "SELECT password_hash FROM users WHERE id = $1", ada.id)
        assert extract_parameters(stored).time_cost == 3


async def test_login_keeps_device_and_address_but_no_token(rt: Runtime, signed_in: Login) -> None:
    async with rt.database.connection() as conn:
        row = await conn.fetchrow("SELECT * FROM auth_sessions WHERE user_id = $1", signed_in.user.id)
    assert row is not None
    assert (row["device"], row["ip"], row["generation"]) == ("tests", "127.0.0.1", 1)
    mac = signed_in.refresh_token.split(".")[2]
    assert not any(mac in str(field) for field in row.values())


async def test_refresh_gives_the_next_generation(rt: Runtime, ada: User, signed_in: Login) -> None:
    renewed = await service.refresh(rt, signed_in.refresh_token)
    assert (generation(signed_in), generation(renewed)) == (1, 2)
    assert renewed.user == ada
    before, after = [await authenticate(rt, login.access_token) for login in (signed_in, renewed)]
    assert before.session_id == after.session_id


async def test_refresh_keeps_a_session_alive_that_ends_when_unused(rt: Runtime, later: Later, signed_in: Login) -> None:
    lifetime = rt.settings.auth.refresh_token_seconds
    renewed = await service.refresh(later(lifetime - 60), signed_in.refresh_token)
    renewed = await service.refresh(later(2 * lifetime - 120), renewed.refresh_token)
    with pytest.raises(Unauthenticated):
        await service.refresh(later(3 * lifetime), renewed.refresh_token)


async def test_fifty_uses_of_one_token_at_once_give_one_lineage(rt: Runtime, signed_in: Login) -> None:
    answers = await asyncio.gather(*(service.refresh(rt, signed_in.refresh_token) for _ in range(50)))
    assert {generation(answer) for answer in answers} == {2}
    assert len({answer.refresh_token for answer in answers}) == 1
    assert await value(rt, "SELECT max(generation) FROM auth_sessions WHERE user_id = $1", signed_in.user.id) == 2
    assert generation(await service.refresh(rt, answers[0].refresh_token)) == 3


async def test_lost_answer_is_asked_for_again_within_the_grace(later: Later, signed_in: Login, rt: Runtime) -> None:
    lost = await service.refresh(rt, signed_in.refresh_token)
    again = await service.refresh(later(GRACE - 1), signed_in.refresh_token)
    assert again.refresh_token == lost.refresh_token


async def test_old_token_after_the_grace_ends_the_session_for_everybody(
    rt: Runtime, later: Later, signed_in: Login
) -> None:
    renewed = await service.refresh(rt, signed_in.refresh_token)
    actor = await authenticate(rt, renewed.access_token)
    with pytest.raises(RefreshReused):
        await service.refresh(later(GRACE + 1), signed_in.refresh_token)
    assert await value(rt, "SELECT revoked_why FROM auth_sessions WHERE id = $1", actor.session_id) == "reuse"
    for token in (renewed.refresh_token, signed_in.refresh_token):
        with pytest.raises(Unauthenticated):
            await service.refresh(rt, token)
    with pytest.raises(Unauthenticated):
        await authenticate(rt, renewed.access_token)


async def test_each_old_token_has_a_grace_of_its_own(rt: Runtime, later: Later, signed_in: Login) -> None:
    second = await service.refresh(rt, signed_in.refresh_token)
    third = await service.refresh(later(GRACE / 2), second.refresh_token)
    for late in (signed_in, second):
        assert (await service.refresh(later(GRACE - 1), late.refresh_token)).refresh_token == third.refresh_token
    assert (await service.refresh(later(GRACE + 2), second.refresh_token)).refresh_token == third.refresh_token
    with pytest.raises(RefreshReused):
        await service.refresh(later(GRACE + 2), signed_in.refresh_token)
    with pytest.raises(Unauthenticated):
        await service.refresh(rt, third.refresh_token)


async def test_token_many_generations_old_ends_the_session_at_once(rt: Runtime, signed_in: Login) -> None:
    renewed = signed_in
    for _ in range(20):
        renewed = await service.refresh(rt, renewed.refresh_token)
    with pytest.raises(RefreshReused):
        await service.refresh(rt, signed_in.refresh_token)
    with pytest.raises(Unauthenticated):
        await service.refresh(rt, renewed.refresh_token)


async def test_reuse_ends_one_session_and_not_the_others(rt: Runtime, later: Later, signed_in: Login) -> None:
    other = await sign_in(rt)
    await service.refresh(rt, signed_in.refresh_token)
    with pytest.raises(RefreshReused):
        await service.refresh(later(GRACE + 1), signed_in.refresh_token)
    await service.refresh(rt, other.refresh_token)


async def test_forged_token_ends_nothing(rt: Runtime, later: Later, signed_in: Login) -> None:
    await service.refresh(rt, signed_in.refresh_token)
    session, _, mac = signed_in.refresh_token.split(".")
    forgeries = [f"{session}.1.{'A' * 43}", f"{session}.2.{mac}", f"{session}.9.{mac}", f"{uuid4().hex}.1.{mac}"]
    for forgery in forgeries:
        with pytest.raises(Unauthenticated) as caught:
            await service.refresh(later(GRACE + 1), forgery)
        assert caught.value.code == "unauthenticated"
    assert await value(rt, "SELECT count(*) FROM auth_sessions WHERE revoked_at IS NOT NULL") == 0


async def test_disabled_account_is_not_refreshed(rt: Runtime, signed_in: Login) -> None:
    await value(rt, "UPDATE users SET disabled_at = now() WHERE id = $1", signed_in.user.id)
    with pytest.raises(Unauthenticated):
        await service.refresh(rt, signed_in.refresh_token)


async def test_tokens_survive_a_change_of_the_secret(rt: Runtime, configured: Configured, signed_in: Login) -> None:
    changed = configured(secret="n" * 40, previous_secrets=(rt.settings.secret,))
    assert (await authenticate(changed, signed_in.access_token)).name == "Ada"
    renewed = await service.refresh(changed, signed_in.refresh_token)
    forgotten = configured(secret="n" * 40, previous_secrets=())
    with pytest.raises(Unauthenticated):
        await authenticate(forgotten, signed_in.access_token)
    assert (await authenticate(forgotten, renewed.access_token)).name == "Ada"
    assert generation(await service.refresh(forgotten, renewed.refresh_token)) == 3


async def test_logout_ends_only_this_session(rt: Runtime, signed_in: Login) -> None:
    other = await sign_in(rt)
    await service.logout(rt, await authenticate(rt, signed_in.access_token))
    with pytest.raises(Unauthenticated):
        await service.refresh(rt, signed_in.refresh_token)
    await authenticate(rt, other.access_token)


async def test_logout_all_ends_every_session_of_this_user_only(rt: Runtime, signed_in: Login) -> None:
    await create_user(rt, email="eve@example.com", password=PASSWORD, name="Eve")
    other, eve = await sign_in(rt), await sign_in(rt, email="eve@example.com")
    for login in (signed_in, other, eve):
        await authenticate(rt, login.access_token)
    await service.logout_all(rt, await authenticate(rt, signed_in.access_token))
    for login in (signed_in, other):
        with pytest.raises(Unauthenticated):
            await authenticate(rt, login.access_token)
        with pytest.raises(Unauthenticated):
            await service.refresh(rt, login.refresh_token)
    assert (await authenticate(rt, eve.access_token)).name == "Eve"


async def test_logout_twice_keeps_the_first_reason(rt: Runtime, signed_in: Login) -> None:
    actor = await authenticate(rt, signed_in.access_token)
    await service.logout(rt, actor)
    await service.logout_all(rt, actor)
    assert await value(rt, "SELECT revoked_why FROM auth_sessions WHERE id = $1", actor.session_id) == "logout"
