"""Malformed, oversized and endless: a clear error or a closed socket, bounded memory, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack

import aiohttp
import pytest

from server.realtime.engine import Lobby, _site
from tests.protocol_server import protocol_settings
from tests.server.realtime.raw import BINARY, CLOSE, FINAL, PING, PONG, TEXT, RawSocket, frame
from tests.waiting import eventually

WEBSOCKET = {"EIO": "4", "transport": "websocket"}
POLLING = {"EIO": "4", "transport": "polling"}
PATIENCE = 3.0  # seconds
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10


@pytest.fixture
def bare_settings():
    return protocol_settings(
        ping_interval=5.0, ping_timeout=1.0, connect_timeout=2.0, unconnected_limit=30, unconnected_per_address=20
    )


@pytest.fixture
async def raws():
    """Makes sockets by hand that end with the test."""
    async with AsyncExitStack() as stack:

        def make():
            made = RawSocket(None)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
async def raw(eio, raws):
    """A WebSocket by hand that the bare engine has greeted."""
    made = raws()
    await made.open(str(eio.session._base_url), eio.path)
    return made


# WebSocket framing is aiohttp's: these are the canaries of what we rely on.


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"4\xff\xfe"), 1007),  # text that is no UTF-8
        (frame(b"4\xed\xa0\x80"), 1007),  # a lone surrogate
        (frame(b"4\xc3", head=0) + frame(b"\x28", 0), 1007),  # broken across fragments
        (frame(b"", PING, head=0), 1002),  # a control frame in fragments
        (frame(b"", CLOSE, head=0), 1002),
        (frame(b"x" * 126, PING), 1002),  # a control frame that is too long
        (frame(b"4x", head=FINAL | RSV1), 1002),  # reserved bits; nothing was negotiated
        (frame(b"4x", head=FINAL | RSV2), 1002),
        (frame(b"4x", head=FINAL | RSV3), 1002),
        (frame(b"4x", 0x3), 1002),  # reserved opcodes
        (frame(b"", 0xB), 1002),
        (frame(b"4x", 0), 1002),  # a continuation of nothing
        (frame(b"4x", head=0) + frame(b"4y"), 1002),  # a new message before the last one ended
        (frame(b"\x00", CLOSE), 1002),  # half a close code
        (frame((1005).to_bytes(2), CLOSE), 1002),  # a code that may not be sent
        (frame((999).to_bytes(2), CLOSE), 1002),
        (frame((1000).to_bytes(2) + b"\xff", CLOSE), 1007),
        (bytes([FINAL | TEXT, 0xFF]) + (2**62).to_bytes(8), 1009),  # announced only, never sent
        (frame(b"4" * 600_000, head=0) + frame(b"4" * 600_000, 0), 1009),  # too large in sum
    ],
)
async def test_a_frame_against_rfc_6455_closes_the_socket_with_its_code(eio, raw, sent, code):
    await raw.send(sent)
    assert await raw.close_code() == code
    await eventually(lambda: not eio.engine.connections)


async def test_a_message_may_come_in_fragments_with_control_frames_in_between(raw):
    await raw.send(frame(b"4\xc5", head=0) + frame(b"hi", PING) + frame(b"\xbe", 0))
    assert await raw.frame() == (PONG, b"hi")
    assert await raw.text() == "4ž"


async def test_fragments_of_one_byte_are_read(raw):
    for byte in frame(b"4slowly"):
        await raw.send(bytes([byte]))
    assert await raw.text() == "4slowly"


async def test_the_close_handshake_is_answered_with_the_same_code(eio, raw):
    await raw.send(frame((1001).to_bytes(2) + b"bye", CLOSE))
    assert await raw.close_code() == 1001
    assert await raw.frame() == (0, b"")  # and then TCP ends
    assert not eio.engine.connections


async def test_a_close_frame_without_a_code_is_answered(raw):
    await raw.send(frame(b"", CLOSE))
    assert await raw.close_code() == 1000


async def test_who_gets_our_close_frame_and_does_not_answer_is_cut_off(eio, raw):
    await raw.say("1")
    assert await raw.close_code() == 1000
    began = asyncio.get_running_loop().time()
    assert await raw.frame() == (0, b"")
    assert asyncio.get_running_loop().time() - began < 2.5


async def test_a_flood_behind_a_fault_does_not_hide_the_reason(raw):
    """Closed with unread bytes, TCP would be reset and the close frame lost."""
    await raw.send(frame(b"nonsense") + frame(b"4" + b"x" * 100) * 20_000)
    assert await raw.close_code() == 1008
    await raw.send(frame((1008).to_bytes(2), CLOSE))
    assert await raw.frame() == (0, b"")  # the end, and no reset


# Lectern's own namespaces.


async def test_binary_is_refused_in_our_namespaces_with_a_reason(http, people):
    person = await people.sign_in("student1")
    async with http.ws_connect("/socket.io/", params=WEBSOCKET) as websocket:
        await websocket.receive_str(timeout=PATIENCE)
        await websocket.send_str("40/chat," + json.dumps({"token": person.token}))
        await websocket.receive_str(timeout=PATIENCE)
        await websocket.send_str('451-/chat,1["message",{"_placeholder":true,"num":0}]')
        message = await websocket.receive(timeout=PATIENCE)
        assert (message.data, message.extra) == (1008, "binary is refused in this namespace")


async def test_binary_is_refused_in_polls_with_a_reason(http):
    async with http.get("/socket.io/", params=POLLING) as response:
        sid = json.loads((await response.text())[1:])["sid"]
    async with http.post("/socket.io/", params={**POLLING, "sid": sid}, data='451-/chat,["x"]\x1ebAAAA') as response:
        assert response.status == 400
        assert await response.json() == {"code": 3, "message": "Bad request: binary is refused in this namespace"}


@pytest.mark.parametrize("depth", [200, 900, 1500, 30_000])
async def test_deep_json_is_a_clear_error(http, people, depth):
    person = await people.sign_in("student1")
    async with http.ws_connect("/socket.io/", params=WEBSOCKET) as websocket:
        await websocket.receive_str(timeout=PATIENCE)
        await websocket.send_str("40/chat," + json.dumps({"token": person.token}))
        await websocket.receive_str(timeout=PATIENCE)
        await websocket.send_str('42/chat,1["join_room",{"room_id":' + "[" * depth + "]" * depth + "}]")
        message = await websocket.receive(timeout=PATIENCE)
        if message.type is aiohttp.WSMsgType.CLOSE:
            assert message.data == 1008
        else:
            assert json.loads(message.data[9:])[0]["error"]["code"] == "invalid"


async def test_a_flood_of_commands_is_not_read_further_than_its_queue(server, people, http):
    person = await people.sign_in("student1")
    room_id = await person.class_room()
    async with http.ws_connect("/socket.io/", params=WEBSOCKET) as websocket:
        sid = json.loads((await websocket.receive_str(timeout=PATIENCE))[1:])["sid"]
        await websocket.send_str("40/chat," + json.dumps({"token": person.token}))
        await websocket.receive_str(timeout=PATIENCE)
        client = server.engine.connections[sid].session
        longest = largest = 0
        payload = json.dumps(["message", {"room_id": room_id, "id": "x", "text": "y" * 5000}])
        for number in range(400):
            await websocket.send_str(f"42/chat,{number}{payload}")
            longest, largest = max(longest, len(client._queue)), max(largest, client._queued_bytes)
        for number in range(400):
            assert (await websocket.receive_str(timeout=PATIENCE)).startswith(f"43/chat,{number}[")
            longest, largest = max(longest, len(client._queue)), max(largest, client._queued_bytes)
        assert 0 < longest <= server.rt.settings.realtime.max_queued_commands
        assert largest <= server.rt.settings.realtime.max_packet_bytes + len(payload) + 12


async def test_events_for_a_namespace_that_we_ended_are_no_fault_of_the_client(server, people, http):
    person = await people.sign_in("student1")
    async with http.ws_connect("/socket.io/", params=WEBSOCKET) as websocket:
        sid = json.loads((await websocket.receive_str(timeout=PATIENCE))[1:])["sid"]
        for namespace in ("/chat", "/classroom"):
            await websocket.send_str(f"40{namespace}," + json.dumps({"token": person.token}))
            await websocket.receive_str(timeout=PATIENCE)
        server.engine.connections[sid].session.sockets["/chat"].disconnect("a test")
        await websocket.send_str('42/chat,1["join_room",{}]')  # on its way when we put it out
        assert await websocket.receive_str(timeout=PATIENCE) == "41/chat,"
        await websocket.send_str('42/classroom,2["no such command"]')
        assert (await websocket.receive_str(timeout=PATIENCE)).startswith("43/classroom,2")


async def test_faults_of_clients_are_logged_at_a_bounded_rate(http, caplog):
    with caplog.at_level(logging.INFO):
        for _ in range(30):
            async with http.ws_connect("/socket.io/", params=WEBSOCKET) as websocket:
                await websocket.receive_str(timeout=PATIENCE)
                await websocket.send_str("x")
                assert (await websocket.receive(timeout=PATIENCE)).data == 1008
    lines = [record for record in caplog.records if record.getMessage() == "a client broke the protocol"]
    assert 1 <= len(lines) <= 5
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# Strangers.


async def test_strangers_of_one_address_are_bounded_before_the_upgrade(sio):
    websockets = [await sio.open_websocket() for _ in range(10)]
    sids = [await sio.open_polling() for _ in range(10)]
    async with sio.session.get(sio.path, params=POLLING) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await sio.open_websocket()
    assert refused.value.status == 503
    await websockets[0].send_str("40")  # who connects to a namespace makes room
    assert (await websockets[0].receive_str(timeout=PATIENCE)).startswith("40{")
    sids.append(await sio.open_polling())
    for websocket in websockets:
        await websocket.close()
    await eventually(lambda: sio.engine.lobby.size == len(sids))
    await eventually(lambda: sio.engine.lobby.size == 0, 4)  # the reaper


def test_strangers_are_bounded_in_total():
    lobby = Lobby(3, 2)
    for site in ("a", "a", "b"):
        assert not lobby.is_full(site)
        lobby.enter(site)
    assert lobby.is_full("a")
    assert lobby.is_full("c")
    lobby.leave("b")
    assert lobby.is_full("a")
    assert not lobby.is_full("c")


def test_a_site_cannot_count_as_many_by_choosing_ipv6_addresses():
    assert _site("2001:db8:1:2::1") == _site("2001:db8:1:2:ffff::7") != _site("2001:db8:1:3::1")
    assert _site("fe80::1%eth0") == _site("fe80::2")
    assert _site("192.0.2.1") == "192.0.2.1"
    assert _site("no address: at all") == "no address: at all"


async def test_a_handshake_that_is_not_one_of_a_websocket_leaves_nothing(sio, raws):
    raw = raws()
    await raw.connect(str(sio.session._base_url))
    await raw.send(
        f"GET {sio.path}?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n".encode()
    )
    assert (await raw.line()).startswith("HTTP/1.1 400")
    assert sio.engine.lobby.size == 0
    assert not sio.engine.connections


async def test_a_half_open_websocket_is_noticed_by_the_heartbeat(sio):
    sio.engine.settings = sio.engine.settings.model_copy(update={"ping_interval": 0.3, "ping_timeout": 0.2})
    raw = RawSocket()
    try:
        await raw.open(str(sio.session._base_url), sio.path)
        await raw.say("40")
        await eventually(lambda: sio.engine.lobby.size == 0)  # it is in, and never heard of again
        await eventually(lambda: not sio.engine.connections, 1.5)
    finally:
        raw.close()


# Polling.


async def test_a_payload_that_never_ends_is_given_up_and_ends_its_session(eio, raws):
    sid = await eio.open_polling()
    raw = raws()
    await raw.connect(str(eio.session._base_url))
    head = f"POST {eio.path}?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
    await raw.send(head.encode())
    began = asyncio.get_running_loop().time()
    while eio.engine.connections:
        await raw.send(b"4")  # a byte now and then
        await asyncio.sleep(0.1)
        assert asyncio.get_running_loop().time() - began < 2.5


async def test_a_payload_without_a_length_is_read_no_further_than_the_limit(sio):
    sid = await sio.open_polling()
    given = 0

    async def endless():
        nonlocal given
        while given < 50_000_000:
            given += 65536
            yield b"x" * 65536

    try:
        status, _ = await sio.request("POST", sio.params("polling", sid), endless())
        assert status == 413
    except aiohttp.ClientConnectionError:
        pass  # the server does not read the rest
    assert not sio.engine.connections
    assert given < 20_000_000


async def test_a_compressed_payload_is_refused(sio):
    sid = await sio.open_polling()
    params = sio.params("polling", sid)
    async with sio.session.post(
        sio.path, params=params, data=b"\x1f\x8b" + b"0" * 50, headers={"Content-Encoding": "gzip"}
    ) as response:
        assert response.status == 400


async def test_a_flood_of_control_frames_of_who_does_not_read_is_bounded(eio, raws):
    raw = raws()
    connection = eio.engine.connections[await raw.open(str(eio.session._base_url), eio.path)]
    pings = frame(b"x" * 125, PING) * 500
    try:
        async with asyncio.timeout(1.5):
            while True:
                await raw.send(pings)  # ends to be taken when the server stops to read
    except (TimeoutError, ConnectionError):
        assert connection.unsent < 1_000_000


async def test_binary_messages_at_the_limit_are_taken_and_above_are_not(eio, raw):
    await raw.send(frame(b"x" * 1_000_000, BINARY))
    assert await raw.frame() == (BINARY, b"x" * 1_000_000)
    await raw.send(frame(b"x" * 1_000_001, BINARY))
    assert await raw.close_code() == 1009
