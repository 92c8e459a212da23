"""Sliding windows against a model that remembers every call: in this process, in Redis, and when Redis is lost."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from server import windows
from server.tasks import Tasks
from server.windows import PARTS, Breaker, LocalWindows, Taken, Window, Windows
from tests.edges import redis_edge
from tests.waiting import eventually

SECONDS = 10.0
# Calls: how many seconds after the one before, and how many tokens it wants.
CALLS = st.lists(st.tuples(st.floats(0, 4), st.integers(1, 4)), max_size=60)


class Model:
    """Every token with its time: what the window is a summary of."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tokens: list[float] = []

    def check(self, now: float, want: int, taken: Taken) -> None:
        exact = [then for then in self.tokens if then > now - SECONDS]
        longer = [then for then in self.tokens if then > now - SECONDS * (PARTS + 1) / PARTS - 0.002]
        assert len(exact) + taken.given <= self.limit, "more than the limit in one window"
        assert taken.given >= min(want, self.limit - len(longer)), "refused though there was room"
        assert 0 <= taken.left <= self.limit - len(exact) - taken.given
        assert taken.given <= want
        self.tokens += [now] * taken.given


@given(limit=st.integers(1, 8), calls=CALLS)
def test_a_window_never_lets_too_many_through_and_hardly_ever_too_few(limit, calls):
    local, model, now = LocalWindows(), Model(limit), 1000.0
    for pause, want in calls:
        now += pause
        [taken] = local.take([Window("k", limit, SECONDS)], want, now)
        model.check(now, want, taken)


@given(limit=st.integers(1, 8), calls=CALLS)
def test_after_the_time_that_a_refusal_names_there_is_room(limit, calls):
    local, now = LocalWindows(), 1000.0
    window = Window("k", limit, SECONDS)
    for pause, want in calls:
        now += pause
        [taken] = local.take([window], want, now)
        if not taken.given:
            now += taken.reset
            [again] = local.take([window], 1, now + 0.001)
            assert again.given == 1


@pytest.fixture
async def redis(services) -> AsyncIterator[Redis]:
    client = Redis.from_url(services.redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    tasks = Tasks()
    yield tasks
    await tasks.stop()


async def test_redis_counts_as_the_process_does(redis, tasks):
    """The script and its twin give the same answers to the same calls."""
    loop = asyncio.get_running_loop()
    in_redis = Windows(Breaker(redis, tasks), f"test:{secrets.token_hex(4)}")

    async def compare(key: str, limits: tuple[int, int], calls: list[tuple[float, int]]) -> None:
        local, now = LocalWindows(), 1000.0
        both = [Window(f"a{key}", limits[0], SECONDS), Window(f"b{key}", limits[1], SECONDS / 2)]
        for number, (pause, want) in enumerate(calls):
            now = round(now + pause, 3)
            asked = both if number % 3 else both[:1]
            assert await in_redis.take(asked, want, now=now) == local.take(asked, want, now)

    @settings(max_examples=40, deadline=None)
    @given(limits=st.tuples(st.integers(1, 8), st.integers(1, 8)), calls=CALLS)
    def run(limits, calls):
        asyncio.run_coroutine_threadsafe(compare(secrets.token_hex(4), limits, calls), loop).result(10)

    await asyncio.to_thread(run)


async def test_many_replicas_at_once_take_the_limit_and_no_more(redis, tasks):
    prefix = f"test:{secrets.token_hex(4)}"
    replicas = [Windows(Breaker(redis, tasks), prefix) for _ in range(4)]
    window = [Window("k", 100, 60.0)]
    taken = await asyncio.gather(*(replicas[number % 4].take(window, 3) for number in range(200)))
    assert sum(each.given for [each] in taken) == 100
    assert min(each.left for [each] in taken) == 0


async def test_what_one_key_refuses_no_other_key_pays_for(redis, tasks):
    in_redis = Windows(Breaker(redis, tasks), f"test:{secrets.token_hex(4)}")
    user, address = Window("user", 1, 60.0), Window("address", 100, 60.0)
    await in_redis.take([user, address])
    for _ in range(5):
        [first, second] = await in_redis.take([user, address])
        assert (first.given, second.given, second.left) == (0, 0, 99)


async def test_keys_vanish_when_their_window_is_over(redis, tasks):
    prefix = f"test:{secrets.token_hex(4)}"
    await Windows(Breaker(redis, tasks), prefix).take([Window("k", 5, 0.2)])
    assert await redis.keys(f"{prefix}*")
    await asyncio.sleep(0.3)
    assert not await redis.keys(f"{prefix}*")


async def test_local_windows_are_bounded(monkeypatch):
    monkeypatch.setattr(windows, "MAX_KEYS", 3)
    local = LocalWindows()
    for number in range(10):
        local.take([Window(f"k{number}", 5, 1.0)], 1, 1000.0)
    assert len(local._counts) == 3


async def test_redis_that_hangs_costs_one_short_wait_and_heals_by_itself(services, tasks, monkeypatch):
    monkeypatch.setattr(windows, "PROBE_INTERVAL", 0.05)
    async with redis_edge(services.redis_url) as (proxy, url):
        client = Redis.from_url(url)
        breaker = Breaker(client, tasks)
        in_redis = Windows(breaker, f"test:{secrets.token_hex(4)}")
        window = [Window("k", 3, 60.0)]
        await in_redis.take(window)
        await proxy.set_mode("blackhole")
        began = time.monotonic()
        given = [(await in_redis.take(window))[0].given for _ in range(10)]
        assert time.monotonic() - began < windows.PATIENCE + 0.2
        assert given == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0], "it is limited without Redis too"
        await proxy.set_mode("pass")
        await eventually(lambda: breaker.closed)
        assert (await in_redis.take(window))[0].left == 1, "Redis has kept its count"
        await client.aclose()
