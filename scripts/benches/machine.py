"""The machine a benchmark runs on: its cores, its limits, and what a process has used of it."""

from __future__ import annotations

import os
import resource
import socket
import sys
from pathlib import Path

PORTS = range(18_200, 32_000)  # below what the system gives to outgoing connections
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
TICKS = os.sysconf("SC_CLK_TCK")
QUIET = 0.5  # load average up to which nobody else is here
SPARE_FILES = 200  # of a process, besides its connections
PIN = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execvp(sys.argv[2], sys.argv[2:])"

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
SERVER_CORE = CORES[0] if len(CORES) > 1 else None
# The generator, PostgreSQL and Valkey; they are never what is measured.
OTHER_CORE = CORES[1] if len(CORES) > 1 else None


def pinned(core: int | None, command: list[str]) -> list[str]:
    """The command, on one core from its first instruction; unchanged where there are not two."""
    return command if core is None else [sys.executable, "-c", PIN, str(core), *command]


def settle_down() -> str:
    """Put this process and all that it starts on the second core, raise its limit of files; returns what came of it."""
    if OTHER_CORE is not None:
        os.sched_setaffinity(0, {OTHER_CORE})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    place = "one core for everything: nothing here is comparable"
    if OTHER_CORE is not None:
        place = f"server on core {SERVER_CORE}, generator and services on core {OTHER_CORE}"
    load = os.getloadavg()[0]
    others = f"; THE MACHINE IS BUSY (load {load:.1f}): where a server waited, its figures mean little"
    return f"{place}; {hard} open files a process (was {soft}){others if load > QUIET else ''}"


def most_clients() -> int:
    """How many connections a process may hold here."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used so far, all threads, user and system."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def waited_seconds(pid: int) -> float:
    """Time the main thread of a process was ready to run and had no core; 0 where the system does not count it."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def family_cpu_seconds(pid: int | None) -> float:
    """Likewise with its children, also those that have ended: what a PostgreSQL uses is used by its backends."""
    if pid is None:
        return 0.0
    total = sum(int(ticks) for ticks in _stat(pid)[11:15]) / TICKS
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            if int(_stat(int(path.name))[1]) == pid:
                total += cpu_seconds(int(path.name))
        except OSError:  # it has ended meanwhile
            continue
    return total


def resident_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KIB


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; two runs beside each other look in different places."""
    start = PORTS.start + os.getpid() % 1000 * 10
    free = [port for port in range(start, PORTS.stop) if _is_free(port)][:count]
    assert len(free) == count, "no free ports"
    return free


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may contain anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
