"""The supervisor as a real process with real services; where only its care is tested, the replicas are a stand-in."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60.0  # seconds for anything to happen
DRIVER = """
import asyncio, sys
from server import supervisor
from server.settings import load_settings

supervisor.SERVER = (sys.executable, sys.argv[1])
sys.exit(asyncio.run(supervisor.up(load_settings(), replicas=int(sys.argv[2]), demo=len(sys.argv) > 3)))
"""
# `migrate` and `serve` as the supervisor knows them; the files beside the data say what they shall do.
STAND_IN = """
import asyncio, os, pathlib, signal, sys, time

work = pathlib.Path(os.environ["LECTERN_DATA_DIR"])
with (work / "calls").open("a") as calls:
    print(os.getpid(), *sys.argv[1:], file=calls)

def told(name):
    file = work / name
    return file.read_text() if file.exists() else ""

if told(f"exit-{sys.argv[1]}"):
    sys.exit(int(told(f"exit-{sys.argv[1]}")))

async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    writer.close()

async def serve():
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(int(sys.argv[sys.argv.index("--watch-fd") + 1]), ended.set)
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if told("stubborn") else ended.set)
    await asyncio.start_server(answer, os.environ["LECTERN_HTTP__HOST"], int(os.environ["LECTERN_HTTP__PORT"]))
    await ended.wait()

if sys.argv[1] == "serve":
    asyncio.run(serve())
else:
    time.sleep(0.5)  # long enough for a replica to be there first
    (work / "migrated").touch()
"""


class Lectern:
    """A running supervisor and what it says."""

    def __init__(self, process: Process, data: Path) -> None:
        self.process = process
        self.data = data

    async def ready(self) -> list[str]:
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            line = (await self.process.stdout.readline()).decode()
        assert line.startswith("Lectern is ready: "), await self.complaint()
        return line.removeprefix("Lectern is ready: ").split()

    async def complaint(self) -> str:
        assert self.process.stderr is not None
        async with asyncio.timeout(DEADLINE):
            return (await self.process.stderr.read()).decode()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()

    def calls(self, command: str) -> list[list[str]]:
        """Return pid and arguments of the children that were started with the command."""
        file = self.data / "calls"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [line for line in lines if line[1] == command]

    def processes(self) -> list[int]:
        """Return every living process that has our data directory in its arguments or environment."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                if os.fsencode(self.data) in known and int(process.name) != self.process.pid:
                    found.append(int(process.name))
        return found


Start = Callable[..., "asyncio.Future[Lectern]"]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start supervisors that are gone, with all they have started, when the test ends."""
    started: list[Lectern] = []
    data = tmp_path / "data"
    data.mkdir()
    stand_in = tmp_path / "stand_in.py"
    stand_in.write_text(STAND_IN)

    async def start(*, replicas: int = 1, port: int = 0, demo: bool = False, host: str = "127.0.0.1") -> Lectern:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LECTERN_")} | {
            "LECTERN_DATA_DIR": str(data),
            "LECTERN_HTTP__PORT": str(port),
            "LECTERN_HTTP__HOST": host,
            "LECTERN_HTTP__DRAIN_TIMEOUT": "2",
        }
        command = [sys.executable, "-c", DRIVER, str(stand_in), str(replicas), *["demo"] * demo]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=PIPE, stderr=PIPE)
        started.append(Lectern(process, data))
        return started[-1]

    yield start  # type: ignore[misc]
    for lectern in started:
        if lectern.process.returncode is None:
            await lectern.end()
        await lectern.process.communicate()
        for pid in lectern.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await _eventually(functools.partial(_is_empty, lectern.processes))


async def _eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - processes set no event
            await asyncio.sleep(0.01)


def _is_empty(listing: Callable[[], list[int]]) -> bool:
    return not listing()


async def _answers(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.write(f"GET /health/ready HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return b" 200 " in line


def _two_free_ports() -> int:
    while True:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            with socket.create_server(("127.0.0.1", port + 1)):
                return port


async def test_ready_line_names_every_replica_in_order_of_ports(start: Start):
    port = _two_free_ports()
    lectern = await start(replicas=2, port=port)
    assert await lectern.ready() == [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"]
    assert all([await _answers(f"http://127.0.0.1:{port + index}") for index in (0, 1)])


async def test_a_server_on_all_addresses_is_announced_on_loopback(start: Start):
    (url,) = await (await start(host="0.0.0.0")).ready()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
    assert await _answers(url)


async def test_migration_runs_once_and_has_ended_when_the_replicas_are_announced(start: Start):
    lectern = await start(replicas=2, demo=True)
    await lectern.ready()
    assert [call[1:] for call in lectern.calls("migrate")] == [["migrate", "--demo"]]
    assert (lectern.data / "migrated").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_everything_with_exit_code_zero(start: Start, number: signal.Signals):
    lectern = await start(replicas=2)
    await lectern.ready()
    assert await lectern.end(number) == 0
    assert lectern.processes() == []


async def test_signal_during_the_first_start_ends_everything(start: Start):
    lectern = await start()
    await _eventually(lambda: any(lectern.data.glob("postgres.new-*")))
    assert await lectern.end() == 0
    await _eventually(lambda: not lectern.processes())


async def test_dead_replica_is_replaced_while_the_other_serves(start: Start):
    lectern = await start(replicas=2)
    urls = await lectern.ready()
    victim = int(lectern.calls("serve")[0][0])
    os.kill(victim, signal.SIGKILL)
    await _eventually(lambda: len(lectern.calls("serve")) == 3)
    async with asyncio.timeout(DEADLINE):
        while not all([await _answers(url) for url in urls]):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
    assert await lectern.end() == 0
    assert f"process {victim} ended with exit code -9" in await lectern.complaint()


async def test_replica_that_keeps_dying_is_started_more_and_more_slowly(start: Start):
    lectern = await start()
    (lectern.data / "exit-serve").write_text("1")
    await _eventually(lambda: len(lectern.calls("serve")) == 4)
    assert await lectern.end() == 0
    pauses = re.findall(r"starting another in (\S+) s", await lectern.complaint())
    assert pauses[:3] == ["0.2", "0.4", "0.8"]


@pytest.mark.parametrize("command", ["migrate", "serve"])
async def test_configuration_error_of_a_child_ends_everything_with_exit_code_two(start: Start, command: str):
    lectern = await start(replicas=2)
    (lectern.data / f"exit-{command}").write_text("2")
    async with asyncio.timeout(DEADLINE):
        assert await lectern.process.wait() == 2
    assert lectern.processes() == []
    assert lectern.process.stdout is not None
    assert await lectern.process.stdout.read() == b""


async def test_port_in_use_is_one_line_and_exit_code_two_before_anything_starts(start: Start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        lectern = await start(port=port)
        async with asyncio.timeout(DEADLINE):
            assert await lectern.process.wait() == 2
    complaint = await lectern.complaint()
    assert complaint.count("\n") == 1
    assert f"port {port} on 127.0.0.1 is in use" in complaint
    assert not (lectern.data / "postgres").exists()


async def test_stubborn_replica_is_killed_after_its_drain_timeout(start: Start):
    lectern = await start()
    (lectern.data / "stubborn").write_text("yes")
    await lectern.ready()
    started = time.monotonic()
    assert await lectern.end() == 0
    assert time.monotonic() - started > 2
    assert lectern.processes() == []


async def test_second_signal_kills_a_stubborn_replica_at_once(start: Start):
    lectern = await start()
    (lectern.data / "stubborn").write_text("yes")
    await lectern.ready()
    started = time.monotonic()
    lectern.process.send_signal(signal.SIGINT)
    while lectern.process.returncode is None and time.monotonic() - started < DEADLINE:
        await asyncio.sleep(0.2)  # between two presses: pending signals of one kind are merged
        with contextlib.suppress(ProcessLookupError):
            lectern.process.send_signal(signal.SIGINT)
    assert time.monotonic() - started < 5
    await _eventually(lambda: not lectern.processes())


async def test_replicas_end_when_the_supervisor_is_killed_and_the_next_one_takes_the_services_over(start: Start):
    first = await start(replicas=2)
    await first.ready()
    replicas = [int(call[0]) for call in first.calls("serve")]
    await first.end(signal.SIGKILL)
    await _eventually(lambda: not set(replicas) & set(first.processes()))
    postmaster = (first.data / "postgres" / "postmaster.pid").read_text()
    second = await start()
    await second.ready()
    assert (second.data / "postgres" / "postmaster.pid").read_text() == postmaster
    assert await second.end() == 0
    await _eventually(lambda: not second.processes())


async def test_killed_postgres_is_started_again_under_running_replicas(start: Start):
    lectern = await start()
    await lectern.ready()
    pid_file = lectern.data / "postgres" / "postmaster.pid"
    killed = int(pid_file.read_text().split()[0])
    os.kill(killed, signal.SIGKILL)
    await _eventually(lambda: pid_file.exists() and b"ready" in pid_file.read_bytes() and not _names(pid_file, killed))
    assert len(lectern.calls("serve")) == 1
    assert await lectern.end() == 0


def _names(pid_file: Path, pid: int) -> bool:
    return pid_file.read_text().startswith(f"{pid}\n")


async def test_the_real_server_comes_up_serves_and_goes_down(tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LECTERN_")}
    arguments = ["-m", "server", "up", "--port", str(_two_free_ports()), "--replicas", "2", "--data", str(tmp_path)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, env=environment, stdout=PIPE, stderr=PIPE
    )
    lectern = Lectern(process, tmp_path)
    try:
        assert all([await _answers(url) for url in await lectern.ready()])
        assert await lectern.end() == 0
        assert lectern.processes() == []
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        for pid in lectern.processes():
            os.kill(pid, signal.SIGKILL)
