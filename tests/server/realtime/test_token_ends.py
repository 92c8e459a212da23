"""A socket lives as long as its token: it is warned, it can go on with a new one, and otherwise it ends."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from server.app import TOKEN_INTERVAL
from server.realtime.namespace import TOKEN_WARNING
from tests.server.realtime.raw import RawSocket

LIFE = 3  # seconds of a token


@pytest.fixture
def settings_changes():
    return {"auth": {"access_token_seconds": LIFE}}


async def test_a_token_that_ends_is_announced_once_and_then_ends_its_socket(people, server):
    person = await people.sign_in("student1")
    began = asyncio.get_running_loop().time()
    client = await person.connect("/chat")
    warning = await client.wait_for("token_expiring")
    server.namespaces["/chat"]._sockets.check_tokens(server.rt.clock.unix())
    assert 0 < warning["expires_in_ms"] <= LIFE * 1000  # and at most TOKEN_WARNING before the end
    assert LIFE < TOKEN_WARNING
    assert await client.wait_for("session_expired") == {"code": "session_expired"}
    await asyncio.wait_for(client.disconnected.wait(), 1)
    assert asyncio.get_running_loop().time() - began < LIFE + TOKEN_INTERVAL + 1
    assert len(client.events("token_expiring")) == 1


async def test_who_authenticates_again_goes_on_without_missing_anything(people):
    student = await people.sign_in("student1")
    client = await student.connect("/chat")
    room_id = await student.class_room()
    await client.join(room_id)
    began = asyncio.get_running_loop().time()
    said = []
    while asyncio.get_running_loop().time() - began < LIFE + TOKEN_INTERVAL + 1:
        again = await people.sign_in("student1")
        assert (await client.do("authenticate", token=again.token))["expires_in"] > 0
        said.append((await client.say(room_id, "still here"))["seq"])
        await asyncio.sleep(0.8)
    await client.until(lambda client: len(client.events("message")) == len(said))
    assert [event["seq"] for event in client.events("message")] == said
    assert not client.events("session_expired")


async def test_a_refused_new_token_leaves_the_old_one_as_it_was(people):
    person = await people.sign_in("student1")
    teacher = await people.sign_in("teacher")
    client = await person.connect("/chat")
    for token, code in (("no token", "unauthenticated"), (teacher.token, "forbidden")):
        assert (await client.send("authenticate", token=token))["error"]["code"] == code
    room_id = await person.class_room()
    await client.join(room_id)
    await client.wait_for("session_expired")


async def test_a_command_behind_the_end_of_its_token_is_refused(people, server):
    """Ends are looked for every two seconds; what is sent in between must not be carried out."""
    person = await people.sign_in("student1")
    room_id = await person.class_room()
    client = await person.connect("/chat")
    await client.join(room_id)
    [socket] = [
        socket for connection in server.engine.connections.values() for socket in connection.session.sockets.values()
    ]
    socket.actor = replace(socket.actor, expires_at=server.rt.clock.unix() - 0.001)
    ack = await client.send("typing", room_id=room_id, on=True)
    assert ack["error"]["code"] == "session_expired"


async def test_the_connection_of_an_ended_session_closes_soon(people, server, url):
    server.engine.settings = server.engine.settings.model_copy(update={"connect_timeout": 1.0})
    person = await people.sign_in("student1")
    raw = RawSocket()
    try:
        await raw.open(url)
        await raw.say("40/chat," + json.dumps({"token": person.token}))
        assert (await raw.text()).startswith("40/chat,")
        seen: list[str] = []
        while not seen or seen[-1] != "41/chat,":
            seen.append(await raw.text())
        assert seen[-2] == '42/chat,["session_expired",{"code":"session_expired"}]'
        assert await raw.close_code() == 1008
    finally:
        raw.close()


async def test_sockets_end_in_both_namespaces(people):
    person = await people.sign_in("student1")
    chat, classroom = await person.connect("/chat"), await person.connect("/classroom")
    await asyncio.gather(chat.wait_for("session_expired"), classroom.wait_for("session_expired"))
