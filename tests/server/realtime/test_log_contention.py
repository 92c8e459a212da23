"""The write path under contention: several replicas, one cmd_id in many places, and people who are removed."""

import asyncio
from uuid import uuid4

import pytest

from server.app import running
from server.errors import DomainError, IdempotencyKeyReused, NotFound, Unavailable
from server.realtime.work import NewEvent, Receipt, Work
from tests.server.realtime.test_log import actors, room_id, say, stored  # noqa: F401 - fixtures
from tests.waiting import eventually


@pytest.fixture
async def other(settings):
    """A second replica."""
    async with running(settings) as other:
        yield other.rt


async def course_of(rt, room_id):  # noqa: F811
    async with rt.database.connection() as conn:
        return await conn.fetchval("SELECT course_id FROM rooms WHERE id = $1", room_id)


async def test_two_replicas_write_one_hot_room_without_gap_and_each_in_its_order(rt, other, room_id, actors):  # noqa: F811
    people = [actors[f"student{number}"] for number in range(1, 11)]

    async def talk(runtime, actor):
        return [(await runtime.log.commit(say(room_id, actor, f"{actor.name} {n}"))).seq for n in range(20)]

    lines = await asyncio.gather(*(talk((rt, other)[n % 2], actor) for n, actor in enumerate(people)))
    assert sorted(seq for seqs in lines for seq in seqs) == list(range(1, 201))
    assert all(seqs == sorted(seqs) for seqs in lines)


async def test_rooms_written_by_both_replicas_do_not_hold_each_other_up(rt, other, actors):  # noqa: F811
    async with rt.database.connection() as conn:
        rooms = [row["id"] for row in await conn.fetch("SELECT id FROM rooms")]
    works = [
        (rt, other)[number % 2].log.commit(say(rooms[number // 2 % len(rooms)], actors["student1"], f"{number}"))
        for number in range(200)
    ]
    receipts = await asyncio.gather(*works)
    assert len(receipts) == 200
    for place in rooms:
        count = len(await stored(rt, place))
        assert count == 200 // len(rooms)
        assert (await rt.log.head(place)).seq == count


async def test_nothing_of_somebody_commits_after_their_removal_is_visible(rt, other, room_id, actors):  # noqa: F811
    """Commands queue on both replicas while the membership goes: each is before the removal, or refused."""
    student, course = actors["student1"], await course_of(rt, room_id)
    stop = asyncio.Event()
    seqs, refused = [], []

    async def talk(runtime):
        while not stop.is_set():
            try:
                seqs.append((await runtime.log.commit(say(room_id, student, "still here"))).seq)
            except NotFound:
                refused.append(1)

    talks = [asyncio.ensure_future(talk(runtime)) for runtime in (rt, other) for _ in range(20)]
    await eventually(lambda: len(seqs) > 50)
    async with rt.database.connection() as conn:
        await conn.execute("DELETE FROM course_members WHERE course_id = $1 AND user_id = $2", course, student.user_id)
        # From here on everybody can see that the person is gone. A batch that read the membership before may still be
        # on its way; it holds the lock of the room, so behind that lock nothing more can come.
        behind = await conn.fetchval("SELECT last_seq FROM rooms WHERE id = $1 FOR UPDATE", room_id)
    await eventually(lambda: len(refused) > 50)
    stop.set()
    await asyncio.gather(*talks)
    assert max(seqs) <= behind
    assert (await rt.log.head(room_id)).seq == behind


async def test_a_removed_person_cannot_commit_what_was_queued_before(rt, room_id, actors):  # noqa: F811
    student, course = actors["student1"], await course_of(rt, room_id)
    async with rt.database.transaction() as conn:
        await conn.fetch("SELECT 1 FROM rooms WHERE id = $1 FOR UPDATE", room_id)
        queued = [asyncio.ensure_future(rt.log.commit(say(room_id, student, f"{number}"))) for number in range(10)]
        await asyncio.sleep(0.05)
        await conn.execute("DELETE FROM course_members WHERE course_id = $1 AND user_id = $2", course, student.user_id)
    results = await asyncio.gather(*queued, return_exceptions=True)
    assert {type(result) for result in results} == {NotFound}
    assert await stored(rt, room_id) == []


async def test_one_cmd_id_on_two_replicas_at_once_has_one_effect(rt, other, room_id, actors):  # noqa: F811
    for _ in range(20):
        cmd_id = uuid4()
        works = [runtime.log.commit(say(room_id, actors["student1"], cmd_id=cmd_id)) for runtime in (rt, other) * 3]
        receipts = await asyncio.gather(*works)
        assert len({receipt.seq for receipt in receipts}) == 1
        assert [receipt.duplicate for receipt in receipts].count(False) == 1
    assert len(await stored(rt, room_id)) == 20


async def test_one_cmd_id_with_two_payloads_on_two_replicas_is_refused_once(rt, other, room_id, actors):  # noqa: F811
    cmd_id = uuid4()
    works = [
        runtime.log.commit(say(room_id, actors["student1"], text, cmd_id=cmd_id))
        for runtime, text in ((rt, "one"), (other, "two"))
    ]
    results = await asyncio.gather(*works, return_exceptions=True)
    assert [type(result) for result in results if not isinstance(result, Receipt)] == [IdempotencyKeyReused]
    assert len(await stored(rt, room_id)) == 1


async def test_a_bad_command_in_a_batch_of_two_replicas_harms_no_other(rt, other, room_id, actors):  # noqa: F811
    def bad():
        return say(room_id, actors["student1"], decide=lambda room: [NewEvent("bad\0type", {})])

    works = [
        (rt, other)[number % 2].log.commit(bad() if number % 10 == 5 else say(room_id, actors["student1"], f"{number}"))
        for number in range(100)
    ]
    results = await asyncio.gather(*works, return_exceptions=True)
    seqs = [result.seq for result in results if isinstance(result, Receipt)]
    assert sorted(seqs) == list(range(1, 91))
    assert sum(isinstance(result, DomainError) for result in results) == 10


async def test_what_was_committed_by_a_replica_that_never_published_it_arrives(people, second_url, rt, monkeypatch):
    """A replica is stopped between commit and publish: the others find the event by comparing heads."""
    monkeypatch.setattr(rt.rooms.channels, "publish", lambda *_: None)
    speaker, place = await people.in_class("teacher")
    student = await people.sign_in("student1")
    listener = await student.connect(url=second_url)
    await listener.join(place)
    acked = await speaker.say(place, "the last words before a silence")
    await eventually(lambda: listener.events("message"), rt.settings.realtime.head_interval + 2)
    assert [event["seq"] for event in listener.events("message")] == [acked["seq"]]


async def test_heads_that_were_read_before_the_last_event_are_no_sign_of_another_log(people, rt, monkeypatch):
    """While heads are read the room goes on: nobody is told to join again, and nothing arrives twice."""
    client, place = await people.in_class("teacher")
    read = rt.log.heads

    async def slowly(room_ids):
        heads = await read(room_ids)
        await client.say(place, "meanwhile")
        return heads

    monkeypatch.setattr(rt.log, "heads", slowly)
    await rt.rooms._compare_heads()
    monkeypatch.undo()
    await client.say(place, "afterwards")
    await client.wait_for("message", 2)
    assert [event["data"]["text"] for event in client.events("message")] == ["meanwhile", "afterwards"]
    assert client.events("resync_required") == []


async def test_a_lost_commit_is_resolved_by_the_same_cmd_id(rt, room_id, actors):  # noqa: F811
    """The connection dies under COMMIT: unavailable, and the retry finds what has happened."""
    works = [say(room_id, actors["student1"], f"{number}", cmd_id=uuid4()) for number in range(20)]
    commits = [asyncio.ensure_future(rt.log.commit(work)) for work in works]
    await asyncio.sleep(0)
    async with rt.database.connection() as conn:
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    results = await asyncio.gather(*commits, return_exceptions=True)
    assert all(isinstance(result, Receipt | Unavailable) for result in results)

    async def again(work: Work):
        copy = say(room_id, actors["student1"], work.payload.decode(), cmd_id=work.cmd_id)
        while True:
            try:
                return await rt.log.commit(copy)
            except Unavailable:
                await asyncio.sleep(0.02)

    receipts = await asyncio.gather(*map(again, works))
    assert sorted(receipt.seq for receipt in receipts) == list(range(1, 21))
    for first, second in zip(results, receipts, strict=True):
        if isinstance(first, Receipt):
            assert (second.seq, second.duplicate) == (first.seq, True)
