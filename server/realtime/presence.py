"""Who is here: leases that a replica's incarnation owns in Redis, never the word of a disconnect handler alone.

A user is present in a room while at least one incarnation says so. An incarnation renews its lease every few seconds;
when it falls silent, whichever replica notices first takes its people out, and each departure is announced once because
the script that removes the last entry of a user says so to one caller only. A replica whose lease was lost (it hung, or
Redis lost its data) starts a new incarnation and enters everybody again, so that old entries can only be purged.

Keys under `<prefix>:presence:`: `<room>:leases` (incarnation|user), `<room>:users` (user → number of incarnations),
`<room>:people` (user → JSON), `<room>:version`, `replicas` (set), `replica:<incarnation>` (the lease),
`replica:<incarnation>:rooms` (set).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from redis.asyncio import Redis

from server.realtime.channels import REDIS_ERRORS
from server.settings import Realtime as RealtimeSettings
from server.settings import planted_bugs
from server.tasks import Tasks

logger = logging.getLogger(__name__)

LISTED = 100  # people in a join ack
PATIENCE = 1.0  # seconds that a join or a question waits for Redis
LOST_PAUSE = 0.5  # seconds between two attempts to get a lease again
BATCH = 200  # entries and departures in one round trip
STOP_TIMEOUT = 2.0  # seconds to say goodbye to Redis

_ENTER = """
if redis.call('HSETNX', KEYS[1], ARGV[1] .. '|' .. ARGV[2], 1) == 1 then
  redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
  redis.call('SADD', KEYS[5], ARGV[4])
  redis.call('SADD', KEYS[6], ARGV[1])
  if redis.call('HINCRBY', KEYS[2], ARGV[2], 1) == 1 then
    return {1, redis.call('HLEN', KEYS[2]), redis.call('INCR', KEYS[4])}
  end
end
return {0, redis.call('HLEN', KEYS[2]), tonumber(redis.call('GET', KEYS[4]) or 0)}
"""

# Takes the users from ARGV[3] on (or, with none named, every user) of one incarnation out of a room; returns who is
# gone altogether. An empty room leaves no key behind; ARGV[2] names it when nobody of this incarnation is left in it.
_LEAVE = """
local users = {}
if #ARGV > 2 then
  for i = 3, #ARGV do users[#users + 1] = ARGV[i] end
else
  local prefix = ARGV[1] .. '|'
  for _, lease in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(lease, 1, #prefix) == prefix then users[#users + 1] = string.sub(lease, #prefix + 1) end
  end
end
local gone = {}
for _, user in ipairs(users) do
  if redis.call('HDEL', KEYS[1], ARGV[1] .. '|' .. user) == 1 and redis.call('HINCRBY', KEYS[2], user, -1) <= 0 then
    redis.call('HDEL', KEYS[2], user)
    redis.call('HDEL', KEYS[3], user)
    redis.call('INCR', KEYS[4])
    gone[#gone + 1] = user
  end
end
if ARGV[2] ~= '' then redis.call('SREM', KEYS[5], ARGV[2]) end
local count, version = redis.call('HLEN', KEYS[2]), tonumber(redis.call('GET', KEYS[4]) or 0)
if count == 0 then redis.call('DEL', KEYS[4]) end
return {gone, count, version}
"""

# The first ARGV[1] people of a room: in a large one the others stay in Redis.
_ROSTER = """
local people = redis.call('HVALS', KEYS[2])
local first = {}
for i = 1, math.min(#people, tonumber(ARGV[1])) do first[i] = people[i] end
return {redis.call('HLEN', KEYS[1]), tonumber(redis.call('GET', KEYS[3]) or 0), first}
"""

Person = dict[str, Any]  # {"id", "name", "avatar_url"}, as JSON


@dataclass(frozen=True, slots=True)
class Participants:
    """The people in a room; `users` are the first 100. `stale`: Redis is away and only this replica's are known."""

    count: int
    users: list[Person]
    version: int
    stale: bool = False

    def ack(self) -> dict[str, Any]:
        """`{"count", "users", "version", "stale"?}`"""
        ack: dict[str, Any] = {"count": self.count, "users": self.users, "version": self.version}
        return {**ack, "stale": True} if self.stale else ack


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """Somebody came into a room or left it altogether; `count` and `version` are those after it."""

    room_id: UUID
    joined: tuple[Person, ...]
    left: tuple[str, ...]
    count: int
    version: int


@dataclass(slots=True)
class _Here:
    """A user with sockets of this replica in a room."""

    person: Person
    sockets: int = 0


@dataclass(slots=True)
class _Step:
    """An entry (with `person`) or a departure that is to be written to Redis; `last`: nobody of ours is left there."""

    room_id: UUID
    user_id: UUID
    person: Person | None
    last: bool = False
    written: asyncio.Future[None] | None = field(default=None)


class Presence:
    """The presence of this replica's people, and the clean-up after replicas that died.

    `on_change` is called once in the whole installation for each change.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str,
        tasks: Tasks,
        settings: RealtimeSettings,
        on_change: Callable[[PresenceChange], None],
    ) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:presence"
        self._tasks = tasks
        self._settings = settings
        self._on_change = on_change
        self._here: dict[UUID, dict[UUID, _Here]] = {}
        self._steps: deque[_Step] = deque()
        self._wake = asyncio.Event()
        self._incarnation = secrets.token_hex(8)
        self._lost = True  # no lease yet, or one that cannot be trusted: the next renewal starts a new incarnation
        self._away = False  # Redis did not answer when it was last asked: nobody waits for it
        self._begun = False
        self._bugs = planted_bugs()
        self._enter = redis.register_script(_ENTER)
        self._leave = redis.register_script(_LEAVE)
        self._roster = redis.register_script(_ROSTER)

    def start(self) -> None:
        """Start to write, to renew the lease and to sweep."""
        self._tasks.forever(self._write_steps, name="presence:write", pause=lambda: 0.0)
        self._tasks.forever(self._renew, name="presence:renew", pause=self._renew_pause)

    async def stop(self) -> None:
        """Write what is queued and give the lease back, so that nobody has to wait for it to run out."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await self._write_batches()
                await self._purge(self._incarnation)
        except REDIS_ERRORS as error:
            logger.info("presence could not be given back", extra={"reason": repr(error)})

    async def enter(self, room_id: UUID, user_id: UUID, person: Person) -> None:
        """A socket of a user came into a room. Returns when Redis knows, and soon when Redis is away."""
        here = self._here.setdefault(room_id, {}).setdefault(user_id, _Here(person))
        here.sockets += 1
        if here.sockets == 1 and not self._away:
            written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue(_Step(room_id, user_id, person, written=written))
            await asyncio.wait([written], timeout=PATIENCE)

    def leave(self, room_id: UUID, user_id: UUID) -> None:
        """A socket of a user left a room, by command or because it is gone."""
        people = self._here.get(room_id, {})
        here = people.get(user_id)
        if here is None:
            return
        here.sockets -= 1
        if here.sockets <= 0:
            del people[user_id]
            if not people:
                del self._here[room_id]
            if "no_leave" not in self._bugs:
                self._queue(_Step(room_id, user_id, None, last=not people))

    async def participants(self, room_id: UUID, limit: int = LISTED) -> Participants:
        """Who is in a room, over all replicas; of this one alone when Redis is away, which nobody waits for."""
        if self._away:
            return self._own(room_id, limit)
        try:
            async with asyncio.timeout(PATIENCE):
                count, version, people = await self._roster(self._keys(room_id)[1:4], [limit])
        except REDIS_ERRORS:
            return self._own(room_id, limit)
        return Participants(count, [orjson.loads(person) for person in people], version)

    def _own(self, room_id: UUID, limit: int) -> Participants:
        here = [entry.person for entry in self._here.get(room_id, {}).values()]
        return Participants(len(here), here[:limit], 0, stale=True)

    def _queue(self, step: _Step) -> None:
        """Have a step written, unless the next incarnation enters everybody anew and the old one is purged anyhow."""
        if not self._away:
            self._steps.append(step)
            self._wake.set()

    async def _write_steps(self) -> None:
        await self._wake.wait()
        self._wake.clear()
        try:
            await self._write_batches()
        except REDIS_ERRORS as error:
            # What is lost here is made good by the next renewal: it starts anew and lets all old entries be purged.
            logger.warning("presence could not be written", extra={"reason": repr(error)})
            self._lost = self._away = True
            self._written(self._steps)
            self._steps.clear()

    async def _write_batches(self) -> None:
        """Write what is queued in the order in which it happened, many steps in a round trip."""
        while self._steps:
            steps = [self._steps.popleft() for _ in range(min(BATCH, len(self._steps)))]
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for step in steps:
                        await self._add(pipeline, step)
                    results = await pipeline.execute()
            finally:
                self._written(steps)
            for step, result in zip(steps, results, strict=True):
                self._announce(step, result)

    async def _add(self, pipeline: Any, step: _Step) -> None:  # Any: redis-py's pipelines are not typed
        if step.person is None:
            emptied = str(step.room_id) if step.last else ""
            arguments = [self._incarnation, emptied, str(step.user_id)]
            await self._leave(self._keys(step.room_id), arguments, client=pipeline)
        else:
            person = orjson.dumps(step.person)
            await self._enter(
                [*self._keys(step.room_id), f"{self._prefix}:replicas"],
                [self._incarnation, str(step.user_id), person, str(step.room_id)],
                client=pipeline,
            )

    def _announce(self, step: _Step, result: list[Any]) -> None:  # Any: what the script returned
        changed, count, version = result
        if not changed and "announce_each_tab" not in self._bugs:
            return
        joined = () if step.person is None else (step.person,)
        left = (str(step.user_id),) if step.person is None else ()
        self._on_change(PresenceChange(step.room_id, joined, left, count, version))

    @staticmethod
    def _written(steps: Iterable[_Step]) -> None:
        for step in steps:
            if step.written is not None and not step.written.done():
                step.written.set_result(None)

    def _renew_pause(self) -> float:
        return min(LOST_PAUSE, self._settings.presence_interval) if self._lost else self._settings.presence_interval

    async def _renew(self) -> None:
        """Renew the lease, start anew if it was lost, and take out those whose lease has run out."""
        try:
            if not self._lost and not await self._renew_lease():
                self._lost = True
            if self._lost:
                await self._begin_incarnation()
            await self._sweep()
        except REDIS_ERRORS as error:
            logger.warning("the presence lease could not be renewed", extra={"reason": repr(error)})
            self._lost = self._away = True

    async def _renew_lease(self) -> bool:
        lease = int(self._settings.presence_lease * 1000)
        return bool(await self._redis.set(self._lease_key(self._incarnation), 1, px=lease, xx=True))

    async def _begin_incarnation(self) -> None:
        old = self._incarnation
        if self._begun:  # who came before the first lease is entered under the first name already
            self._incarnation = secrets.token_hex(8)
        async with self._redis.pipeline() as pipeline:
            pipeline.delete(self._lease_key(old))
            pipeline.sadd(f"{self._prefix}:replicas", self._incarnation)
            pipeline.set(self._lease_key(self._incarnation), 1, px=int(self._settings.presence_lease * 1000))
            await pipeline.execute()
        self._lost = self._away = False
        self._begun = True
        for room_id, people in self._here.items():
            for user_id, here in people.items():
                self._queue(_Step(room_id, user_id, here.person))

    async def _sweep(self) -> None:
        if "presence_without_lease" in self._bugs:
            return
        for incarnation in _texts(await self._redis.smembers(f"{self._prefix}:replicas")):
            if not await self._redis.exists(self._lease_key(incarnation)):
                await self._purge(incarnation)

    async def _purge(self, incarnation: str) -> None:
        """Take everybody of a dead incarnation out, room by room; safe to be done by several replicas at once."""
        for room_id in map(UUID, _texts(await self._redis.smembers(self._rooms_key(incarnation)))):
            gone, count, version = await self._leave(self._keys(room_id), [incarnation, ""])
            if gone:
                left = tuple(user.decode() for user in gone)
                self._on_change(PresenceChange(room_id, (), left, count, version))
        async with self._redis.pipeline() as pipeline:
            pipeline.delete(self._rooms_key(incarnation), self._lease_key(incarnation))
            pipeline.srem(f"{self._prefix}:replicas", incarnation)
            await pipeline.execute()

    def _keys(self, room_id: UUID) -> list[str]:
        own = [self._key(room_id, name) for name in ("leases", "users", "people", "version")]
        return [*own, self._rooms_key(self._incarnation)]

    def _key(self, room_id: UUID, name: str) -> str:
        return f"{self._prefix}:{room_id}:{name}"

    def _lease_key(self, incarnation: str) -> str:
        return f"{self._prefix}:replica:{incarnation}"

    def _rooms_key(self, incarnation: str) -> str:
        return f"{self._prefix}:replica:{incarnation}:rooms"


def _texts(members: Iterable[bytes | str]) -> list[str]:
    return [member.decode() if isinstance(member, bytes) else member for member in members]
