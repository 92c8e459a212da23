"""Socket.IO v5 rule by rule, against the bare engine: what the published suite checks, and what it does not."""

from __future__ import annotations

import json

import aiohttp
import pytest

from server.realtime import packets
from server.realtime.connection import ProtocolError
from tests.server.realtime.conftest import PATIENCE
from tests.waiting import eventually

TWO = '[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]'


async def next_packet(websocket):
    """The next message that is no ping; pings are answered."""
    while True:
        message = await websocket.receive(timeout=PATIENCE)
        if message.data != "2":
            return message.data
        await websocket.send_str("3")


async def connect(bare, namespace=""):
    """A WebSocket that has connected to a namespace and was greeted."""
    websocket = await bare.open_websocket()
    await websocket.send_str(f"40{namespace}")
    assert (await next_packet(websocket)).startswith(f"40{namespace}")
    assert '["auth",{}]' in await next_packet(websocket)
    return websocket


@pytest.mark.parametrize("auth", ["", '{"token":"123"}'])
@pytest.mark.parametrize(("request_", "place"), [("40", ""), ("40/custom,", "/custom,")])
async def test_a_namespace_is_connected_to_with_or_without_auth(sio, request_, place, auth):
    async with await sio.open_websocket() as websocket:
        await websocket.send_str(request_ + auth)
        answer = await next_packet(websocket)
        assert answer.startswith(f"40{place}{{")
        handshake = json.loads(answer[2 + len(place) :])
        assert list(handshake) == ["sid"]
        assert isinstance(handshake["sid"], str)
        assert await next_packet(websocket) == f'42{place}["auth",{auth or "{}"}]'


async def test_the_id_of_a_socket_does_not_tell_that_of_its_connection(sio):
    """Whoever knows the id of a connection that polls can send in its name."""
    sid = await sio.open_polling()
    await sio.post(sid, "40")
    _, answer = await sio.poll(sid)
    assert sid not in answer


@pytest.mark.parametrize("name", ["/random", "/random,", '/random,{"token":"x"}'])
async def test_an_unknown_namespace_is_refused_and_the_connection_stays(sio, name):
    async with await sio.open_websocket() as websocket:
        await websocket.send_str(f"40{name}")
        assert await next_packet(websocket) == '44/random,{"message":"Invalid namespace"}'
        await websocket.send_str("40")
        assert (await next_packet(websocket)).startswith("40{")


async def test_leaving_the_main_namespace_keeps_the_connection(sio):
    async with await connect(sio) as websocket:
        await websocket.send_str("41")
        assert await websocket.receive_str(timeout=PATIENCE) == "2"


async def test_leaving_one_namespace_keeps_the_others(sio):
    async with await connect(sio) as websocket:
        await websocket.send_str("40/custom")
        assert (await next_packet(websocket)).startswith("40/custom,")
        assert await next_packet(websocket) == '42/custom,["auth",{}]'
        await websocket.send_str("41/custom")
        await websocket.send_str('42["message","to the main namespace"]')
        assert await next_packet(websocket) == '42["message-back","to the main namespace"]'


async def test_who_leaves_its_last_namespace_may_connect_again_in_the_same_connection(sio):
    async with await connect(sio) as websocket:
        assert sio.engine.lobby.size == 0
        await websocket.send_str("41")
        await eventually(lambda: sio.engine.lobby.size == 1)
        await websocket.send_str("40")
        assert (await next_packet(websocket)).startswith("40{")
        assert sio.engine.lobby.size == 0


@pytest.mark.parametrize("namespace", ["", "/custom,"])
async def test_text_comes_back_and_is_acked_with_the_same_arguments(sio, namespace):
    async with await connect(sio, namespace) as websocket:
        await websocket.send_str(f'42{namespace}["message",1,"2",{{"3":[true]}}]')
        assert await next_packet(websocket) == f'42{namespace}["message-back",1,"2",{{"3":[true]}}]'
        await websocket.send_str(f'42{namespace}456["message-with-ack",1,"2",{{"3":[false]}}]')
        assert await next_packet(websocket) == f'43{namespace}456[1,"2",{{"3":[false]}}]'


async def test_binary_comes_back_and_is_acked_over_a_websocket(sio):
    async with await connect(sio) as websocket:
        for sent, back in (('452-["message",', '452-["message-back",'), ('452-789["message-with-ack",', "462-789[")):
            await websocket.send_str(sent + TWO[1:])
            await websocket.send_bytes(b"\x01\x02\x03")
            await websocket.send_bytes(b"\x04\x05\x06")
            assert await next_packet(websocket) == back + TWO[1:]
            assert await next_packet(websocket) == b"\x01\x02\x03"
            assert await next_packet(websocket) == b"\x04\x05\x06"


async def test_binary_comes_back_in_polls(sio):
    sid = await sio.open_polling()
    await sio.post(sid, "40")
    greeting = ""
    while "auth" not in greeting:
        greeting += (await sio.poll(sid))[1]
    payload = '451-["message",{"deep":[{"_placeholder":true,"num":0}]}]\x1ebAQID'
    assert await sio.post(sid, payload) == (200, "ok")
    assert await sio.poll(sid) == (200, payload.replace("message", "message-back"))


async def test_a_binary_broadcast_reaches_members_that_poll_and_members_with_a_websocket(sio):
    websocket = await connect(sio)
    sid = await sio.open_polling()
    await sio.post(sid, "40")
    await eventually(lambda: sio.engine.lobby.size == 0)
    frames = packets.encode(packets.EVENT, "/", ["slide", b"\x01\x02", 7])
    for connection in list(sio.engine.connections.values()):
        connection.session.send(frames)
    text = '451-["slide",{"_placeholder":true,"num":0},7]'
    assert await next_packet(websocket) == text
    assert await next_packet(websocket) == b"\x01\x02"
    polled = ""
    while "slide" not in polled:
        polled += "\x1e" + (await sio.poll(sid))[1]
    assert f"{text}\x1ebAQI=" in polled
    await websocket.close()


async def test_a_command_that_returns_nothing_is_acked_with_null(sio):
    """A JavaScript client with `retries` takes an ack without arguments for an error, and sends again."""
    async with await connect(sio) as websocket:
        await websocket.send_str('421["nothing to say"]')
        assert await next_packet(websocket) == "431[null]"


@pytest.mark.parametrize(
    "packet",
    [
        "4abc",  # unknown type
        "4",
        "47",
        "42{}",  # a payload that is none of its type
        "42[]",
        "42[1]",
        '42"message"',
        "42",
        '42["message",]',
        '42["message"]x',
        '42abc["message-with-ack",1]',  # an ack id that is no number
        '42-1["message"]',
        '42٣["message"]',
        '4299999999999999999["message"]',
        '42["message",NaN]',
        "42" + "[" * 5000 + "]" * 5000,
        '41"why"',
        "44{}",  # a server's packet
        "43[1]",
        '431{"a":1}',
        "40[[[",
        '45["message"]',  # attachments: missing, too many, on a packet that has none
        '4511-["message"]',
        '459999999999-["message"]',
        '421-["message"]',
        '450-["message",{"_placeholder":true,"num":0}]',
        '42["connect",{}]',  # reserved names
        '42["disconnect"]',
        '42["newListener"]',
    ],
)
async def test_a_malformed_packet_closes_the_connection_with_a_reason(sio, packet):
    websocket = await connect(sio)
    await websocket.send_str(packet)
    message = await websocket.receive(timeout=PATIENCE)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
    assert message.extra
    assert not sio.engine.connections


async def test_without_a_connect_an_event_closes_the_connection(sio):
    websocket = await sio.open_websocket()
    await websocket.send_str('42["message"]')
    assert (await websocket.receive(timeout=PATIENCE)).extra == "event without CONNECT"


@pytest.mark.parametrize(
    ("packet", "attachments", "reason"),
    [
        ('452-["m",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]', [b"a", b"b"], "illegal placeholder"),
        ('451-["m",{"_placeholder":true,"num":1}]', [b"a"], "illegal placeholder"),
        ('451-["m",{"_placeholder":true,"num":-1}]', [b"a"], "illegal placeholder"),
        ('451-["m",{"_placeholder":true,"num":"0"}]', [b"a"], "illegal placeholder"),
        ('451-["m",{"_placeholder":true,"num":false}]', [b"a"], "illegal placeholder"),
        ('451-["m",{"_placeholder":true}]', [b"a"], "illegal placeholder"),
        ('451-["m",1]', [b"a"], "attachment without a placeholder"),
        ('451-["m",{"_placeholder":true,"num":0}]', ['42["m"]'], "text among the attachments of a packet"),
        ('42["m"]', [b"a"], "binary message without a packet"),
        ('451-["m",' + "[" * 100 + '{"_placeholder":true,"num":0}' + "]" * 100 + "]", [b"a"], "nested too deeply"),
        ('452-["m",{"_placeholder":true,"num":0}]', [b"x" * 900_000, b"x" * 900_000], "attachments too large"),
    ],
)
async def test_attachments_that_do_not_fit_their_packet_close_the_connection(sio, packet, attachments, reason):
    """PITFALLS.md 6 and 7: what a client sends as binary is bounded, and cannot be multiplied by placeholders."""
    websocket = await connect(sio)
    await websocket.send_str(packet)
    for attachment in attachments:
        await (websocket.send_str if isinstance(attachment, str) else websocket.send_bytes)(attachment)
    message = await websocket.receive(timeout=PATIENCE)
    assert (message.data, message.extra) == (1008, reason)


async def test_what_a_client_acks_is_ignored_also_with_attachments(sio):
    async with await connect(sio) as websocket:
        await websocket.send_str("431[1]")
        await websocket.send_str('461-1[{"_placeholder":true,"num":0}]')
        await websocket.send_bytes(b"a")
        await websocket.send_str('42["message"]')
        assert await next_packet(websocket) == '42["message-back"]'


async def test_many_packets_of_one_payload_are_answered_in_order(sio):
    sid = await sio.open_polling()
    await sio.post(sid, "\x1e".join(["40", *(f'42{n}["message-with-ack",{n}]' for n in range(500))]))
    answers: list[str] = []
    while len(answers) < 500:
        _, payload = await sio.poll(sid)
        answers += [packet for packet in payload.split("\x1e") if packet.startswith("43")]
    assert answers == [f"43{n}[{n}]" for n in range(500)]


async def test_an_echo_that_is_nested_too_deeply_to_be_written_is_an_error_and_no_end(sio):
    async with await connect(sio) as websocket:
        await websocket.send_str('421["message",' + "[" * 300 + "]" * 300 + "]")
        assert json.loads((await next_packet(websocket))[3:])[0]["error"]["code"] == "internal"


@pytest.mark.parametrize("text", ["", "7", "4", "x", "2-[]", "5-[]", "51[]"])
def test_what_is_no_packet_is_refused(text):
    with pytest.raises(ProtocolError):
        packets.decode(text)


def test_a_packet_is_read_with_all_its_parts():
    packet = packets.decode('2/a/b-1,17["x",{"y":1}]')
    assert (packet.type, packet.namespace, packet.id, packet.data) == (2, "/a/b-1", 17, ["x", {"y": 1}])
    packet = packets.decode('52-/n,3["x"]')
    assert (packet.type, packet.namespace, packet.id, packet.attachments) == (5, "/n", 3, 2)


async def test_connections_of_strangers_are_bounded_by_their_patience(sio):
    """A stranger that answers pings but never connects to a namespace goes after `connect_timeout`."""
    sio.engine.settings = sio.engine.settings.model_copy(update={"connect_timeout": 0.4})
    websocket = await sio.open_websocket()
    while (message := await websocket.receive(timeout=PATIENCE)).data == "2":
        await websocket.send_str("3")
    assert (message.data, message.extra) == (1008, "no CONNECT")
