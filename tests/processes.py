"""A whole installation in processes of its own, for tests that kill some of them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from server.settings import ROOT

READY = "Lectern is ready:"
START_PATIENCE = 60.0  # seconds
STOP_PATIENCE = 30.0


class Installation:
    """`python -m server up --demo` with its own data directory and free ports."""

    def __init__(self, data: Path, *, replicas: int, environment: Mapping[str, str] | None = None) -> None:
        self._data = data
        self._replicas = replicas
        self._environment = dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self._output: asyncio.Task[None] | None = None
        self.urls: list[str] = []
        self.lines: list[str] = []

    @property
    def url(self) -> str:
        return self.urls[0]

    async def __aenter__(self) -> Installation:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything and wait for the ready line."""
        port = free_ports(self._replicas)
        command = [sys.executable, "-m", "server", "up", "--demo", "--port", str(port)]
        command += ["--replicas", str(self._replicas), "--data", str(self._data)]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env={**os.environ, **self._environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(START_PATIENCE):
            while not self.urls:
                await self._read_line()
        self._output = asyncio.create_task(self._read_on())

    async def stop(self) -> int:
        """Stop everything as an operator does; the exit code."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_PATIENCE):
            code = await self._process.wait()
            if self._output is not None:
                await self._output
        self._process = None
        return code

    def pid_of(self, url: str) -> int:
        """The process that listens on the port of a replica."""
        port = int(url.rpartition(":")[2])
        inode = _listening_inode(port)
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and inode in _sockets_of(process):
                return int(process.name)
        raise LookupError(f"nobody listens on {url}")

    async def _read_line(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode()
        assert line, "the installation ended:\n" + "".join(self.lines)
        self.lines.append(line)
        if line.startswith(READY):
            self.urls = line.removeprefix(READY).split()

    async def _read_on(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.append(line.decode())


def free_ports(count: int) -> int:
    """The first of `count` free neighbouring ports below 32768, where no client port can be in the way."""
    for first in range(20_000 + os.getpid() % 8000, 32_000 - count, 7):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise LookupError("no free ports")


def _listening_inode(port: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].partition(":")[2], 16) == port:
            return fields[9]
    raise LookupError(f"nobody listens on port {port}")


def _sockets_of(process: Path) -> set[str]:
    inodes = set()
    try:
        for descriptor in (process / "fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    except OSError:  # it ended, or is not ours to look into
        return set()
    return inodes
