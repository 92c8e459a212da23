"""The twin of generator.c for a machine without a compiler: the same arguments, commands and answers.

It is one Python process, so at high rates it is the generator that is measured; its CPU is in the table.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.benches.figures import percentile
from scripts.benches.generator import DURABLE
from scripts.benches.peers import Peer

NAMESPACE = b"/classroom"
DRAIN = 15.0  # seconds
FILLER = "the quick brown fox jumps over the lazy dog and away"


@dataclass(eq=False)
class Client:
    port: int
    room: str
    user: str
    token: str
    peer: Peer | None = None
    due: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))  # typing to come, by its user


class Crowd:
    """All clients, and what the running step has found."""

    def __init__(self, clients: list[Client]) -> None:
        self._clients = clients
        self._rooms: dict[str, list[Client]] = defaultdict(list)
        for client in clients:
            self._rooms[client.room].append(client)
        self._window = (0.0, 0.0)
        self._deliveries: list[float] = []
        self._acks: list[float] = []
        self._counts: Counter[str] = Counter()

    async def connect(self, in_flight: int) -> dict[str, Any]:  # Any: the numbers of an answer
        return await self._bring("connected", in_flight, self._connect)

    async def join(self, in_flight: int) -> dict[str, Any]:
        return await self._bring("joined", in_flight, self._join)

    async def step(self, mode: str, rate: float, warm: float, seconds: float) -> dict[str, Any]:
        """Send on schedule, whatever comes back, and wait for the rest."""
        self._deliveries, self._acks, self._counts = [], [], Counter()
        began = time.monotonic()
        self._window = (began + warm, began + warm + seconds)
        announcement = asyncio.get_running_loop().call_later(warm, print, '{"window":"open"}')
        cpu = _cpu()  # with the warm-up: a little too much
        await self._send_all(mode, rate, began)
        announcement.cancel()
        arrived = len(self._deliveries)
        print('{"window":"closed"}', flush=True)
        cpu = _cpu() - cpu
        await self._drain()
        return self._result(rate, seconds, cpu) | {"arrived": arrived}

    async def _bring(self, name: str, in_flight: int, start: Callable[[Client], Awaitable[None]]) -> dict[str, Any]:
        began, gate, failures = time.monotonic(), asyncio.Semaphore(in_flight), 0

        async def one(client: Client) -> None:
            nonlocal failures
            async with gate:
                try:
                    await start(client)
                except (OSError, TimeoutError, AssertionError):
                    failures += 1

        async with asyncio.TaskGroup() as group:
            for client in self._clients:
                group.create_task(one(client))
        count = len(self._clients) - failures
        return {name: count, "seconds": time.monotonic() - began, "dead": failures, "refused": 0}

    async def _connect(self, client: Client) -> None:
        client.peer = await Peer.connect(
            client.port, NAMESPACE, client.token, lambda packet: self._take(client, packet)
        )

    async def _join(self, client: Client) -> None:
        assert client.peer is not None
        event = _event("join_room", room_id=client.room, limit=1)
        assert json.loads(await client.peer.send(NAMESPACE, event))["ok"]

    async def _send_all(self, mode: str, rate: float, began: float) -> None:
        number, senders = 0, [client for client in self._clients if client.port == self._clients[0].port]
        while (due := began + number / rate) < self._window[1]:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._send(random.choice(senders), mode, due)  # noqa: S311 - load, not a secret
            number += 1

    def _send(self, client: Client, mode: str, due: float) -> None:
        assert client.peer is not None
        others = [other for other in self._rooms[client.room] if mode == DURABLE or other is not client]
        event = _event("typing", room_id=client.room, on=True)
        if mode == DURABLE:
            text = f"{int(due * 1e6):016d} {FILLER}"
            event = _event("message", room_id=client.room, id=str(uuid.uuid4()), text=text)
        else:
            for other in others:
                other.due[client.user].append(due)
        if due >= self._window[0]:
            self._counts["sent"] += 1
            self._counts["expected"] += len(others)
        client.peer.send(NAMESPACE, event).add_done_callback(lambda ack: self._acked(ack, due))

    def _acked(self, ack: asyncio.Future[bytes], due: float) -> None:
        if ack.cancelled() or ack.exception() or not ack.result().startswith(b'{"ok":true'):
            self._counts["refused"] += 1
        else:
            self._record(self._acks, due)

    def _take(self, client: Client, packet: bytes) -> None:
        if b'["message",' in packet:
            self._record(self._deliveries, int(packet.partition(b'"text":"')[2][:16]) / 1e6)
        elif b'["typing",' in packet:
            waiting = client.due[packet.partition(b'"user_id":"')[2][:36].decode()]
            if waiting:
                self._record(self._deliveries, waiting.popleft())
        elif b'["resync_required",' in packet:
            self._counts["resyncs"] += 1

    def _record(self, latencies: list[float], due: float) -> None:
        if self._window[0] - 1e-6 <= due < self._window[1]:
            latencies.append(time.monotonic() - due)

    async def _drain(self) -> None:
        deadline = time.monotonic() + DRAIN
        while time.monotonic() < deadline and (  # noqa: ASYNC110 - an event for each of thousands would be load itself
            len(self._deliveries) < self._counts["expected"] or len(self._acks) < self._counts["sent"]
        ):
            await asyncio.sleep(0.02)
        for client in self._clients:
            client.due.clear()

    def _result(self, rate: float, seconds: float, cpu: float) -> dict[str, Any]:
        dead = sum(client.peer is None or client.peer.lost.done() for client in self._clients)
        counted = {name: self._counts[name] for name in ("sent", "refused", "expected", "resyncs")}
        found = {"acked": len(self._acks), "delivered": len(self._deliveries), "dead": dead, "unsent": 0}
        # Frames of a read are not known here.
        times = {"rate": rate, "seconds": seconds, "generator_cpu": cpu, "reads": 0, "frames": 0}
        return times | counted | found | _latencies("", self._deliveries) | _latencies("ack_", self._acks)


def _latencies(prefix: str, seconds: list[float]) -> dict[str, float]:
    seconds.sort()
    percents = {"p50": 50.0, "p99": 99.0, "p999": 99.9}
    return {f"{prefix}{name}": percentile(seconds, part) * 1000 if seconds else 0.0 for name, part in percents.items()}


def _event(name: str, **payload: object) -> bytes:
    return json.dumps([name, payload], separators=(",", ":")).encode()


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _obey(crowd: Crowd, line: str) -> dict[str, Any]:
    command, *arguments = line.split()
    if command == "step":
        mode, *numbers = arguments
        return await crowd.step(mode, *map(float, numbers))
    if command == "hold":
        await asyncio.sleep(float(arguments[0]))
        return {"pings": 0, "dead": 0}
    return await {"connect": crowd.connect, "join": crowd.join}[command](int(arguments[0]))


async def main() -> None:
    lines = (line.split() for line in Path(sys.argv[1]).read_text().splitlines())  # noqa: ASYNC240 - nothing runs yet
    crowd = Crowd([Client(int(port), room, user, token) for port, room, user, token in lines])
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await _obey(crowd, line)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
