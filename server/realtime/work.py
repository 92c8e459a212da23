"""What passes through the room log: work and what it decides with, receipts, and the rules that a feature gives.

Values, and what follows from them alone; how they are written is log.py's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from server.actor import Actor
from server.clock import rfc3339
from server.database import Connection
from server.errors import Conflict, IdempotencyKeyReused
from server.realtime import wire

State = dict[str, Any]  # Any: JSON; its shape belongs to the feature that folds it


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that a decision wants in the log."""

    type: str
    data: dict[str, Any]  # Any: JSON; each module checks its own shapes


@dataclass(frozen=True, slots=True)
class RoomView:
    """What a decision may look at: the room under its lock, and the actor's place in it."""

    id: UUID
    kind: str
    role: str  # of the actor in this room
    last_seq: int
    state: State
    now: datetime
    messages: dict[UUID, int]  # seq of each known message among `Work.refers_to`


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a committed command did; its ack."""

    seq: int  # of its first event; the head of the room when it had none
    at: datetime
    duplicate: bool = False

    def ack(self) -> dict[str, Any]:
        """`{"seq", "at", "duplicate"?}`"""
        ack: dict[str, Any] = {"seq": self.seq, "at": rfc3339(self.at)}
        return {**ack, "duplicate": True} if self.duplicate else ack


@dataclass(frozen=True, slots=True)
class Known:
    """What a `cmd_id` is known to have done: a row of cmd_ids, or one that is about to be written."""

    actor_id: UUID
    command: str
    fingerprint: bytes
    receipt: Receipt


Decide = Callable[[RoomView], Sequence[NewEvent]]


@dataclass(slots=True, eq=False)
class Work:
    """One command on one room, as its service hands it to the write path.

    `payload` is what makes two uses of one `cmd_id` the same command; `refers_to` are ids of messages that the decision
    wants to know about; `owns_id` says that `cmd_id` names something in the room (a message), so that nobody else may
    use it.
    """

    room_id: UUID
    actor: Actor
    command: str
    decide: Decide
    cmd_id: UUID | None = None
    payload: bytes = b""
    refers_to: tuple[UUID, ...] = ()
    owns_id: bool = False
    misses: int = 0
    done: asyncio.Future[Receipt] = field(init=False)

    @property
    def fingerprint(self) -> bytes:
        return hashlib.blake2b(self.command.encode() + b"\0" + self.payload, digest_size=16).digest()

    def first_receipt(self, known: Sequence[Known]) -> Receipt | None:
        """The receipt of the first use of this `cmd_id`, None when this is the first.

        Raises:
            IdempotencyKeyReused: this actor used it with another payload.
            Conflict: it names something of somebody else.
        """
        for entry in known:
            if entry.actor_id == self.actor.user_id:
                if entry.fingerprint != self.fingerprint:
                    raise IdempotencyKeyReused
                return entry.receipt
            if self.owns_id and entry.command == self.command:
                raise Conflict("This id belongs to somebody else's message. Make a new one.")
        return None

    def encode(self, event: NewEvent, at: str) -> bytes:
        """The stored part of an event of this command: `{"type", "at", "actor", "cmd_id"?, "data"}`."""
        actor = {"id": str(self.actor.user_id), "name": self.actor.name, "avatar_url": self.actor.avatar_url}
        body: dict[str, Any] = {"type": event.type, "at": at, "actor": actor}
        if self.cmd_id:
            body["cmd_id"] = str(self.cmd_id)
        return wire.dumps({**body, "data": event.data})


@dataclass(frozen=True, slots=True)
class FoldedEvent:
    """An event as `fold` sees it; a client sees the same fields."""

    type: str
    at: str
    actor_id: UUID
    actor_name: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RoomRules:
    """What the log must know of the features, given by the composition root.

    `read_roles(conn, pairs)` finds the role of each (room, actor) that has one; `fold(kind, state, event)` applies an
    event to the state of a room and returns the same object when nothing changed.
    """

    read_roles: Callable[[Connection, Sequence[tuple[UUID, Actor]]], Awaitable[dict[tuple[UUID, UUID], str]]]
    fold: Callable[[str, State, FoldedEvent], State]


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a room's log, with the state there: one row, so always of one moment."""

    seq: int
    state: bytes  # JSON
