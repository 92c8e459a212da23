"""G8: refresh tokens rotate on two replicas at once and after crashes; and the proof that a broken rotation is seen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest

from modules.auth import User, authenticate, service
from modules.auth.errors import RefreshReused
from modules.auth.service import Login
from server.app import running
from server.clock import Clock
from server.database import Connection
from server.errors import Unauthenticated
from server.runtime import Runtime
from server.settings import PLANTED_BUGS
from tests.modules.auth.conftest import ShiftedClock

Later = Callable[[float], Runtime]
GRACE = 10.0  # seconds, of the default settings


class KilledReplica(BaseException):
    """As if the process had ended here."""


class Frozen(Clock):
    """Stands still, so that a slow machine does not move a use across the end of a grace."""

    began = Clock().now()

    def __init__(self, seconds: float) -> None:
        self._moment = self.began + timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self._moment


@pytest.fixture
async def replicas(rt: Runtime) -> AsyncIterator[tuple[Runtime, Runtime]]:
    async with running(rt.settings) as second:
        yield rt, second.rt


def generation(login: Login) -> int:
    return int(login.refresh_token.split(".")[1])


async def test_fifty_uses_on_two_replicas_give_one_lineage(replicas: tuple[Runtime, Runtime], signed_in: Login) -> None:
    answers = await asyncio.gather(
        *(service.refresh(replicas[number % 2], signed_in.refresh_token) for number in range(50))
    )
    assert len({answer.refresh_token for answer in answers}) == 1
    assert {generation(answer) for answer in answers} == {2}
    assert generation(await service.refresh(replicas[1], answers[0].refresh_token)) == 3


async def test_many_tabs_that_each_go_on_never_lose_the_session(
    replicas: tuple[Runtime, Runtime], signed_in: Login
) -> None:
    """Each tab refreshes with what it got last, some quicker than others, all within the grace."""

    async def tab(number: int) -> Login:
        held = signed_in
        for _ in range(3):
            held = await service.refresh(replicas[number % 2], held.refresh_token)
        return held

    tabs = await asyncio.gather(*(tab(number) for number in range(2)))
    newest = max(tabs, key=generation)
    for rt in replicas:
        await service.refresh(rt, newest.refresh_token)


async def test_reuse_on_one_replica_ends_the_session_on_the_other(
    replicas: tuple[Runtime, Runtime], signed_in: Login
) -> None:
    here, there = replicas
    renewed = await service.refresh(here, signed_in.refresh_token)
    later = replace(there, clock=ShiftedClock(GRACE + 1))
    with pytest.raises(RefreshReused):
        await service.refresh(later, signed_in.refresh_token)
    with pytest.raises(Unauthenticated):
        await service.refresh(here, renewed.refresh_token)


async def test_crash_between_commit_and_answer_does_not_log_out(
    replicas: tuple[Runtime, Runtime], signed_in: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = replicas
    transaction = here.database.transaction

    @asynccontextmanager
    async def dies_after_commit() -> AsyncIterator[Connection]:
        async with transaction() as conn:
            yield conn
        raise KilledReplica

    with monkeypatch.context() as patched:
        patched.setattr(here.database, "transaction", dies_after_commit)
        with pytest.raises(KilledReplica):
            await service.refresh(here, signed_in.refresh_token)
    again = await service.refresh(there, signed_in.refresh_token)
    assert generation(again) == 2
    await authenticate(there, again.access_token)


async def test_rotation_without_reuse_detection_is_seen(
    later: Later, rt: Runtime, signed_in: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: were it the program, `test_reuse_on_one_replica_ends_the_session_on_the_other` would fail."""
    monkeypatch.setenv(PLANTED_BUGS, "reuse-forgiven")
    await service.refresh(rt, signed_in.refresh_token)
    await service.refresh(later(GRACE + 1), signed_in.refresh_token)


@dataclass
class _Model:
    """What a client and an attacker may expect: when each generation was replaced."""

    replaced: dict[int, float]
    current: int = 1


async def test_rotation_agrees_with_a_model(rt: Runtime, ada: User) -> None:
    """Random uses at random times of tokens of any generation; at most eight rotations happen within a grace."""
    seed = 20261122
    chance = random.Random(seed)
    for _ in range(12):
        login = await service.login(
            rt, email=ada.email, password="correct horse battery", device="tests", ip="127.0.0.1"
        )
        tokens, model, now = {1: login.refresh_token}, _Model({}), 0.0
        for _ in range(14):
            now += chance.choice([0.0, 1.5, 4.0, 8.0, 12.0])
            used = chance.choice([model.current, model.current, max(1, model.current - chance.randint(1, 3))])
            at = replace(rt, clock=Frozen(now))
            allowed = used == model.current or now - model.replaced[used] <= GRACE
            if not allowed:
                with pytest.raises(RefreshReused):
                    await service.refresh(at, tokens[used])
                break
            if used == model.current:
                model.replaced[used] = now
                model.current += 1
            answer = await service.refresh(at, tokens[used])
            assert generation(answer) == model.current, f"seed {seed}"
            tokens[model.current] = answer.refresh_token
