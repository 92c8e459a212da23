"""Clock: the one source of wall-clock time and of ids made from it."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from uuid import UUID


class Clock:
    """The system's clock. Durations are measured with `time.monotonic` or the loop's time instead."""

    def now(self) -> datetime:
        """The time in UTC, cut to the milliseconds that the contract shows."""
        moment = datetime.now(UTC)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def unix(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def uuid7(self) -> UUID:
        """A new id: 48 bits of milliseconds, then 74 random bits (RFC 9562 section 5.7)."""
        milliseconds = time.time_ns() // 1_000_000
        random = int.from_bytes(os.urandom(10))
        high, low = random >> 68, random & ((1 << 62) - 1)
        return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, e.g. `2026-11-22T19:30:00.123Z`."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
