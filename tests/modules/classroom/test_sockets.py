"""Commands of the classroom through real sockets: acks, events and who receives them."""

from __future__ import annotations

import pytest

NOWHERE = "01234567-89ab-7def-8123-456789abcdef"


@pytest.fixture
async def teacher(people):
    return await people.sign_in("teacher")


async def test_the_first_join_of_a_class_brings_a_snapshot(people):
    student = await people.sign_in("student1")
    room_id = await student.class_room()
    ack = await (await student.connect()).join(room_id)
    assert (ack["seq"], ack["resumed"], ack["truncated"], ack["events"]) == (0, False, False, [])
    assert (ack["room"]["id"], ack["room"]["kind"], ack["room"]["status"]) == (room_id, "class", "idle")
    assert ack["you"]["role"] == "learner"
    assert "raise_hand" in ack["you"]["permissions"]
    assert "start_class" not in ack["you"]["permissions"]
    assert ack["snapshot"]["seq"] == ack["seq"]
    assert ack["snapshot"]["epoch"] == ack["epoch"]
    assert ack["snapshot"]["state"]["hands"] == []
    assert ack["participants"]["count"] == 1


async def test_a_resumed_join_brings_what_was_missed_and_no_snapshot(people, teacher):
    client, room_id = await people.in_class("student1")
    ack = await client.join(room_id)
    speaker = await teacher.connect()
    await client.do("leave_room", room_id=room_id)
    for text in ("one", "two"):
        await speaker.say(room_id, text)
    again = await client.join(room_id, after=ack["seq"], epoch=ack["epoch"])
    assert again["resumed"] is True
    assert [event["data"]["text"] for event in again["events"]] == ["one", "two"]
    assert "snapshot" not in again
    assert again["room"]["last_seq"] == again["seq"] == 2


async def test_who_is_ahead_of_the_log_gets_a_snapshot_in_any_room(people):
    student = await people.sign_in("student1")
    client, lounge = await student.connect("/chat"), await student.room("Lounge")
    first = await client.join(lounge)
    assert "snapshot" not in first
    ahead = await client.join(lounge, after=99, epoch=first["epoch"])
    assert ahead["resumed"] is False
    assert ahead["snapshot"] == {"epoch": first["epoch"], "seq": 0, "state": {}}


async def test_a_room_of_others_cannot_be_joined(people):
    client = await (await people.sign_in("student1")).connect()
    assert (await client.send("join_room", room_id=NOWHERE))["error"]["code"] == "not_found"


async def test_a_join_asks_for_no_more_than_the_limit(people):
    student = await people.sign_in("student1")
    client, room_id = await student.connect(), await student.class_room()
    for limit in (0, 501):
        error = (await client.send("join_room", room_id=room_id, limit=limit))["error"]
        assert (error["code"], error["errors"][0]["loc"]) == ("invalid", ["limit"])


async def test_a_class_from_start_to_end(people, teacher):
    student, room_id = await people.in_class("student1")
    other, _ = await people.in_class("student2", "/chat")
    conductor = await teacher.connect()
    assert (await student.send("raise_hand", room_id=room_id))["error"]["code"] == "room_closed"
    await conductor.do("start_class", room_id=room_id)
    await student.do("raise_hand", room_id=room_id)
    raised = await other.wait_for("hand_raised")
    await conductor.do("call_on", room_id=room_id, user_id=raised["data"]["user_id"])
    assert (await other.wait_for("hand_called"))["data"] == raised["data"]
    await conductor.do("end_class", room_id=room_id)
    await other.wait_for("class_ended")
    received = [(event["seq"], event["type"]) for event in other.room_events()]
    assert received == [(1, "class_started"), (2, "hand_raised"), (3, "hand_called"), (4, "class_ended")]
    assert other.events("class_started")[0]["data"] == {}


async def test_class_commands_belong_to_the_classroom_and_to_classes(people, teacher):
    chat, classroom = await teacher.connect("/chat"), await teacher.connect("/classroom")
    room_id, lounge = await teacher.class_room(), await teacher.room("Lounge")
    assert (await chat.send("start_class", room_id=room_id))["error"]["code"] == "not_found"
    assert (await classroom.send("start_class", room_id=lounge))["error"]["code"] == "conflict"


async def test_learners_do_not_conduct(people):
    client, room_id = await people.in_class("student1")
    for command in ("start_class", "end_class"):
        assert (await client.send(command, room_id=room_id))["error"]["code"] == "forbidden"
    refused = await client.send("call_on", room_id=room_id, user_id=NOWHERE)
    assert refused["error"]["code"] == "forbidden"


async def test_a_removed_member_is_put_out_of_the_rooms_at_once(people, teacher):
    client, room_id = await people.in_class("student1")
    student = await people.sign_in("student1")
    course_id = (await teacher.call("GET", "/api/classroom/courses", status=200))["items"][0]["id"]
    await teacher.call("DELETE", f"/api/classroom/courses/{course_id}/members/{student.id}", status=204)
    assert await client.wait_for("access_revoked") == {"room_id": room_id, "code": "forbidden"}
    await (await teacher.connect()).say(room_id, "in private")
    assert (await client.send("join_room", room_id=room_id))["error"]["code"] == "not_found"
    assert client.room_events() == []


async def test_an_observer_looks_on(people, teacher):
    client, room_id = await people.in_class("student1")
    student = await people.sign_in("student1")
    course_id = (await teacher.call("GET", "/api/classroom/courses", status=200))["items"][0]["id"]
    member = f"/api/classroom/courses/{course_id}/members/{student.id}"
    await teacher.call("PATCH", member, {"role": "observer"}, status=200)
    await (await teacher.connect()).do("start_class", room_id=room_id)
    await client.wait_for("class_started")
    assert (await client.send("raise_hand", room_id=room_id))["error"]["code"] == "forbidden"
    message = {"room_id": room_id, "id": NOWHERE, "text": "hello"}
    assert (await client.send("message", **message))["error"]["code"] == "forbidden"
    assert (await client.send("typing", room_id=room_id, on=True))["error"]["code"] == "forbidden"
    assert (await client.join(room_id))["you"]["permissions"] == ["read", "history"]
