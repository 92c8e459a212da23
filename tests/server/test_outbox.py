from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from server import logs, outbox
from server.errors import Unavailable
from server.outbox import Consumer, Delivery, Outbox, Undeliverable
from server.runtime import Runtime
from server.tasks import Tasks
from tests.waiting import eventually

EVENT = "test.happened"
Handle = Callable[[Runtime, Delivery], Awaitable[None]]


class Recorder:
    """A consumer that remembers its deliveries and fails as often as it is told."""

    def __init__(self, *failures: Exception) -> None:
        self.seen: list[Delivery] = []
        self._failures = list(failures)

    async def __call__(self, rt: Runtime, delivery: Delivery) -> None:
        self.seen.append(delivery)
        if self._failures:
            raise self._failures.pop(0)


def worker(rt: Runtime, *handles: Handle, event: str = EVENT) -> Outbox:
    consumers = [Consumer(f"test.{number}", event, handle) for number, handle in enumerate(handles)]
    return Outbox(rt, Tasks(), consumers)


async def add(rt: Runtime, data: dict[str, Any] | None = None, count: int = 1) -> list[Any]:
    async with rt.database.transaction() as conn:
        return [await outbox.add(conn, EVENT, data or {}) for _ in range(count)]


async def rows(rt: Runtime) -> list[Any]:
    async with rt.database.connection() as conn:
        return list(await conn.fetch("SELECT * FROM outbox WHERE event = $1 ORDER BY id", EVENT))


async def make_due(rt: Runtime) -> None:
    """As if the pause, or the lease of a worker that was killed, were over."""
    async with rt.database.connection() as conn:
        await conn.execute("UPDATE outbox SET next_at = now() WHERE dead_at IS NULL")


async def test_event_is_carried_once_and_gone(rt: Runtime) -> None:
    consumer = Recorder()
    (event_id,) = await add(rt, {"n": 1, "text": "ü\u2028"})
    assert await worker(rt, consumer).run_due() == 1
    (delivery,) = consumer.seen
    assert (delivery.id, delivery.event, delivery.attempt) == (event_id, EVENT, 1)
    assert delivery.data == {"n": 1, "text": "ü\u2028"}
    assert await rows(rt) == []
    assert await worker(rt, consumer).run_due() == 0


async def test_what_is_rolled_back_never_happens(rt: Runtime) -> None:
    async def fail() -> None:
        async with rt.database.transaction() as conn:
            await outbox.add(conn, EVENT, {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await rows(rt) == []


async def test_event_carries_the_request_that_caused_it(rt: Runtime) -> None:
    seen = []

    async def consumer(rt: Runtime, delivery: Delivery) -> None:
        seen.append((delivery.trace_id, logs.request_context.get()))

    token = logs.request_context.set("request-7")
    await add(rt)
    logs.request_context.reset(token)
    await worker(rt, consumer).run_due()
    assert seen == [("request-7", "request-7")]


async def test_failure_is_tried_again_after_a_pause(rt: Runtime) -> None:
    consumer = Recorder(ValueError("boom"), ConnectionError("away"))
    work = worker(rt, consumer)
    await add(rt)
    await work.run_due()
    (row,) = await rows(rt)
    assert (row["attempts"], row["dead_at"], row["last_error"]) == (1, None, "ValueError: boom")
    assert await work.run_due() == 0, "it was not due yet"
    for _ in range(2):
        await make_due(rt)
        await work.run_due()
    assert [delivery.attempt for delivery in consumer.seen] == [1, 2, 3]
    assert len({delivery.id for delivery in consumer.seen}) == 1
    assert await rows(rt) == []


def test_pauses_grow_up_to_a_limit_and_differ() -> None:
    assert all(0.5 <= outbox.pause(1) <= 1 for _ in range(50))
    assert all(2 <= outbox.pause(3) <= 4 for _ in range(50))
    assert all(outbox.LONGEST_PAUSE / 2 <= outbox.pause(1000) <= outbox.LONGEST_PAUSE for _ in range(50))
    assert len({outbox.pause(5) for _ in range(20)}) > 10


async def test_poison_dies_after_some_attempts_and_blocks_nobody(rt: Runtime) -> None:
    carried = []

    async def consumer(rt: Runtime, delivery: Delivery) -> None:
        if delivery.data["poison"]:
            raise ValueError("boom")
        carried.append(delivery.id)

    work = worker(rt, consumer)
    await add(rt, {"poison": True})
    (healthy,) = await add(rt, {"poison": False})
    for _ in range(outbox.ATTEMPTS):
        await work.run_due()
        await make_due(rt)
    assert carried == [healthy]
    async with rt.database.connection() as conn:
        (dead,) = await outbox.read_dead(conn)
    assert (dead.event, dead.attempts, dead.last_error) == (EVENT, outbox.ATTEMPTS, "ValueError: boom")
    assert await work.run_due() == 0


async def test_hopeless_event_dies_at_once_and_can_be_replayed(rt: Runtime) -> None:
    consumer = Recorder(Undeliverable("no such mailbox"))
    work = worker(rt, consumer)
    (event_id,) = await add(rt)
    await work.run_due()
    async with rt.database.connection() as conn:
        assert [dead.id for dead in await outbox.read_dead(conn)] == [event_id]
        assert await outbox.replay(conn, [event_id]) == 1
        assert await outbox.replay(conn, [event_id]) == 0
    await work.run_due()
    assert await rows(rt) == []


async def test_what_is_away_is_waited_for_beyond_the_attempts(rt: Runtime) -> None:
    failures = outbox.ATTEMPTS + 3
    consumer = Recorder(*(Unavailable() for _ in range(failures)))
    work = worker(rt, consumer)
    await add(rt)
    for _ in range(failures + 1):
        await make_due(rt)
        await work.run_due()
    assert len(consumer.seen) == failures + 1
    assert await rows(rt) == []


async def test_what_is_away_for_a_day_is_given_up(rt: Runtime) -> None:
    work = worker(rt, Recorder(*(OSError("away") for _ in range(outbox.ATTEMPTS))))
    await add(rt)
    async with rt.database.connection() as conn:
        await conn.execute("UPDATE outbox SET created_at = now() - interval '25 hours', attempts = 9")
    await work.run_due()
    (row,) = await rows(rt)
    assert row["dead_at"] is not None


async def test_consumer_that_succeeded_is_not_called_again_for_another(rt: Runtime) -> None:
    good, bad = Recorder(), Recorder(ValueError("boom"))
    work = worker(rt, good, bad)
    await add(rt)
    await work.run_due()
    await make_due(rt)
    await work.run_due()
    assert (len(good.seen), len(bad.seen)) == (1, 2)
    assert await rows(rt) == []


async def test_consumer_that_hangs_is_ended(rt: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "CONSUMER_TIMEOUT", 0.05)

    async def hang(rt: Runtime, delivery: Delivery) -> None:
        await asyncio.Event().wait()

    await add(rt)
    await worker(rt, hang).run_due()
    (row,) = await rows(rt)
    assert (row["attempts"], row["dead_at"]) == (1, None)


async def test_work_of_a_killed_worker_is_taken_over_when_its_lease_ends(rt: Runtime) -> None:
    started = asyncio.Event()

    async def hang(rt: Runtime, delivery: Delivery) -> None:
        started.set()
        await asyncio.Event().wait()

    await add(rt)
    async with asyncio.TaskGroup() as group:
        killed = group.create_task(worker(rt, hang).run_due())
        await started.wait()
        killed.cancel()
    successor = Recorder()
    assert await worker(rt, successor).run_due() == 0, "the lease holds"
    await make_due(rt)
    assert await worker(rt, successor).run_due() == 1
    assert await rows(rt) == []


async def test_late_failure_of_a_slow_worker_does_not_disturb_its_successor(rt: Runtime) -> None:
    go_on, started = asyncio.Event(), asyncio.Event()

    async def slow(rt: Runtime, delivery: Delivery) -> None:
        started.set()
        await go_on.wait()
        raise Undeliverable("too late")

    await add(rt)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker(rt, slow).run_due())
        await started.wait()
        await make_due(rt)
        await worker(rt, Recorder(ValueError("boom"))).run_due()
        go_on.set()
    (row,) = await rows(rt)
    assert (row["last_error"], row["dead_at"]) == ("ValueError: boom", None)


async def test_workers_share_the_work(rt: Runtime) -> None:
    taken: Counter[Any] = Counter()

    async def consumer(rt: Runtime, delivery: Delivery) -> None:
        taken[delivery.id] += 1
        await asyncio.sleep(0)

    ids = await add(rt, count=100)
    workers = [worker(rt, consumer) for _ in range(3)]
    while await asyncio.gather(*(work.run_due() for work in workers)) != [0, 0, 0]:
        pass
    assert taken == Counter(ids)


async def test_event_that_nobody_knows_is_left_for_another_release(rt: Runtime) -> None:
    await add(rt)
    assert await worker(rt, Recorder(), event="test.other").run_due() == 0
    assert len(await rows(rt)) == 1


async def test_started_worker_carries_what_is_committed_later(rt: Runtime) -> None:
    consumer, tasks = Recorder(), Tasks()
    Outbox(rt, tasks, [Consumer("test.0", EVENT, consumer)]).start()
    try:
        await add(rt, count=outbox.BATCH + 5)
        await eventually(lambda: len(consumer.seen) == outbox.BATCH + 5)
    finally:
        await tasks.stop()


def test_two_consumers_of_one_name_are_refused(rt: Runtime) -> None:
    with pytest.raises(ValueError, match="one name"):
        Outbox(rt, Tasks(), [Consumer("twice", EVENT, Recorder()), Consumer("twice", EVENT, Recorder())])
