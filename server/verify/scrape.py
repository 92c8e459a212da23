"""What a replica holds, from its metrics and its process: descriptors, tasks, sockets, connections to PostgreSQL."""

from __future__ import annotations

import re
from dataclasses import dataclass

import aiohttp

from server.verify.installation import Replica

SLACK_DESCRIPTORS = 8  # connections of the run itself that are kept alive
SLACK_TASKS = 8
POOL = 10  # connections that a replica may keep to PostgreSQL (database.pool_size)
PATIENCE = aiohttp.ClientTimeout(3.0)


@dataclass(frozen=True, slots=True)
class Footprint:
    """The counts of one replica at one moment."""

    name: str
    descriptors: int
    tasks: float
    sockets: float
    users: float
    database: int

    def beyond(self, baseline: Footprint) -> list[str]:
        """What is more than it was at the baseline, in words."""
        found = []
        if self.descriptors > baseline.descriptors + SLACK_DESCRIPTORS:
            found.append(f"{self.name} has {self.descriptors} descriptors, had {baseline.descriptors}")
        if self.tasks > baseline.tasks + SLACK_TASKS:
            found.append(f"{self.name} has {self.tasks:g} tasks, had {baseline.tasks:g}")
        if self.sockets or self.users:
            found.append(f"{self.name} counts {self.sockets:g} sockets of {self.users:g} users, there are none")
        if self.database > POOL:
            found.append(f"{self.name} has {self.database} connections to PostgreSQL, may have {POOL}")
        return found


async def footprint(session: aiohttp.ClientSession, replica: Replica) -> Footprint:
    """Measure a replica; one that does not answer holds infinitely much."""
    metrics = await _scrape(session, replica)
    return Footprint(
        replica.name,
        replica.descriptors(),
        _sum(metrics, "event_loop_tasks_current"),
        _sum(metrics, "socket_connections_current"),
        _sum(metrics, "active_users_current"),
        replica.edges.postgres.connections,
    )


async def repairs(session: aiohttp.ClientSession, replica: Replica) -> int:
    """How many gaps it has read from PostgreSQL since it started."""
    return int(_sum(await _scrape(session, replica), "room_gap_repairs_total"))


async def _scrape(session: aiohttp.ClientSession, replica: Replica) -> str:
    try:
        async with session.get(f"{replica.direct}/metrics", timeout=PATIENCE) as response:
            return await response.text()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return ""


def _sum(metrics: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", metrics, re.MULTILINE))
