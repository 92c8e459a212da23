from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from modules.auth import User, authenticate, authentication, service, store
from modules.auth.service import Login
from server.database import Database
from server.errors import SessionExpired, Unauthenticated, Unavailable
from server.runtime import Runtime


@pytest.fixture(autouse=True)
def _forgetful() -> None:
    authentication.clear()


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The sessions that PostgreSQL was asked about."""
    asked: list[Any] = []
    find = store.find_identity

    async def counted(conn: Any, session_id: Any, now: Any) -> Any:
        asked.append(session_id)
        return await find(conn, session_id, now)

    monkeypatch.setattr(store, "find_identity", counted)
    return asked


async def change(rt: Runtime, statement: str, user: User) -> None:
    async with rt.database.connection() as conn:
        await conn.execute(statement, user.id)


def interval_over() -> None:
    """As if the last answer of PostgreSQL were REVOCATION_INTERVAL old."""
    for standing in authentication._standings.values():
        standing.asked_at -= authentication.REVOCATION_INTERVAL


async def test_token_leads_to_its_user(rt: Runtime, ada: User, signed_in: Login) -> None:
    actor = await authenticate(rt, signed_in.access_token)
    assert (actor.user_id, actor.name, actor.avatar_url, actor.role) == (ada.id, "Ada", None, "user")
    assert 0 < actor.expires_at - rt.clock.unix() <= rt.settings.auth.access_token_seconds


async def test_expired_token_says_so(later: Callable[[float], Runtime], signed_in: Login) -> None:
    with pytest.raises(SessionExpired):
        await authenticate(later(signed_in.expires_in + 1), signed_in.access_token)


async def test_database_is_asked_once_an_interval(rt: Runtime, signed_in: Login, questions: list[Any]) -> None:
    await asyncio.gather(*(authenticate(rt, signed_in.access_token) for _ in range(50)))
    assert len(questions) == 1
    interval_over()
    await asyncio.gather(*(authenticate(rt, signed_in.access_token) for _ in range(50)))
    assert len(questions) == 2


async def test_all_tokens_of_a_session_share_the_answer(rt: Runtime, signed_in: Login, questions: list[Any]) -> None:
    renewed = await service.refresh(rt, signed_in.refresh_token)
    await authenticate(rt, signed_in.access_token)
    await authenticate(rt, renewed.access_token)
    assert len(questions) == 1


async def test_caller_who_leaves_does_not_disturb_those_who_wait(rt: Runtime, signed_in: Login) -> None:
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(authenticate(rt, signed_in.access_token)) for _ in range(5)]
        await asyncio.sleep(0)
        calls[0].cancel()
    assert calls[0].cancelled()
    assert {call.result().name for call in calls[1:]} == {"Ada"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE auth_sessions SET revoked_at = now(), revoked_why = 'test' WHERE user_id = $1",
        "UPDATE auth_sessions SET expires_at = now() - interval '1 second' WHERE user_id = $1",
        "UPDATE users SET disabled_at = now() WHERE id = $1",
        "DELETE FROM users WHERE id = $1",
    ],
)
async def test_what_another_replica_ends_is_refused_after_the_interval(
    rt: Runtime, ada: User, signed_in: Login, statement: str
) -> None:
    await authenticate(rt, signed_in.access_token)
    await change(rt, statement, ada)
    interval_over()
    with pytest.raises(Unauthenticated):
        await authenticate(rt, signed_in.access_token)


async def test_new_name_and_role_are_seen_after_the_interval(rt: Runtime, ada: User, signed_in: Login) -> None:
    await authenticate(rt, signed_in.access_token)
    await change(
        rt,
        """UPDATE users SET role = 'admin', profile_data = '{"name": "Ada L.", "avatar_url": "/a"}' WHERE id = $1""",
        ada,
    )
    interval_over()
    actor = await authenticate(rt, signed_in.access_token)
    assert (actor.name, actor.avatar_url, actor.is_admin) == ("Ada L.", "/a", True)


@pytest.mark.parametrize("end", [service.logout, service.logout_all])
async def test_logout_is_seen_by_this_replica_at_once(
    rt: Runtime, signed_in: Login, end: Callable[..., Awaitable[None]]
) -> None:
    await end(rt, await authenticate(rt, signed_in.access_token))
    with pytest.raises(Unauthenticated):
        await authenticate(rt, signed_in.access_token)


async def test_answer_under_way_during_logout_is_not_kept(
    rt: Runtime, signed_in: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = await authenticate(rt, signed_in.access_token)
    interval_over()
    find, found, go_on = store.find_identity, asyncio.Event(), asyncio.Event()

    async def slow(conn: Any, session_id: Any, now: Any) -> Any:
        identity = await find(conn, session_id, now)
        found.set()
        await go_on.wait()
        return identity

    monkeypatch.setattr(store, "find_identity", slow)
    async with asyncio.TaskGroup() as group:
        early = group.create_task(authenticate(rt, signed_in.access_token))
        await found.wait()
        await service.logout(rt, actor)
        go_on.set()
    assert early.result() == actor  # it came before the logout
    with pytest.raises(Unauthenticated):
        await authenticate(rt, signed_in.access_token)


async def test_nobody_gets_in_without_the_database(rt: Runtime, signed_in: Login) -> None:
    await authenticate(rt, signed_in.access_token)
    nowhere = rt.settings.database.model_copy(update={"url": "postgresql://nobody@127.0.0.1:1/nothing"})
    cut_off = replace(rt, database=Database(nowhere))
    interval_over()
    with pytest.raises(Unavailable):
        await authenticate(cut_off, signed_in.access_token)
    assert (await authenticate(rt, signed_in.access_token)).name == "Ada"


async def test_remembered_sessions_are_bounded(rt: Runtime, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "REMEMBERED_SESSIONS", 3)
    for _ in range(6):
        login = await service.login(rt, email=ada.email, password="correct horse battery", device="", ip="")
        await authenticate(rt, login.access_token)
    assert len(authentication._standings) == 3


async def test_last_use_is_noted_now_and_then(rt: Runtime, later: Callable[[float], Runtime], signed_in: Login) -> None:
    async def last_use() -> Any:
        async with rt.database.connection() as conn:
            return await conn.fetchval("SELECT last_used_at FROM auth_sessions WHERE user_id = $1", signed_in.user.id)

    began = await last_use()
    await authenticate(later(200), signed_in.access_token)
    assert await last_use() == began
    interval_over()
    await authenticate(later(400), signed_in.access_token)
    assert (await last_use() - began).total_seconds() >= 399
