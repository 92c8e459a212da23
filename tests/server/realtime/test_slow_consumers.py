"""GUARANTEES.md G2: who does not read is bounded and alone, is told once, and gets everything when it comes back."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from server.metrics import SLOW_CONSUMERS
from server.realtime import wire
from server.realtime.transports import UNSENT_IN_KERNEL
from tests.protocol_server import protocol_settings
from tests.server.realtime.raw import RawSocket
from tests.waiting import eventually

LIMIT = 64 * 1024  # bytes that may be unsent
TEXT = "x" * 7900
SLOW, HEALTHY = 50, 8
MESSAGES = 100  # far more than a limit, a kernel buffer and a receive buffer hold


@pytest.fixture
def settings_changes():
    return {
        "chat": {"message_rate": 1e6, "message_burst": 1_000_000},
        "realtime": {"max_pending_bytes": LIMIT, "max_pending_seconds": 1.0, "connections_per_user": 100},
    }


@pytest.fixture
def bare_settings():
    # A ping waits behind what is unsent: its timeout is not what is tested here.
    return protocol_settings(max_pending_bytes=LIMIT, max_pending_seconds=1.0, ping_interval=1.0, ping_timeout=5.0)


@pytest.fixture
def slow_ones():
    """How many slow consumers were counted since the test began."""
    before = SLOW_CONSUMERS._value.get()
    return lambda: SLOW_CONSUMERS._value.get() - before


@pytest.fixture
async def raws():
    """Makes sockets by hand that end with the test."""
    async with AsyncExitStack() as stack:

        def make(receive_buffer=4096):
            made = RawSocket(receive_buffer)
            stack.callback(made.close)
            return made

        yield make


async def join(raw, url, token, room_id):
    """Connect a socket by hand and join a room; the sid and the ack."""
    sid = await raw.open(url)
    await raw.say("40/chat," + json.dumps({"token": token}))
    assert (await raw.text()).startswith("40/chat,")
    await raw.say("42/chat,1" + json.dumps(["join_room", {"room_id": room_id}]))
    while (event := await raw.event())[0] != "ack":
        pass
    return sid, event[1]


async def test_fifty_who_never_read_cost_little_and_disturb_nobody(server, people, url, raws, slow_ones):
    speaker, room_id = await people.in_class("teacher")
    student = await people.sign_in("student1")
    healthy = [await student.connect("/chat") for _ in range(HEALTHY)]
    for client in healthy:
        await client.join(room_id)
    sids = [(await join(raws(), url, student.token, room_id))[0] for _ in range(SLOW)]
    connections = [server.engine.connections[sid] for sid in sids]
    most = 0
    for number in range(MESSAGES):
        await speaker.say(room_id, f"{number} {TEXT}")
        most = max(most, *(connection.unsent for connection in connections))
    for client in healthy:
        await client.until(lambda client: len(client.events("message")) == MESSAGES)
        assert [event["seq"] for event in client.events("message")] == list(range(1, MESSAGES + 1))
    assert most < 2 * LIMIT
    assert slow_ones() == SLOW
    await eventually(lambda: all(connection.closed for connection in connections))
    assert not any(connection.unsent for connection in connections)  # nothing is kept for them
    assert len(server.engine.connections) == HEALTHY + 1


async def test_who_reads_again_in_time_is_told_once_and_gets_everything_by_joining_again(
    server, people, url, raws, slow_ones
):
    speaker, room_id = await people.in_class("teacher")
    student = await people.sign_in("student1")
    raw = raws()
    sid, ack = await join(raw, url, student.token, room_id)
    connection = server.engine.connections[sid]
    sent = 0
    while not connection.lagging:
        await speaker.say(room_id, TEXT)
        sent += 1
    for _ in range(20):  # these are not for it any more
        await speaker.say(room_id, TEXT)
        sent += 1
    events = []
    while (event := await raw.event())[0] != "resync_required":
        events.append(event[1]["seq"])
    assert event[1] == {"room_ids": [room_id]}
    assert events == list(range(1, len(events) + 1))
    assert len(events) < sent
    await eventually(lambda: not connection.lagging)
    await speaker.say(room_id, "not for it: it has to join first")
    await raw.say(
        "42/chat,2" + json.dumps(["join_room", {"room_id": room_id, "after": events[-1], "epoch": ack["epoch"]}])
    )
    name, again = await raw.event()
    assert (name, again["resumed"]) == ("ack", True)
    events += [event["seq"] for event in again["events"]]
    assert events == list(range(1, sent + 2))
    await speaker.say(room_id, "goodbye")
    name, event = await raw.event()
    assert (name, event["seq"], event["data"]["text"]) == ("message", sent + 2, "goodbye")
    assert slow_ones() == 1


async def test_commands_of_who_does_not_read_wait_so_that_acks_cannot_pile_up(server, people, url, raws):
    speaker, room_id = await people.in_class("teacher")
    for _ in range(20):
        await speaker.say(room_id, TEXT)
    student = await people.sign_in("student1")
    raw = raws()
    sid, _ = await join(raw, url, student.token, room_id)
    connection = server.engine.connections[sid]
    most = 0
    for number in range(200):  # each is answered with 160 KB
        await raw.say(f"42/chat,{number}" + json.dumps(["history", {"room_id": room_id, "before": 21, "limit": 20}]))
        await asyncio.sleep(0)
        most = max(most, connection.unsent)
    while not connection.closed:
        most = max(most, connection.unsent)
        await asyncio.sleep(0.01)
    assert most < LIMIT + 2 * 20 * 8000 + UNSENT_IN_KERNEL


async def test_a_client_that_pongs_but_does_not_read_is_cut_off_by_age(eio, raws):
    raw = raws()
    url = str(eio.session._base_url)
    connection = eio.engine.connections[await raw.open(url, eio.path)]
    while not connection.unsent:
        connection.send(wire.frame(b"4" + b"x" * 1000))
        await asyncio.sleep(0)
    assert connection.unsent < LIMIT
    began = asyncio.get_running_loop().time()
    while not connection.closed:
        await raw.say("3")
        await asyncio.sleep(0.05)
    assert 3.0 < asyncio.get_running_loop().time() - began < 4.5  # max_pending_seconds, then two seconds to drain


async def test_a_slow_but_steady_reader_of_a_busy_room_is_not_cut_off(eio, raws):
    """Something is always unsent, but nothing is ever old."""
    eio.engine.settings = eio.engine.settings.model_copy(update={"max_pending_bytes": 1_000_000})
    raw = raws(128 * 1024)
    connection = eio.engine.connections[await raw.open(str(eio.session._base_url), eio.path)]
    while connection.unsent < 400_000:  # more than the kernel takes at once, so that it never gets to nothing
        connection.send(wire.frame(b"4" + b"x" * 8000))
        await asyncio.sleep(0)
    until = asyncio.get_running_loop().time() + 2.5  # more than twice the age that is allowed
    while asyncio.get_running_loop().time() < until:
        connection.send(wire.frame(b"4" + b"x" * 8000))
        payload = (await raw.frame())[1]
        if payload == b"2":
            await raw.say("3")
            await raw.frame()
        await asyncio.sleep(0.001)
        assert connection.unsent
        assert not connection.lagging


async def polling_member(http, token, room_id):
    """A client that polls and has joined a room; the parameters of its requests."""
    params = {"EIO": "4", "transport": "polling"}
    async with http.get("/socket.io/", params=params) as response:
        params["sid"] = json.loads((await response.text())[1:])["sid"]
    join = ["join_room", {"room_id": room_id}]
    packets = "\x1e".join(["40/chat," + json.dumps({"token": token}), "42/chat,1" + json.dumps(join)])
    async with http.post("/socket.io/", params=params, data=packets) as response:
        assert response.status == 200
    while not any(packet.startswith("43/chat,1") for packet in await polled(http, params)):
        pass
    return params


async def polled(http, params):
    async with http.get("/socket.io/", params=params) as response:
        assert response.status == 200
        return (await response.text()).split("\x1e")


async def test_a_polling_client_that_never_polls_is_cut_off(server, people, http, slow_ones):
    speaker, room_id = await people.in_class("teacher")
    student = await people.sign_in("student1")
    params = await polling_member(http, student.token, room_id)
    connection = server.engine.connections[params["sid"]]
    for _ in range(30):
        await speaker.say(room_id, TEXT)
    assert connection.lagging
    assert connection.unsent < 2 * LIMIT
    await eventually(lambda: connection.closed)
    assert slow_ones() == 1
    async with http.get("/socket.io/", params=params) as response:
        assert response.status == 400


async def test_a_polling_client_that_polls_in_time_is_told_once(server, people, http, slow_ones):
    speaker, room_id = await people.in_class("teacher")
    student = await people.sign_in("student1")
    params = await polling_member(http, student.token, room_id)
    connection = server.engine.connections[params["sid"]]
    for _ in range(30):
        await speaker.say(room_id, TEXT)
    packets = await polled(http, params)
    names = [json.loads(packet[packet.index("[") :])[0] for packet in packets if packet.startswith("42/chat,")]
    assert names.count("resync_required") == 1
    assert names[-1] == "resync_required"
    await eventually(lambda: not connection.lagging)
    async with http.post(
        "/socket.io/", params=params, data="42/chat,2" + json.dumps(["join_room", {"room_id": room_id, "after": 1}])
    ) as response:
        assert response.status == 200
    assert any(packet.startswith("43/chat,2") for packet in await polled(http, params))
    assert slow_ones() == 1


async def test_a_healthy_client_that_polls_gets_a_large_answer_without_being_taken_for_slow(people, http, slow_ones):
    speaker, room_id = await people.in_class("teacher")
    for _ in range(20):
        await speaker.say(room_id, TEXT)
    student = await people.sign_in("student1")
    await polling_member(http, student.token, room_id)
    assert slow_ones() == 0


async def test_a_socket_in_two_namespaces_is_told_in_both(server, people, url, raws):
    speaker, room_id = await people.in_class("teacher")
    student = await people.sign_in("student1")
    raw = raws()
    sid, _ = await join(raw, url, student.token, room_id)
    await raw.say("40/classroom," + json.dumps({"token": student.token}))
    await raw.say("42/classroom,7" + json.dumps(["join_room", {"room_id": room_id}]))
    while (await raw.event())[0] != "ack":
        pass
    connection = server.engine.connections[sid]
    while not connection.lagging:
        await speaker.say(room_id, TEXT)
    told: list[str] = []
    while len(told) < 2:
        text = await raw.text()
        if '["resync_required"' in text:
            told.append(text.partition(",")[0])
            assert json.loads(text[text.index("[") :])[1] == {"room_ids": [room_id]}
    assert sorted(told) == ["42/chat", "42/classroom"]
