"""Liveness and readiness."""

from __future__ import annotations

import asyncio
import json

from aiohttp.test_utils import make_mocked_request

from server import health
from server.health import Health
from server.metrics import REGISTRY


async def passes() -> None:
    return None


async def fails() -> None:
    raise OSError("connection refused to 10.0.0.7")


async def hangs() -> None:
    await asyncio.sleep(60)


async def _answer(state: Health) -> tuple[int, dict[str, object]]:
    response = await health.ready(state)(make_mocked_request("GET", "/health/ready"))
    assert isinstance(response.body, bytes)
    return response.status, json.loads(response.body)


async def test_replica_whose_checks_pass_is_ready():
    assert await _answer(Health({"postgresql": passes})) == (200, {"status": "ready", "degraded": [], "reasons": []})


async def test_replica_without_postgresql_is_not_ready_and_says_no_more_than_the_name():
    expected = {"status": "unavailable", "degraded": [], "reasons": ["postgresql"]}
    assert await _answer(Health({"postgresql": fails, "schema": passes})) == (503, expected)
    assert REGISTRY.get_sample_value("dependency_up", {"name": "postgresql"}) == 0
    assert REGISTRY.get_sample_value("dependency_up", {"name": "schema"}) == 1


async def test_check_that_hangs_has_failed_after_its_time(monkeypatch):
    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.05)
    async with asyncio.timeout(1):
        status, body = await _answer(Health({"postgresql": hangs}))
    assert (status, body["reasons"]) == (503, ["postgresql"])


async def test_draining_replica_is_not_ready_whatever_else_is_well():
    state = Health({"postgresql": passes})
    state.draining = True
    assert await _answer(state) == (503, {"status": "draining", "degraded": [], "reasons": []})


async def test_missing_helpers_are_named_and_leave_the_replica_ready():
    state = Health({"postgresql": passes})
    state.report("redis", up=False)
    state.degraded.add("broker")
    assert await _answer(state) == (200, {"status": "degraded", "degraded": ["broker", "redis"], "reasons": []})
    assert REGISTRY.get_sample_value("dependency_up", {"name": "redis"}) == 0
    state.report("redis", up=True)
    assert (await _answer(state))[1]["degraded"] == ["broker"]
    assert REGISTRY.get_sample_value("dependency_up", {"name": "redis"}) == 1


async def test_live_replica_says_so_without_asking_anybody():
    response = await health.live(make_mocked_request("GET", "/health/live"))
    assert response.status == 200
