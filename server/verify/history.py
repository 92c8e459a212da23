"""What a fault run leaves behind: everything that clients did and saw, on one monotonic clock. Values only.

checker.py judges them; actors.py and the others write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import orjson

Dependency = Literal["", "postgresql", "redis", "replica", "clients"]


class Seen(NamedTuple):
    """A room event as one client held it: its place and the digest of its bytes."""

    seq: int
    digest: bytes


class Logged(NamedTuple):
    """A room event as it stands in the log; `message` is the id of a message, else empty."""

    seq: int
    digest: bytes
    message: str


class Ack(NamedTuple):
    at: float
    seq: int


@dataclass(slots=True)
class Message:
    """One message as its sender saw it, over all attempts with its one id."""

    id: str
    room: str
    invoked_at: float
    acks: list[Ack] = field(default_factory=list)
    refused: int = 0  # attempts that were answered with a retryable error
    failed: int = 0  # attempts that were not answered
    rejected: str = ""  # the code of a refusal that is final

    @property
    def first_ack(self) -> Ack | None:
        return self.acks[0] if self.acks else None


@dataclass(slots=True)
class View:
    """What one client holds of a room at the end: events of its joins and events that arrived, as it applied them."""

    client: str
    room: str
    first_seq: int
    events: list[Seen] = field(default_factory=list)

    @property
    def last_seq(self) -> int:
        return self.events[-1].seq if self.events else self.first_seq


@dataclass(slots=True)
class Stay:
    """One socket of a user in a room: from the attempt to join, over the ack (if it came), to the end of the socket."""

    user: str
    room: str
    asked_at: float
    joined_at: float | None = None
    left_at: float | None = None


@dataclass(frozen=True, slots=True)
class Roster:
    """An answer to the question who is in a room; `stale`: the replica said that it knows only its own."""

    at: float
    room: str
    users: frozenset[str]
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Announcement:
    """`user_joined` or `user_left` as one connection heard it."""

    at: float
    listener: str  # one connection of one client
    room: str
    user: str
    joined: bool


@dataclass(frozen=True, slots=True)
class Request:
    """A REST request: `load` goes to any replica that says it is ready, `probe` to one whatever it says."""

    kind: Literal["load", "probe"]
    began_at: float
    ended_at: float
    status: int  # 0: no answer
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """An answer of `/health/ready`; status 0: none."""

    at: float
    replica: str
    status: int
    degraded: frozenset[str] = frozenset()


@dataclass(slots=True)
class Window:
    """The time of one fault. A gentle one is a promise kept by the server (a drain): nothing may fail in it.

    `away`: the dependency does not answer at all until healing begins.
    """

    fault: str
    dependency: Dependency
    began_at: float
    healing_at: float = float("inf")
    ended_at: float = float("inf")
    gentle: bool = False
    away: bool = False

    def touches(self, began: float, ended: float, healing: float = 0.0) -> bool:
        return began <= self.ended_at + healing and ended >= self.began_at


@dataclass(frozen=True, slots=True)
class Exit:
    """How a replica ended that was asked to (SIGTERM)."""

    replica: str
    code: int | None  # None: it had to be killed
    seconds: float


@dataclass(frozen=True, slots=True)
class Ending:
    """A connection that the other side ended; `announced`: it had said `going_away` before."""

    at: float
    client: str
    announced: bool


@dataclass(slots=True)
class History:
    """A whole run."""

    logs: dict[str, list[Logged]] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    rosters: list[Roster] = field(default_factory=list)
    announcements: list[Announcement] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    readiness: list[Readiness] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # lines that replicas logged at ERROR
    # What was not as before within the time that is promised, and how long it took until all was.
    unrecovered: list[str] = field(default_factory=list)
    recovered_after: float = 0.0
    repairs: int = 0
    resumes: int = 0


def digest(raw: bytes) -> bytes:
    return blake2b(raw, digest_size=12).digest()


def seen(event: Mapping[str, Any]) -> Seen:  # Any: JSON
    """An event that came inside a larger answer; written again in the order of its keys it has the same bytes."""
    return Seen(event["seq"], digest(orjson.dumps(event)))


def logged(event: Mapping[str, Any]) -> Logged:  # Any: JSON
    message = event["data"]["id"] if event["type"] == "message" else ""
    return Logged(event["seq"], digest(orjson.dumps(event)), message)
