from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.auth import User, authenticate, create_user, service
from modules.auth.administration import service as administration
from modules.auth.administration.service import search_words
from modules.auth.errors import InvalidCredentials, NotConfirmed, OwnAccount
from modules.auth.service import Login
from server.actor import Actor
from server.errors import Forbidden, NotFound, Unauthenticated, Unavailable
from server.runtime import Runtime
from tests.modules.auth.conftest import EMAIL, PASSWORD
from tests.people import People

Later = Callable[[float], Runtime]


async def sign_in(rt: Runtime, email: str = EMAIL) -> Login:
    return await service.login(rt, email=email, password=PASSWORD, device="tests", ip="127.0.0.1")


async def make_admin(rt: Runtime, name: str) -> Actor:
    await create_user(rt, email=f"{name}@example.org", password=PASSWORD, name=name.title(), role="admin")
    return await authenticate(rt, (await sign_in(rt, f"{name}@example.org")).access_token)


@pytest.fixture
async def admin(rt: Runtime) -> Actor:
    return await make_admin(rt, "grace")


async def found(rt: Runtime, admin: Actor, search: str) -> set[str]:
    accounts, _ = await administration.list_accounts(rt, admin, search=search, limit=200)
    return {account.user.email for account in accounts}


@pytest.mark.parametrize(
    "search",
    ["ada", "ADA", "Lovel", "ada@example.com", "ada@exa", "byron love", "o'bri", "king-nö", "  ada  ", "(ada) & !"],
)
async def test_words_are_found_by_their_beginnings(rt: Runtime, admin: Actor, search: str) -> None:
    await create_user(rt, email=EMAIL, password=PASSWORD, name="Ada Byron O'Brien King-Nöel Lovelace")
    await create_user(rt, email="bob@example.com", password=PASSWORD, name="Bob")
    emails = await found(rt, admin, search)
    assert EMAIL in emails
    assert "bob@example.com" not in emails


@pytest.mark.parametrize("search", ["dovelace", "ada bob", "'", "&", ":*", "\\", "!ada | bob", "%"])
async def test_what_is_not_there_is_not_found(rt: Runtime, ada: User, admin: Actor, search: str) -> None:
    assert EMAIL not in await found(rt, admin, search)


@given(st.text(max_size=40))
def test_any_text_becomes_words_or_none(text: str) -> None:
    words = search_words(text)
    assert words is None or not set("\\\n\x00!|()<>") & set(words.replace("':*", ""))
    assert words is None or words.count("'") == 2 * words.count("':*")


async def test_any_search_is_answered(rt: Runtime, admin: Actor) -> None:
    for search in ("a" * 200, "İ", "a" * 3000, "' OR 1=1", "🎓", "x_y_z", "a.b.c.", "-", "ß", "\u0301", "@@", "a@b@c"):
        await found(rt, admin, search)


async def test_pages_hold_everybody_once(rt: Runtime, admin: Actor) -> None:
    seen, after = [], None
    while True:
        page, after = await administration.list_accounts(rt, admin, after=after, limit=7)
        seen += [account.user.id for account in page]
        if after is None:
            break
    assert len(seen) == len(set(seen)) >= 33


async def test_list_tells_the_disabled_apart(rt: Runtime, ada: User, admin: Actor) -> None:
    await administration.change_account(rt, admin, ada.id, role=None, disabled=True)
    off, _ = await administration.list_accounts(rt, admin, disabled=True, limit=50)
    on, _ = await administration.list_accounts(rt, admin, disabled=False, limit=200)
    assert [account.user.id for account in off] == [ada.id]
    assert ada.id not in {account.user.id for account in on}


async def test_others_are_refused(rt: Runtime, actor: Actor, admin: Actor) -> None:
    with pytest.raises(Forbidden):
        await administration.list_accounts(rt, actor, limit=50)
    with pytest.raises(Forbidden):
        await administration.change_account(rt, actor, admin.user_id, role="user", disabled=None)


async def test_disabled_account_is_out_at_once_and_can_come_back(
    rt: Runtime, admin: Actor, ada: User, signed_in: Login
) -> None:
    await authenticate(rt, signed_in.access_token)
    changed = await administration.change_account(rt, admin, ada.id, role=None, disabled=True)
    assert changed.disabled
    with pytest.raises(Unauthenticated):
        await authenticate(rt, signed_in.access_token)
    with pytest.raises(InvalidCredentials):
        await sign_in(rt)
    await administration.change_account(rt, admin, ada.id, role=None, disabled=False)
    await sign_in(rt)
    with pytest.raises(Unauthenticated):
        await service.refresh(rt, signed_in.refresh_token)


async def test_new_role_is_seen_at_once(rt: Runtime, admin: Actor, signed_in: Login) -> None:
    actor = await authenticate(rt, signed_in.access_token)
    await administration.change_account(rt, admin, actor.user_id, role="admin", disabled=None)
    assert (await authenticate(rt, signed_in.access_token)).is_admin


async def test_own_account_is_changed_by_somebody_else(rt: Runtime, admin: Actor) -> None:
    with pytest.raises(OwnAccount):
        await administration.change_account(rt, admin, admin.user_id, role="user", disabled=None)
    with pytest.raises(OwnAccount):
        await administration.change_account(rt, admin, admin.user_id, role=None, disabled=True)
    same = await administration.change_account(rt, admin, admin.user_id, role="admin", disabled=False)
    assert same.user.role == "admin"


async def test_administrators_who_depose_each_other_leave_one(rt: Runtime, admin: Actor) -> None:
    other = await make_admin(rt, "alan")
    outcomes = await asyncio.gather(
        administration.change_account(rt, admin, other.user_id, role="user", disabled=None),
        administration.change_account(rt, other, admin.user_id, role="user", disabled=None),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Forbidden | Unavailable)]
    assert len(refused) == 1


async def test_unknown_account_is_not_found(rt: Runtime, admin: Actor) -> None:
    with pytest.raises(NotFound):
        await administration.change_account(rt, admin, uuid4(), role="admin", disabled=None)


async def test_change_needs_a_fresh_proof(rt: Runtime, later: Later, ada: User, admin: Actor) -> None:
    with pytest.raises(NotConfirmed):
        await administration.change_account(later(301), admin, ada.id, role="admin", disabled=None)


async def test_list_over_http(people: People) -> None:
    admin, student = await people.sign_in("admin"), await people.sign_in("student1")
    await student.call("GET", "/api/auth/users?q=teacher", status=403)
    first = await admin.call("GET", "/api/auth/users?limit=2", status=200)
    second = await admin.call("GET", f"/api/auth/users?limit=2&cursor={first['next_cursor']}", status=200)
    assert not {item["id"] for item in first["items"]} & {item["id"] for item in second["items"]}
    (teacher,) = (await admin.call("GET", "/api/auth/users?q=teacher", status=200))["items"]
    assert (teacher["email"], teacher["disabled"], teacher["role"]) == ("teacher@example.com", False, "user")
    changed = await admin.call("PATCH", f"/api/auth/users/{teacher['id']}", {"disabled": True}, status=200)
    assert changed["disabled"] is True
