"""Makes the private `.venv` of this clone once and keeps it in step with the lock files.

Needs only the standard library of Python 3.11 and pip (or uv). Never installs outside the clone, and touches the
network only when a lock file or the Python under `.venv` has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
RUNTIME = "requirements.lock"
DEVELOPMENT = "requirements-dev.lock"  # contains RUNTIME, with the same versions
OLDEST_PYTHON = (3, 11)
# Not the interpreter of a virtual environment that happens to be active: it may be the one that is made anew.
BASE_PYTHON = getattr(sys, "_base_executable", "") or sys.executable


def ensure_venv(lock: str) -> Path:
    """Return the interpreter of a `.venv` in which everything of `lock` is installed."""
    if sys.version_info < OLDEST_PYTHON:
        fail(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}. Try: python3.11 {sys.argv[0]}")
    if is_current(_stamp(lock), _fingerprint(lock)):
        return PYTHON
    with exclusive():
        if not is_current(_stamp(lock), _fingerprint(lock)):  # another script may have done it while we waited
            _install(lock)
    return PYTHON


def execute(arguments: Sequence[str | Path]) -> NoReturn:
    """Become the given program, so that signals and the exit code need no relay."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(ROOT)
    os.execv(arguments[0], [str(argument) for argument in arguments])


def say(message: str) -> None:
    print(f"lectern: {message}", file=sys.stderr, flush=True)  # standard output belongs to the program


def fail(message: str) -> NoReturn:
    say(message)
    raise SystemExit(2)


def is_current(stamp: Path, fingerprint: str) -> bool:
    try:
        return PYTHON.exists() and stamp.read_text() == fingerprint
    except OSError:
        return False


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Let one script of this clone at a time change what is installed; the kernel frees the lock of a killed one."""
    with open(__file__, "rb") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this clone")
            fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _install(lock: str) -> None:
    if not is_current(_stamp(RUNTIME), _fingerprint(RUNTIME)):
        _create_venv()  # from scratch: a package that left the lock file must not linger
    say(f"installing {lock} (once)")
    if not any(_succeeds(command) for command in _installers(ROOT / lock)):
        fail(f"{lock} could not be installed; the messages above say why. Is there a network, and pip for {PYTHON}?")
    for name in {lock, RUNTIME}:
        _stamp(name).write_text(_fingerprint(name))


def _create_venv() -> None:
    say(f"creating {VENV.name} with Python {sys.version.split()[0]}")
    shutil.rmtree(VENV, ignore_errors=True)
    # Without pip: Debian ships ensurepip in a package of its own, and the pip that runs outside can install inside.
    if not _succeeds([BASE_PYTHON, "-m", "venv", "--without-pip", str(VENV)]):
        fail("python3 -m venv failed. On Debian: apt-get install python3-venv")


def _installers(lock: Path) -> Iterator[list[str]]:
    """Yield the commands that can install the lock file, best first."""
    if uv := shutil.which("uv"):
        yield [uv, "pip", "install", "--python", str(PYTHON), "--require-hashes", "--compile-bytecode", "-r", str(lock)]
    options = ["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", str(lock)]
    if _succeeds([BASE_PYTHON, "-c", "import pip"], quiet=True):
        yield [BASE_PYTHON, "-m", "pip", "--python", str(PYTHON), *options]
    elif _succeeds([str(PYTHON), "-m", "ensurepip"], quiet=True):
        yield [str(PYTHON), "-m", "pip", *options]
    else:
        say(f"{BASE_PYTHON} has no pip. On Debian: apt-get install python3-pip")


def _succeeds(command: list[str], *, quiet: bool = False) -> bool:
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output).returncode == 0


def _stamp(lock: str) -> Path:
    return VENV / f".installed-{lock}"


def _fingerprint(lock: str) -> str:
    """Digest of the lock file, the place of the clone, and the Python in `.venv`, whichever Python runs this script."""
    digest = hashlib.sha256((ROOT / lock).read_bytes())
    digest.update(str(VENV).encode())  # scripts in .venv/bin contain it
    with contextlib.suppress(OSError):
        digest.update((VENV / "pyvenv.cfg").read_bytes())
    digest.update(os.path.realpath(PYTHON).encode())
    return digest.hexdigest()
