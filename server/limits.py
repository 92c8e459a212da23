"""Limits: token buckets in this process. A limit that must hold over all replicas is not here but in Redis."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable

from server.errors import RateLimited

MAX_BUCKETS = 100_000  # the ones longest unused are dropped: they are full again, or their owner is an attacker


class Limits:
    """Token buckets by name and key, made when first used."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # tokens left, when

    def take(self, name: str, key: Hashable, *, rate: float, burst: int) -> None:
        """Take one token of a bucket of `burst` tokens that refills at `rate` per second.

        Raises:
            RateLimited: it is empty; `retry_after` tells when there is a token again.
        """
        wait = self.try_take(name, key, rate=rate, burst=burst)
        if wait:
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
