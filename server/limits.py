"""Limits: how much one may ask for. Everything that says "too much, later" to a person is here.

Three kinds: a bucket of tokens in this process (`take`: messages of one person in one room), a sliding window over all
replicas for each group of routes (`spend`, `admit`: windows.py), and attempts at a secret, of which only the wrong ones
count (`guess`: guesses.py). Too much for the machine is the gateway's concern (gateway/admission.py).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple
from uuid import UUID

from redis.asyncio import Redis

from server.errors import DomainError, RateLimited
from server.guesses import Guesses, GuessLimit
from server.metrics import RATE_LIMITED
from server.settings import LimitGroup
from server.settings import Limits as LimitsSettings
from server.tasks import Tasks
from server.windows import PARTS, Breaker, Taken, Window, Windows

MAX_BUCKETS = 100_000  # the ones longest unused are dropped: they are full again, or their owner is an attacker
MAX_LEASES = 100_000
SHARES = 40  # a block is at most this part of a limit
REFUSED_SECONDS = 1.0  # seconds for which a refusal is repeated without asking Redis


class Quota(NamedTuple):
    """What the headers RateLimit-* of an answer say; `reset` is in seconds until tokens come back."""

    limit: int
    remaining: int
    reset: int
    refused: bool = False


UNLIMITED = Quota(0, 0, 0)


@dataclass(slots=True, eq=False)
class _Lease:
    """Tokens that this replica has taken for one caller and may spend until `until`, without asking anybody."""

    tokens: int = 0
    until: float = 0.0
    limit: int = 0
    left: int = 0
    reset: float = 0.0
    again: float = 0.0  # when to ask again after the last one
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def is_over(self, now: float) -> bool:
        """Whether to ask for more: what was given is old or spent, and a refusal is not fresh."""
        if self.tokens:
            return now >= self.until
        return self.left > 0 or now >= self.again

    def quota(self, now: float, *, refused: bool = False) -> Quota:
        return Quota(self.limit, self.left + self.tokens, max(1, math.ceil(self.reset - now)), refused)


_Key = tuple[str, str, UUID | None]


class Limits:
    """The limits of one process."""

    def __init__(self, settings: LimitsSettings, redis: Redis, prefix: str, tasks: Tasks) -> None:
        breaker = Breaker(redis, tasks)
        failures = GuessLimit(settings.login_failures, settings.login_failures_per_address, settings.login_window)
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # tokens left, when
        self._groups: Mapping[str, LimitGroup] = settings.groups
        self._windows = Windows(breaker, prefix)
        self._guesses = Guesses(breaker, prefix, failures)
        self._leases: OrderedDict[_Key, _Lease] = OrderedDict()

    def take(self, name: str, key: Hashable, *, rate: float, burst: int) -> None:
        """Take one token of a bucket of `burst` tokens that refills at `rate` per second; this process only.

        Raises:
            RateLimited: it is empty; `retry_after` tells when there is a token again.
        """
        wait = self.try_take(name, key, rate=rate, burst=burst)
        if wait:
            RATE_LIMITED.labels(name).inc()
            raise RateLimited(retry_after=wait)

    def try_take(self, name: str, key: Hashable, *, rate: float, burst: int) -> float:
        """Like `take`, but returns the seconds to wait; 0.0 when a token was taken."""
        now = time.monotonic()
        tokens, then = self._buckets.get((name, key), (float(burst), now))
        tokens = min(float(burst), tokens + (now - then) * rate)
        taken = tokens >= 1
        self._buckets[(name, key)] = (tokens - 1 if taken else tokens, now)
        self._buckets.move_to_end((name, key))
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - tokens) / rate

    def spend(self, group: str, client_ip: str, user_id: UUID | None) -> Quota | None:
        """Spend a token of a group that this replica has taken before; None when it must be asked for (`admit`)."""
        lease = self._leases.get((group, client_ip, user_id))
        if lease is None or not lease.tokens:
            return None
        now = time.monotonic()
        if now >= lease.until:
            return None
        lease.tokens -= 1
        return Quota(lease.limit, lease.left + lease.tokens, int(lease.reset - now) + 1, False)

    async def admit(self, group: str, client_ip: str, user_id: UUID | None) -> Quota:
        """Count a request against its group, for its address and its user; `refused` when either has had too many.

        A replica may hold a block of tokens for a tenth of the window, so for that long a caller of several replicas
        can be refused by one while the other still has some.
        """
        lease = self._lease((group, client_ip, user_id))
        async with lease.lock:  # of many at once, one asks and all spend
            now = time.monotonic()
            if lease.is_over(now):
                windows = self._windows_of(group, client_ip, user_id)
                if not windows:
                    return UNLIMITED
                self._fill(lease, windows, await self._windows.take(windows, self._block(group, windows)))
                now = time.monotonic()
        if not lease.tokens:
            RATE_LIMITED.labels(group).inc()
            return lease.quota(now, refused=True)
        lease.tokens -= 1
        return lease.quota(now)

    def guess(
        self, group: str, client_ip: str, account: str, *, wrong: type[DomainError] | tuple[type[DomainError], ...]
    ) -> AbstractAsyncContextManager[None]:
        """Make an attempt at a secret of an account inside `async with`; it counts when it raises `wrong`.

        Raises:
            RateLimited: too many were wrong lately, of this account from this address, or of all from this address.
        """
        return self._guesses.guess(group, network_of(client_ip), account, wrong=wrong)

    def _lease(self, key: _Key) -> _Lease:
        lease = self._leases.get(key)
        if lease is None:
            lease = self._leases[key] = _Lease()
        self._leases.move_to_end(key)
        if len(self._leases) > MAX_LEASES:
            self._leases.popitem(last=False)
        return lease

    def _windows_of(self, group: str, client_ip: str, user_id: UUID | None) -> list[Window]:
        limits = self._groups[group]
        windows = []
        if limits.per_user and user_id is not None:
            windows.append(Window(f"{group}:{user_id}", limits.per_user, limits.window))
        if limits.per_address:
            windows.append(Window(f"{group}:{network_of(client_ip)}", limits.per_address, limits.window))
        return windows

    def _block(self, group: str, windows: list[Window]) -> int:
        """How many tokens to take at a time: few of a small limit, since those that lapse are lost to their owner."""
        return max(1, min(self._groups[group].block, *(window.limit // SHARES for window in windows)))

    @staticmethod
    def _fill(lease: _Lease, windows: list[Window], taken: list[Taken]) -> None:
        """Keep what was given, and speak of the window that is nearest to its end."""
        now = time.monotonic()
        nearest = min(range(len(taken)), key=lambda number: taken[number].left + taken[number].given)
        lease.limit, lease.left = windows[nearest].limit, taken[nearest].left
        lease.reset = now + taken[nearest].reset
        lease.tokens = min(each.given for each in taken)
        lease.until = now + windows[nearest].seconds / PARTS
        lease.again = now + min(REFUSED_SECONDS, taken[nearest].reset)


@lru_cache(4096)
def network_of(client_ip: str) -> str:
    """Whom an address stands for: itself, or the /64 that one IPv6 subscriber chooses addresses from."""
    try:
        address = ip_address(client_ip)
    except ValueError:
        return "unknown"
    return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else str(address)
