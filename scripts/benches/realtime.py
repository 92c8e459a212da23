"""`realtime`: how fast a durable message reaches everybody in a room, over the whole real path.

Handshake with token, `join_room`, commit to PostgreSQL, ack, the gate, one write per socket. The generator runs in
this process; latency runs from the moment a message was scheduled to be sent, so a late generator counts against us.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import uuid
from pathlib import Path

import aiohttp

from scripts.benches.figures import Figure, percentile
from scripts.benches.peers import Peer

ROOT = Path(__file__).resolve().parent.parent.parent
NAMESPACE = b"/classroom"
CLIENTS = 200
RATE = 20  # messages per second in the room
STUDENTS = 30  # of the demo school: they share the connections
# People do not talk this fast, and nobody has this many windows: the limits are for them, not for the figure.
LIMITS = {
    "LECTERN_CHAT__MESSAGE_RATE": "1000",
    "LECTERN_CHAT__MESSAGE_BURST": "1000",
    "LECTERN_REALTIME__CONNECTIONS_PER_USER": "1000",
    "LECTERN_LOG__LEVEL": "WARNING",
}


async def run(*, quick: bool) -> list[Figure]:
    """One room of 200 with 20 messages per second: latency of acks and of deliveries."""
    with tempfile.TemporaryDirectory(prefix="lectern-bench-") as directory:
        port = 18_200 + os.getpid() % 1000
        server = await _start(port, directory)
        try:
            return await _one_room(port, seconds=5 if quick else 20)
        finally:
            server.send_signal(signal.SIGTERM)
            await server.wait()


async def _start(port: int, directory: str) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "server", "up", "--demo", "--port", str(port), "--data", directory]
    server = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env={**os.environ, **LIMITS}, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    line = await asyncio.wait_for(server.stdout.readline(), 60)
    assert line.startswith(b"Lectern is ready"), line
    return server


async def _one_room(port: int, seconds: float) -> list[Figure]:
    tokens, room_id = await _sign_in(port)
    deliveries: list[float] = []

    def on_event(packet: bytes) -> None:
        if b'["message",' in packet:
            deliveries.append(time.perf_counter() - float(packet.partition(b'"text":"')[2].partition(b'"')[0]))

    began = time.perf_counter()
    peers = [await Peer.connect(port, NAMESPACE, tokens[number % len(tokens)], on_event) for number in range(CLIENTS)]
    connects = CLIENTS / (time.perf_counter() - began)
    await asyncio.gather(*(peer.send(NAMESPACE, _event("join_room", room_id=room_id)) for peer in peers))
    acks = await _talk(peers, room_id, seconds)
    await asyncio.sleep(0.5)
    for peer in peers:
        peer.close()
    return _figures(connects, acks, sorted(deliveries), expected=len(acks) * CLIENTS)


async def _talk(peers: list[Peer], room_id: str, seconds: float) -> list[float]:
    """Send on schedule, whether or not the last message was acked; returns the latency of each ack."""
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


def _figures(connects: float, acks: list[float], deliveries: list[float], *, expected: int) -> list[Figure]:
    scenario = f"1 room of {CLIENTS} at {RATE}/s, durable"

    def figure(metric: str, value: float, unit: str) -> Figure:
        return Figure("realtime", scenario, "lectern", metric, value, unit)

    return [
        figure("connects, one after the other", connects, "/s"),
        figure("messages acked", len(acks), ""),
        figure("deliveries lost", expected - len(deliveries), ""),
        figure("ack p50", percentile(acks, 50) * 1000, "ms"),
        figure("ack p99", percentile(acks, 99) * 1000, "ms"),
        figure("delivery p50", percentile(deliveries, 50) * 1000, "ms"),
        figure("delivery p99", percentile(deliveries, 99) * 1000, "ms"),
    ]


async def _sign_in(port: int) -> tuple[list[str], str]:
    """Tokens of students, and the id of the live class."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        tokens = []
        for number in range(1, STUDENTS + 1):
            credentials = {"email": f"student{number}@example.com", "password": "lectern-demo"}
            async with session.post("/api/auth/login", json=credentials) as response:
                tokens.append((await response.json())["access_token"])
        headers = {"Authorization": f"Bearer {tokens[0]}"}
        async with session.get("/api/classroom/courses", headers=headers) as response:
            course = (await response.json())["items"][0]["id"]
        async with session.get(f"/api/classroom/courses/{course}/rooms", headers=headers) as response:
            [room] = [room for room in (await response.json())["items"] if room["kind"] == "class"]
        return tokens, room["id"]


def _event(name: str, **payload: str) -> bytes:
    return json.dumps([name, payload], separators=(",", ":")).encode()
