"""Engine.IO v4 rule by rule, against the bare engine: what the published suite checks, and what it does not."""

from __future__ import annotations

import asyncio
import json
import operator
from functools import partial

import aiohttp
import pytest

from tests.server.realtime.conftest import PATIENCE
from tests.waiting import eventually

POLLING = {"EIO": "4", "transport": "polling"}


async def test_a_polled_handshake_has_exactly_the_fields_of_the_protocol_with_times_in_milliseconds(eio):
    status, text = await eio.request("GET", POLLING)
    assert (status, text[0]) == (200, "0")
    opened = json.loads(text[1:])
    assert isinstance(opened.pop("sid"), str)
    assert opened == {"upgrades": ["websocket"], "pingInterval": 300, "pingTimeout": 200, "maxPayload": 1_000_000}


async def test_a_websocket_handshake_offers_no_upgrade(eio):
    async with eio.session.ws_connect(eio.path, params=eio.params("websocket")) as websocket:
        opened = json.loads((await websocket.receive_str(timeout=PATIENCE))[1:])
        assert isinstance(opened.pop("sid"), str)
        assert opened == {"upgrades": [], "pingInterval": 300, "pingTimeout": 200, "maxPayload": 1_000_000}


@pytest.mark.parametrize("transport", ["polling", "websocket"])
@pytest.mark.parametrize("version", [None, "abc", "3", "5", ""])
async def test_a_missing_or_unknown_version_is_a_bad_request(eio, transport, version):
    params = {"transport": transport, **({} if version is None else {"EIO": version})}
    assert (await eio.request("GET", params))[0] == 400


@pytest.mark.parametrize("transport", [None, "abc", ""])
async def test_a_missing_or_unknown_transport_is_a_bad_request(eio, transport):
    params = {"EIO": "4", **({} if transport is None else {"transport": transport})}
    assert (await eio.request("GET", params))[0] == 400


async def test_a_websocket_with_a_wrong_query_is_not_opened(eio):
    for params in ({"transport": "websocket"}, {"EIO": "abc", "transport": "websocket"}, {"EIO": "4"}):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await eio.session.ws_connect(eio.path, params=params)
        assert refused.value.status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_a_handshake_with_a_wrong_method_is_a_bad_request(eio, method):
    assert (await eio.request(method, POLLING))[0] == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_a_session_is_not_disturbed_by_a_wrong_method(eio, method):
    sid = await eio.open_polling()
    assert (await eio.request(method, eio.params("polling", sid)))[0] == 400
    assert await eio.post(sid, "4still here") == (200, "ok")


@pytest.mark.parametrize("payload", ["4hello", "4one\x1e4two\x1e4three", "4hello\x1ebAQIDBA==", "4", "4žluťoučký 😀"])
async def test_a_polled_payload_is_answered_ok_and_its_messages_come_back_in_order(eio, payload):
    sid = await eio.open_polling()
    assert await eio.post(sid, payload.encode()) == (200, "ok")
    assert await eio.poll(sid) == (200, payload)


@pytest.mark.parametrize("payload", ["abc", "", "4a\x1e\x1e4b", "b!!!", "bAQID=BA=", "6", "2", "0{}", b"4\xff\xfe"])
async def test_an_invalid_packet_closes_a_polling_session_with_400(eio, payload):
    sid = await eio.open_polling()
    assert (await eio.post(sid, payload))[0] == 400
    assert (await eio.poll(sid))[0] == 400
    assert not eio.engine.connections


async def test_a_payload_over_the_limit_is_refused_and_ends_the_session(eio):
    sid = await eio.open_polling()
    assert (await eio.post(sid, "4" + "x" * 1_000_000))[0] == 413
    assert (await eio.poll(sid))[0] == 400


async def test_a_payload_of_just_the_limit_is_taken_by_both_transports(eio):
    message = "4" + "x" * 999_999
    sid = await eio.open_polling()
    assert await eio.post(sid, message) == (200, "ok")
    assert await eio.poll(sid) == (200, message)
    async with await eio.open_websocket() as websocket:
        await websocket.send_str(message)
        assert await websocket.receive_str(timeout=PATIENCE) == message


async def test_a_second_poll_at_once_closes_the_session_and_answers_the_first(eio):
    sid = await eio.open_polling()
    first = asyncio.ensure_future(eio.poll(sid))
    await asyncio.sleep(0.02)  # nothing is to be seen of a poll that waits
    assert (await eio.poll(sid))[0] == 400
    assert await first == (200, "1")
    assert (await eio.poll(sid))[0] == 400


async def test_a_second_payload_at_once_closes_the_session(eio):
    """Two of them would mix the order of their packets."""
    sid = await eio.open_polling()
    go_on = asyncio.Event()

    async def slow_body():
        yield b"4sl"
        await go_on.wait()
        yield b"ow"

    first = asyncio.ensure_future(eio.request("POST", eio.params("polling", sid), slow_body()))
    await eventually(lambda: eio.engine.connections[sid].posting)
    assert (await eio.post(sid, "4fast"))[0] == 400
    go_on.set()
    await first
    assert (await eio.poll(sid))[0] == 400


async def test_text_and_binary_messages_come_back_over_a_websocket(eio):
    async with await eio.open_websocket() as websocket:
        await websocket.send_str("4hello")
        assert await websocket.receive_str(timeout=PATIENCE) == "4hello"
        await websocket.send_bytes(b"\x01\x02\x03\x04")
        assert await websocket.receive_bytes(timeout=PATIENCE) == b"\x01\x02\x03\x04"


@pytest.mark.parametrize("packet", ["abc", "", "2", "6", "5", "0{}"])
async def test_an_invalid_packet_closes_a_websocket_with_a_reason(eio, packet):
    websocket = await eio.open_websocket()
    await websocket.send_str(packet)
    message = await websocket.receive(timeout=PATIENCE)
    assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 1008, "unexpected Engine.IO packet")


async def test_pings_come_in_time_in_polls_and_are_answered(eio):
    sid = await eio.open_polling()
    for _ in range(3):
        assert await eio.poll(sid) == (200, "2")
        assert await eio.post(sid, "3") == (200, "ok")


async def test_pings_come_in_time_over_a_websocket(eio):
    began = asyncio.get_running_loop().time()
    async with await eio.open_websocket() as websocket:
        for _ in range(3):
            assert await websocket.receive_str(timeout=PATIENCE) == "2"
            await websocket.send_str("3")
    assert 0.85 < asyncio.get_running_loop().time() - began < 1.4


async def test_a_poll_after_a_missed_heartbeat_finds_the_session_gone(eio):
    sid = await eio.open_polling()
    await asyncio.sleep(0.5)  # just pingInterval + pingTimeout: not a turn of the wheel later
    assert (await eio.poll(sid))[0] == 400
    assert not eio.engine.connections


async def test_a_poll_that_waits_when_the_heartbeat_is_missed_ends(eio):
    sid = await eio.open_polling()
    assert await eio.poll(sid) == (200, "2")
    assert await asyncio.wait_for(eio.poll(sid), 0.5) == (200, "1")
    assert (await eio.poll(sid))[0] == 400


async def test_a_websocket_that_is_silent_is_closed(eio):
    websocket = await eio.open_websocket()
    assert await websocket.receive_str(timeout=PATIENCE) == "2"
    assert (await websocket.receive(timeout=0.5)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE)
    assert not eio.engine.connections


async def test_closing_while_a_poll_is_open_answers_it(eio):
    sid = await eio.open_polling()
    poll = asyncio.ensure_future(eio.poll(sid))
    await asyncio.sleep(0.02)  # nothing is to be seen of a poll that waits
    assert await eio.post(sid, "1") == (200, "ok")
    assert await poll == (200, "6")
    assert (await eio.poll(sid))[0] == 400


async def test_a_close_packet_closes_a_websocket_normally(eio):
    websocket = await eio.open_websocket()
    await websocket.send_str("1")
    assert (await websocket.receive(timeout=PATIENCE)).data == 1000


async def test_a_websocket_that_its_peer_closes_gets_the_code_back(eio):
    websocket = await eio.open_websocket()
    await websocket.close(code=4321)
    assert websocket.close_code == 4321
    await eventually(lambda: not eio.engine.connections)


async def test_the_upgrade_goes_over_to_the_websocket(eio):
    sid = await eio.open_polling()
    async with await eio.open_websocket(sid) as websocket:
        await websocket.send_str("2probe")
        assert await websocket.receive_str(timeout=PATIENCE) == "3probe"
        assert await eio.poll(sid) == (200, "6")
        await websocket.send_str("5")
        await websocket.send_str("4hello")
        assert await websocket.receive_str(timeout=PATIENCE) == "4hello"


async def test_a_poll_during_the_upgrade_does_not_make_its_peer_poll_in_a_circle(eio):
    sid = await eio.open_polling()
    async with await eio.open_websocket(sid) as websocket:
        await websocket.send_str("2probe")
        await websocket.receive_str(timeout=PATIENCE)
        began = asyncio.get_running_loop().time()
        assert await eio.poll(sid) == (200, "6")
        assert asyncio.get_running_loop().time() - began > 0.05


async def test_messages_travel_by_poll_until_the_upgrade_is_complete(eio):
    sid = await eio.open_polling()
    async with await eio.open_websocket(sid) as websocket:
        await websocket.send_str("2probe")
        await websocket.receive_str(timeout=PATIENCE)
        assert await eio.post(sid, "4first") == (200, "ok")
        assert await eio.poll(sid) == (200, "4first")
        assert await eio.post(sid, "4second") == (200, "ok")
        await websocket.send_str("5")
        assert await websocket.receive_str(timeout=PATIENCE) == "4second"


async def test_after_the_upgrade_requests_are_refused_and_no_noop_travels_over_the_websocket(eio):
    sid = await eio.open_polling()
    poll = asyncio.ensure_future(eio.poll(sid))
    await asyncio.sleep(0.02)  # nothing is to be seen of a poll that waits
    async with await eio.upgrade(sid) as websocket:
        assert await poll == (200, "6")
        assert (await eio.poll(sid))[0] == 400
        assert (await eio.post(sid, "4by post"))[0] == 400
        await websocket.send_str("4hello")
        assert await websocket.receive_str(timeout=PATIENCE) == "4hello"


async def test_a_poll_that_is_open_when_the_upgrade_completes_takes_nothing_from_the_websocket(eio):
    sid = await eio.open_polling()
    async with await eio.open_websocket(sid) as websocket:
        await websocket.send_str("2probe")
        await websocket.receive_str(timeout=PATIENCE)
        poll = asyncio.ensure_future(eio.poll(sid))
        await asyncio.sleep(0.02)
        await websocket.send_str("5")
        await websocket.send_str("4hello")
        assert await websocket.receive_str(timeout=PATIENCE) == "4hello"
        assert await poll == (200, "6")


@pytest.mark.parametrize("first", ["upgraded", "websocket from the start", "probing"])
async def test_a_second_websocket_for_a_session_is_refused_and_does_not_disturb_the_first(eio, first):
    sid = await eio.open_polling()
    if first == "upgraded":
        websocket = await eio.upgrade(sid)
    elif first == "probing":
        websocket = await eio.open_websocket(sid)
        await websocket.send_str("2probe")
        assert await websocket.receive_str(timeout=PATIENCE) == "3probe"
    else:
        websocket = await eio.session.ws_connect(eio.path, params=eio.params("websocket"))
        sid = json.loads((await websocket.receive_str(timeout=PATIENCE))[1:])["sid"]
    async with await eio.open_websocket(sid) as second:
        assert (await second.receive(timeout=PATIENCE)).data == 1008
    if first == "probing":
        await websocket.send_str("5")
    await websocket.send_str("4hello")
    assert await websocket.receive_str(timeout=PATIENCE) == "4hello"
    await websocket.close()


@pytest.mark.parametrize("probe", ["5", "4hello", b"2probe"])
async def test_a_failed_probe_leaves_the_polling_session_alone(eio, probe):
    sid = await eio.open_polling()
    async with await eio.open_websocket(sid) as websocket:
        await (websocket.send_bytes(probe) if isinstance(probe, bytes) else websocket.send_str(probe))
        assert (await websocket.receive(timeout=PATIENCE)).data == 1008
    assert await eio.post(sid, "4hello") == (200, "ok")
    assert await eio.poll(sid) == (200, "4hello")


async def test_a_poll_is_not_kept_by_caches(eio):
    async with eio.session.get(eio.path, params=POLLING) as response:
        assert response.headers["Cache-Control"] == "no-store"


async def test_who_goes_away_during_a_poll_is_noticed_before_the_ping_timeout(eio):
    sid = await eio.open_polling()
    poll = asyncio.ensure_future(eio.poll(sid))
    await asyncio.sleep(0.02)
    poll.cancel()
    await eventually(lambda: not eio.engine.connections, 0.25)


async def test_connections_leave_the_lobby_and_the_engine_when_they_end(eio, sio):
    for bare in (eio, sio):
        websocket = await bare.open_websocket()
        sid = await bare.open_polling()
        assert bare.engine.lobby.size == (2 if bare is sio else 0)
        await websocket.close()
        await bare.post(sid, "1")
        await eventually(partial(operator.not_, bare.engine.connections))
        assert bare.engine.lobby.size == 0
