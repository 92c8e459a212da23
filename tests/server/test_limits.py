from types import SimpleNamespace

import pytest
from redis.asyncio import Redis

from server import limits
from server.errors import RateLimited
from server.limits import Limits
from server.settings import load_settings
from server.tasks import Tasks


def made() -> Limits:
    return Limits(load_settings(secret="s" * 32).limits, Redis(), "test", Tasks())


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr("server.limits.time", SimpleNamespace(monotonic=lambda: Clock.now))
    return Clock


def test_a_bucket_gives_its_burst_and_then_refills_at_its_rate(clock):
    buckets = made()
    for _ in range(3):
        buckets.take("message", "me", rate=2, burst=3)
    with pytest.raises(RateLimited) as caught:
        buckets.take("message", "me", rate=2, burst=3)
    assert caught.value.retry_after == pytest.approx(0.5)
    clock.now += 0.5
    buckets.take("message", "me", rate=2, burst=3)
    clock.now += 1000
    for _ in range(3):
        buckets.take("message", "me", rate=2, burst=3)
    assert buckets.try_take("message", "me", rate=2, burst=3) > 0


def test_a_refused_attempt_costs_nothing(clock):
    buckets = made()
    buckets.take("message", "me", rate=1, burst=1)
    for _ in range(50):
        assert buckets.try_take("message", "me", rate=1, burst=1) > 0
    clock.now += 1
    assert buckets.try_take("message", "me", rate=1, burst=1) == 0


def test_people_and_names_have_buckets_of_their_own_and_old_ones_are_dropped(clock, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BUCKETS", 2)
    buckets = made()
    for key in ("a", "b", "c"):
        assert buckets.try_take("message", key, rate=1, burst=1) == 0
    assert buckets.try_take("message", "c", rate=1, burst=1) > 0
    assert len(buckets._buckets) == 2
