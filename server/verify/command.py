"""`python -m server verify`: a long random run on private services, and its verdict."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from server.verify.checker import Limits, Verdict, check
from server.verify.history import History
from server.verify.installation import Installation
from server.verify.run import Run, Size
from server.verify.schedule import make_schedule

MEMORY = Path("/dev/shm")  # noqa: S108 - a private directory is made in it; a commit there does not wait for a disk
PRESENCE_PATIENCE = 21.0  # seconds behind the last fault, in which a ghost would become older than it may


async def verify(*, minutes: float, seed: int, replicas: int, say: Callable[[str], None], bugs: str = "") -> int:
    """Run and report; the exit code is 0 when every promise was kept."""
    say(f"seed {seed}, {minutes:g} min, {replicas} replicas, bugs: {bugs or 'none'}")
    directory = Path(tempfile.mkdtemp(prefix="lectern-verify-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    try:
        history = await _run(directory, minutes, seed, replicas, say, bugs)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    verdict = check(history, Limits())
    _report(verdict, history, say)
    return 0 if verdict.passed else 1


async def _run(
    directory: Path, minutes: float, seed: int, replicas: int, say: Callable[[str], None], bugs: str
) -> History:
    size = Size(patience=PRESENCE_PATIENCE)
    steps = make_schedule(seed, minutes * 60 - size.warm_up - size.cool_down - size.patience)
    async with Installation(directory, replicas=replicas, bugs=bugs) as installation:
        run = Run(installation, steps, size, random.Random(seed), say)  # noqa: S311 - to be repeated
        history = await run.carry_out()
        await finish(installation, history)
    return history


async def finish(installation: Installation, history: History) -> None:
    """End the replicas as an operator does, and take their last words."""
    await installation.stop_replicas()
    for replica in installation.replicas:
        history.exits += replica.exits
        history.errors += replica.errors()
        replica.exits = []


def _report(verdict: Verdict, history: History, say: Callable[[str], None]) -> None:
    faults: Mapping[str, int] = dict.fromkeys(sorted({window.fault for window in history.windows}), 0)
    counted = {name: sum(window.fault == name for window in history.windows) for name in faults}
    say("faults: " + ", ".join(f"{name} {count}" for name, count in counted.items()))
    for problem in verdict.problems:
        say(problem)
    say(str(verdict))
    say("verdict: " + ("every promise was kept" if verdict.passed else "FAILED"))
