import asyncio
import json
from uuid import UUID, uuid4

import pytest
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given
from hypothesis import strategies as st

from server.realtime import wire
from server.realtime.wire import News, RoomEvent

KEY = b"k" * 32
ROOM = UUID(int=7)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_a_payload_survives_its_frame(size):
    payload = b"x" * size
    assert wire.payload_of(wire.frame(payload)) == payload


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
async def test_a_frame_is_read_by_an_independent_parser(size):
    loop = asyncio.get_running_loop()
    queue = WebSocketDataQueue(BaseProtocol(loop), 1 << 20, loop=loop)
    WebSocketReader(queue, 1 << 20, False, True).feed_data(wire.frame(b"x" * size) + wire.frame(b"end"))
    assert [(await queue.read()).data for _ in range(2)] == ["x" * size, "end"]


def test_an_event_is_the_stored_bytes_with_its_place_in_front():
    body = b'{"type":"message","data":{"text":"caf\xc3\xa9"}}'
    event = RoomEvent(ROOM, 12, "message", body)
    assert json.loads(event.json("e1")) == {
        "room_id": str(ROOM),
        "epoch": "e1",
        "seq": 12,
        "type": "message",
        "data": {"text": "café"},
    }
    assert event.json("e1").endswith(body[1:])
    assert wire.payload_of(event.frame("/chat", "e1")) == b'42/chat,["message",%s]' % event.json("e1")


def test_a_frame_is_made_once_per_namespace():
    event = RoomEvent(ROOM, 1, "message", b'{"type":"message"}')
    assert event.frame("/chat", "e") is event.frame("/chat", "e")
    assert event.frame("/chat", "e") != event.frame("/classroom", "e")


@given(body=st.binary(), seq=st.integers(0, 2**62), audience=st.sampled_from(["", "+u", "-u"]))
def test_sealed_news_come_back_as_they_were(body, seq, audience):
    news = News(wire.ROOM_EVENT, "epoch", seq, "message", audience, body)
    assert wire.unseal(KEY, ROOM, wire.seal(KEY, ROOM, news)) == news


@given(st.binary())
def test_whatever_else_arrives_is_refused(payload):
    assert wire.unseal(KEY, ROOM, payload) is None


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_one_flipped_bit_breaks_the_seal(position, bit):
    sealed = bytearray(wire.seal(KEY, ROOM, News(wire.ROOM_EVENT, "epoch", 3, "message", "", b'{"type":"message"}')))
    sealed[position % len(sealed)] ^= 1 << bit
    assert wire.unseal(KEY, ROOM, bytes(sealed)) is None


def test_news_of_one_room_are_worth_nothing_in_another():
    sealed = wire.seal(KEY, ROOM, News(wire.ROOM_EVENT, "epoch", 3, "message", "", b"{}"))
    assert wire.unseal(KEY, uuid4(), sealed) is None
    assert wire.unseal(b"another key" * 3, ROOM, sealed) is None
