"""Socket.IO from outside: nothing is half in, nothing is out of order, everything with an id is answered."""

import asyncio
import json
from uuid import uuid4

import pytest
import socketio.exceptions

from tests.people import Client

WEBSOCKET = {"EIO": "4", "transport": "websocket"}


async def raw(http, token, namespace="/chat"):
    """A WebSocket that has connected to a namespace by hand."""
    websocket = await http.ws_connect("/socket.io/", params=WEBSOCKET)
    await websocket.receive_str(timeout=2)
    await websocket.send_str(f"40{namespace}," + json.dumps({"token": token}))
    assert (await websocket.receive_str(timeout=2)).startswith(f"40{namespace},")
    return websocket


@pytest.mark.parametrize("auth", [None, {}, {"token": ""}, {"token": "x"}, {"token": 7}, [], "x"])
async def test_without_a_valid_token_a_client_is_refused_with_a_code(http, auth):
    async with http.ws_connect("/socket.io/", params=WEBSOCKET) as websocket:
        await websocket.receive_str(timeout=2)
        await websocket.send_str("40/chat," + (json.dumps(auth) if auth is not None else ""))
        answer = await websocket.receive_str(timeout=2)
        assert answer.startswith("44/chat,")
        assert json.loads(answer[8:])["data"]["code"] == "unauthenticated"


async def test_a_refused_client_cannot_send_commands(http):
    async with http.ws_connect("/socket.io/", params=WEBSOCKET) as websocket:
        await websocket.receive_str(timeout=2)
        await websocket.send_str('40/chat,{"token":"x"}')
        await websocket.receive_str(timeout=2)
        await websocket.send_str('42/chat,1["join_room",{}]')
        assert (await websocket.receive(timeout=2)).data == 1008


@pytest.mark.parametrize("name", ["connect", "disconnect", "connect_error"])
async def test_a_client_cannot_call_the_handlers_of_connect_and_disconnect(http, people, name):
    """PITFALLS.md 1: stock python-socketio runs them as ordinary events, with forged arguments."""
    person = await people.sign_in("student1")
    websocket = await raw(http, person.token)
    await websocket.send_str(f'42/chat,1["{name}",{{}},{{"token":"x"}}]')
    assert (await websocket.receive(timeout=2)).data == 1008
    await websocket.close()


async def test_a_second_connect_to_a_namespace_closes_the_connection(http, people):
    person = await people.sign_in("student1")
    websocket = await raw(http, person.token)
    await websocket.send_str("40/chat," + json.dumps({"token": person.token}))
    assert (await websocket.receive(timeout=2)).data == 1008
    await websocket.close()


async def test_an_unknown_command_and_a_wrong_payload_are_answered(people):
    person = await people.sign_in("student1")
    client = await person.connect("/chat")
    ack = await client.send("make_coffee")
    assert (ack["ok"], ack["error"]["code"]) == (False, "not_found")
    ack = await client.send("message", room_id="x", text=3, surplus=1)
    assert ack["error"]["code"] == "invalid"
    assert {tuple(error["loc"]) for error in ack["error"]["errors"]} >= {("room_id",), ("text",), ("id",), ("surplus",)}


async def test_commands_of_one_connection_are_carried_out_in_order(people):
    client, room_id = await people.in_class("student1")
    ids = [str(uuid4()) for _ in range(20)]
    acks = await asyncio.gather(
        *(client.send("message", room_id=room_id, id=message, text=f"{number}") for number, message in enumerate(ids))
    )
    seqs = [ack["seq"] for ack in acks]
    assert seqs == sorted(seqs)


async def test_an_ack_is_queued_before_the_event_it_made(http, people):
    person = await people.sign_in("student1")
    room_id = await person.class_room()
    websocket = await raw(http, person.token)
    await websocket.send_str("42/chat,1" + json.dumps(["join_room", {"room_id": room_id}]))
    assert (await websocket.receive_str(timeout=2)).startswith("43/chat,1")
    for number in range(2, 12):
        payload = {"room_id": room_id, "id": str(uuid4()), "text": "hello"}
        await websocket.send_str(f"42/chat,{number}" + json.dumps(["message", payload]))
        assert (await websocket.receive_str(timeout=2)).startswith(f"43/chat,{number}[")
        assert (await websocket.receive_str(timeout=2)).startswith('42/chat,["message"')
    await websocket.close()


async def test_one_connection_may_be_in_both_namespaces_and_gets_each_event_in_both(http, people):
    person = await people.sign_in("student1")
    room_id = await person.class_room()
    websocket = await raw(http, person.token)
    await websocket.send_str("40/classroom," + json.dumps({"token": person.token}))
    assert (await websocket.receive_str(timeout=2)).startswith("40/classroom,")
    for namespace in ("/chat", "/classroom"):
        await websocket.send_str(f"42{namespace},1" + json.dumps(["join_room", {"room_id": room_id}]))
        assert (await websocket.receive_str(timeout=2)).startswith(f"43{namespace},1")
    payload = {"room_id": room_id, "id": str(uuid4()), "text": "hello"}
    await websocket.send_str("42/chat,2" + json.dumps(["message", payload]))
    got = sorted([(await websocket.receive_str(timeout=2))[:14] for _ in range(3)])
    assert got == ['42/chat,["mess', "42/classroom,[", '43/chat,2[{"ok']
    await websocket.close()


async def test_a_socket_is_refused_when_its_user_has_too_many(people, settings):
    person = await people.sign_in("student1")
    for _ in range(settings.realtime.connections_per_user):
        await person.connect("/chat")
    client = Client("/chat")
    with pytest.raises(socketio.exceptions.ConnectionError):
        await client.connect(person.url, person.token)
    await client.close()


async def test_authenticate_goes_on_with_a_new_token_of_the_same_user_only(people):
    student, teacher = await people.sign_in("student1"), await people.sign_in("teacher")
    client = await student.connect("/chat")
    again = await people.sign_in("student1")
    assert (await client.do("authenticate", token=again.token))["expires_in"] > 0
    ack = await client.send("authenticate", token=teacher.token)
    assert ack["error"]["code"] == "forbidden"


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_what_was_sent_before_the_goodbye_is_carried_out(http, people, transport):
    """A client may send something and close at once."""
    listener, room_id = await people.in_class("teacher")
    person = await people.sign_in("student1")
    payloads = [{"room_id": room_id, "id": str(uuid4()), "text": f"{number}"} for number in range(10)]
    packets = [f"42/chat,{json.dumps(['message', payload])}" for payload in payloads]
    connect = "40/chat," + json.dumps({"token": person.token})
    if transport == "websocket":
        async with http.ws_connect("/socket.io/", params=WEBSOCKET) as websocket:
            for packet in (connect, *packets):
                await websocket.send_str(packet)
    else:
        params = {"EIO": "4", "transport": "polling"}
        async with http.get("/socket.io/", params=params) as response:
            params["sid"] = json.loads((await response.text())[1:])["sid"]
        async with http.post("/socket.io/", params=params, data="\x1e".join((connect, *packets, "1"))) as response:
            assert response.status == 200
    await listener.until(lambda client: len(client.events("message")) == 10)
    assert [event["data"]["text"] for event in listener.events("message")] == [f"{number}" for number in range(10)]
