"""An event → its bytes, once per namespace: the framing of WebSocket, Socket.IO and the Redis payload. Keeps no state.

Everything sent is kept as a finished WebSocket frame (RFC 6455 section 5.2, unmasked, FIN set), because almost every
connection is a WebSocket; the few that poll take the payload out of the frame again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
FINAL = 0x80
MAC_BYTES = 16
MAX_REASON = 123  # bytes of text in a close frame, RFC 6455 section 5.5
# What may stand in front of the payload of a Redis message, see `seal`.
ROOM_EVENT = "r"
EPHEMERAL = "e"
PRESENCE = "p"
REVOKED = "x"

PING = bytes((FINAL | TEXT, 1)) + b"2"
NOOP = bytes((FINAL | TEXT, 1)) + b"6"
CLOSE_PACKET = bytes((FINAL | TEXT, 1)) + b"1"


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Wrap a payload into one unmasked frame."""
    size = len(payload)
    if size < 126:
        return bytes((FINAL | opcode, size)) + payload
    if size < 65536:
        return bytes((FINAL | opcode, 126)) + size.to_bytes(2) + payload
    return bytes((FINAL | opcode, 127)) + size.to_bytes(8) + payload


def payload_of(framed: bytes) -> bytes:
    """Take the payload out of a frame that `frame` made."""
    return framed[{126: 4, 127: 10}.get(framed[1], 2) :]


def polled(framed: bytes) -> str:
    """A frame as a packet of a polling payload, where binary messages travel as base64."""
    payload = payload_of(framed)
    if framed[0] & 0xF == BINARY:
        return "b" + base64.b64encode(payload).decode()
    return payload.decode()


def close_frame(code: int, reason: str = "") -> bytes:
    """A WebSocket close frame with a status code of RFC 6455 section 7.4 and an ASCII reason."""
    return frame(code.to_bytes(2) + reason.encode()[:MAX_REASON], CLOSE)


def place(namespace: str) -> bytes:
    """How packets name a namespace: the main one not at all."""
    return b"" if namespace == "/" else namespace.encode() + b","


def event_frame(namespace: str, name: str, data: bytes) -> bytes:
    """The frame of a Socket.IO EVENT with one argument, which is JSON already."""
    return frame(b'42%s["%s",%s]' % (place(namespace), name.encode(), data))


def dumps(value: Any) -> bytes:  # Any: whatever JSON can hold
    """Compact JSON; datetimes are refused, so that only the contract's form of a time can travel."""
    return orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATETIME)


class RoomEvent:
    """A committed event of a room log, with its frame for each namespace made once.

    `body` is the stored part, a JSON object from "type" on; place and epoch are put in front when it is sent, so that
    the bytes in the log never change.
    """

    __slots__ = ("_frames", "body", "room_id", "seq", "type")

    def __init__(self, room_id: UUID, seq: int, type: str, body: bytes) -> None:
        self.room_id = room_id
        self.seq = seq
        self.type = type
        self.body = body
        self._frames: dict[str, bytes] = {}

    def json(self, epoch: str) -> bytes:
        """The event as clients see it: `{"room_id", "epoch", "seq", "type", "at", "actor", "cmd_id"?, "data"}`."""
        return b'{"room_id":"%s","epoch":"%s","seq":%d,%s' % (
            str(self.room_id).encode(),
            epoch.encode(),
            self.seq,
            self.body[1:],
        )

    def frame(self, namespace: str, epoch: str) -> bytes:
        framed = self._frames.get(namespace)
        if framed is None:
            framed = self._frames[namespace] = event_frame(namespace, self.type, self.json(epoch))
        return framed


@dataclass(frozen=True, slots=True)
class News:
    """What one replica tells the others about a room: a room event (`seq` > 0) or something ephemeral (`seq` 0).

    `epoch` is that of the log for a room event, otherwise the name of the sending replica. `audience` is empty for
    everyone, `+user_id` for one person only, `-user_id` for everyone else.
    """

    kind: str
    epoch: str
    seq: int
    name: str
    audience: str
    body: bytes


def seal(key: bytes, room_id: UUID, news: News) -> bytes:
    """The Redis payload: one line `kind epoch seq name audience mac`, then the JSON, which nobody decodes on the way.

    The keyed BLAKE2b over room and payload makes a forged PUBLISH worthless (PITFALLS.md 13).
    """
    head = f"{news.kind} {news.epoch} {news.seq} {news.name} {news.audience or '*'}".encode()
    return b"%s %s\n%s" % (head, _mac(key, room_id, head, news.body), news.body)


def unseal(key: bytes, room_id: UUID, payload: bytes) -> News | None:
    """Read a Redis payload; None when it is malformed or its seal does not fit."""
    line, newline, body = payload.partition(b"\n")
    head, _, mac = line.rpartition(b" ")
    if not newline or not hmac.compare_digest(mac, _mac(key, room_id, head, body)):
        return None
    kind, epoch, seq, name, audience = head.decode().split(" ")
    return News(kind, epoch, int(seq), name, "" if audience == "*" else audience, body)


def _mac(key: bytes, room_id: UUID, head: bytes, body: bytes) -> bytes:
    digest = hashlib.blake2b(key=key, digest_size=MAC_BYTES)
    digest.update(room_id.bytes)
    digest.update(head)
    digest.update(b"\n")
    digest.update(body)
    return digest.hexdigest().encode()
