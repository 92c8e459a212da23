"""The wire shapes of the classroom: REST bodies and answers, and the payloads of its commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic reads those of `typing` only from Python 3.12 on
)
from uuid import UUID

import orjson
from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from modules.auth import UserSummary
from modules.classroom.permissions import Kind, Role
from server.gateway.schema import Line, Page, PageQuery, Schema, Seq, Text, Timestamp, decode_cursor, encode_cursor
from server.realtime.wire import RoomEvent

Title = Annotated[Line, StringConstraints(min_length=1, max_length=200)]
RoomName = Annotated[Line, StringConstraints(min_length=1, max_length=100)]
Description = Annotated[Text, StringConstraints(max_length=10_000)]
JoinLimit = Annotated[int, Field(ge=1, description="Most events to answer.")]


class CourseIn(Schema):
    title: Title
    description: Description = ""


class CourseChange(Schema):
    """What to change; what is left out stays."""

    title: Title | None = None
    description: Description | None = None


class CourseOut(Schema):
    """A course as the caller sees it; `join_code` is null for those who may not invite."""

    id: UUID
    title: str
    description: str
    role: Role
    member_count: int
    join_code: str | None


class JoinIn(Schema):
    """A code that somebody was told; case and the space around it do not matter."""

    code: Annotated[Line, StringConstraints(min_length=1, max_length=32, to_upper=True)]


class MemberIn(Schema):
    user_id: UUID
    role: Role = "learner"


class MemberChange(Schema):
    role: Role


class MemberOut(Schema):
    user: UserSummary
    role: Role
    joined_at: Timestamp


class RoomIn(Schema):
    name: RoomName
    kind: Literal["class", "lounge"]


class RoomChange(Schema):
    """What to change; what is left out stays."""

    name: RoomName | None = None


class RoomOut(Schema):
    """A room; `status` is that of a class, "open" elsewhere, and `last_seq` the end of its log."""

    id: UUID
    course_id: UUID | None
    name: str
    kind: Kind
    status: Literal["idle", "live", "ended", "open"]
    last_seq: int


class StateOut(Schema):
    """The state of a room at `seq`: folding the events after `seq` keeps it current."""

    epoch: str
    seq: int
    state: dict[str, Any]  # Any: JSON; for a class its shape is in state.py


class ParticipantsOut(Schema):
    """Who is in a room now; `users` are the first 100, `stale` says that only a part of the servers was asked."""

    count: int
    users: Sequence[UserSummary]
    version: int
    stale: bool


class RoomEventOut(TypedDict):
    """An event of a room log, as sockets get it too."""

    room_id: UUID
    epoch: str
    seq: int
    type: str
    at: Timestamp
    actor: UserSummary | None
    cmd_id: NotRequired[UUID]
    data: dict[str, Any]  # Any: JSON; its shape belongs to the type of the event


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a log: the first `limit` events after a seq when `after` is given, else the last `limit`."""

    after: int | None
    before: int | None
    limit: int


class LogQuery(PageQuery):
    """A part of a room log: with `after` forwards from there, else the newest first pages, each in order of seq."""

    limit: int = Field(default=50, ge=1, le=500, description="Most events to answer.")
    after: Seq | None = Field(default=None, description="Only events behind this seq; reads forwards.")
    before: Seq | None = Field(default=None, description="Only events in front of this seq.")

    def span(self) -> Span:
        """Where to read.

        Raises:
            Invalid: the cursor is not one of such a list.
        """
        after, before = self.after, self.before
        if self.cursor is not None:
            after, before = decode_cursor(self.cursor, tuple[Seq | None, Seq | None])
        return Span(after, before, self.limit)


def log_page(events: Sequence[RoomEvent], span: Span, epoch: str) -> Page[RoomEventOut]:
    """Make a page of what was read with `span.limit` + 1, so that it shows whether there is more."""
    forwards, more = span.after is not None, len(events) > span.limit
    shown = events[: span.limit] if forwards else events[-span.limit :]
    cursor = None
    if more:
        cursor = encode_cursor((shown[-1].seq, span.before) if forwards else (None, shown[0].seq))
    return Page[RoomEventOut](items=[orjson.loads(event.json(epoch)) for event in shown], next_cursor=cursor)


class JoinRoom(Schema):
    """`after` and `epoch` of what is known already; without them the newest events."""

    room_id: UUID
    after: Seq | None = None
    epoch: str | None = Field(default=None, max_length=64)
    limit: JoinLimit = 200


class LeaveRoom(Schema):
    room_id: UUID


class ClassCommand(Schema):
    """A command without more to say; `cmd_id` makes a repetition harmless."""

    room_id: UUID
    cmd_id: UUID | None = None


class LowerHand(ClassCommand):
    """`user_id` is one's own when it is left out."""

    user_id: UUID | None = None


class CallOn(ClassCommand):
    user_id: UUID
