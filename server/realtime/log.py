"""The room log: the one write path of everything that happens in a room, and the reads of it.

`RoomLog.commit` queues a piece of work; committers (rooms are sharded between them) take what queued while their last
transaction ran and write it as one. The order in a transaction is the order of ARCHITECTURE.md section 1:

1. Lock the rooms, before any other lock, skipping those that another replica holds.
2. In a second statement, so with a fresh snapshot, read what the decisions need.
3. Decide, one piece of work after the other; decisions are pure and see the effect of those before them.
4. Number the survivors' events, write events, receipts and states in one statement, COMMIT.

Only after the commit are the waiting callers woken (their acks are queued) and then the events handed to the fan-out.
The log never talks to a socket or to Redis, and it knows no feature: what a room allows and how its state follows from
its events comes from `RoomRules`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from uuid import UUID

import asyncpg
import orjson

from server.clock import Clock, rfc3339
from server.database import Connection, Database
from server.errors import DomainError, Internal, NotFound, PayloadTooLarge, Unavailable
from server.metrics import ROOM_LOG_APPEND
from server.realtime import wire
from server.realtime.wire import RoomEvent
from server.realtime.work import FoldedEvent, Head, Known, NewEvent, Receipt, RoomRules, RoomView, State, Work
from server.settings import planted_bugs
from server.tasks import Tasks

logger = logging.getLogger(__name__)

COMMITTERS = 2  # one commits while the other decides and delivers; four are no faster (PERFORMANCE.md section 2)
BATCH_LIMIT = 500  # pieces of work in one transaction
QUEUE_LIMIT = 5000  # pieces of work that may wait in one committer before callers are refused
MISSES_UNTIL_WAIT = 3  # batches in which a room was locked elsewhere before its work waits for the lock
MISS_PAUSE = 0.002  # seconds before a batch in which every room was locked elsewhere is tried again
WAITING_ROOMS = 4  # rooms that are waited for at once: each holds a connection of the pool
CACHED_STATES = 10_000  # rooms
READ_BYTES = 384 * 1024  # bodies read at once; an ack of them must fit into what may be pending for a socket


@dataclass(slots=True)
class _Batch:
    """What one transaction is about to write, and whom it will wake."""

    now: datetime
    rooms: dict[UUID, _LockedRoom]
    events: list[tuple[RoomEvent, UUID]] = field(default_factory=list)  # with the actor
    receipts: list[tuple[Work, Receipt]] = field(default_factory=list)
    results: list[tuple[Work, Receipt | DomainError]] = field(default_factory=list)


@dataclass(slots=True)
class _LockedRoom:
    kind: str
    updated_at: datetime
    first_seq: int  # before this batch
    last_seq: int
    state: State
    state_changed: bool = False


class RoomLog:
    """The write path and the reads of all room logs, through one process.

    `deliver` is called with the events of a transaction after its commit, in order.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        tasks: Tasks,
        rules: RoomRules,
        deliver: Callable[[Sequence[RoomEvent]], None],
        max_event_bytes: int,
    ) -> None:
        self._database = database
        self._clock = clock
        self._tasks = tasks
        self._rules = rules
        self._deliver = deliver
        self._max_event_bytes = max_event_bytes
        self._queues: list[deque[Work]] = [deque() for _ in range(COMMITTERS)]
        self._wakes = [asyncio.Event() for _ in range(COMMITTERS)]
        self._states: OrderedDict[UUID, tuple[tuple[int, datetime], State]] = OrderedDict()
        self._waiting: dict[UUID, deque[Work]] = {}  # rooms whose lock is waited for apart, and what queues for them
        self._bugs = planted_bugs()
        self.epoch = ""

    async def start(self) -> None:
        """Read the epoch and start the committers.

        Raises:
            Unavailable: PostgreSQL does not answer.
        """
        await self.heads([])
        for shard in range(COMMITTERS):
            self._tasks.forever(partial(self._turn, shard), name=f"committer:{shard}", pause=lambda: 0.0)

    async def commit(self, work: Work) -> Receipt:
        """Carry out a command: when this returns, its events are committed and will reach every member.

        The same `cmd_id` with the same payload returns the first receipt with `duplicate` set and does nothing.

        Raises:
            NotFound: the actor has no place in the room, or there is none.
            IdempotencyKeyReused: the `cmd_id` was used by this actor with another payload.
            Conflict: the `cmd_id` names something of somebody else.
            PayloadTooLarge: an event would be larger than the log takes.
            Unavailable: PostgreSQL does not answer; whether the command happened is unknown until it is sent again
                with its `cmd_id`.
            DomainError: whatever the decision refuses with.
        """
        if "no_dedupe" in self._bugs:
            work.cmd_id = None
        shard = work.room_id.int % COMMITTERS
        if len(self._queues[shard]) >= QUEUE_LIMIT:
            raise Unavailable("The server is busy. Try again in a moment.")
        work.done = asyncio.get_running_loop().create_future()
        self._queues[shard].append(work)
        self._wakes[shard].set()
        return await work.done

    async def head(self, room_id: UUID) -> Head:
        """The last `seq` of a room and its state there.

        Raises:
            NotFound: there is no such room.
        """
        async with self._database.connection() as conn:
            row = await conn.fetchrow("SELECT last_seq, state FROM rooms WHERE id = $1", room_id)
        if row is None:
            raise NotFound
        return Head(row["last_seq"], row["state"].encode())

    async def heads(self, room_ids: Sequence[UUID]) -> dict[UUID, int]:
        """The last `seq` of many rooms in one query; also refreshes the epoch. Deleted rooms are missing."""
        async with self._database.connection() as conn:
            rows = await conn.fetch(
                "SELECT i.epoch, r.id, r.last_seq FROM installation i LEFT JOIN rooms r ON r.id = ANY($1::uuid[])",
                room_ids,
            )
        self.epoch = rows[0]["epoch"]
        return {row["id"]: row["last_seq"] for row in rows if row["id"] is not None}

    async def read(self, room_id: UUID, *, after: int, to: int | None = None, limit: int) -> list[RoomEvent]:
        """The first `limit` events after a `seq`, up to and including `to`, in order."""
        async with self._database.connection() as conn:
            rows = await conn.fetch(
                "SELECT seq, type, body FROM room_events WHERE room_id = $1 AND seq > $2 AND seq <= $3"
                " ORDER BY seq LIMIT $4",
                room_id,
                _clamp(after),
                _clamp(to),
                limit,
            )
        return _events(room_id, rows)

    async def read_back(
        self, room_id: UUID, *, before: int | None, limit: int, only: str | None = None
    ) -> list[RoomEvent]:
        """The last `limit` events before a `seq` (None: before the end), in order; only those of one type if given.

        Fewer when they are large: READ_BYTES at most, but never none where there is one.
        """
        async with self._database.connection() as conn:
            rows = await conn.fetch(
                """
                SELECT seq, type, body FROM (
                    SELECT seq, type, body, size, sum(size) OVER (ORDER BY seq DESC) AS total FROM (
                        SELECT seq, type, body, octet_length(body::text) AS size FROM room_events
                        WHERE room_id = $1 AND seq < $2 AND ($4::text IS NULL OR type = $4)
                        ORDER BY seq DESC LIMIT $3
                    ) AS newest
                ) AS measured WHERE total - size < $5 ORDER BY seq
                """,
                room_id,
                _clamp(before),
                limit,
                only,
                READ_BYTES,
            )
        return _events(room_id, rows)

    async def forget(self, conn: Connection, room_ids: Sequence[UUID]) -> None:
        """Delete the logs of rooms, in the transaction that deletes the rooms themselves."""
        await conn.execute(
            "WITH events AS (DELETE FROM room_events WHERE room_id = ANY($1::uuid[]))"
            " DELETE FROM cmd_ids WHERE room_id = ANY($1::uuid[])",
            room_ids,
        )

    # The write path, from here on.

    async def _turn(self, shard: int) -> None:
        """Take what queued since the last turn and write it as one transaction."""
        queue, wake = self._queues[shard], self._wakes[shard]
        await wake.wait()
        works = self._take(queue)
        missed = await self._write_or_split(works, wait=False) if works else []
        again = [work for work in missed if not self._wait_apart(work)]
        queue.extendleft(reversed(again))
        if not queue:
            wake.clear()
        if works and len(again) == len(works):
            await asyncio.sleep(MISS_PAUSE)

    def _take(self, queue: deque[Work]) -> list[Work]:
        """The next batch, without callers whose deadline has passed and without rooms that are waited for apart."""
        works = []
        for work in [queue.popleft() for _ in range(min(len(queue), BATCH_LIMIT))]:
            if work.room_id in self._waiting:
                self._waiting[work.room_id].append(work)
            elif not work.done.done():
                works.append(work)
        return works

    def _wait_apart(self, work: Work) -> bool:
        """Give a room that was locked elsewhere too often a transaction of its own, which waits for the lock.

        So nobody starves, no lock is waited for while others are held, and no other room waits.
        """
        work.misses += 1
        if work.room_id in self._waiting:
            self._waiting[work.room_id].append(work)
            return True
        if work.misses < MISSES_UNTIL_WAIT or len(self._waiting) >= WAITING_ROOMS:
            return False
        self._waiting[work.room_id] = deque([work])
        self._tasks.start(self._write_apart(work.room_id), name=f"room:{work.room_id}:lock")
        return True

    async def _write_apart(self, room_id: UUID) -> None:
        queue = self._waiting[room_id]
        try:
            while queue:
                works = [queue.popleft() for _ in range(min(len(queue), BATCH_LIMIT))]
                await self._write_or_split(works, wait=True)
        finally:
            del self._waiting[room_id]

    async def _write_or_split(self, works: list[Work], *, wait: bool) -> list[Work]:
        """Write a batch; one that the database refuses is written again, one command at a time, to find the culprit."""
        try:
            return await self._write(works, wait=wait)
        except Unavailable as error:
            _fail(works, error)
        except Exception as error:
            if len(works) == 1:
                logger.exception("command failed in the log", extra={"command": works[0].command})
                _fail(works, Internal())
                return []
            logger.warning("batch failed, written one by one", extra={"size": len(works), "reason": repr(error)})
            return [missed for work in works for missed in await self._write_or_split([work], wait=wait)]
        return []

    async def _write(self, works: list[Work], *, wait: bool) -> list[Work]:
        """One transaction. Returns the work whose room is locked elsewhere.

        Raises:
            Unavailable: nothing, or possibly everything, was written.
        """
        began = time.perf_counter()
        async with self._database.transaction() as conn:
            rows = await self._lock(conn, {work.room_id for work in works}, wait=wait)
            missed = [] if wait else [work for work in works if work.room_id not in rows]
            taken = [work for work in works if wait or work.room_id in rows]
            batch = _Batch(self._clock.now(), await self._read_rooms(conn, rows))
            await self._decide_all(conn, batch, taken)
            if batch.events or batch.receipts:
                await self._insert(conn, batch)
            if "ack_before_commit" in self._bugs:
                _settle(batch)
                await asyncio.sleep(0.1)
            if "publish_before_commit" in self._bugs:
                self._deliver([event for event, _ in batch.events])
                await asyncio.sleep(0.1)
            gone = await self._find_gone(conn, missed)
        ROOM_LOG_APPEND.observe(time.perf_counter() - began)
        self._remember_states(batch)
        _settle(batch)
        _fail(gone, NotFound())
        if batch.events:
            # Behind the callers that were just woken, so that the ack of a command is queued before its event.
            asyncio.get_running_loop().call_soon(self._deliver, [event for event, _ in batch.events])
        return [work for work in missed if work not in gone]

    async def _lock(self, conn: Connection, room_ids: set[UUID], *, wait: bool) -> dict[UUID, asyncpg.Record]:
        if wait:
            rows = await conn.fetch(
                "SELECT id, kind, last_seq, updated_at FROM rooms WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE",
                list(room_ids),
            )
        else:
            rows = await conn.fetch(
                "SELECT id, kind, last_seq, updated_at FROM rooms WHERE id = ANY($1::uuid[])"
                " ORDER BY id FOR UPDATE SKIP LOCKED",
                list(room_ids),
            )
        return {row["id"]: row for row in rows}

    async def _find_gone(self, conn: Connection, missed: list[Work]) -> list[Work]:
        """Among the work whose room was not obtained: that whose room does not exist at all."""
        if not missed:
            return []
        rows = await conn.fetch("SELECT id FROM rooms WHERE id = ANY($1::uuid[])", [work.room_id for work in missed])
        there = {row["id"] for row in rows}
        return [work for work in missed if work.room_id not in there]

    async def _read_rooms(self, conn: Connection, rows: dict[UUID, asyncpg.Record]) -> dict[UUID, _LockedRoom]:
        """The locked rooms with their states: from memory where nobody has written since, else from their rows."""
        states = {}
        for room_id, row in rows.items():
            version, state = self._states.get(room_id, (None, {}))
            if version == (row["last_seq"], row["updated_at"]):
                states[room_id] = state
        unknown = [room_id for room_id in rows if room_id not in states]
        if unknown:
            for row in await conn.fetch("SELECT id, state FROM rooms WHERE id = ANY($1::uuid[])", unknown):
                states[row["id"]] = orjson.loads(row["state"])
        return {
            room_id: _LockedRoom(row["kind"], row["updated_at"], row["last_seq"], row["last_seq"], states[room_id])
            for room_id, row in rows.items()
        }

    async def _decide_all(self, conn: Connection, batch: _Batch, works: list[Work]) -> None:
        roles = await self._rules.read_roles(conn, [(work.room_id, work.actor) for work in works])
        known = await self._read_receipts(conn, works)
        for work in works:
            try:
                receipt = self._decide(batch, work, roles.get((work.room_id, work.actor.user_id)), known)
            except DomainError as error:
                batch.results.append((work, error))
            except Exception:
                logger.exception("decision failed", extra={"command": work.command})
                batch.results.append((work, Internal()))
            else:
                batch.results.append((work, receipt))

    async def _read_receipts(self, conn: Connection, works: list[Work]) -> dict[tuple[UUID, UUID], list[Known]]:
        """What the ids in this batch have done before, by (room, id): commands of anybody, and messages referred to."""
        wanted = {(work.room_id, work.cmd_id) for work in works if work.cmd_id}
        wanted |= {(work.room_id, message) for work in works for message in work.refers_to}
        known: dict[tuple[UUID, UUID], list[Known]] = {}
        if wanted:
            rows = await conn.fetch(
                "SELECT c.room_id, c.cmd_id, c.actor_id, c.command, c.fingerprint, c.seq, c.at"
                " FROM unnest($1::uuid[], $2::uuid[]) AS wanted (room_id, cmd_id)"
                " JOIN cmd_ids c USING (room_id, cmd_id)",
                *map(list, zip(*wanted, strict=True)),
            )
            for row in rows:
                entry = Known(row["actor_id"], row["command"], row["fingerprint"], Receipt(row["seq"], row["at"], True))
                known.setdefault((row["room_id"], row["cmd_id"]), []).append(entry)
        return known

    def _decide(
        self, batch: _Batch, work: Work, role: str | None, known: dict[tuple[UUID, UUID], list[Known]]
    ) -> Receipt:
        room = batch.rooms.get(work.room_id)
        if room is None or role is None:
            raise NotFound
        if work.cmd_id and (receipt := work.first_receipt(known.get((work.room_id, work.cmd_id), []))):
            return receipt
        messages = {
            message: entry.receipt.seq
            for message in work.refers_to
            for entry in known.get((work.room_id, message), [])
            if entry.command == "message"
        }
        view = RoomView(work.room_id, room.kind, role, room.last_seq, room.state, batch.now, messages)
        receipt = self._append(batch, room, work, work.decide(view))
        if work.cmd_id:
            batch.receipts.append((work, receipt))
            entry = Known(work.actor.user_id, work.command, work.fingerprint, Receipt(receipt.seq, receipt.at, True))
            known.setdefault((work.room_id, work.cmd_id), []).append(entry)
        return receipt

    def _append(self, batch: _Batch, room: _LockedRoom, work: Work, news: Sequence[NewEvent]) -> Receipt:
        """Number and encode the events of one command and fold them; all of them, or none when one is too large."""
        at = rfc3339(batch.now)
        bodies = [work.encode(event, at) for event in news]
        if any(len(body) > self._max_event_bytes for body in bodies):
            raise PayloadTooLarge
        first = room.last_seq + 1 if news else room.last_seq
        for event, body in zip(news, bodies, strict=True):
            room.last_seq += 1
            batch.events.append((RoomEvent(work.room_id, room.last_seq, event.type, body), work.actor.user_id))
            folded = FoldedEvent(event.type, at, work.actor.user_id, work.actor.name, event.data)
            state = self._rules.fold(room.kind, room.state, folded)
            room.state_changed |= state is not room.state
            room.state = state
        return Receipt(first, batch.now)

    async def _insert(self, conn: Connection, batch: _Batch) -> None:
        """Write events, receipts, heads and states: one statement, one round trip."""
        changed = [(room_id, room) for room_id, room in batch.rooms.items() if room.last_seq > room.first_seq]
        await conn.execute(
            """
            WITH events AS (
                INSERT INTO room_events (room_id, seq, type, actor_id, at, body)
                SELECT e.room_id, e.seq, e.type, e.actor_id, $1, e.body::json
                FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::uuid[], $6::text[])
                    AS e (room_id, seq, type, actor_id, body)
            ), receipts AS (
                INSERT INTO cmd_ids (room_id, cmd_id, actor_id, command, fingerprint, seq, at)
                SELECT c.*, $1
                FROM unnest($7::uuid[], $8::uuid[], $9::uuid[], $10::text[], $11::bytea[], $12::bigint[])
                    AS c (room_id, cmd_id, actor_id, command, fingerprint, seq)
            )
            UPDATE rooms SET last_seq = r.last_seq, state = coalesce(r.state::json, rooms.state)
            FROM unnest($13::uuid[], $14::bigint[], $15::text[]) AS r (id, last_seq, state)
            WHERE rooms.id = r.id
            """,
            batch.now,
            [event.room_id for event, _ in batch.events],
            [event.seq for event, _ in batch.events],
            [event.type for event, _ in batch.events],
            [actor_id for _, actor_id in batch.events],
            [event.body.decode() for event, _ in batch.events],
            [work.room_id for work, _ in batch.receipts],
            [work.cmd_id for work, _ in batch.receipts],
            [work.actor.user_id for work, _ in batch.receipts],
            [work.command for work, _ in batch.receipts],
            [work.fingerprint for work, _ in batch.receipts],
            [receipt.seq for _, receipt in batch.receipts],
            [room_id for room_id, _ in changed],
            [room.last_seq for _, room in changed],
            [wire.dumps(room.state).decode() if room.state_changed else None for _, room in changed],
        )

    def _remember_states(self, batch: _Batch) -> None:
        for room_id, room in batch.rooms.items():
            self._states[room_id] = ((room.last_seq, room.updated_at), room.state)
            self._states.move_to_end(room_id)
        while len(self._states) > CACHED_STATES:
            self._states.popitem(last=False)


def _settle(batch: _Batch) -> None:
    """Wake the callers of a batch in order; those whose deadline has passed are gone."""
    for work, result in batch.results:
        if work.done.done():
            continue
        if isinstance(result, Receipt):
            work.done.set_result(result)
        else:
            work.done.set_exception(result)


def _fail(works: Iterable[Work], error: DomainError) -> None:
    for work in works:
        if not work.done.done():
            work.done.set_exception(error)


def _events(room_id: UUID, rows: Iterable[asyncpg.Record]) -> list[RoomEvent]:
    return [RoomEvent(room_id, row["seq"], row["type"], row["body"].encode()) for row in rows]


def _clamp(seq: int | None) -> int:
    """A place in the log that PostgreSQL can hold; None means the end."""
    return 2**63 - 1 if seq is None else max(-1, min(seq, 2**63 - 1))
