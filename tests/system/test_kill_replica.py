"""One of two server processes is killed in the middle of a lesson: nobody loses anything that was acknowledged."""

import asyncio
import os
import secrets
import signal

import pytest

from tests.people import People
from tests.processes import Installation
from tests.system.history import check
from tests.system.students import Student

STUDENTS = 10
BEFORE_KILL = 1.5  # seconds of talk before the kill and after it
AFTER_KILL = 3.0
# The histories are about delivery, not about the limit for people who type.
NO_RATE_LIMIT = {"LECTERN_CHAT__MESSAGE_RATE": "1000", "LECTERN_CHAT__MESSAGE_BURST": "1000"}


async def lesson_with_a_kill(run_directory, record_property, environment):
    data = run_directory / f"kill-{secrets.token_hex(3)}"
    async with (
        Installation(data, replicas=2, environment={**NO_RATE_LIMIT, **environment}) as installation,
        People(installation.url) as people,
    ):
        persons = [await people.sign_in(f"student{number}") for number in range(1, STUDENTS + 1)]
        room_id = await persons[0].class_room()
        students = [Student(person, room_id, installation.urls, first) for first, person in enumerate(persons)]
        for student in students:
            await student.follow()
        enough = asyncio.Event()
        talks = [asyncio.ensure_future(student.talk(enough)) for student in students]
        await asyncio.sleep(BEFORE_KILL)
        os.kill(installation.pid_of(installation.urls[1]), signal.SIGKILL)
        await asyncio.sleep(AFTER_KILL)
        enough.set()
        await asyncio.gather(*talks)
        log = await read_log(persons[0], installation.url, room_id)
        # With the planted bug a view may never catch up with what was promised; the check says so.
        await asyncio.gather(*(student.catch_up(len(log)) for student in students), return_exceptions=True)
        for student in students:
            await student.leave()
    views = [student.view for student in students if student.view]
    verdict = check(log, [message for student in students for message in student.sent], views)
    print(f"\nkill test {environment or ''}: {verdict}, resumed {sum(s.resumed for s in students)}")
    record_property("verdict", str(verdict))
    return verdict, students, installation


async def read_log(person, url, room_id):
    events, after = [], 0
    while True:
        path = f"/api/classroom/rooms/{room_id}/events?after={after}&limit=200"
        page = await person.call("GET", path, status=200)
        events += page["items"]
        if not page["items"]:
            return events
        after = events[-1]["seq"]


async def test_no_acknowledged_message_is_lost_doubled_or_reordered_when_a_replica_is_killed(
    run_directory, record_property
):
    verdict, students, installation = await lesson_with_a_kill(run_directory, record_property, {})
    assert verdict.problems == ()
    assert verdict.sent == verdict.acked > 100
    # Those who were on the killed replica came back on the other one, by resuming.
    moved = [student for student in students if student.seen_on[0] == installation.urls[1]]
    assert len(moved) == STUDENTS // 2
    assert all(student.resumed >= 1 for student in moved)
    assert all(installation.urls[0] in student.seen_on for student in moved)


async def test_the_check_goes_red_when_the_ack_is_sent_before_the_commit(run_directory, record_property):
    """The planted bug: a test that was never seen red is no evidence."""
    environment = {"LECTERN_PLANTED_BUGS": "ack_before_commit"}
    verdict, _, _ = await lesson_with_a_kill(run_directory, record_property, environment)
    assert verdict.lost > 0
    with pytest.raises(AssertionError):
        assert verdict.problems == ()
