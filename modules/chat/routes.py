"""HTTP of chat: parse → service → answer."""

from __future__ import annotations

from uuid import UUID

import orjson
from pydantic import RootModel

from modules.chat import service
from modules.chat.schemas import MessageIn, ReadIn, UnreadOut
from modules.classroom import LogQuery, RoomEventOut, log_page
from server.errors import Conflict, Forbidden, IdempotencyKeyReused, NotFound, RateLimited
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.schema import Page


class MessageOut(RootModel[RoomEventOut]):
    """The room event of a message."""


@endpoint(summary="Read the messages of a room.", errors=(NotFound,))
async def list_messages(call: Call, room_id: UUID, query: LogQuery) -> Page[RoomEventOut]:
    """With `after` those behind it, else the newest (`before`: in front of it); a page is in order of `seq`."""
    span = query.span()
    messages = await service.list_messages(call.rt, call.actor, room_id, span)
    return log_page(messages, span, call.rt.log.epoch)


@endpoint(
    summary="Send a message.",
    status=201,
    errors=(NotFound, Forbidden, Conflict, IdempotencyKeyReused, RateLimited),
)
async def send_message(call: Call, room_id: UUID, body: MessageIn) -> MessageOut:
    """The same `id` with the same content answers the message that it has made before."""
    receipt = await service.send_message(call.rt, call.actor, room_id, body)
    event = await service.get_event(call.rt, room_id, receipt.seq)
    return MessageOut.model_validate(orjson.loads(event.json(call.rt.log.epoch)))


@endpoint(summary="Remember how far you have read.", errors=(NotFound,))
async def mark_read(call: Call, room_id: UUID, body: ReadIn) -> None:
    await service.mark_read(call.rt, call.actor, room_id, body.seq)


@endpoint(summary="Count what is unread in each of your rooms.")
async def list_unread(call: Call) -> Page[UnreadOut]:
    found = await service.list_unread(call.rt, call.actor)
    return Page(
        items=[
            UnreadOut(room_id=item.room_id, last_seq=item.last_seq, read_seq=item.read_seq, unread=item.unread)
            for item in found
        ]
    )


ROUTES = (
    route("GET", "/api/chat/rooms/{room_id}/messages", list_messages),
    route("POST", "/api/chat/rooms/{room_id}/messages", send_message),
    route("PUT", "/api/chat/rooms/{room_id}/read", mark_read),
    route("GET", "/api/chat/unread", list_unread),
)
