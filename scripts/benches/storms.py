"""`storms`: how a class fills when everybody comes at once, and comes back when a replica dies, over the real path."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

from scripts.benches import machine
from scripts.benches.figures import Figure, percentile
from scripts.benches.options import Options
from scripts.benches.peers import Peer
from scripts.benches.school import School, school
from scripts.benches.servers import LECTERN, Server, serving

NAMESPACE = b"/classroom"
STORM = 2000  # clients
JOIN_SECONDS = 10.0  # in which they all join
RECONNECT_SECONDS = 5.0  # in which they all come back after a replica died


async def run(options: Options) -> list[Figure]:
    """2,000 who join one room; 2,000 who come back after a crash."""
    print(machine.settle_down())
    async with (
        school(students=STORM // 4 if options.quick else STORM) as place,
        serving(place, LECTERN, replicas=2) as servers,
    ):
        return await _storms(place, servers, scale=0.25 if options.quick else 1.0)


@dataclass
class _Storm:
    """What the clients of a storm found."""

    joins: list[float] = field(default_factory=list)  # seconds from the CONNECT to the ack of join_room
    retries: int = 0
    failures: list[str] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)


async def _storms(place: School, servers: list[Server], scale: float) -> list[Figure]:
    joined = await _arrive(place, servers[0].port, JOIN_SECONDS * scale)
    servers[0].kill()
    await asyncio.wait_for(asyncio.gather(*(peer.lost for peer in joined.peers)), 5)
    back = await _arrive(place, servers[1].port, RECONNECT_SECONDS * scale)
    for peer in back.peers:
        peer.close()
    count = len(place.students)
    return [
        *_storm_figures(f"{count} join one room in {JOIN_SECONDS * scale:g} s", joined),
        *_storm_figures(f"{count} come back in {RECONNECT_SECONDS * scale:g} s after a crash", back),
    ]


async def _arrive(place: School, port: int, seconds: float) -> _Storm:
    """Everybody connects and joins, spread evenly over some seconds."""
    storm = _Storm()
    began = time.perf_counter()
    pause = seconds / len(place.students)

    async def one(number: int, token: str) -> None:
        scheduled = began + number * pause
        await asyncio.sleep(max(0.0, scheduled - time.perf_counter()))
        try:
            peer = await Peer.connect(port, NAMESPACE, token, lambda packet: None)
            storm.peers.append(peer)
            await _join(peer, place.class_id, storm)
            storm.joins.append(time.perf_counter() - scheduled)
        except (OSError, TimeoutError, AssertionError) as error:
            storm.failures.append(repr(error))

    async with asyncio.TaskGroup() as group:
        for number, student in enumerate(place.students):
            group.create_task(one(number, place.token(student)))
    storm.joins.sort()
    return storm


async def _join(peer: Peer, room_id: str, storm: _Storm) -> None:
    """Join as a client does: a refusal that says when to try again is obeyed, and counts as waiting."""
    while True:
        ack = json.loads(await asyncio.wait_for(peer.send(NAMESPACE, _event("join_room", room_id=room_id)), 20))
        if ack["ok"]:
            return
        assert ack["error"]["retryable"], ack
        storm.retries += 1
        await asyncio.sleep(ack["error"].get("retry_after_ms", 100) / 1000)


def _storm_figures(scenario: str, storm: _Storm) -> list[Figure]:
    for failure in storm.failures[:3]:
        print(f"{scenario}: {failure}")
    return [
        _figure(scenario, "joined", len(storm.joins), ""),
        _figure(scenario, "failed", len(storm.failures), ""),
        _figure(scenario, "told to try again", storm.retries, ""),
        *_latencies(scenario, "connect and join", storm.joins),
    ]


def _latencies(scenario: str, what: str, seconds: list[float]) -> list[Figure]:
    return [
        _figure(scenario, f"{what} p{percent}", percentile(seconds, percent) * 1000, "ms")
        for percent in (50, 99)
        if seconds
    ]


def _figure(scenario: str, metric: str, value: float, unit: str) -> Figure:
    return Figure("storms", scenario, LECTERN, metric, value, unit)


def _event(name: str, **payload: str) -> bytes:
    return json.dumps([name, payload], separators=(",", ":")).encode()
