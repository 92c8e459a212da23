"""Guesses: attempts at a password or a code, of which only the wrong ones count, exactly and over all replicas.

The key is account and address together, so that a stranger cannot lock somebody out, and a wider limit holds for the
address alone. An attempt is entered before it is made: many at once get no more tries than one after the other. Those
that are still open are waited for, not refused, since they may all turn out right. What this process has seen go wrong
it knows by itself too, so that nothing opens when Redis is lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
import time
import unicodedata
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from server.errors import DomainError, RateLimited
from server.metrics import RATE_LIMITED
from server.windows import MAX_KEYS, Breaker

OPEN_SECONDS = 10.0  # an attempt that did not end by then died with its replica
PAUSE = 0.04  # seconds, on average, between two looks whether the attempts before have ended

_CLOCK = """
local now = tonumber(ARGV[1])
if now == 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end
"""
# KEYS: wrong ones of account and address, of the address, open ones of account and address.
# ARGV: time in ms (0: that of Redis), id, limit, limit of the address, window in ms, ms that one may be open.
# Answers the ms to wait for a try, or -1 when those that are open must end first, or 0: go on, it is entered.
BEGIN = (
    _CLOCK
    + """
local window = tonumber(ARGV[5])
for i = 1, 2 do
    local limit = tonumber(ARGV[2 + i])
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now - window)
    if redis.call('ZCARD', KEYS[i]) >= limit then
        local first = redis.call('ZRANGE', KEYS[i], -limit, -limit, 'WITHSCORES')
        return math.max(1, tonumber(first[2]) + window - now)
    end
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - tonumber(ARGV[6]))
if redis.call('ZCARD', KEYS[1]) + redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[3]) then
    return -1
end
redis.call('ZADD', KEYS[3], now, ARGV[2])
redis.call('PEXPIRE', KEYS[3], ARGV[6])
return 0
"""
)
# KEYS as above. ARGV: time in ms (0: that of Redis), id, window in ms, 1 when it was wrong.
END = (
    _CLOCK
    + """
redis.call('ZREM', KEYS[3], ARGV[2])
if ARGV[4] == '1' then
    for i = 1, 2 do
        redis.call('ZADD', KEYS[i], now, ARGV[2])
        redis.call('PEXPIRE', KEYS[i], ARGV[3])
    end
end
return 1
"""
)


@dataclass(frozen=True, slots=True)
class GuessLimit:
    """How many may be wrong in a window: of one account from one address, and of all accounts from that address."""

    failures: int
    failures_per_address: int
    seconds: float


@dataclass(slots=True)
class _Local:
    """What this process has seen of one key: when the wrong ones were, and how many are open."""

    wrong: list[float] = field(default_factory=list)
    open: int = 0


class Guesses:
    """Counts attempts by group, address and account."""

    def __init__(self, breaker: Breaker, prefix: str, limit: GuessLimit) -> None:
        self._breaker = breaker
        self._prefix = prefix
        self._limit = limit
        self._local: OrderedDict[str, _Local] = OrderedDict()

    @asynccontextmanager
    async def guess(
        self, group: str, address: str, account: str, *, wrong: type[DomainError] | tuple[type[DomainError], ...]
    ) -> AsyncIterator[None]:
        """Make an attempt inside; it counts when it raises `wrong`. May wait for other attempts at the same account.

        Raises:
            RateLimited: too many were wrong lately; `retry_after` tells when there is a try again.
        """
        keys = _keys(group, address, account)
        attempt = secrets.token_hex(8)
        await self._enter(group, keys, attempt)
        try:
            yield
        except wrong:
            await self._leave(keys, attempt, wrong=True)
            raise
        except DomainError:
            await self._leave(keys, attempt, wrong=False)
            raise
        except BaseException:
            self._of(keys[0]).open -= 1  # cancelled or broken: Redis forgets it by itself, nothing is waited for now
            raise
        else:
            await self._leave(keys, attempt, wrong=False)

    async def _enter(self, group: str, keys: tuple[str, str], attempt: str) -> None:
        while True:
            wait = self._enter_here(keys)
            if wait == 0:
                wait = await self._enter_everywhere(keys, attempt)
            if wait == 0:
                return
            if wait > 0:
                RATE_LIMITED.labels(group).inc()
                raise RateLimited("Too many wrong attempts. Wait before you try again.", retry_after=wait)
            await asyncio.sleep(PAUSE * (0.5 + random.random()))  # noqa: S311 (jitter)

    def _enter_here(self, keys: tuple[str, str]) -> float:
        """Seconds to wait; -1 when others must end first; 0 when the attempt is entered."""
        now = time.monotonic()
        limits = (self._limit.failures, self._limit.failures_per_address)
        for key, limit in zip(keys, limits, strict=True):
            local = self._of(key)
            local.wrong = [then for then in local.wrong if then > now - self._limit.seconds]
            if len(local.wrong) >= limit:
                return max(0.001, local.wrong[-limit] + self._limit.seconds - now)
        account = self._of(keys[0])
        if len(account.wrong) + account.open >= self._limit.failures:
            return -1
        account.open += 1
        return 0

    async def _enter_everywhere(self, keys: tuple[str, str], attempt: str) -> float:
        limit = self._limit
        milliseconds = (int(limit.seconds * 1000), int(OPEN_SECONDS * 1000))
        args = (0, attempt, limit.failures, limit.failures_per_address, *milliseconds)
        try:
            answer: int = await self._breaker.call(BEGIN, self._redis_keys(keys), args) or 0
        except BaseException:
            self._of(keys[0]).open -= 1
            raise
        if answer:
            self._of(keys[0]).open -= 1
        return answer / 1000 if answer > 0 else answer

    async def _leave(self, keys: tuple[str, str], attempt: str, *, wrong: bool) -> None:
        self._of(keys[0]).open -= 1
        if wrong:
            for key in keys:
                self._of(key).wrong.append(time.monotonic())
        args = (0, attempt, int(self._limit.seconds * 1000), int(wrong))
        await self._breaker.call(END, self._redis_keys(keys), args)

    def _of(self, key: str) -> _Local:
        local = self._local.get(key)
        if local is None:
            local = self._local[key] = _Local()
            self._forget_oldest()
        self._local.move_to_end(key)
        return local

    def _forget_oldest(self) -> None:
        if len(self._local) > MAX_KEYS:
            oldest = next(iter(self._local))
            if not self._local[oldest].open:
                del self._local[oldest]

    def _redis_keys(self, keys: tuple[str, str]) -> tuple[str, str, str]:
        first, second = (f"{self._prefix}:guesses:{key}" for key in keys)
        return first, second, f"{first}:open"


def _keys(group: str, address: str, account: str) -> tuple[str, str]:
    """Names that tell nobody who reads Redis which account was tried."""
    account = unicodedata.normalize("NFKC", account).casefold().strip()  # no further tries for another spelling
    both = hashlib.blake2b(f"{address}\0{account}".encode(errors="replace"), digest_size=16).hexdigest()
    return f"{group}:{both}", f"{group}:{address}"
