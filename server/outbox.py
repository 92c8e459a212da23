"""The outbox: durable events. A row in the business transaction, then the consumers of the event, at least once.

`add` writes the row; what is rolled back never happens. A worker of any replica takes due rows under a lease, so that a
killed one is replaced when the lease is over, and calls the consumers outside of any transaction. A consumer that fails
is tried again with growing pauses; what cannot succeed is kept as dead and blocks nobody. Consumers are idempotent:
the same delivery may come twice, also on two replicas.

Due times are compared by the clock of PostgreSQL, which all replicas share.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from server import logs
from server.clock import Clock
from server.database import Connection
from server.errors import Unavailable
from server.metrics import JOB_DURATION, JOBS, OUTBOX_BACKLOG
from server.tasks import Tasks

if TYPE_CHECKING:
    from server.runtime import Runtime

logger = logging.getLogger(__name__)

POLL = 0.5  # seconds between two looks for due rows
BATCH = 20  # rows that a worker takes at once; they are worked on side by side
LEASE = 45.0  # seconds after which the rows of a worker that says nothing are somebody else's
CONSUMER_TIMEOUT = 30.0  # seconds; well within the lease
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 45.0  # seconds: what recovers is used within a minute (GUARANTEES.md, G4)
ATTEMPTS = 10  # of a consumer that fails by itself
PATIENCE = 86_400.0  # seconds that something which does not answer is waited for
BACKLOG_INTERVAL = 5.0  # seconds between two counts for the metric
ERROR_LENGTH = 500  # characters
# Somebody else's trouble: it may end at any time, so it is not counted but timed.
AWAY = (OSError, TimeoutError, Unavailable)

Data = Mapping[str, Any]  # Any: what JSON can say; a consumer checks what it reads


class Undeliverable(Exception):
    """A consumer's word that trying again is no use; the row is dead at once. The text is kept, so no secrets."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to a consumer. `id` is the same in every attempt: what was done once is known by it."""

    id: UUID
    event: str
    data: Data
    trace_id: str
    attempt: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Consumer:
    """Work that a module does for every event of a name; `name` is unique among all consumers."""

    name: str
    event: str
    handle: Callable[[Runtime, Delivery], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class DeadEvent:
    """An event that was given up, and why."""

    id: UUID
    event: str
    attempts: int
    last_error: str | None
    dead_at: datetime


async def add(conn: Connection, event: str, data: Data, trace_id: str | None = None) -> UUID:
    """Write an event into the caller's transaction and return its id; it is carried when that commits.

    `trace_id` is the id of the request at hand unless another one is given.
    """
    event_id = Clock().uuid7()
    await conn.execute(
        "INSERT INTO outbox (id, event, data, trace_id, next_at) VALUES ($1, $2, $3::text::jsonb, $4, now())",
        event_id,
        event,
        orjson.dumps(dict(data)).decode(),
        trace_id or logs.request_context.get() or event_id.hex,
    )
    return event_id


async def read_dead(conn: Connection, limit: int = 50) -> list[DeadEvent]:
    """The events that were given up, newest first."""
    rows = await conn.fetch(
        "SELECT id, event, attempts, last_error, dead_at FROM outbox WHERE dead_at IS NOT NULL"
        " ORDER BY dead_at DESC LIMIT $1",
        limit,
    )
    return [DeadEvent(*row) for row in rows]


async def replay(conn: Connection, event_ids: Sequence[UUID]) -> int:
    """Give events that were given up another life; returns how many there were."""
    rows = await conn.fetch(
        "UPDATE outbox SET dead_at = NULL, attempts = 0, created_at = now(), next_at = now()"
        " WHERE id = ANY($1::uuid[]) AND dead_at IS NOT NULL RETURNING id",
        list(event_ids),
    )
    return len(rows)


class Outbox:
    """The worker of one process."""

    def __init__(self, rt: Runtime, tasks: Tasks, consumers: Sequence[Consumer]) -> None:
        """Take the consumers of all modules.

        Raises:
            ValueError: two consumers have one name.
        """
        if len({consumer.name for consumer in consumers}) < len(consumers):
            raise ValueError("two consumers have one name")
        self._rt = rt
        self._tasks = tasks
        self._consumers: defaultdict[str, list[Consumer]] = defaultdict(list)
        for consumer in consumers:
            self._consumers[consumer.event].append(consumer)
        self._counted_at = float("-inf")

    def start(self) -> None:
        """Begin to work, in the background, until the tasks are stopped."""
        self._tasks.forever(self._turn, name="outbox", pause=lambda: POLL)

    async def run_due(self) -> int:
        """Carry what is due once and return how many events that was; events that nobody here knows are left alone."""
        rows = await self._take()
        async with asyncio.TaskGroup() as group:
            for delivery, done in rows:
                group.create_task(self._carry(delivery, done), name=f"outbox:{delivery.event}")
        return len(rows)

    async def _turn(self) -> None:
        try:
            while await self.run_due() == BATCH:
                pass
            await self._count()
        except Unavailable as error:  # the pool says so itself, and the next turn is soon
            logger.debug("outbox waits for the database", extra={"cause": repr(error.__cause__)})

    async def _take(self) -> list[tuple[Delivery, frozenset[str]]]:
        async with self._rt.database.transaction() as conn:
            rows = await conn.fetch(
                """
                UPDATE outbox SET attempts = attempts + 1, next_at = now() + $2 * interval '1 second'
                WHERE id IN (
                    SELECT id FROM outbox WHERE dead_at IS NULL AND next_at <= now() AND event = ANY($1::text[])
                    ORDER BY next_at LIMIT $3 FOR UPDATE SKIP LOCKED)
                RETURNING id, event, data, trace_id, attempts, created_at, done
                """,
                list(self._consumers),
                LEASE,
                BATCH,
            )
        return [(_delivery(row), frozenset(row["done"])) for row in rows]

    async def _carry(self, delivery: Delivery, done: frozenset[str]) -> None:
        """Call the consumers that have not had the event, and write down what came of it."""
        failures = []
        for consumer in self._consumers[delivery.event]:
            if consumer.name in done:
                continue
            failure = await self._call(consumer, delivery)
            if failure is None:
                done |= {consumer.name}
            else:
                failures.append(failure)
        try:
            await self._settle(delivery, done, failures)
        except Unavailable:  # the lease ends, and the event comes again
            logger.info("outbox could not settle an event", extra={"event": delivery.event, "id": str(delivery.id)})

    async def _call(self, consumer: Consumer, delivery: Delivery) -> Exception | None:
        logs.request_context.set(delivery.trace_id)
        began = time.perf_counter()
        failure: Exception | None = None
        try:
            async with asyncio.timeout(CONSUMER_TIMEOUT):
                await consumer.handle(self._rt, delivery)
        except Exception as error:
            failure = error
        outcome = "done" if failure is None else "dead" if _is_dead([failure], delivery) else "retry"
        JOBS.labels(consumer.name, outcome).inc()
        JOB_DURATION.labels(consumer.name).observe(time.perf_counter() - began)
        if failure is not None:
            _report(consumer, delivery, failure, outcome)
        return failure

    async def _settle(self, delivery: Delivery, done: frozenset[str], failures: Sequence[Exception]) -> None:
        async with self._rt.database.connection() as conn:
            if not failures:
                await conn.execute("DELETE FROM outbox WHERE id = $1", delivery.id)
                return
            await conn.execute(
                """
                UPDATE outbox SET done = $2::text[], last_error = $3, next_at = now() + $4 * interval '1 second',
                                  dead_at = CASE WHEN $5 THEN now() END
                WHERE id = $1 AND attempts = $6
                """,
                delivery.id,
                sorted(done),
                "; ".join(map(_describe, failures))[:ERROR_LENGTH],
                pause(delivery.attempt),
                _is_dead(failures, delivery),
                delivery.attempt,
            )

    async def _count(self) -> None:
        if time.monotonic() - self._counted_at < BACKLOG_INTERVAL:
            return
        async with self._rt.database.connection() as conn:
            OUTBOX_BACKLOG.set(await conn.fetchval("SELECT count(*) FROM outbox WHERE dead_at IS NULL"))
        self._counted_at = time.monotonic()


def pause(attempt: int) -> float:
    """Seconds until the next attempt: doubling, up to a limit, and spread so that many do not come back at once."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt - 1, 16))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter


def _is_dead(failures: Sequence[Exception], delivery: Delivery) -> bool:
    """Given up is an event that only has failures for which waiting is no use."""
    return all(_is_final(failure, delivery) for failure in failures)


def _is_final(failure: Exception, delivery: Delivery) -> bool:
    if isinstance(failure, Undeliverable):
        return True
    if isinstance(failure, AWAY):
        age = (Clock().now() - delivery.created_at).total_seconds()
        return age > PATIENCE and delivery.attempt >= ATTEMPTS
    return delivery.attempt >= ATTEMPTS


def _report(consumer: Consumer, delivery: Delivery, failure: Exception, outcome: str) -> None:
    extra = {"consumer": consumer.name, "id": str(delivery.id), "attempt": delivery.attempt, "outcome": outcome}
    if isinstance(failure, (Undeliverable, *AWAY)):
        logger.warning("event not carried", extra={**extra, "cause": _describe(failure)})
    else:
        logger.error("event not carried", extra=extra, exc_info=failure)


def _describe(failure: Exception) -> str:
    return f"{type(failure).__name__}: {failure}"


def _delivery(row: Any) -> Delivery:  # Any: asyncpg's record
    return Delivery(
        row["id"], row["event"], orjson.loads(row["data"]), row["trace_id"], row["attempts"], row["created_at"]
    )
