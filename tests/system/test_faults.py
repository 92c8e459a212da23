"""Every fault of GUARANTEES.md once, in small: two replicas, private services, a proxy on each edge, clients that talk.

Each run checks all of G1, G3, G7, G11, G15 (`cmd_id`) and G17; `python -m server verify` mixes the faults for as long
as one likes. And for each promise a planted bug shows that its check can fail.
"""

import os
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from server.verify.checker import check
from server.verify.command import finish
from server.verify.faults import ALL, BY_NAME
from server.verify.installation import Installation
from server.verify.run import Run, Size, Step

# Leases and lost connections are given up within seconds, so that a smoke run need not wait for them.
QUICK = {
    "LECTERN_REALTIME__PRESENCE_LEASE": "3",
    "LECTERN_REALTIME__PRESENCE_INTERVAL": "1",
    "LECTERN_DATABASE__STATEMENT_TIMEOUT": "3",
}
SMALL = Size(clients=12, rooms=3, rate=30, load=3, warm_up=0.5, cool_down=0.2, rests=(20.0, 30.0))
IMPATIENT = replace(SMALL, settle=3.5, leaks=1.0)
USUAL = 0.7  # seconds that a fault lasts here
# Long enough that the answer of /health/ready must have changed.
LONGER = {"redis_hung": 6.0, "postgresql_hung": 3.5, "replica_hung": 4.5}


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Overrides the look for tasks: the installations outlive a test, and so do the connections in their proxies."""


@pytest.fixture(scope="module")
def directory():
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="lectern-faults-", dir=memory, ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture(scope="module")
async def installation(directory):
    async with Installation(directory / "sound", replicas=2, environment=QUICK) as installation:
        yield installation


@pytest.fixture(scope="module")
async def unsound(directory):
    async with Installation(directory / "unsound", replicas=2, environment=QUICK) as installation:
        yield installation


async def judge(installation, step, size, record_property, seed=1):
    run = Run(installation, [step], size, random.Random(seed))
    history = await run.carry_out()
    for replica in installation.replicas:
        history.errors += replica.errors()
        history.exits += replica.exits
        replica.exits = []
    verdict = check(history)
    print(f"\n{step.fault.name}: {verdict}")
    record_property("verdict", str(verdict))
    return verdict


# The rolling restart has a test of its own.
@pytest.mark.parametrize("fault", [f for f in ALL if f.name != "rolling_restart"], ids=lambda fault: fault.name)
async def test_every_promise_is_kept_under(fault, installation, record_property):
    step = Step(fault, LONGER.get(fault.name, USUAL))
    verdict = await judge(installation, step, SMALL, record_property)
    assert verdict.problems == []
    assert verdict.counts["acked"] > 10


async def test_a_consumer_that_does_not_read_holds_up_no_drain(installation, record_property):
    class WithStalled(Run):
        async def _do_faults(self, session):
            self.students[3].stall()  # who has no second tab
            await super()._do_faults(session)

    run = WithStalled(installation, [Step(BY_NAME["rolling_restart"], 0.1)], SMALL, random.Random(1))
    history = await run.carry_out()
    await finish(installation, history)
    await installation.start_replicas()
    verdict = check(history)
    print(f"\nrolling_restart: {verdict}")
    record_property("verdict", str(verdict))
    assert len(history.exits) == 4
    assert verdict.problems == []


@pytest.mark.parametrize(
    ("bug", "fault", "finding"),
    [
        ("ack_before_commit", "postgresql_immediate", "lost"),
        # Whether the seq of what was never committed is used again is a matter of moments.
        ("publish_before_commit", "postgresql_immediate", "uncommitted doubled lost"),
        ("no_dedupe", "clients_reset", "doubled"),
        ("gate_passes_twice", "clients_delayed", "doubled"),
        ("no_gap_repair", "redis_killed", "lost"),
        ("no_head_compare", "redis_killed", "lost"),
        ("presence_without_lease", "replica_killed", "unhealthy"),
        ("no_leave", "clients_reset", "leaked"),
        ("announce_each_tab", "clients_reset", "misannounced"),
        ("never_degraded", "redis_hung", "unhealthy"),
        ("no_drain", "rolling_restart", "undrained"),
    ],
)
async def test_the_check_goes_red_with_the_planted_bug(bug, fault, finding, unsound, record_property):
    await unsound.stop_replicas()
    async with Redis.from_url(unsound.located.redis_url) as redis:
        await redis.flushall()
    for replica in unsound.replicas:
        replica.errors()
        replica.exits = []
    await unsound.start_replicas(bug)
    verdict = await judge(unsound, Step(BY_NAME[fault], LONGER.get(fault, USUAL)), IMPATIENT, record_property, seed=2)
    assert any(verdict.findings[kind] for kind in finding.split())
