"""A whole installation for a fault run: private services, replicas as child processes, and a proxy on every edge.

Owns starting, finding (by pid) and stopping of all of it, in a directory of its own; whatever is configured for this
machine is not touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp

from server.embedded import EmbeddedServices, Services
from server.settings import PLANTED_BUGS, PREFIX, ROOT, load_settings
from server.verify.history import Exit
from server.verify.proxy import Proxy, free_ports

SECRET = "the secret of a fault run, which lives for minutes only"  # noqa: S105 - of throw-away data
START_PATIENCE = 60.0  # seconds
EXIT_PATIENCE = 30.0
POLL = 0.05
# What every run changes: quick heartbeats as GUARANTEES.md says, and no limits for people who type.
ENVIRONMENT = {
    "LECTERN_REALTIME__PING_INTERVAL": "2",
    "LECTERN_REALTIME__PING_TIMEOUT": "2",
    "LECTERN_REALTIME__LINGER": "0.3",
    "LECTERN_CHAT__MESSAGE_RATE": "1000",
    "LECTERN_CHAT__MESSAGE_BURST": "1000",
    "LECTERN_AUTH__ACCESS_TOKEN_SECONDS": "3600",
    "LECTERN_AUTH__ARGON2_TIME_COST": "1",
    "LECTERN_AUTH__ARGON2_MEMORY_KIB": "64",
    "LECTERN_LOG__LEVEL": "WARNING",
    "LECTERN_LOG__FORMAT": "json",
}


@dataclass(slots=True)
class Edges:
    """The proxies around one replica."""

    clients: Proxy
    postgres: Proxy
    redis: Proxy

    def all(self) -> tuple[Proxy, Proxy, Proxy]:
        return self.clients, self.postgres, self.redis


@dataclass(slots=True)
class Replica:
    """One server process: `url` goes through the proxy of its clients, `direct` past it."""

    name: str
    port: int
    edges: Edges
    environment: Mapping[str, str]
    log: Path
    process: Process | None = None
    exits: list[Exit] = field(default_factory=list)
    read_to: int = 0  # of its log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.edges.clients.port}"

    @property
    def direct(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the process; it may take a second until it serves."""
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server", "serve", "--port", str(self.port)),
                cwd=ROOT,
                env=dict(self.environment),
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C is for the run, which ends its replicas itself
            )

    async def ready(self, session: aiohttp.ClientSession, patience: float = START_PATIENCE) -> None:
        """Wait until it can serve.

        Raises:
            TimeoutError: it cannot; its log says why.
            RuntimeError: it has ended; with the last that it said.
        """
        async with asyncio.timeout(patience):
            while await ask_status(session, f"{self.direct}/health/ready") != 200:
                if self.process is None or self.process.returncode is not None:
                    raise RuntimeError(f"{self.name} does not start: {self.log.read_text()[-500:]}")
                await asyncio.sleep(POLL)

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        if self.process is not None:
            await self.process.wait()

    async def terminate(self) -> Exit:
        """Ask it to end, and kill it when it does not."""
        began = time.monotonic()
        code: int | None = None
        self.send(signal.SIGTERM)
        if self.process is not None:
            with contextlib.suppress(TimeoutError):
                code = await asyncio.wait_for(self.process.wait(), EXIT_PATIENCE)
        await self.kill()
        self.exits.append(Exit(self.name, code, time.monotonic() - began))
        return self.exits[-1]

    def descriptors(self) -> int:
        """Open files of the process, without those of its connections to the services."""
        if self.process is None:
            return 0
        every = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        return every - self.edges.postgres.connections - self.edges.redis.connections

    def errors(self) -> list[str]:
        """What it has logged at ERROR since this was last asked, each kind once: message and last line of the trace."""
        if not self.log.exists():
            return []
        with self.log.open(errors="replace") as log:
            log.seek(self.read_to)
            lines = log.readlines()
            self.read_to = log.tell()
        return sorted({f"{self.name}: {text}" for line in lines if (text := _error_of(line))})


class Installation:
    """`async with` starts and stops everything."""

    def __init__(
        self, directory: Path, *, replicas: int, environment: Mapping[str, str] | None = None, bugs: str = ""
    ) -> None:
        self.directory = directory
        self._count = replicas
        settings = load_settings(data_dir=directory, secret=SECRET, database={"url": ""}, redis={"url": ""})
        self.services = EmbeddedServices(settings)
        self._inherited = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        self._environment = ENVIRONMENT | dict(environment or {}) | {"LECTERN_SECRET": SECRET}
        self._bugs = bugs
        self.located: Services
        self.replicas: list[Replica] = []

    async def __aenter__(self) -> Installation:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def pids_of(self, name: str) -> list[int]:
        """A private server and its children (PostgreSQL is a tree of processes)."""
        pid = self.services.pid_of(name)
        return [] if pid is None else [pid, *_children(pid)]

    async def start_replicas(self, bugs: str | None = None) -> None:
        """Start every replica that does not run, with planted bugs if asked for, and wait until all can serve."""
        for replica in self.replicas:
            replica.environment = self._environment_of(replica, self._bugs if bugs is None else bugs)
            if replica.process is None or replica.process.returncode is not None:
                await replica.start()
        async with aiohttp.ClientSession() as session:
            for replica in self.replicas:
                await replica.ready(session)

    async def stop_replicas(self) -> list[Exit]:
        """Ask every replica to end, all at once."""
        alive = [replica for replica in self.replicas if replica.process and replica.process.returncode is None]
        return list(await asyncio.gather(*(replica.terminate() for replica in alive)))

    async def _start(self) -> None:
        self.located = await self.services.start()
        ports = free_ports(4 * self._count, 20_000 + os.getpid() % 8000)
        for index in range(self._count):
            self.replicas.append(self._replica(index, *ports[4 * index : 4 * index + 4]))
        for proxy in (proxy for replica in self.replicas for proxy in replica.edges.all()):
            await proxy.start()
        await self._migrate()
        await self.start_replicas()

    def _replica(self, index: int, port: int, *proxies: int) -> Replica:
        postgres = f"{parse_qs(urlsplit(self.located.database_url).query)['host'][0]}/.s.PGSQL.5432"
        redis = urlsplit(self.located.redis_url).path
        edges = Edges(Proxy(proxies[0], ("127.0.0.1", port)), Proxy(proxies[1], postgres), Proxy(proxies[2], redis))
        name = f"replica {index + 1}"
        return Replica(name, port, edges, {}, self.directory / f"{name.replace(' ', '-')}.log")

    def _environment_of(self, replica: Replica, bugs: str) -> dict[str, str]:
        urls = {
            "LECTERN_DATABASE__URL": f"postgresql://postgres@127.0.0.1:{replica.edges.postgres.port}/lectern",
            "LECTERN_REDIS__URL": f"redis://127.0.0.1:{replica.edges.redis.port}/0",
            "LECTERN_DATA_DIR": str(self.directory),
            PLANTED_BUGS: bugs,
        }
        return self._inherited | self._environment | urls

    async def _migrate(self) -> None:
        environment = (
            self._inherited
            | self._environment
            | {
                "LECTERN_DATABASE__URL": self.located.database_url,
                "LECTERN_REDIS__URL": self.located.redis_url,
                "LECTERN_DATA_DIR": str(self.directory),
            }
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server", "migrate", "--demo"), cwd=ROOT, env=environment, stdin=DEVNULL
        )
        if await process.wait():
            raise RuntimeError("the migration failed")

    async def _stop(self) -> None:
        for replica in self.replicas:
            replica.send(signal.SIGCONT)
            replica.send(signal.SIGTERM)
        for replica in self.replicas:
            await replica.terminate()
        for name in ("PostgreSQL", "Valkey"):
            for pid in self.pids_of(name):
                _resume(pid)
        for proxy in (proxy for replica in self.replicas for proxy in replica.edges.all()):
            await proxy.stop()
        await self.services.stop()


async def ask_status(session: aiohttp.ClientSession, url: str) -> int:
    """The status of a GET; 0 without an answer."""
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(2.0)) as response:
            return response.status
    except (aiohttp.ClientError, OSError, TimeoutError):
        return 0


def _error_of(line: str) -> str:
    """A line that should not be: an error that was logged, or what Python itself wrote."""
    try:
        record = json.loads(line)
    except ValueError:
        return line.strip()[:200] if re.match(r"\w*(Error|Exception|Warning)\b", line) else ""
    if record.get("level") not in ("ERROR", "CRITICAL"):
        return ""
    trace = str(record.get("trace", "")).strip().splitlines()
    return " ".join((record["message"], str(record.get("task") or record.get("route") or ""), *trace[-1:]))[:300]


def _children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(status.parent.name))
    return found


def _resume(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
