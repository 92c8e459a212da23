"""Sliding windows: how many calls were made lately, counted in Redis for all replicas, or in this process without it.

A window is counted in PARTS sub-windows and one more, that is at most a tenth too long: it never lets more through than
the limit in any window, costs eleven small numbers a key whatever the limit, and takes several tokens at once. (A log
of each call, as the mission sketches, is exact but costs 6,000 entries for a limit of 6,000; it is used where a limit
is small and exactness matters: guesses.py.) One script asks all keys of a request and takes from all or from none, on
the clock of Redis, so the clocks of replicas do not matter. Redis never makes a request wait: after one slow or failed
call a breaker opens, this process counts alone, and a task tries until Redis answers again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.tasks import Tasks

logger = logging.getLogger(__name__)

PARTS = 10  # sub-windows of a window
PATIENCE = 0.25  # seconds that a call of Redis may take
CALLS = 8  # at once; the connections of the pool are there for others too, and waiting for one is no failure of Redis
PROBE_INTERVAL = 0.5  # seconds between two questions whether Redis is back
MAX_KEYS = 100_000  # of the local windows; the ones longest unused are dropped
# RuntimeError: what uvloop raises where asyncio raises OSError, on a transport that was closed a moment ago.
REDIS_ERRORS = (RedisError, OSError, TimeoutError, RuntimeError)

# KEYS: the windows. ARGV: the time in ms (0: that of Redis), then for each key its limit, part in ms, tokens wanted.
# Answers for each key: tokens given, tokens left, ms until the next ones come back.
TAKE = (
    f"local PARTS = {PARTS}\n"
    + """
local now = tonumber(ARGV[1])
if now == 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local found, refused = {}, false
for i, key in ipairs(KEYS) do
    local limit, part = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
    local current = math.floor(now / part)
    local counts, used, oldest = redis.call('HGETALL', key), 0, nil
    for j = 1, #counts, 2 do
        local number = tonumber(counts[j])
        if number < current - PARTS then
            redis.call('HDEL', key, counts[j])
        else
            used = used + tonumber(counts[j + 1])
            if not oldest or number < oldest then oldest = number end
        end
    end
    local left = math.max(0, limit - used)
    refused = refused or left == 0
    found[i] = {current, left, ((oldest or current) + PARTS + 1) * part - now}
end
local answer = {}
for i, key in ipairs(KEYS) do
    local current, left, reset = found[i][1], found[i][2], found[i][3]
    local given = 0
    if not refused then
        given = math.min(left, tonumber(ARGV[3 * i + 1]))
        redis.call('HINCRBY', key, current, given)
        redis.call('PEXPIRE', key, (PARTS + 1) * tonumber(ARGV[3 * i]))
    end
    answer[i] = {given, left - given, reset}
end
return answer
"""
)


@dataclass(frozen=True, slots=True)
class Window:
    """One key and what it allows: `limit` tokens in each `seconds`."""

    key: str
    limit: int
    seconds: float

    @property
    def part(self) -> int:
        """Milliseconds of a sub-window."""
        return max(1, math.ceil(self.seconds * 1000 / PARTS))


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of asking a window: `given` is 0 when it, or another one that was asked with it, is used up."""

    given: int
    left: int
    reset: float  # seconds until tokens come back


class LocalWindows:
    """The same count in this process; what serves while Redis is away."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, dict[int, int]] = OrderedDict()

    def take(self, windows: Sequence[Window], want: int, now: float) -> list[Taken]:
        """Take up to `want` tokens from each window, or none from any; `now` is in seconds of any steady clock."""
        milliseconds = int(now * 1000)
        found = [self._look(window, milliseconds) for window in windows]
        refused = any(left == 0 for left, _ in found)
        return [
            self._give(window, 0 if refused else min(left, want), left, reset, milliseconds)
            for window, (left, reset) in zip(windows, found, strict=True)
        ]

    def _look(self, window: Window, now: int) -> tuple[int, float]:
        current = now // window.part
        counts = self._counts.get(window.key, {})
        for number in [number for number in counts if number < current - PARTS]:
            del counts[number]
        reset = ((min(counts, default=current) + PARTS + 1) * window.part - now) / 1000
        return max(0, window.limit - sum(counts.values())), reset

    def _give(self, window: Window, given: int, left: int, reset: float, now: int) -> Taken:
        if given:
            counts = self._counts.setdefault(window.key, {})
            current = now // window.part
            counts[current] = counts.get(current, 0) + given
            self._counts.move_to_end(window.key)
            if len(self._counts) > MAX_KEYS:
                self._counts.popitem(last=False)
        return Taken(given, left - given, reset)


class Breaker:
    """Calls of Redis that end soon, and none at all while it is known to be away."""

    def __init__(self, redis: Redis, tasks: Tasks) -> None:
        self._redis = redis
        self._tasks = tasks
        self._scripts: dict[str, Callable[..., Any]] = {}  # Any: redis-py's Script answers what the Lua returns
        self._places = asyncio.Semaphore(CALLS)
        self.closed = True  # current flows: Redis is asked

    async def call(self, script: str, keys: Sequence[str], args: Sequence[str | int]) -> Any | None:
        """Run a Lua script; None when Redis is away, which costs PATIENCE once and then nothing."""
        async with self._places:
            return await self._call(script, keys, args) if self.closed else None

    async def _call(self, script: str, keys: Sequence[str], args: Sequence[str | int]) -> Any | None:
        prepared = self._scripts.get(script)
        if prepared is None:  # sends the text only to a server that does not know it
            prepared = self._scripts[script] = self._redis.register_script(script)
        try:
            async with asyncio.timeout(PATIENCE):
                return await prepared(keys=keys, args=args)
        except REDIS_ERRORS as error:
            self._open(error)
            return None

    def _open(self, error: BaseException) -> None:
        if self.closed:
            self.closed = False
            logger.warning("limits are counted without Redis", extra={"reason": repr(error)})
            self._tasks.start(self._close_again(), name="limits: probe")

    async def _close_again(self) -> None:
        while not self.closed:
            await asyncio.sleep(PROBE_INTERVAL)
            self.closed = await self._answers()
        logger.info("limits are counted in Redis again")

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._redis.ping()
        except REDIS_ERRORS:
            return False
        return True


class Windows:
    """Sliding windows of all replicas, or of this one while Redis is away."""

    def __init__(self, breaker: Breaker, prefix: str) -> None:
        self._breaker = breaker
        self._prefix = prefix
        self._local = LocalWindows()

    async def take(self, windows: Sequence[Window], want: int = 1, *, now: float = 0.0) -> list[Taken]:
        """Take up to `want` tokens from each window, or none from any. `now`: seconds, for tests; else Redis knows."""
        args: list[str | int] = [int(now * 1000)]
        for window in windows:
            args += [window.limit, window.part, want]
        keys = [f"{self._prefix}:window:{window.key}" for window in windows]
        answer = await self._breaker.call(TAKE, keys, args)
        if answer is None:
            return self._local.take(windows, want, now or time.monotonic())
        return [Taken(given, left, reset / 1000) for given, left, reset in answer]
