"""Admission: how many requests a process works on at once; the rest is told to come back instead of growing a queue.

Counted per process and per group of routes, and nothing is admitted while the event loop is late. A client that is
slow to send its body holds no place meanwhile. `/health/…` and `/metrics` do not come by here: they always answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from server.errors import Unavailable
from server.settings import Limits

LAG_INTERVAL = 0.25  # seconds between two looks at the loop
# One late look may be a stopped process or one long call, both over when it is seen; two running are overload.
LATE_LOOKS = 2
RETRY_SPREAD = (1.0, 3.0)  # seconds over which those who were sent away come back


class Overloaded(Unavailable):
    message = "The server has too much to do. Try again in a moment."

    def __init__(self) -> None:
        super().__init__(retry_after=random.uniform(*RETRY_SPREAD))  # noqa: S311 (jitter)


class Admission:
    """The places of one process."""

    def __init__(self, settings: Limits) -> None:
        self._limit = settings.at_once
        self._shed_lag = settings.shed_lag
        self._late = 0
        self.busy = 0
        self.gates: Mapping[str, Gate] = {
            name: Gate(self, group.at_once or settings.at_once) for name, group in settings.groups.items()
        }

    @property
    def is_full(self) -> bool:
        return self.busy > self._limit or self._late >= LATE_LOOKS

    async def watch_loop(self) -> None:
        """Measure once how late the event loop is; called again and again."""
        loop = asyncio.get_running_loop()
        due = loop.time() + LAG_INTERVAL
        await asyncio.sleep(LAG_INTERVAL)
        self._late = self._late + 1 if loop.time() - due > self._shed_lag else 0


class Gate:
    """The places of one group of routes."""

    __slots__ = ("_admission", "_limit", "busy")

    def __init__(self, admission: Admission, limit: int) -> None:
        self._admission = admission
        self._limit = limit
        self.busy = 0

    def enter(self) -> None:
        """Take a place, whether there is one or not; `check` tells, and `leave` follows in any case."""
        self.busy += 1
        self._admission.busy += 1

    def check(self) -> None:
        """Raises:
        Overloaded: there is no place for whoever came last.
        """
        if self.busy > self._limit or self._admission.is_full:
            raise Overloaded

    def leave(self) -> None:
        self.busy -= 1
        self._admission.busy -= 1
