"""The wire shapes of chat: a message as it is sent, and the payloads of the other commands."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from server.gateway.schema import Schema, Seq

MENTIONS = 50
ATTACHMENTS = 10


def _storable(text: str) -> str:
    """Kept as it was written: only what PostgreSQL cannot hold (NUL) and what nobody could see is refused."""
    if "\0" in text:
        raise ValueError("Remove the NUL character.")
    if not text.strip():
        raise ValueError("Write something first.")
    return text


MessageText = Annotated[str, Field(min_length=1), AfterValidator(_storable)]


class MessageIn(Schema):
    """A message; `id` is made by the client (any UUID), so that sending it again sends it once."""

    id: UUID
    text: MessageText
    reply_to: UUID | None = None
    attachments: tuple[UUID, ...] = Field(default=(), max_length=ATTACHMENTS)
    mentions: tuple[UUID, ...] = Field(default=(), max_length=MENTIONS)


class SendMessage(MessageIn):
    room_id: UUID


class History(Schema):
    """The last `limit` events in front of `before`; of the whole log without it."""

    room_id: UUID
    before: Seq | None = None
    limit: int = Field(default=100, ge=1)


class Typing(Schema):
    room_id: UUID
    on: bool


class ReadIn(Schema):
    """Everything up to `seq` was read."""

    seq: Seq


class Read(ReadIn):
    room_id: UUID


class UnreadOut(Schema):
    """How far a person has read in a room; `unread` counts the messages of others behind that, up to 1000."""

    room_id: UUID
    last_seq: int
    read_seq: int
    unread: int
