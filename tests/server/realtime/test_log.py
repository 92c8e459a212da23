"""The write path: once, in order, and refusals that harm nobody else."""

import asyncio
import json
from uuid import UUID, uuid4

import pytest

from server.actor import Actor
from server.errors import Conflict, DomainError, Forbidden, IdempotencyKeyReused, Internal, NotFound, PayloadTooLarge
from server.realtime.wire import RoomEvent
from server.realtime.work import NewEvent, Receipt, Work


@pytest.fixture
async def actors(rt):
    async with rt.database.connection() as conn:
        rows = await conn.fetch("SELECT id, email, profile_data->>'name' AS name, role FROM users")
    return {row["email"].split("@")[0]: Actor(row["id"], row["name"], None, row["role"], uuid4(), 2e9) for row in rows}


@pytest.fixture
async def room_id(rt):
    async with rt.database.connection() as conn:
        return await conn.fetchval("SELECT id FROM rooms WHERE name = 'Lounge'")


def say(room_id, actor, text="hello", *, cmd_id=None, decide=None):
    return Work(
        room_id,
        actor,
        "message",
        decide or (lambda room: [NewEvent("message", {"text": text})]),
        cmd_id=cmd_id,
        payload=text.encode(),
        owns_id=True,
    )


async def stored(rt, room_id):
    return [json.loads(event.body) for event in await rt.log.read(room_id, after=0, limit=1000)]


async def test_events_are_numbered_without_gaps_in_the_order_of_their_commits(rt, room_id, actors):
    student = actors["student1"]
    receipts = await asyncio.gather(*(rt.log.commit(say(room_id, student, f"{number}")) for number in range(50)))
    assert [receipt.seq for receipt in receipts] == list(range(1, 51))
    assert [event["data"]["text"] for event in await stored(rt, room_id)] == [f"{number}" for number in range(50)]


async def test_one_cmd_id_happens_once_also_within_one_batch(rt, room_id, actors):
    student, cmd_id = actors["student1"], uuid4()
    receipts = await asyncio.gather(*(rt.log.commit(say(room_id, student, cmd_id=cmd_id)) for _ in range(10)))
    assert {receipt.seq for receipt in receipts} == {1}
    assert [receipt.duplicate for receipt in receipts] == [False] + [True] * 9
    later = await rt.log.commit(say(room_id, student, cmd_id=cmd_id))
    assert (later.seq, later.at, later.duplicate) == (1, receipts[0].at, True)
    assert len(await stored(rt, room_id)) == 1


async def test_a_cmd_id_with_another_payload_is_refused(rt, room_id, actors):
    cmd_id = uuid4()
    await rt.log.commit(say(room_id, actors["student1"], "one", cmd_id=cmd_id))
    with pytest.raises(IdempotencyKeyReused):
        await rt.log.commit(say(room_id, actors["student1"], "two", cmd_id=cmd_id))


async def test_the_id_of_somebody_elses_message_is_a_conflict_but_a_plain_cmd_id_is_not(rt, room_id, actors):
    cmd_id = uuid4()
    await rt.log.commit(say(room_id, actors["student1"], cmd_id=cmd_id))
    with pytest.raises(Conflict):
        await rt.log.commit(say(room_id, actors["student2"], cmd_id=cmd_id))
    other = Work(room_id, actors["student2"], "wave", lambda room: [NewEvent("waved", {})], cmd_id=cmd_id)
    assert (await rt.log.commit(other)).seq == 2


async def test_failures_are_not_remembered(rt, room_id, actors):
    cmd_id = uuid4()

    def refuse(room):
        raise Forbidden

    with pytest.raises(Forbidden):
        await rt.log.commit(say(room_id, actors["student1"], cmd_id=cmd_id, decide=refuse))
    receipt = await rt.log.commit(say(room_id, actors["student1"], cmd_id=cmd_id))
    assert (receipt.seq, receipt.duplicate) == (1, False)


async def test_bad_commands_in_a_batch_harm_no_other(rt, room_id, actors):
    student = actors["student1"]

    def broken(room):
        raise ZeroDivisionError

    bad = [
        say(room_id, student, decide=broken),
        say(room_id, student, "x" * 70_000),
        say(room_id, student, "a\0b", decide=lambda room: [NewEvent("message", {"text": "a\0b"})]),
        say(room_id, Actor(uuid4(), "Nobody", None, "user", uuid4(), 2e9)),
        say(uuid4(), student),
    ]
    works = [work for number, one in enumerate(bad) for work in (say(room_id, student, f"{number}"), one)]
    results = await asyncio.gather(*map(rt.log.commit, works), return_exceptions=True)
    seqs = [result.seq for result in results[::2] if isinstance(result, Receipt)]
    assert len(seqs) == len(bad)
    assert seqs == sorted(set(seqs))
    kinds = [type(result) for result in results[1::2]]
    assert kinds[0] is Internal
    assert kinds[1] is PayloadTooLarge
    assert kinds[3:] == [NotFound, NotFound]
    texts = [event["data"]["text"] for event in await stored(rt, room_id)]
    assert [text for text in texts if text.isdigit()] == ["0", "1", "2", "3", "4"]


async def test_a_command_that_the_database_refuses_is_found_by_writing_one_by_one(rt, room_id, actors):
    """A lone surrogate passes every check of ours and cannot be stored."""
    student = actors["student1"]
    works = [say(room_id, student, "good"), say(room_id, student), say(room_id, student, "also good")]
    works[1].decide = lambda room: [NewEvent("bad\0type", {})]
    first, second, third = await asyncio.gather(*map(rt.log.commit, works), return_exceptions=True)
    assert isinstance(second, Internal)
    assert [result.seq for result in (first, third) if isinstance(result, Receipt)] == [1, 2]


async def test_a_decision_sees_the_effect_of_those_before_it_in_the_batch(rt, actors):
    async with rt.database.connection() as conn:
        room_id = await conn.fetchval("SELECT id FROM rooms WHERE kind = 'class'")
    seen = []

    def start(room):
        seen.append(room.state["status"])
        return [] if room.state["status"] == "live" else [NewEvent("class_started", {})]

    works = [Work(room_id, actors["teacher"], "start_class", start) for _ in range(3)]
    receipts = await asyncio.gather(*map(rt.log.commit, works))
    assert seen == ["idle", "live", "live"]
    assert [receipt.seq for receipt in receipts] == [1, 1, 1]
    head = await rt.log.head(room_id)
    assert (head.seq, json.loads(head.state)["status"]) == (1, "live")


async def test_a_room_locked_elsewhere_waits_and_holds_up_no_other(rt, room_id, actors):
    async with rt.database.connection() as conn:
        free = await conn.fetchval("SELECT id FROM rooms WHERE kind = 'class'")
    async with rt.database.transaction() as conn:
        await conn.fetch("SELECT 1 FROM rooms WHERE id = $1 FOR UPDATE", room_id)
        blocked = asyncio.ensure_future(rt.log.commit(say(room_id, actors["student1"])))
        for _ in range(5):
            await rt.log.commit(say(free, actors["student1"]))
        assert not blocked.done()
    assert (await blocked).seq == 1


async def test_several_writers_of_one_room_leave_no_gap(rt, settings, room_id, actors):
    """Two replicas on the same room: their batches lock it in turn."""
    from server.app import running

    async with running(settings) as other:
        works = [(rt, other.rt)[number % 2].log.commit(say(room_id, actors["student1"])) for number in range(200)]
        receipts = await asyncio.gather(*works)
    assert sorted(receipt.seq for receipt in receipts) == list(range(1, 201))


async def test_a_caller_that_gave_up_does_not_stop_the_others(rt, room_id, actors):
    async with rt.database.transaction() as conn:
        await conn.fetch("SELECT 1 FROM rooms WHERE id = $1 FOR UPDATE", room_id)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await rt.log.commit(say(room_id, actors["student1"], "gave up"))
        patient = asyncio.ensure_future(rt.log.commit(say(room_id, actors["student1"], "patient")))
        await asyncio.sleep(0.05)
    assert not isinstance((await asyncio.gather(patient, return_exceptions=True))[0], DomainError)


async def test_the_same_bytes_are_read_from_the_log_as_were_sent(rt, room_id, actors):
    sent: list[RoomEvent] = []
    deliver, rt.log._deliver = rt.log._deliver, sent.extend
    await rt.log.commit(say(room_id, actors["student1"], 'quotes " and ünïcode \\ / 😀'))
    await asyncio.sleep(0)
    rt.log._deliver = deliver
    [event] = await rt.log.read(room_id, after=0, limit=10)
    assert event.body == sent[0].body


async def test_reading_back_gives_the_last_events_in_order(rt, room_id, actors):
    for number in range(10):
        await rt.log.commit(say(room_id, actors["student1"], f"{number}"))
    assert [event.seq for event in await rt.log.read_back(room_id, before=None, limit=3)] == [8, 9, 10]
    assert [event.seq for event in await rt.log.read_back(room_id, before=4, limit=10)] == [1, 2, 3]
    assert [event.seq for event in await rt.log.read(room_id, after=7, to=9, limit=10)] == [8, 9]
    assert await rt.log.read(room_id, after=2**63, limit=10) == []
    with pytest.raises(NotFound):
        await rt.log.head(UUID(int=1))
