"""Chat through its two doors, which do the same by the same service."""

from __future__ import annotations

from uuid import uuid4

import pytest


@pytest.fixture
async def anna(people):
    return await people.sign_in("student1")


@pytest.fixture
async def lounge(anna):
    return await anna.room("Lounge")


async def member(people, name, room_id, namespace="/chat"):
    client = await (await people.sign_in(name)).connect(namespace)
    await client.join(room_id)
    return client


async def test_a_message_reaches_everybody_in_both_namespaces(people, anna, lounge):
    sender = await member(people, "student1", lounge)
    others = [await member(people, "student2", lounge), await member(people, "student3", lounge, "/classroom")]
    message = {"room_id": lounge, "id": str(uuid4()), "text": "Is Pluto a planet?"}
    ack = await sender.do("message", **message)
    for client in (sender, *others):
        event = await client.wait_for("message")
        assert (event["room_id"], event["seq"], event["at"]) == (lounge, ack["seq"], ack["at"])
        assert event["data"] == {
            "id": message["id"],
            "text": message["text"],
            "reply_to": None,
            "attachments": [],
            "mentions": [],
        }
    assert (await sender.do("message", **message)) == {**ack, "duplicate": True}


async def test_a_message_sent_through_one_door_is_known_at_the_other(anna, lounge):
    client, message = await anna.connect("/chat"), {"id": str(uuid4()), "text": "twice"}
    path = f"/api/chat/rooms/{lounge}/messages"
    first = await anna.call("POST", path, message, status=201)
    assert await anna.call("POST", path, message, status=201) == first
    ack = await client.do("message", room_id=lounge, **message)
    assert (ack["seq"], ack["duplicate"]) == (first["seq"], True)
    listed = await anna.call("GET", path, status=200)
    assert listed["items"] == [first]
    assert (await client.do("history", room_id=lounge, before=2, limit=10))["events"] == [first]


async def test_both_doors_refuse_alike(anna, lounge):
    client, path = await anna.connect("/chat"), f"/api/chat/rooms/{lounge}/messages"
    for fields in ({"text": "  "}, {"text": "x" * 8001}, {"text": "x", "reply_to": str(uuid4())}, {}):
        message = {"id": str(uuid4()), **fields}
        over_http = await anna.call("POST", path, message, status=422)
        over_socket = (await client.send("message", room_id=lounge, **message))["error"]
        assert over_http["code"] == over_socket["code"] == "invalid"
        assert [item["loc"] for item in over_http["errors"]] == [item["loc"] for item in over_socket["errors"]]


async def test_typing_is_told_to_the_others_and_not_too_often(people, lounge):
    writer, reader = await member(people, "student1", lounge), await member(people, "student2", lounge)
    for on in (True, False, True):
        await writer.do("typing", room_id=lounge, on=on)
    await writer.say(lounge, "done")
    await reader.wait_for("message")
    [typing] = reader.events("typing")
    assert set(typing) == {"room_id", "user_id", "name", "on"}
    assert (typing["room_id"], typing["on"]) == (lounge, True)
    assert writer.events("typing") == []


async def test_typing_needs_a_join(anna, lounge):
    client = await anna.connect("/chat")
    assert (await client.send("typing", room_id=lounge, on=True))["error"]["code"] == "forbidden"


async def test_reading_is_told_to_the_own_sockets_only(people, anna, lounge):
    own, other = await member(people, "student1", lounge), await member(people, "student2", lounge)
    await other.say(lounge, "news")
    await own.do("read", room_id=lounge, seq=1)
    assert await own.wait_for("read") == {"room_id": lounge, "user_id": anna.id, "seq": 1}
    await own.do("read", room_id=lounge, seq=1)
    await other.say(lounge, "more")
    await own.wait_for("message", 2)
    await other.wait_for("message", 2)
    assert len(own.events("read")) == 1
    assert other.events("read") == []


async def test_unread_over_http(people, anna, lounge):
    other = await member(people, "student2", lounge)
    await other.say(lounge, "news")
    await anna.call("PUT", f"/api/chat/rooms/{lounge}/read", {"seq": 0}, status=204)
    found = await anna.call("GET", "/api/chat/unread", status=200)
    assert {"room_id": lounge, "last_seq": 1, "read_seq": 0, "unread": 1} in found["items"]
    await anna.call("PUT", f"/api/chat/rooms/{lounge}/read", {"seq": 1}, status=204)
    found = await anna.call("GET", "/api/chat/unread", status=200)
    assert {"room_id": lounge, "last_seq": 1, "read_seq": 1, "unread": 0} in found["items"]
