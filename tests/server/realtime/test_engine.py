"""Engine.IO to the letter, seen from outside: raw HTTP requests and WebSockets against the whole server."""

import asyncio
import json

import pytest

PATH = "/socket.io/"
POLL = {"EIO": "4", "transport": "polling"}
WEBSOCKET = {"EIO": "4", "transport": "websocket"}


async def handshake(http):
    async with http.get(PATH, params=POLL) as response:
        text = await response.text()
        assert response.status == 200
        assert text[0] == "0"
        return json.loads(text[1:])


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, 0),
        ({"EIO": "4"}, 0),
        ({"EIO": "4", "transport": "carrier-pigeon"}, 0),
        ({"transport": "polling"}, 5),
        ({"EIO": "3", "transport": "polling"}, 5),
        ({**POLL, "sid": "nobody"}, 1),
        ({**WEBSOCKET, "sid": "nobody"}, 1),
        (WEBSOCKET, 3),
    ],
)
async def test_a_request_that_is_no_handshake_is_refused_with_the_code_of_the_protocol(http, params, code):
    async with http.get(PATH, params=params) as response:
        assert response.status == 400
        assert (await response.json())["code"] == code


async def test_a_handshake_must_be_a_get(http):
    async with http.post(PATH, params=POLL) as response:
        assert response.status == 400
        assert (await response.json())["code"] == 2


async def test_the_handshake_announces_times_in_milliseconds_and_the_upgrade(http, settings):
    opened = await handshake(http)
    assert opened["pingInterval"] == int(settings.realtime.ping_interval * 1000)
    assert opened["pingTimeout"] == int(settings.realtime.ping_timeout * 1000)
    assert opened["upgrades"] == ["websocket"]
    assert opened["maxPayload"] == settings.realtime.max_packet_bytes


async def test_a_websocket_is_greeted_without_upgrades_and_without_compression(http):
    async with http.ws_connect(PATH, params=WEBSOCKET, compress=15) as websocket:
        opened = await websocket.receive_str(timeout=2)
        assert json.loads(opened[1:])["upgrades"] == []
        assert not websocket.compress


async def test_a_posted_payload_is_answered_with_ok(http):
    opened = await handshake(http)
    async with http.post(PATH, params={**POLL, "sid": opened["sid"]}, data="3") as response:
        assert (response.status, await response.text()) == (200, "ok")


async def test_an_invalid_packet_ends_a_polling_session(http):
    opened = await handshake(http)
    params = {**POLL, "sid": opened["sid"]}
    async with http.post(PATH, params=params, data="abc") as response:
        assert response.status == 400
    async with http.get(PATH, params=params) as response:
        assert (await response.json())["code"] == 1


async def test_a_second_poll_at_the_same_time_ends_the_session_and_answers_the_first(http):
    opened = await handshake(http)
    params = {**POLL, "sid": opened["sid"]}
    first = asyncio.ensure_future(http.get(PATH, params=params))
    await asyncio.sleep(0.05)  # the request is on its way; there is nothing to see of a poll that waits
    async with http.get(PATH, params=params) as second:
        assert second.status == 400
    async with await first as answered:
        assert (answered.status, await answered.text()) == (200, "1")


@pytest.mark.parametrize("packet", ["x", "", "9", "4[[[[", "45", '42["no namespace"]', "2"])
async def test_a_malformed_frame_closes_the_socket_at_once(http, packet):
    async with http.ws_connect(PATH, params=WEBSOCKET) as websocket:
        await websocket.receive_str(timeout=2)
        await websocket.send_str(packet)
        message = await websocket.receive(timeout=2)
        assert message.data == 1008


async def test_a_binary_message_closes_the_socket(http):
    async with http.ws_connect(PATH, params=WEBSOCKET) as websocket:
        await websocket.receive_str(timeout=2)
        await websocket.send_bytes(b"4abc")
        assert (await websocket.receive(timeout=2)).data == 1008


async def test_a_message_over_the_limit_closes_the_socket(http, settings):
    async with http.ws_connect(PATH, params=WEBSOCKET) as websocket:
        await websocket.receive_str(timeout=2)
        await websocket.send_str("4" + "x" * settings.realtime.max_packet_bytes)
        assert (await websocket.receive(timeout=2)).data == 1009


async def test_the_upgrade_moves_what_was_queued_in_order_and_leaves_no_stray_packet(http):
    opened = await handshake(http)
    sid = opened["sid"]
    async with http.post(PATH, params={**POLL, "sid": sid}, data="40/nowhere,") as response:
        assert response.status == 200
    async with http.ws_connect(PATH, params={**WEBSOCKET, "sid": sid}) as websocket:
        await websocket.send_str("2probe")
        assert await websocket.receive_str(timeout=2) == "3probe"
        await websocket.send_str("5")
        assert await websocket.receive_str(timeout=2) == '44/nowhere,{"message":"Invalid namespace"}'
        async with http.get(PATH, params={**POLL, "sid": sid}) as response:
            assert response.status == 400  # the session has left HTTP
        await websocket.send_str("40/elsewhere,")
        assert (await websocket.receive_str(timeout=2)).startswith("44/elsewhere,")


async def test_the_probe_ends_the_poll_that_waits(http):
    opened = await handshake(http)
    sid = opened["sid"]
    poll = asyncio.ensure_future(http.get(PATH, params={**POLL, "sid": sid}))
    await asyncio.sleep(0.05)
    async with http.ws_connect(PATH, params={**WEBSOCKET, "sid": sid}) as websocket:
        await websocket.send_str("2probe")
        assert await websocket.receive_str(timeout=2) == "3probe"
        async with await poll as answered:
            assert await answered.text() == "6"


async def test_a_second_websocket_for_a_session_is_refused_and_does_not_disturb_the_first(http):
    async with http.ws_connect(PATH, params=WEBSOCKET) as first:
        sid = json.loads((await first.receive_str(timeout=2))[1:])["sid"]
        async with http.ws_connect(PATH, params={**WEBSOCKET, "sid": sid}) as second:
            assert (await second.receive(timeout=2)).data == 1008
        await first.send_str("40/nowhere,")
        assert (await first.receive_str(timeout=2)).startswith("44/nowhere,")


async def test_a_foreign_origin_is_refused_and_our_own_is_not(http, url):
    async with http.get(PATH, params=POLL, headers={"Origin": "https://evil.example"}) as response:
        assert response.status == 403
    async with http.get(PATH, params=POLL, headers={"Origin": url}) as response:
        assert response.status == 200


async def test_a_large_post_in_several_segments_is_read_whole(http, url):
    """PITFALLS.md 15: stock engineio reads what is buffered, answers 200 and loses the rest."""
    opened = await handshake(http)
    packets = "\x1e".join(["40/nowhere,"] * 5000)
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {PATH}?EIO=4&transport=polling&sid={opened['sid']} HTTP/1.1\r\nHost: {host}\r\n"
    head += f"Content-Length: {len(packets)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + packets[:1000].encode())
    await writer.drain()
    poll = asyncio.ensure_future(collect(http, opened["sid"], 5000))
    await asyncio.sleep(0.1)
    writer.write(packets[1000:].encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert await asyncio.wait_for(poll, 5) == 5000


async def collect(http, sid, count):
    got = 0
    while got < count:
        async with http.get(PATH, params={**POLL, "sid": sid}) as response:
            got += len((await response.text()).split("\x1e"))
    return got
