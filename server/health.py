"""Health: whether this replica lives, whether it should get requests, and what it has to do without.

Only what a replica cannot serve without makes it unready: PostgreSQL, a known schema, not being drained. Whatever else
is away is named in `degraded`, and the answer stays 200.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import orjson
from aiohttp import web

from server.metrics import DEPENDENCY_UP

logger = logging.getLogger(__name__)

CHECK_TIMEOUT = 1.0  # seconds
Check = Callable[[], Awaitable[object]]
Status = Literal["ready", "degraded", "unavailable", "draining"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """The answer of `/health/ready`; `reasons` says why a replica is not ready."""

    status: Status
    degraded: list[str]
    reasons: list[str]

    @property
    def ready(self) -> bool:
        return self.status in ("ready", "degraded")


class Health:
    """Named checks that decide readiness, and the names of what is away but not needed.

    A check returns (anything) when all is well and raises when not; one that takes longer than a second has failed.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)
        self.draining = False
        self.degraded: set[str] = set()

    def report(self, name: str, *, up: bool) -> None:
        """Note that a dependency that is not needed for readiness answers, or does not."""
        DEPENDENCY_UP.labels(name).set(up)
        if up:
            self.degraded.discard(name)
        else:
            self.degraded.add(name)

    async def readiness(self) -> Readiness:
        """Run the checks, all at once."""
        names = list(self._checks)
        healthy = await asyncio.gather(*(self._passes(name) for name in names))
        reasons = [name for name, passed in zip(names, healthy, strict=True) if not passed]
        return Readiness(self._status(reasons), sorted(self.degraded), reasons)

    def _status(self, reasons: list[str]) -> Status:
        if self.draining:
            return "draining"
        if reasons:
            return "unavailable"
        return "degraded" if self.degraded else "ready"

    async def _passes(self, name: str) -> bool:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await self._checks[name]()
        except Exception as error:  # a probe must have an answer, whatever is broken
            logger.warning("health check failed", extra={"check": name, "error": repr(error)})
            DEPENDENCY_UP.labels(name).set(0)
            return False
        DEPENDENCY_UP.labels(name).set(1)
        return True


async def live(_request: web.Request) -> web.Response:
    """Answer that the event loop turns."""
    return _json(200, {"status": "live"})


def ready(health: Health) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Make the handler of `/health/ready`."""

    async def answer(_request: web.Request) -> web.Response:
        found = await health.readiness()
        body = {"status": found.status, "degraded": found.degraded, "reasons": found.reasons}
        return _json(200 if found.ready else 503, body)

    return answer


def _json(status: int, body: Mapping[str, object]) -> web.Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return web.Response(status=status, body=orjson.dumps(body), headers=headers)
