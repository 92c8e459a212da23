from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession

from modules.auth import User, authenticate, create_user, service
from modules.auth.errors import EmailTaken, InvalidCredentials, NotConfirmed, TokenInvalid, WeakPassword
from modules.auth.jobs import send_letter, sweep
from modules.auth.letters import service as letters
from modules.auth.letters.requests import EVENT
from modules.auth.service import Login
from server.actor import Actor
from server.errors import RateLimited, Unauthenticated
from server.outbox import Delivery
from server.runtime import Runtime
from tests.modules.auth.conftest import EMAIL, PASSWORD, Mailbox

Later = Callable[[float], Runtime]
Configured = Callable[..., Runtime]
Idle = Callable[[], Awaitable[None]]

NEW_PASSWORD = "a quite different one"
EVE = "eve@example.com"
VERIFY, RESET = "Confirm your e-mail address", "Set a new password"
CHANGE, CHANGED = "Confirm your new e-mail address", "Your e-mail address was changed"
HERE = "127.0.0.1"


async def value(rt: Runtime, query: str, *arguments: Any) -> Any:
    async with rt.database.connection() as conn:
        return await conn.fetchval(query, *arguments)


async def sign_in(rt: Runtime, password: str = PASSWORD, email: str = EMAIL) -> Login:
    return await service.login(rt, email=email, password=password, device="tests", ip=HERE)


async def register_eve(rt: Runtime) -> User:
    return await service.register(rt, email=EVE, password=PASSWORD, name="Eve <b>&</b>")


async def is_verified(rt: Runtime, user: User) -> bool:
    return bool(await value(rt, "SELECT verified_at IS NOT NULL FROM users WHERE id = $1", user.id))


@pytest.fixture
async def reset_token(rt: Runtime, ada: User, mailbox: Mailbox) -> str:
    await letters.forgot_password(rt, EMAIL)
    return (await mailbox.letter(RESET)).token


async def test_registering_sends_a_letter_that_verifies_the_address(rt: Runtime, mailbox: Mailbox) -> None:
    eve = await register_eve(rt)
    letter = await mailbox.letter(VERIFY, EVE)
    assert "Hello Eve <b>&</b>," in letter.text
    assert "Hello Eve &lt;b&gt;&amp;&lt;/b&gt;," in letter.html
    await letters.verify_email(rt, letter.token)
    assert await is_verified(rt, eve)


async def test_token_is_kept_nowhere_but_in_the_letter(rt: Runtime, mailbox: Mailbox, idle: Idle) -> None:
    await register_eve(rt)
    token = (await mailbox.letter(VERIFY, EVE)).token
    rows = await value(rt, "SELECT json_agg(l)::text || (SELECT json_agg(o)::text FROM outbox o) FROM auth_letters l")
    assert token not in str(rows)


async def test_token_works_once(rt: Runtime, mailbox: Mailbox) -> None:
    await register_eve(rt)
    token = (await mailbox.letter(VERIFY, EVE)).token
    outcomes = await asyncio.gather(*(letters.verify_email(rt, token) for _ in range(5)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, TokenInvalid) for outcome in outcomes) == 4


async def test_code_of_the_letter_verifies_too(rt: Runtime, mailbox: Mailbox) -> None:
    eve = await register_eve(rt)
    letter = await mailbox.letter(VERIFY, EVE)
    await letters.verify_email_by_code(rt, f" {EVE.upper()}", f" {letter.code} ", ip=HERE)
    assert await is_verified(rt, eve)
    with pytest.raises(TokenInvalid):
        await letters.verify_email(rt, letter.token)


async def test_code_takes_five_tries_from_wherever_they_come(rt: Runtime, mailbox: Mailbox) -> None:
    eve = await register_eve(rt)
    letter = await mailbox.letter(VERIFY, EVE)
    wrong = f"{(int(letter.code) + 1) % 10**6:06d}"
    for number in range(letters.CODE_ATTEMPTS):
        with pytest.raises(TokenInvalid):
            await letters.verify_email_by_code(rt, EVE, wrong, ip=f"10.0.0.{number}")
    with pytest.raises(TokenInvalid):
        await letters.verify_email_by_code(rt, EVE, letter.code, ip=HERE)
    assert not await is_verified(rt, eve)
    await letters.verify_email(rt, letter.token)  # the link is not a matter of guessing


async def test_one_address_gets_five_tries_at_codes(rt: Runtime) -> None:
    for _ in range(5):
        with pytest.raises(TokenInvalid):
            await letters.verify_email_by_code(rt, "nobody@example.com", "000000", ip=HERE)
    with pytest.raises(RateLimited):
        await letters.verify_email_by_code(rt, "nobody@example.com", "000000", ip=HERE)


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "\x00", "ü"])
async def test_what_is_no_token_is_refused(rt: Runtime, token: str) -> None:
    for use in (letters.verify_email(rt, token), letters.confirm_email_change(rt, token)):
        with pytest.raises(TokenInvalid):
            await use
    with pytest.raises(TokenInvalid):
        await letters.reset_password(rt, token=token, password=NEW_PASSWORD)


async def test_token_ends_with_its_time(rt: Runtime, later: Later, reset_token: str) -> None:
    with pytest.raises(TokenInvalid):
        await letters.reset_password(
            later(rt.settings.auth.email_token_seconds + 1), token=reset_token, password=NEW_PASSWORD
        )
    await sign_in(rt)


async def test_token_is_good_for_one_purpose(rt: Runtime, mailbox: Mailbox, reset_token: str) -> None:
    for use in (letters.verify_email(rt, reset_token), letters.confirm_email_change(rt, reset_token)):
        with pytest.raises(TokenInvalid):
            await use
    await register_eve(rt)
    token = (await mailbox.letter(VERIFY, EVE)).token
    with pytest.raises(TokenInvalid):
        await letters.reset_password(rt, token=token, password=NEW_PASSWORD)


async def test_token_ends_with_the_address_it_went_to(rt: Runtime, ada: User, reset_token: str) -> None:
    await value(rt, "UPDATE users SET email = 'other@example.com' WHERE id = $1", ada.id)
    with pytest.raises(TokenInvalid):
        await letters.reset_password(rt, token=reset_token, password=NEW_PASSWORD)


async def test_reset_sets_the_password_and_ends_every_session(
    rt: Runtime, signed_in: Login, mailbox: Mailbox, reset_token: str
) -> None:
    await authenticate(rt, signed_in.access_token)
    await letters.reset_password(rt, token=reset_token, password=NEW_PASSWORD)
    with pytest.raises(Unauthenticated):
        await authenticate(rt, signed_in.access_token)
    with pytest.raises(Unauthenticated):
        await service.refresh(rt, signed_in.refresh_token)
    with pytest.raises(InvalidCredentials):
        await sign_in(rt)
    await sign_in(rt, NEW_PASSWORD)
    await mailbox.letter("Your password was changed")


async def test_two_resets_at_once_have_one_effect(rt: Runtime, ada: User, mailbox: Mailbox, reset_token: str) -> None:
    await letters.forgot_password(rt, EMAIL)
    second = (await mailbox.letter(RESET, number=2)).token
    uses = [
        (reset_token, "first of the passwords"),
        (reset_token, "second of the passwords"),
        (second, "third of them"),
    ]
    outcomes = await asyncio.gather(
        *(letters.reset_password(rt, token=token, password=password) for token, password in uses),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes if outcome] == [TokenInvalid, TokenInvalid]
    (winner,) = [password for (_, password), outcome in zip(uses, outcomes, strict=True) if outcome is None]
    await sign_in(rt, winner)


async def test_login_with_the_old_password_during_a_reset_leaves_no_session(
    rt: Runtime, ada: User, reset_token: str
) -> None:
    outcomes = await asyncio.gather(
        letters.reset_password(rt, token=reset_token, password=NEW_PASSWORD),
        *(sign_in(rt) for _ in range(8)),
        return_exceptions=True,
    )
    assert outcomes[0] is None
    for login in (outcome for outcome in outcomes[1:] if isinstance(outcome, Login)):
        with pytest.raises(Unauthenticated):
            await service.refresh(rt, login.refresh_token)


async def test_weak_new_password_does_not_use_the_token_up(rt: Runtime, reset_token: str) -> None:
    with pytest.raises(WeakPassword):
        await letters.reset_password(rt, token=reset_token, password="password123")
    await letters.reset_password(rt, token=reset_token, password=NEW_PASSWORD)


async def test_disabled_account_gets_no_letter_and_no_reset(
    rt: Runtime, ada: User, mailbox: Mailbox, reset_token: str, idle: Idle
) -> None:
    await value(rt, "UPDATE users SET disabled_at = now() WHERE id = $1", ada.id)
    with pytest.raises(TokenInvalid):
        await letters.reset_password(rt, token=reset_token, password=NEW_PASSWORD)
    await letters.forgot_password(rt, EMAIL)
    await idle()
    assert len(mailbox.letters(EMAIL)) == 1


async def test_asking_for_nobody_sends_nothing(rt: Runtime, mailbox: Mailbox, idle: Idle) -> None:
    for email in ("nobody@example.com", "no address", "\x00"):
        await letters.forgot_password(rt, email)
        await letters.request_verification(rt, email)
    await idle()
    assert mailbox.letters() == []


async def test_verified_address_is_not_verified_again(rt: Runtime, ada: User, mailbox: Mailbox, idle: Idle) -> None:
    await letters.request_verification(rt, EMAIL)
    await idle()
    assert mailbox.letters() == []


async def test_nobody_can_be_buried_in_letters(rt: Runtime, ada: User, mailbox: Mailbox, idle: Idle) -> None:
    for _ in range(20):
        await letters.forgot_password(rt, EMAIL)
    await idle()
    assert len(mailbox.letters(EMAIL)) == 5


async def test_letter_sent_twice_is_the_same_letter(rt: Runtime, ada: User, mailbox: Mailbox) -> None:
    data = {"kind": "reset", "user_id": None, "email": EMAIL}
    delivery = Delivery(uuid4(), EVENT, data, "trace", 1, rt.clock.now())
    await send_letter(rt, delivery)
    first = await mailbox.letter(RESET)
    await send_letter(rt, delivery)
    assert mailbox.letters(EMAIL) == [first]
    await letters.reset_password(rt, token=first.token, password=NEW_PASSWORD)
    await send_letter(rt, delivery)  # late: the token stays used
    with pytest.raises(TokenInvalid):
        await letters.reset_password(rt, token=first.token, password=PASSWORD)


async def test_change_of_address_happens_when_the_new_one_confirms(rt: Runtime, actor: Actor, mailbox: Mailbox) -> None:
    await letters.request_email_change(rt, actor, "Ada@Lovelace.example")
    letter = await mailbox.letter(CHANGE, "ada@lovelace.example")
    assert (await service.own_user(rt, actor)).email == EMAIL
    await letters.confirm_email_change(rt, letter.token)
    changed = await service.own_user(rt, actor)
    assert (changed.email, changed.verified) == ("ada@lovelace.example", True)
    assert "ada@lovelace.example" in (await mailbox.letter(CHANGED)).text
    await sign_in(rt, email="ada@lovelace.example")
    with pytest.raises(TokenInvalid):
        await letters.confirm_email_change(rt, letter.token)


async def test_change_of_address_ends_what_went_to_the_old_one(
    rt: Runtime, actor: Actor, mailbox: Mailbox, reset_token: str
) -> None:
    await letters.request_email_change(rt, actor, "new@example.com")
    await letters.confirm_email_change(rt, (await mailbox.letter(CHANGE, "new@example.com")).token)
    with pytest.raises(TokenInvalid):
        await letters.reset_password(rt, token=reset_token, password=NEW_PASSWORD)


async def test_change_to_an_address_of_somebody_else_tells_only_them(
    rt: Runtime, actor: Actor, mailbox: Mailbox
) -> None:
    await create_user(rt, email=EVE, password=PASSWORD, name="Eve")
    await letters.request_email_change(rt, actor, EVE)
    letter = await mailbox.letter("This address already has an account", EVE)
    assert "#/" not in letter.text


async def test_address_taken_in_the_meantime_is_a_conflict(rt: Runtime, actor: Actor, mailbox: Mailbox) -> None:
    await letters.request_email_change(rt, actor, EVE)
    token = (await mailbox.letter(CHANGE, EVE)).token
    await create_user(rt, email=EVE, password=PASSWORD, name="Eve")
    with pytest.raises(EmailTaken):
        await letters.confirm_email_change(rt, token)


async def test_change_of_address_needs_a_fresh_proof(rt: Runtime, later: Later, actor: Actor) -> None:
    with pytest.raises(NotConfirmed):
        await letters.request_email_change(later(301), actor, EVE)


async def test_old_letters_and_sessions_are_swept(
    rt: Runtime, later: Later, signed_in: Login, reset_token: str
) -> None:
    await service.logout(rt, await authenticate(rt, signed_in.access_token))
    await sign_in(rt)
    await sweep(rt)
    assert await value(rt, "SELECT count(*) FROM auth_sessions WHERE user_id = $1", signed_in.user.id) == 2
    await sweep(later(rt.settings.auth.session_retention_seconds + 1))
    assert await value(rt, "SELECT count(*) FROM auth_sessions WHERE user_id = $1", signed_in.user.id) == 1
    assert await value(rt, "SELECT count(*) FROM auth_letters") == 0


class TestWhereVerificationIsRequired:
    @pytest.fixture
    def settings_changes(self) -> dict[str, Any]:
        return {"auth": {"require_verification": True}}

    async def test_nobody_signs_in_before_the_address_is_verified(self, rt: Runtime, mailbox: Mailbox) -> None:
        await register_eve(rt)
        with pytest.raises(InvalidCredentials):
            await sign_in(rt, email=EVE)
        await letters.verify_email(rt, (await mailbox.letter(VERIFY, EVE)).token)
        await sign_in(rt, email=EVE)

    async def test_taken_address_is_answered_like_a_free_one(
        self, http: ClientSession, ada: User, mailbox: Mailbox
    ) -> None:
        answers = []
        for email in (EMAIL, EVE):
            body = {"email": email, "password": "not the one of ada", "name": "Eve"}
            answers.append(await http.post("/api/auth/register", json=body))
        taken, free = [await answer.json() for answer in answers]
        assert [answer.status for answer in answers] == [201, 201]
        assert taken["user"].pop("id") not in (free["user"].pop("id"), str(ada.id))
        assert taken["user"] == {**free["user"], "email": EMAIL}
        letter = await mailbox.letter("You already have an account")
        assert letter.token

    async def test_login_after_either_answer_is_the_same(self, http: ClientSession, ada: User) -> None:
        seen = []
        for email in (EMAIL, EVE):
            body = {"email": email, "password": "not the one of ada", "name": "Eve"}
            await http.post("/api/auth/register", json=body)
            answer = await http.post("/api/auth/login", json={"email": email, "password": body["password"]})
            seen.append((answer.status, (await answer.json())["detail"]))
        assert seen[0] == seen[1]


async def test_forgotten_password_is_answered_alike(http: ClientSession, ada: User) -> None:
    answers = set()
    for email in (EMAIL, "nobody@example.com", "no address"):
        answer = await http.post("/api/auth/password/forgot", json={"email": email})
        answers.add((answer.status, await answer.read()))
    assert answers == {(202, b"")}


async def test_flow_over_http(http: ClientSession, mailbox: Mailbox) -> None:
    account = {"email": EVE, "password": PASSWORD, "name": "Eve"}
    assert (await http.post("/api/auth/register", json=account)).status == 201
    token = (await mailbox.letter(VERIFY, EVE)).token
    assert (await http.get(f"/api/auth/verify-email?token={token}")).status == 405
    assert (await http.post("/api/auth/verify-email", json={"token": token})).status == 204
    answer = await http.post("/api/auth/verify-email", json={"token": token})
    assert (answer.status, (await answer.json())["code"]) == (400, "invalid_token")
    assert (await http.post("/api/auth/verify-email", json={"token": token, "code": "1"})).status == 422
    assert (await http.post("/api/auth/password/forgot", json={"email": EVE})).status == 202
    token = (await mailbox.letter(RESET, EVE)).token
    weak = await http.post("/api/auth/password/reset", json={"token": token, "password": "qwertyuiop"})
    assert (weak.status, (await weak.json())["errors"][0]["loc"]) == (422, ["password"])
    strong = {"token": token, "password": NEW_PASSWORD}
    assert (await http.post("/api/auth/password/reset", json=strong)).status == 204
    login = await http.post("/api/auth/login", json={"email": EVE, "password": NEW_PASSWORD})
    assert (await login.json())["user"]["verified"] is True
