"""The generator: generator.c compiled for this machine, or its slow twin in Python, and how it is talked to."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scripts.benches.machine import OTHER_CORE, pinned
from server.settings import ROOT

SOURCE = Path(__file__).with_suffix(".c")
CACHE = ROOT / "var" / "bench"
IN_FLIGHT = 100  # handshakes under way at a time
PATIENCE = 180.0  # seconds
EPHEMERAL, DURABLE = "ephemeral", "durable"


class Failed(Exception):
    """The clients could not be brought to where they are to be measured."""


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one rate. Latencies are milliseconds from when a command was due; CPU is in seconds."""

    rate: float  # commands per second
    seconds: float
    sent: int
    unsent: int
    refused: int
    acked: int
    expected: int
    delivered: int
    dead: int
    resyncs: int
    generator_cpu: float
    arrived: int  # deliveries in the window, whenever they were due
    reads: int
    frames: int
    p50: float
    p99: float
    p999: float
    ack_p50: float
    ack_p99: float
    ack_p999: float
    used: tuple[float, ...] = ()  # what `sample` says was used in the window

    @property
    def is_whole(self) -> bool:
        """Nothing was lost, refused or left behind."""
        faults = self.unsent + self.refused + self.dead + self.resyncs
        return not faults and self.acked == self.sent and self.delivered == self.expected

    @property
    def deliveries_per_second(self) -> float:
        return self.delivered / self.seconds


class Generator:
    """One running generator and its clients."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def connect(self) -> float:
        """Connect everybody; returns how many it were a second."""
        return await self._bring("connect")

    async def join(self) -> float:
        """Let everybody join their room; returns how many it were a second."""
        return await self._bring("join")

    async def hold(self, seconds: float) -> int:
        """Do nothing for a while; returns how many pings came."""
        answer = await self._ask(f"hold {seconds}")
        assert not answer["dead"], answer
        return int(answer["pings"])

    async def step(
        self, mode: str, rate: float, warm: float, seconds: float, sample: Callable[[], Sequence[float]]
    ) -> Step:
        """Send at a rate, and measure for some seconds after a while."""
        before = after = list(sample())
        answer = await self._ask(f"step {mode} {rate} {warm} {seconds}")
        while "window" in answer:
            if answer["window"] == "open":
                before = list(sample())
            else:
                after = list(sample())
            answer = await self._answer()
        used = tuple(end - start for start, end in zip(before, after, strict=True))
        return Step(**answer, used=used)

    async def _bring(self, what: str) -> float:
        answer = await self._ask(f"{what} {IN_FLIGHT}")
        if answer["dead"]:
            raise Failed(f"{answer['dead']} clients could not {what}: {answer}")
        return float(answer[{"connect": "connected", "join": "joined"}[what]] / answer["seconds"])

    async def _ask(self, command: str) -> dict[str, Any]:  # Any: the numbers of an answer
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        if not line:
            raise Failed("the generator has ended; it has said why")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def generating(lines: Sequence[str]) -> AsyncIterator[Generator]:
    """Start a generator for clients, each a line as generator.c reads it."""
    with tempfile.NamedTemporaryFile("w", prefix="lectern-clients-") as clients:
        clients.write("".join(f"{line}\n" for line in lines))
        clients.flush()
        command = pinned(OTHER_CORE, [*program(), clients.name])
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)
        try:
            yield Generator(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@cache
def program() -> tuple[str, ...]:
    """The command of the best generator that this machine can have."""
    compiler = shutil.which("cc")
    if compiler and sys.platform == "linux":
        return (str(_compiled(compiler)),)
    print("NO C COMPILER (or no Linux): the generator is Python and may itself be what limits the figures")
    return (sys.executable, "-m", "scripts.benches.slow_generator")


def _compiled(compiler: str) -> Path:
    fingerprint = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    target = CACHE / f"generator-{fingerprint}"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        made = CACHE / f"{target.name}.{os.getpid()}"
        subprocess.run([compiler, "-O2", "-o", made, SOURCE], check=True)
        made.rename(target)  # at once, for two runs at a time
    return target
