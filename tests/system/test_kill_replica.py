"""One of two server processes is killed in the middle of a lesson: nobody loses anything that was acknowledged."""

import random
import tempfile
from dataclasses import replace
from pathlib import Path

from server.verify.checker import check
from server.verify.faults import BY_NAME
from server.verify.installation import Installation
from server.verify.run import Run, Size, Step

STUDENTS = 10
LESSON = Size(clients=STUDENTS, rooms=2, rate=30, load=2, warm_up=1.5, cool_down=1.5, rests=(20.0, 30.0))
KILL = Step(BY_NAME["replica_killed"], 1.0)


async def lesson_with_kills(record_property, *, size=LESSON, kills=1, bug=None):
    with tempfile.TemporaryDirectory(prefix="lectern-kill-", ignore_cleanup_errors=True) as directory:
        async with Installation(Path(directory), replicas=2) as installation:
            if bug:
                await installation.stop_replicas()
                await installation.start_replicas(bug)
            run = Run(installation, [KILL] * kills, size, random.Random(1))
            verdict = check(await run.carry_out())
    print(f"\nkill test {bug or ''}: {verdict}")
    record_property("verdict", str(verdict))
    return verdict, run


async def test_no_acknowledged_message_is_lost_doubled_or_reordered_when_a_replica_is_killed(record_property):
    verdict, run = await lesson_with_kills(record_property)
    assert verdict.problems == []
    assert verdict.counts["acked"] > 100
    assert len(run.students) == STUDENTS
    assert verdict.counts["resumes"] >= STUDENTS // 2  # those of the killed replica came back on the other one


async def test_the_check_goes_red_when_the_ack_is_sent_before_the_commit(record_property):
    """The planted bug: a test that was never seen red is no evidence."""
    # Several rooms and kills: a kill that hits a replica between two transactions finds nothing to lose.
    size = replace(LESSON, rooms=5, settle=3.5, leaks=0.0)
    verdict, _ = await lesson_with_kills(record_property, size=size, kills=3, bug="ack_before_commit")
    assert verdict.findings["lost"]
