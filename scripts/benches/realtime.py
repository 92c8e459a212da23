"""`realtime`: how fast a durable message reaches everybody in a room, and how a room fills, over the whole real path.

Handshake with token, `join_room`, commit to PostgreSQL, ack, the gate, one write per socket. The generator runs in
this process; latency runs from the moment something was scheduled to be sent, so a late generator counts against us.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from dataclasses import dataclass, field

from scripts.benches.figures import Figure, percentile
from scripts.benches.peers import Peer
from scripts.benches.school import School, school

NAMESPACE = b"/classroom"
CLIENTS = 200
RATE = 20  # messages per second in the room
STORM = 2000  # clients
JOIN_SECONDS = 10.0  # in which they all join
RECONNECT_SECONDS = 5.0  # in which they all come back after a replica died


async def run(*, quick: bool) -> list[Figure]:
    """One room of 200 with 20 messages per second; 2,000 who join one room; 2,000 who come back after a crash."""
    async with school(students=CLIENTS) as one:
        figures = await _one_room(one, seconds=5 if quick else 20)
    async with school(students=STORM // 4 if quick else STORM, replicas=2) as two:
        figures += await _storms(two, scale=0.25 if quick else 1.0)
    return figures


async def _one_room(place: School, seconds: float) -> list[Figure]:
    deliveries: list[float] = []

    def on_event(packet: bytes) -> None:
        if b'["message",' in packet:
            deliveries.append(time.perf_counter() - float(packet.partition(b'"text":"')[2].partition(b'"')[0]))

    peers = [await Peer.connect(place.ports[0], NAMESPACE, token, on_event) for token in place.tokens]
    await asyncio.gather(*(peer.send(NAMESPACE, _event("join_room", room_id=place.room_id)) for peer in peers))
    cpu = place.cpu_seconds(0)
    acks = await _talk(peers, place.room_id, seconds)
    cpu = place.cpu_seconds(0) - cpu
    await asyncio.sleep(0.5)
    for peer in peers:
        peer.close()
    deliveries.sort()
    scenario = f"1 room of {CLIENTS} at {RATE}/s, durable"
    return [
        _figure(scenario, "messages acked", len(acks), ""),
        _figure(scenario, "deliveries lost", len(acks) * CLIENTS - len(deliveries), ""),
        *_latencies(scenario, "ack", acks),
        *_latencies(scenario, "delivery", deliveries),
        _figure(scenario, "server CPU", 100 * cpu / seconds, "% of a core"),
    ]


async def _talk(peers: list[Peer], room_id: str, seconds: float) -> list[float]:
    """Send on schedule, whether or not the last message was acked; returns the sorted latencies of the acks."""
    acks: list[float] = []
    began = time.perf_counter()

    async def one(number: int) -> None:
        scheduled = began + number / RATE
        await asyncio.sleep(max(0.0, scheduled - time.perf_counter()))
        message = _event("message", room_id=room_id, id=str(uuid.uuid4()), text=repr(scheduled))
        ack = json.loads(await peers[number % len(peers)].send(NAMESPACE, message))
        assert ack["ok"], ack
        acks.append(time.perf_counter() - scheduled)

    async with asyncio.TaskGroup() as group:
        for number in range(int(RATE * seconds)):
            group.create_task(one(number))
    return sorted(acks)


@dataclass
class _Storm:
    """What the clients of a storm found."""

    joins: list[float] = field(default_factory=list)  # seconds from the CONNECT to the ack of join_room
    retries: int = 0
    failures: list[str] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)


async def _storms(place: School, scale: float) -> list[Figure]:
    joined = await _arrive(place, place.ports[0], JOIN_SECONDS * scale)
    place.kill(0)
    await asyncio.wait_for(asyncio.gather(*(peer.lost for peer in joined.peers)), 5)
    back = await _arrive(place, place.ports[1], RECONNECT_SECONDS * scale)
    for peer in back.peers:
        peer.close()
    count = len(place.tokens)
    return [
        *_storm_figures(f"{count} join one room in {JOIN_SECONDS * scale:g} s", joined),
        *_storm_figures(f"{count} come back in {RECONNECT_SECONDS * scale:g} s after a crash", back),
    ]


async def _arrive(place: School, port: int, seconds: float) -> _Storm:
    """Everybody connects and joins, spread evenly over some seconds."""
    storm = _Storm()
    began = time.perf_counter()
    pause = seconds / len(place.tokens)

    async def one(number: int, token: str) -> None:
        scheduled = began + number * pause
        await asyncio.sleep(max(0.0, scheduled - time.perf_counter()))
        try:
            peer = await Peer.connect(port, NAMESPACE, token, lambda packet: None)
            storm.peers.append(peer)
            await _join(peer, place.room_id, storm)
            storm.joins.append(time.perf_counter() - scheduled)
        except (OSError, TimeoutError, AssertionError) as error:
            storm.failures.append(repr(error))

    async with asyncio.TaskGroup() as group:
        for number, token in enumerate(place.tokens):
            group.create_task(one(number, token))
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
    return Figure("realtime", scenario, "lectern", metric, value, unit)


def _event(name: str, **payload: str) -> bytes:
    return json.dumps([name, payload], separators=(",", ":")).encode()
