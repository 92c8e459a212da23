"""A trial: one server, its clients, and the search for the highest rate that it carries."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from scripts.benches.generator import DURABLE, Generator, Step, generating
from scripts.benches.school import School
from scripts.benches.servers import Server, serving

LIMITS = (50.0, 10.0)  # milliseconds of p99
SLACK = 3  # a durable delivery may take this many times as long as its ack
GENERATOR_FULL = 0.97  # of a core: what is measured above is the generator
ATTEMPTS, MOST_ATTEMPTS = 2, 4
DISTURBED = 0.03  # of the time the server waited for its core
# What a step's `used` holds, in seconds.
SERVER_CPU, SERVICES_CPU, WAITED = range(3)
LEAST = 1 / 20  # of the rate where the search begins; below, a server is said to carry nothing


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a trial measures, and how finely it searches."""

    warm: float  # seconds
    seconds: float
    steady_seconds: float  # at the ordinary rate
    growth: float
    halvings: int
    search_seconds: float  # then it stops to look for more


FULL = Effort(warm=1.0, seconds=3.0, steady_seconds=10.0, growth=2.0, halvings=3, search_seconds=150.0)
QUICK = Effort(warm=0.3, seconds=1.0, steady_seconds=4.0, growth=3.0, halvings=1, search_seconds=15.0)


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many clients in so many rooms of the same size."""

    clients: int
    rooms: int

    def lines(self, school: School, server: Server) -> list[str]:
        """The clients as generator.c reads them."""
        size = self.clients // self.rooms
        return [
            f"{server.port} {school.room_ids[number // size]} {student.user_id} {server.token(school, student)}"
            for number, student in enumerate(school.students[: size * self.rooms])
        ]


@dataclass
class Trial:
    """A server with a crowd that can be asked for one rate after the other.

    A server that lost something or put somebody out is started anew: what it still does for those who are gone would
    be measured with the next rate.
    """

    school: School
    name: str
    crowd: Crowd
    mode: str
    effort: Effort
    connects_per_second: float = 0.0
    joins_per_second: float = 0.0
    steps: list[Step] = field(default_factory=list)
    memory_mib: float = 0.0  # after the first rate
    _generator: Generator | None = None
    _server: Server | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def step(self, rate: float, seconds: float | None = None) -> Step:
        """Measure one rate."""
        if self._generator is None:
            await self._gather()
        assert self._generator is not None
        step = await self._generator.step(self.mode, rate, self.effort.warm, seconds or self.effort.seconds, self._used)
        self.steps.append(step)
        if self._server and not self.memory_mib:
            self.memory_mib = self._server.resident_kib() / 1024
        if not step.is_whole:
            await self.close()
        return step

    async def close(self) -> None:
        self._generator = None
        await self._stack.aclose()

    async def _gather(self) -> None:
        (self._server,) = await self._stack.enter_async_context(serving(self.school, self.name))
        lines = self.crowd.lines(self.school, self._server)
        self._generator = await self._stack.enter_async_context(generating(lines))
        connects, joins = await self._generator.connect(), await self._generator.join()
        self.connects_per_second = self.connects_per_second or connects
        self.joins_per_second = self.joins_per_second or joins

    def _used(self) -> tuple[float, float, float]:
        assert self._server is not None
        return self._server.cpu_seconds(), self.school.services_cpu_seconds(), self._server.waited_seconds()

    # The search.

    async def search(self, start: float) -> dict[float, Step | None]:
        """The highest rate at which p99 stays within each of LIMITS; None where there is none."""
        highest, lowest = LIMITS[0], LIMITS[-1]
        deadline = time.monotonic() + self.effort.search_seconds
        rate = start
        while await self._passes(rate, highest, deadline) and not self._is_generator_full():
            rate *= self.effort.growth
        rate = start
        while self._best(lowest) is None and rate > LEAST * start:
            rate /= self.effort.growth
            await self._passes(rate, lowest, deadline)
        for limit in LIMITS:
            await self._narrow(limit, deadline)
        return {limit: self._best(limit) for limit in LIMITS}

    async def _narrow(self, limit: float, deadline: float) -> None:
        """Halve the distance between the best rate and the first that fails."""
        for _ in range(self.effort.halvings):
            best = self._best(limit)
            failed = [step.rate for step in self.steps if best and step.rate > best.rate]
            if best is None or not failed:
                return
            await self._passes(math.sqrt(best.rate * min(failed)), limit, deadline)

    async def _passes(self, rate: float, limit: float, deadline: float) -> bool:
        """A rate that fails gets a second chance, and more when another process had the core meanwhile."""
        for attempt in range(1, MOST_ATTEMPTS + 1):
            if time.monotonic() > deadline:
                break
            step = await self.step(rate)
            if is_within(step, limit, self.mode):
                return True
            if attempt >= ATTEMPTS and not is_disturbed(step):
                break
        return False

    def _best(self, limit: float) -> Step | None:
        passed = [step for step in self.steps if is_within(step, limit, self.mode)]
        return max(passed, key=lambda step: step.rate, default=None)

    def _is_generator_full(self) -> bool:
        step = self.steps[-1]
        return step.generator_cpu / step.seconds > GENERATOR_FULL


def is_disturbed(step: Step) -> bool:
    return step.used[WAITED] > DISTURBED * step.seconds


def is_within(step: Step, limit: float, mode: str) -> bool:
    """Whether everything was carried, and 99 % of it within `limit` milliseconds."""
    if not step.is_whole:
        return False
    if mode == DURABLE:
        return step.ack_p99 < limit and step.p99 < SLACK * limit
    return step.p99 < limit


@asynccontextmanager
async def trial(school: School, name: str, crowd: Crowd, mode: str, effort: Effort) -> AsyncIterator[Trial]:
    """Prepare a trial; its server runs alone and until the end of the block."""
    attempt = Trial(school, name, crowd, mode, effort)
    try:
        yield attempt
    finally:
        await attempt.close()
