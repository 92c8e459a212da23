"""Attempts at a secret: only the wrong ones count, exactly, over all replicas, and nothing opens without Redis."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from server import guesses
from server.errors import DomainError, RateLimited, Unavailable
from server.guesses import Guesses, GuessLimit
from server.tasks import Tasks
from server.windows import Breaker
from tests.edges import redis_edge

LIMIT = GuessLimit(failures=5, failures_per_address=12, seconds=900.0)


class Wrong(DomainError):
    code, status = "wrong", 401


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    tasks = Tasks()
    yield tasks
    await tasks.stop()


@pytest.fixture
async def redis(services) -> AsyncIterator[Redis]:
    client = Redis.from_url(services.redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def replica(redis, tasks):
    prefix = f"test:{secrets.token_hex(4)}"
    return lambda limit=LIMIT: Guesses(Breaker(redis, tasks), prefix, limit)


async def attempt(found: Guesses, account: str, *, right: bool, address: str = "192.0.2.1", work: float = 0.0) -> str:
    """`right`, `wrong` or `limited`."""
    try:
        async with found.guess("login", address, account, wrong=Wrong):
            await asyncio.sleep(work)
            if not right:
                raise Wrong
    except Wrong:
        return "wrong"
    except RateLimited as refusal:
        return "limited" if 0 < (refusal.retry_after or 0) <= 900 else "limited for no time"
    return "right"


async def test_the_sixth_try_after_five_wrong_ones_is_refused_even_if_it_is_right(replica):
    found = replica()
    assert [await attempt(found, "ada", right=False) for _ in range(6)] == ["wrong"] * 5 + ["limited"]
    assert await attempt(found, "ada", right=True) == "limited"


async def test_right_ones_do_not_count_however_many(replica):
    found = replica()
    assert {await attempt(found, "ada", right=True) for _ in range(30)} == {"right"}
    assert [await attempt(found, "ada", right=False) for _ in range(6)] == ["wrong"] * 5 + ["limited"]


async def test_a_stranger_elsewhere_locks_nobody_out(replica):
    found = replica()
    for _ in range(8):
        await attempt(found, "ada", right=False, address="203.0.113.9")
    assert await attempt(found, "ada", right=True) == "right"


async def test_one_address_may_not_try_all_accounts(replica):
    found = replica()
    tries = [await attempt(found, f"student{number}", right=False) for number in range(14)]
    assert tries == ["wrong"] * 12 + ["limited"] * 2


async def test_another_spelling_of_the_account_is_the_same_account(replica):
    found = replica()
    spellings = ["ada@x.org", "ADA@x.org", " ada@X.org", "Ada@x.org", "ａda@x.org", "aDa@x.org"]
    assert [await attempt(found, name, right=False) for name in spellings] == ["wrong"] * 5 + ["limited"]


async def test_replicas_share_the_count(replica):
    first, second = replica(), replica()
    for _ in range(3):
        await attempt(first, "ada", right=False)
    assert [await attempt(second, "ada", right=False) for _ in range(3)] == ["wrong", "wrong", "limited"]
    assert await attempt(first, "ada", right=True) == "limited"


async def test_many_wrong_ones_at_once_on_two_replicas_get_no_more_tries(replica):
    replicas = [replica(), replica()]
    tries = await asyncio.gather(
        *(attempt(replicas[number % 2], "ada", right=False, work=0.02) for number in range(40))
    )
    assert (tries.count("wrong"), tries.count("limited")) == (5, 35)


async def test_many_right_ones_at_once_all_succeed(replica):
    replicas = [replica(), replica()]
    tries = await asyncio.gather(*(attempt(replicas[number % 2], "ada", right=True, work=0.01) for number in range(30)))
    assert tries == ["right"] * 30


async def test_other_failures_and_cancelled_attempts_do_not_count(replica):
    found = replica()
    for _ in range(8):
        with pytest.raises(Unavailable):
            async with found.guess("login", "192.0.2.1", "ada", wrong=Wrong):
                raise Unavailable
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), found.guess("login", "192.0.2.1", "ada", wrong=Wrong):
                await asyncio.sleep(1)
    assert await attempt(found, "ada", right=True) == "right"
    assert found._of(next(iter(found._local))).open == 0


async def test_tries_come_back_when_the_wrong_ones_are_old(replica):
    found = replica(GuessLimit(failures=2, failures_per_address=100, seconds=0.3))
    assert [await attempt(found, "ada", right=False) for _ in range(3)] == ["wrong", "wrong", "limited"]
    await asyncio.sleep(0.35)
    assert await attempt(found, "ada", right=True) == "right"


async def test_an_attempt_whose_replica_died_is_forgotten(replica, monkeypatch):
    monkeypatch.setattr(guesses, "OPEN_SECONDS", 0.2)
    dead, alive = replica(), replica()
    for number in range(5):
        await dead._enter("login", guesses._keys("login", "192.0.2.1", "ada"), f"dead{number}")
    began = time.monotonic()
    assert await attempt(alive, "ada", right=True) == "right"
    assert time.monotonic() - began > 0.1, "while it may still live it is waited for"


async def test_without_redis_the_limit_holds_and_what_was_seen_is_not_forgotten(services, tasks):
    async with redis_edge(services.redis_url) as (proxy, url):
        client = Redis.from_url(url)
        found = Guesses(Breaker(client, tasks), f"test:{secrets.token_hex(4)}", LIMIT)
        for _ in range(3):
            await attempt(found, "ada", right=False)
        await proxy.set_mode("blackhole")
        began = time.monotonic()
        assert [await attempt(found, "ada", right=False) for _ in range(4)] == ["wrong"] * 2 + ["limited"] * 2
        assert [await attempt(found, "eve", right=False) for _ in range(6)] == ["wrong"] * 5 + ["limited"]
        assert time.monotonic() - began < 1.0
        away = [attempt(found, "bob", right=False, address="192.0.2.7", work=0.01) for _ in range(20)]
        assert sorted(await asyncio.gather(*away)) == ["limited"] * 15 + ["wrong"] * 5
        await client.aclose()


async def test_what_is_remembered_is_bounded(replica, monkeypatch):
    monkeypatch.setattr(guesses, "MAX_KEYS", 4)
    found = replica()
    for number in range(20):
        await attempt(found, f"student{number}", right=False, address=f"192.0.2.{number}")
    assert len(found._local) <= 6


def test_nothing_in_redis_names_an_account():
    names = guesses._keys("login", "192.0.2.1", "ada@example.com")
    assert "ada" not in " ".join(names)
