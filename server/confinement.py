"""As whom, and where on the disk, the private servers of `embedded.py` run.

Owns the ways to start a program that refuses root: as the ordinary user that we are, in a user namespace, or as user
nobody with everything it needs in a directory that nobody can reach. Never makes a user and never opens a directory of
somebody else; knows neither PostgreSQL nor Valkey.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from server.settings import ConfigurationError

REFUGE = Path("/var/lib/lectern")  # for what user nobody must reach, when root may not make a user namespace
# In a namespace of its own root looks like nobody, has no rights beyond its own, and still owns its files.
NAMESPACE = ("unshare", "--user", "--map-user=65534", "--map-group=65534")
# Neither the locale nor any PG* variable of the caller may change what the programs do.
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}
RUN_TIMEOUT = 120.0  # seconds
POLL_INTERVAL = 0.01  # seconds; neither a pid nor a file sets an event


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom the servers run: through a wrapping command, as another user, or (neither) as we are."""

    wrapper: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None


def choose_identity() -> Identity:
    """Return the first way in which PostgreSQL can run here."""
    if os.geteuid() != 0:
        return Identity()
    if succeeds([*NAMESPACE, "true"]):
        return Identity(wrapper=NAMESPACE)
    nobody = pwd.getpwnam("nobody")
    return Identity(user=nobody.pw_uid, group=nobody.pw_gid)


def place(data: Path, name: str, identity: Identity) -> Path:
    """Return the real directory of a server's data: in `data`, or behind a link where user nobody can reach it."""
    path = data / name
    if identity.user is not None and not path.is_symlink() and not _is_reachable(data):
        refuge = _refuge(_digest(str(data)))
        if path.exists():
            shutil.move(path, refuge / name)
        path.symlink_to(refuge / name)
    return path.resolve()


def reachable_package(package: Path, identity: Identity) -> Path:
    """Return the package, or a copy with its libraries when user nobody must run programs that it cannot reach."""
    if identity.user is None or _is_reachable(package):
        return package
    made = f"{package}:{package.stat().st_mtime_ns}"
    copy = _refuge(f"{package.name}-{_digest(made)}")
    if not (copy / package.name).exists():
        with tempfile.TemporaryDirectory(dir=copy) as draft:
            _copy_programs(package, Path(draft))
            _copy_libraries(package, copy)
            Path(draft, package.name).rename(copy / package.name)
    return copy / package.name


def own(directory: Path, identity: Identity) -> None:
    """Make sure that the directory exists and belongs to whom the server runs as, also when that has changed."""
    directory.mkdir(mode=0o700, exist_ok=True)
    owner = identity.user or os.geteuid()
    if os.geteuid() != 0 or directory.stat().st_uid == owner:
        return
    for parent, directories, files in os.walk(directory, topdown=False):  # the top last: it says that all is done
        for name in (*directories, *files):
            os.chown(os.path.join(parent, name), owner, identity.group or 0, follow_symlinks=False)
    os.chown(directory, owner, identity.group or 0)


def spawn(
    command: Sequence[str], identity: Identity, log: Path, given: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that hears no signal meant for us and lives on when we are killed."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [*identity.wrapper, *command],
            stdin=given or subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
            umask=0o077,
            user=identity.user,
            group=identity.group,
            extra_groups=[] if identity.user is not None else None,
        )


async def run_to_end(command: Sequence[str], identity: Identity, log: Path, given: bytes = b"") -> None:
    """Run a program to its end; it does not survive a cancellation."""
    with tempfile.TemporaryFile() as file:
        file.write(given)
        file.seek(0)
        process = spawn(command, identity, log, file)
    try:
        await until(lambda: process.poll() is not None, RUN_TIMEOUT)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise ConfigurationError(f"{Path(command[0]).name} failed; see {log}")


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition that nothing announces; return whether it came true in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(POLL_INTERVAL)
            return True
    return False


def succeeds(command: Sequence[str]) -> bool:
    """Run a short command and return whether it exists and likes it here."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, env=ENVIRONMENT, timeout=10).returncode == 0
    return False


def _refuge(name: str) -> Path:
    directory = REFUGE / name
    directory.mkdir(parents=True, exist_ok=True)
    for path in (REFUGE, directory):
        path.chmod(0o755)  # whatever the umask is
    return directory


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _is_reachable(directory: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (directory, *directory.parents))


def _copy_programs(package: Path, target: Path) -> None:
    shutil.copytree(package, target / package.name, ignore=shutil.ignore_patterns("include", "__pycache__", "*.a"))
    _open_to_all(target / package.name)


def _copy_libraries(package: Path, target: Path) -> None:
    """Copy the shared libraries of a wheel, which its programs expect beside the package."""
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name, dirs_exist_ok=True)
        _open_to_all(target / libraries.name)


def _open_to_all(directory: Path) -> None:
    subprocess.run(["chmod", "-R", "a+rX", directory], check=True)
