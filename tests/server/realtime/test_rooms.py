"""Joining, the gate and delivery, over two replicas in one process that share only PostgreSQL and Valkey."""

import asyncio
import json
from uuid import UUID, uuid4

import pytest

from server.realtime import wire
from tests.waiting import eventually


@pytest.fixture
def settings_changes():
    # They talk faster and at more length than people do.
    return {"chat": {"message_rate": 1000.0, "message_burst": 1000, "message_max_length": 30_000}}


async def test_people_in_a_class_see_each_other_talk_in_one_order(people, second_url):
    teacher, room_id = await people.in_class("teacher")
    student = await (await people.sign_in("student1")).connect(url=second_url)
    ack = await student.join(room_id)
    assert ack["room"]["name"] == "Live class"
    assert {user["name"] for user in ack["participants"]["users"]} >= {"Student One"} or ack["participants"][
        "count"
    ] == 2
    await asyncio.gather(*(client.say(room_id, f"{n}") for n in range(20) for client in (teacher, student)))
    for client in (teacher, student):
        await client.wait_for("message", 40)
    assert teacher.events("message") == student.events("message")
    assert [event["seq"] for event in student.room_events()] == list(range(1, 41))


async def test_a_class_is_a_fold_that_a_late_joiner_gets_as_a_snapshot(people, second_url):
    teacher, room_id = await people.in_class("teacher")
    student, _ = await people.in_class("student1")
    await teacher.do("start_class", room_id=room_id)
    await student.do("raise_hand", room_id=room_id)
    event = await teacher.wait_for("hand_raised")
    assert event["actor"]["id"] == event["data"]["user_id"]
    late = await (await people.sign_in("student2")).connect(url=second_url)
    ack = await late.join(room_id)
    assert ack["resumed"] is False
    assert ack["snapshot"]["seq"] == ack["seq"] == 2
    assert ack["snapshot"]["state"]["status"] == "live"
    assert [hand["user_id"] for hand in ack["snapshot"]["state"]["hands"]] == [event["data"]["user_id"]]
    await teacher.do("call_on", room_id=room_id, user_id=event["data"]["user_id"])
    await teacher.do("end_class", room_id=room_id)
    await late.wait_for("class_ended")
    assert [event["type"] for event in late.room_events()] == ["hand_called", "class_ended"]


async def test_a_learner_may_not_start_a_class(people):
    student, room_id = await people.in_class("student1")
    ack = await student.send("start_class", room_id=room_id)
    assert ack["error"]["code"] == "forbidden"


async def test_resuming_gives_exactly_what_was_missed(people):
    client, room_id = await people.in_class("student1")
    for number in range(10):
        await client.say(room_id, f"{number}")
    other = await people.sign_in("student2")
    again = await other.connect()
    ack = await again.join(room_id, after=7, epoch=client.room_events()[0]["epoch"])
    assert ack["resumed"] is True
    assert [event["seq"] for event in ack["events"]] == [8, 9, 10]
    assert "snapshot" not in ack
    assert ack["events"] == client.room_events()[7:]


@pytest.mark.parametrize(
    ("after", "epoch", "limit", "resumed", "truncated", "first"),
    [
        (10, "right", 200, True, False, None),
        (0, "right", 200, True, False, 1),
        (5, "wrong", 200, False, False, 1),
        (11, "right", 200, False, False, 1),
        (2, "right", 3, False, True, 8),
        (5, None, 200, False, False, 1),
    ],
)
async def test_a_join_that_cannot_resume_says_so(people, after, epoch, limit, resumed, truncated, first):
    client, room_id = await people.in_class("student1")
    for number in range(10):
        await client.say(room_id, f"{number}")
    known = {"right": client.room_events()[0]["epoch"], "wrong": "another"}
    options = {"epoch": known[epoch]} if epoch else {}
    ack = await client.join(room_id, after=after, limit=limit, **options)
    assert (ack["resumed"], ack["truncated"]) == (resumed, truncated)
    assert ack["seq"] == 10
    assert ("snapshot" in ack) is not resumed
    assert (ack["events"][0]["seq"] if ack["events"] else None) == first


async def test_large_events_make_a_join_smaller_than_asked_and_honest_about_it(people, settings):
    """An ack that is larger than what may be pending for a socket would cut the client off, again and again."""
    client, room_id = await people.in_class("student1")
    for number in range(40):
        await client.say(room_id, f"{number:04}" + "x" * 20_000 if number < 30 else f"{number}")
    epoch = client.room_events()[0]["epoch"]
    ack = await client.join(room_id, after=0, epoch=epoch, limit=200)
    assert (ack["resumed"], ack["truncated"], ack["seq"]) == (False, True, 40)
    seqs = [event["seq"] for event in ack["events"]]
    assert seqs == list(range(seqs[0], 41))
    assert 10 < len(seqs) < 40
    assert len(json.dumps(ack)) < settings.realtime.max_pending_bytes / 2
    ack = await client.join(room_id, after=35, epoch=epoch)
    assert (ack["resumed"], ack["truncated"]) == (True, False)
    older = await client.do("history", room_id=room_id, before=seqs[0], limit=200)
    assert [event["seq"] for event in older["events"]][-1] == seqs[0] - 1


async def test_nothing_is_lost_or_doubled_between_a_join_and_its_ack(people, second_url):
    """Somebody talks all the time while others join: history and live events meet without a seam."""
    speaker, room_id = await people.in_class("teacher")
    talking = True

    async def talk():
        while talking:
            await speaker.say(room_id, "…")

    talk_task = asyncio.ensure_future(talk())
    joiners = []
    for number in range(1, 9):
        person = await people.sign_in(f"student{number}")
        client = await person.connect(url=second_url if number % 2 else None)
        joiners.append((client, await client.join(room_id)))
    talking = False
    await talk_task
    last = await speaker.say(room_id, "end")
    for client, ack in joiners:
        await client.until(lambda client: bool(client.room_events()) and client.room_events()[-1]["seq"] == last["seq"])
        seen = [event["seq"] for event in ack["events"]] + [event["seq"] for event in client.room_events()]
        assert seen == list(range(seen[0], last["seq"] + 1))


async def test_joining_again_replaces_the_cursor(people):
    client, room_id = await people.in_class("student1")
    await client.say(room_id, "one")
    await client.join(room_id)
    await client.say(room_id, "two")
    await client.wait_for("message", 2)
    assert [event["data"]["text"] for event in client.events("message")] == ["one", "two"]


async def test_after_leaving_nothing_is_received_any_more(people):
    client, room_id = await people.in_class("student1")
    other, _ = await people.in_class("student2")
    await client.do("leave_room", room_id=room_id)
    await other.say(room_id, "are you there?")
    await other.wait_for("message")
    assert client.events("message") == []
    ack = await client.send("typing", room_id=room_id, on=True)
    assert ack["error"]["code"] == "forbidden"
    await client.say(room_id, "membership is enough to write")


async def test_a_room_that_one_may_not_see_does_not_exist(people, http):
    stranger = await people.sign_in("student1")
    response = await stranger.call("POST", "/api/classroom/courses", {"title": "Mine"}, status=201)
    rooms = await stranger.call("GET", f"/api/classroom/courses/{response['id']}/rooms")
    outsider = await (await people.sign_in("student2")).connect()
    for room_id in (rooms["items"][0]["id"], str(uuid4())):
        ack = await outsider.send("join_room", room_id=room_id)
        assert ack["error"]["code"] == "not_found"
        ack = await outsider.send("message", room_id=room_id, id=str(uuid4()), text="hi")
        assert ack["error"]["code"] == "not_found"


async def test_typing_reaches_the_others_on_all_replicas_and_not_oneself(people, second_url):
    one, room_id = await people.in_class("student1")
    other = await (await people.sign_in("student2")).connect(url=second_url)
    await other.join(room_id)
    await one.do("typing", room_id=room_id, on=True)
    event = await other.wait_for("typing")
    assert (event["room_id"], event["on"]) == (room_id, True)
    assert one.events("typing") == []


async def test_a_forged_publish_reaches_nobody(people, rt):
    client, room_id = await people.in_class("student1")
    forged = wire.News(wire.ROOM_EVENT, rt.log.epoch, 1, "message", "", b'{"type":"message","data":{"text":"lies"}}')
    channel = f"{rt.settings.redis.prefix}:room:{room_id}"
    for payload in (
        wire.seal(b"wrong" * 8, UUID(room_id), forged),
        b"",
        b"\xff\n",
        b"r e 1 m * x\n{}",
    ):
        await rt.redis.publish(channel, payload)
    await client.say(room_id, "truth")
    event = await client.wait_for("message")
    assert event["data"]["text"] == "truth"


async def test_what_redis_lost_is_read_from_postgresql(people, second_url, rt):
    """The other replica's subscription gets nothing of the first events; the next one shows the gap."""
    one, room_id = await people.in_class("student1")
    other = await (await people.sign_in("student2")).connect(url=second_url)
    await other.join(room_id)
    publish, rt.rooms.channels.publish = rt.rooms.channels.publish, lambda *_: None
    for number in range(5):
        await one.say(room_id, f"lost {number}")
    rt.rooms.channels.publish = publish
    await one.say(room_id, "heard")
    await other.wait_for("message", 6)
    assert [event["seq"] for event in other.room_events()] == list(range(1, 7))


async def test_a_last_message_that_redis_lost_arrives_by_the_comparison_of_heads(people, second_url, rt):
    one, room_id = await people.in_class("student1")
    other = await (await people.sign_in("student2")).connect(url=second_url)
    await other.join(room_id)
    publish, rt.rooms.channels.publish = rt.rooms.channels.publish, lambda *_: None
    await one.say(room_id, "the last word")
    rt.rooms.channels.publish = publish
    await eventually(lambda: other.events("message"), rt.settings.realtime.head_interval + 2)


async def test_events_look_the_same_over_the_socket_by_rest_and_in_the_history(people):
    person = await people.sign_in("student1")
    client = await person.connect("/chat")
    room_id = await person.room("Lounge")
    await client.join(room_id)
    await client.say(room_id, "hello")
    event = await client.wait_for("message")
    log = await person.call("GET", f"/api/classroom/rooms/{room_id}/events?after=0", status=200)
    messages = await person.call("GET", f"/api/chat/rooms/{room_id}/messages", status=200)
    history = await client.do("history", room_id=room_id, before=10, limit=10)
    assert log["items"] == messages["items"] == history["events"] == [event]
    assert json.dumps(event["data"])


@pytest.mark.parametrize("what", ["rooms", "courses"])
async def test_a_deleted_room_puts_everybody_out_and_leaves_no_log(people, second_url, rt, what):
    teacher = await people.sign_in("teacher")
    student = await people.sign_in("student1")
    client = await student.connect(url=second_url)
    room_id = await student.class_room()
    await client.join(room_id)
    await client.say(room_id, "soon gone")
    room = await teacher.call("GET", f"/api/classroom/rooms/{room_id}", status=200)
    target = {"rooms": room_id, "courses": room["course_id"]}[what]
    await teacher.call("DELETE", f"/api/classroom/{what}/{target}", status=204)
    assert await client.wait_for("access_revoked") == {"room_id": room_id, "code": "not_found"}
    ack = await client.send("message", room_id=room_id, id=str(uuid4()), text="still here?")
    assert ack["error"]["code"] == "not_found"
    async with rt.database.connection() as conn:
        for query in ("SELECT count(*) FROM room_events", "SELECT count(*) FROM cmd_ids"):
            assert await conn.fetchval(query) == 0


async def test_a_removed_member_stops_to_receive_and_to_write_on_every_replica(people, second_url):
    teacher = await people.sign_in("teacher")
    student = await people.sign_in("student1")
    client = await student.connect(url=second_url)
    room_id = await student.class_room()
    await client.join(room_id)
    room = await teacher.call("GET", f"/api/classroom/rooms/{room_id}", status=200)
    await teacher.call("DELETE", f"/api/classroom/courses/{room['course_id']}/members/{student.id}", status=204)
    assert (await client.wait_for("access_revoked"))["room_id"] == room_id
    ack = await client.send("message", room_id=room_id, id=str(uuid4()), text="still here?")
    assert ack["error"]["code"] == "not_found"
