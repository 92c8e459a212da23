"""The set-up of a fresh clone: its scripts, run as real processes, with a lock file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PYTHON: str = getattr(sys, "_base_executable", sys.executable)
WHEEL = "tiny-1.0-py3-none-any.whl"
DEADLINE = 120  # seconds
# What a script of the clone does: set up, then become a program of the environment.
PROBE = """
import bootstrap, sys
bootstrap.execute([bootstrap.ensure_venv(sys.argv[1]), "-c", "import sys, tiny; print(sys.prefix, tiny.NUMBER)"])
"""


class Clone:
    """A copy of the scripts with lock files of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(SCRIPTS, root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "scripts" / "probe").write_text(PROBE)
        self.lock(number=1)

    def lock(self, *, number: int) -> None:
        """Write a wheel that knows the number, and lock files that name it with its hash."""
        _write_wheel(self.root / WHEEL, f"NUMBER = {number}\n")
        digest = hashlib.sha256((self.root / WHEEL).read_bytes()).hexdigest()
        for name in ("requirements.lock", "requirements-dev.lock"):
            (self.root / name).write_text(f"./{WHEEL} --hash=sha256:{digest}\n# {name}\n")

    def start(self, lock: str = "requirements.lock", *, python: str = PYTHON) -> subprocess.Popen[str]:
        command = [python, str(self.root / "scripts" / "probe"), lock]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd="/", env=_environment(), text=True, stdout=pipe, stderr=pipe)

    def run(self, lock: str = "requirements.lock", *, python: str = PYTHON) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error."""
        with self.start(lock, python=python) as process:
            output, errors = process.communicate(timeout=DEADLINE)
        return process.returncode, output.strip(), errors.strip()

    def says(self, number: int) -> str:
        return f"{self.root / '.venv'} {number}"


def _environment() -> dict[str, str]:
    """Hide uv, which keeps a cache, so that each test goes the way that every machine can go."""
    tools = os.pathsep.join(path for path in os.environ["PATH"].split(os.pathsep) if not Path(path, "uv").exists())
    return {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"} | {"PATH": tools}


def _write_wheel(path: Path, code: str) -> None:
    entry = "tiny-1.0.dist-info"
    files = {
        "tiny.py": code,
        f"{entry}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{entry}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{name},sha256={_record_hash(text)},{len(text)}" for name, text in files.items()]
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in (files | {f"{entry}/RECORD": "\n".join([*rows, f"{entry}/RECORD,,"]) + "\n"}).items():
            wheel.writestr(name, text)


def _record_hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_first_run_sets_up_and_runs_the_program_in_the_private_environment(clone: Clone):
    exit_code, output, errors = clone.run()
    assert (exit_code, output) == (0, clone.says(1))
    assert "installing requirements.lock (once)" in errors


def test_second_run_installs_nothing_and_says_nothing(clone: Clone):
    clone.run()
    (clone.root / WHEEL).unlink()  # nothing could be installed now
    assert clone.run() == (0, clone.says(1), "")


def test_check_of_what_is_set_up_costs_less_than_a_tenth_of_a_second(clone: Clone):
    clone.run()
    code = "import time; t = time.perf_counter(); import bootstrap; bootstrap.ensure_venv('requirements.lock'); "
    code += "print(time.perf_counter() - t)"
    timed = [PYTHON, "-c", code]
    runs = [subprocess.run(timed, cwd=clone.root / "scripts", capture_output=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 0.1


def test_changed_lock_file_is_installed_into_an_environment_made_anew(clone: Clone):
    clone.run()
    leftover = next((clone.root / ".venv").glob("lib/*/site-packages")) / "leftover.py"
    leftover.touch()
    clone.lock(number=2)
    exit_code, output, _ = clone.run()
    assert (exit_code, output) == (0, clone.says(2))
    assert not leftover.exists()


def test_development_lock_file_is_added_to_what_is_there(clone: Clone):
    clone.run()
    kept = clone.root / ".venv" / "kept"
    kept.touch()
    assert clone.run("requirements-dev.lock")[:2] == (0, clone.says(1))
    assert kept.exists()


def test_development_environment_is_enough_to_run(clone: Clone):
    clone.run("requirements-dev.lock")
    assert clone.run("requirements.lock") == (0, clone.says(1), "")


def test_two_scripts_at_once_set_up_once(clone: Clone):
    both = [clone.start(), clone.start()]
    results = [process.communicate(timeout=DEADLINE) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [output.strip() for output, _ in results] == [clone.says(1)] * 2
    assert sum("installing" in errors for _, errors in results) == 1


def test_set_up_killed_in_the_middle_is_done_again(clone: Clone):
    first = clone.start()
    deadline = time.monotonic() + DEADLINE
    while not (clone.root / ".venv").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    first.kill()
    first.communicate()
    assert clone.run()[:2] == (0, clone.says(1))


def test_environment_whose_python_is_gone_is_made_anew(clone: Clone):
    clone.run()
    (clone.root / ".venv" / "bin" / "python").unlink()
    assert clone.run()[:2] == (0, clone.says(1))


def test_changed_lock_file_is_installed_also_from_inside_the_environment(clone: Clone):
    clone.run()
    clone.lock(number=2)
    assert clone.run(python=str(clone.root / ".venv" / "bin" / "python"))[:2] == (0, clone.says(2))


def test_moved_clone_is_set_up_again(clone: Clone, tmp_path_factory: pytest.TempPathFactory):
    clone.run()
    moved = tmp_path_factory.mktemp("elsewhere") / "clone"
    shutil.move(clone.root, moved)
    clone.root = moved
    assert clone.run()[:2] == (0, clone.says(1))


def test_package_with_another_hash_is_refused_with_a_clear_line(clone: Clone):
    _write_wheel(clone.root / WHEEL, "NUMBER = 666\n")
    exit_code, output, errors = clone.run()
    assert (exit_code, output) == (2, "")
    assert errors.splitlines()[-1].startswith("lectern: requirements.lock could not be installed")


def test_too_old_python_is_one_clear_line(clone: Clone):
    code = "import sys; sys.version_info = (3, 10, 1); import bootstrap; bootstrap.ensure_venv('requirements.lock')"
    result = subprocess.run([PYTHON, "-c", code], cwd=clone.root / "scripts", capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("lectern: Python 3.11 or newer is needed")
    assert result.stderr.count("\n") == 1
    assert not (clone.root / ".venv").exists()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_file_pins_every_package_with_hashes_and_names_no_address(name: str):
    lines = (SCRIPTS.parent / name).read_text().splitlines()
    packages = [line for line in lines if line and line[0] not in " #"]
    assert packages
    assert all("==" in line and line.endswith("\\") for line in packages)
    assert not [line for line in lines if "://" in line or line.startswith("-")]


def test_development_lock_file_contains_the_runtime_lock_file():
    def pins(name: str) -> set[str]:
        lines = (SCRIPTS.parent / name).read_text().splitlines()
        return {line.split(" ")[0] for line in lines if line and line[0] not in " #"}

    assert pins("requirements.lock") <= pins("requirements-dev.lock")
