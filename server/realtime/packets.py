"""Socket.IO v5 packets: text and binary, read strictly and written once. Keeps no state.

A packet of a client is refused when it is not one that a client may send to a server: a wrong type or payload, a
reserved event name, an id that no JavaScript client can count to. Binary data travels as attachments behind its packet,
each standing for one placeholder; their number is bounded and none can be used twice (PITFALLS.md 6 and 7).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from server.realtime import wire
from server.realtime.connection import ProtocolError

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = range(7)
RESERVED = frozenset(
    ("connect", "connect_error", "connecting", "disconnect", "disconnecting", "newListener", "removeListener")
)
MAX_ACK_ID = 2**53 - 1  # what a JavaScript client can count to
MAX_ATTACHMENTS = 10
MAX_DEPTH = 64  # levels of a packet with attachments; without, the JSON parser bounds them
PLACEHOLDER = "_placeholder"
# type, number of attachments, namespace, ack id; the payload follows
_HEAD = re.compile(r"([0-6])(?:(\d{1,10})-)?(?:(/[^,]*)(?:,|$))?(\d{1,16})?", re.ASCII)


@dataclass(slots=True)
class Packet:
    """One packet. `attachments` is how many binary messages follow it."""

    type: int
    namespace: str
    id: int | None
    data: Any  # Any: whatever JSON can hold; the namespace checks it
    attachments: int = 0


def decode(text: str) -> Packet:
    """Read and check a packet of a client.

    Raises:
        ProtocolError: it is malformed, or none that a client may send.
    """
    head = _HEAD.match(text)
    if head is None:
        raise ProtocolError("malformed Socket.IO packet")
    kind, count, namespace, number = head.groups()
    try:
        data = orjson.loads(text[head.end() :]) if head.end() < len(text) else None
    except ValueError as error:
        raise ProtocolError("malformed Socket.IO packet") from error
    packet = Packet(int(kind), namespace or "/", None if number is None else int(number), data)
    if packet.id is not None and packet.id > MAX_ACK_ID:
        raise ProtocolError("malformed ack id")
    if packet.type in (BINARY_EVENT, BINARY_ACK):
        packet.attachments = _count(count)
    elif count is not None:
        raise ProtocolError("malformed Socket.IO packet")
    _check(packet)
    return packet


def encode(kind: int, namespace: str, data: list[Any], id: int | None = None) -> list[bytes]:  # Any: JSON and bytes
    """The frames of an event or ack: one, and one for each bytes object in its data.

    Raises:
        TypeError: the data holds something that cannot travel, or is nested too deeply.
    """
    buffers: list[bytes] = []
    try:
        body = wire.dumps(data)
    except TypeError:
        body = wire.dumps(_detach(data, buffers, 0))
    head = b"4%d" % kind
    if buffers:
        head = b"4%d%d-" % (kind + BINARY_EVENT - EVENT, len(buffers))
    number = b"" if id is None else b"%d" % id
    text = wire.frame(head + wire.place(namespace) + number + body)
    return [text, *(wire.frame(buffer, wire.BINARY) for buffer in buffers)]


def attach(packet: Packet, buffers: list[bytes]) -> Packet:
    """Put the attachments where their placeholders are.

    Raises:
        ProtocolError: a placeholder names no attachment or one that was used already, or an attachment has none.
    """
    left: list[bytes | None] = list(buffers)
    data = _replace(packet.data, left, 0)
    if any(buffer is not None for buffer in left):
        raise ProtocolError("attachment without a placeholder")
    packet.type = packet.type - BINARY_EVENT + EVENT
    packet.data = data
    return packet


def _count(digits: str | None) -> int:
    if digits is None or int(digits) > MAX_ATTACHMENTS:
        raise ProtocolError("missing or too large number of attachments")
    return int(digits)


def _check(packet: Packet) -> None:
    data = packet.data
    if packet.type == CONNECT_ERROR:
        raise ProtocolError("unexpected Socket.IO packet")
    if packet.type == DISCONNECT and data is not None:
        raise ProtocolError("malformed disconnect")
    if packet.type in (ACK, BINARY_ACK) and (not isinstance(data, list) or packet.id is None):
        raise ProtocolError("malformed ack")
    if packet.type in (EVENT, BINARY_EVENT) and not _is_event(data):
        raise ProtocolError("malformed event")


def _is_event(data: object) -> bool:
    return isinstance(data, list) and bool(data) and isinstance(data[0], str) and data[0] not in RESERVED


def _replace(value: Any, left: list[bytes | None], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ProtocolError("nested too deeply")
    if isinstance(value, list):
        return [_replace(item, left, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get(PLACEHOLDER) is True:
        return _take(value.get("num"), left)
    return {key: _replace(item, left, depth + 1) for key, item in value.items()}


def _take(number: object, left: list[bytes | None]) -> bytes:
    if type(number) is int and 0 <= number < len(left):  # a bool is an int, too
        buffer, left[number] = left[number], None
        if buffer is not None:
            return buffer
    raise ProtocolError("illegal placeholder")


def _detach(value: Any, buffers: list[bytes], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise TypeError("nested too deeply")
    if isinstance(value, bytes | bytearray | memoryview):
        buffers.append(bytes(value))
        return {PLACEHOLDER: True, "num": len(buffers) - 1}
    if isinstance(value, list | tuple):
        return [_detach(item, buffers, depth + 1) for item in value]
    if isinstance(value, dict):
        return {key: _detach(item, buffers, depth + 1) for key, item in value.items()}
    return value
