"""Use cases of chat: sending and reading messages, read marks, typing. Both doors come through here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from modules.chat import store
from modules.chat.schemas import MessageIn
from modules.chat.store import Unread
from modules.classroom import Room, Span, access_room, require_allowed, require_limit
from server.actor import Actor
from server.errors import FieldError, Invalid
from server.metrics import CHAT_MESSAGES
from server.realtime import wire
from server.realtime.wire import RoomEvent
from server.realtime.work import NewEvent, Receipt, RoomView, Work

if TYPE_CHECKING:
    from server.runtime import Runtime

MOST_UNREAD = 1000  # messages; nobody reads a larger number on a badge


async def send_message(rt: Runtime, actor: Actor, room_id: UUID, message: MessageIn) -> Receipt:
    """Put a message into a room; the same id with the same content is put there once.

    Raises:
        RateLimited: the actor writes faster than `chat.message_rate` in this room.
        Invalid: too long, an attachment, or an answer to what is no message of the room.
        NotFound, Forbidden: the actor cannot see the room, or only looks on.
        Conflict: the id is that of somebody else's message.
        IdempotencyKeyReused: the actor used the id for something else.
    """
    chat = rt.settings.chat
    _check(message, chat.message_max_length)
    rt.limits.take("message", (room_id, actor.user_id), rate=chat.message_rate, burst=chat.message_burst)
    data = _event_data(message)

    def decide(view: RoomView) -> list[NewEvent]:
        return decide_message(view, message.reply_to, data)

    refers_to = (message.reply_to,) if message.reply_to else ()
    work = Work(
        room_id,
        actor,
        "message",
        decide,
        cmd_id=message.id,
        payload=wire.dumps(data),
        refers_to=refers_to,
        owns_id=True,
    )
    receipt = await rt.log.commit(work)
    if not receipt.duplicate:
        CHAT_MESSAGES.inc()
    return receipt


def decide_message(view: RoomView, reply_to: UUID | None, data: dict[str, Any]) -> list[NewEvent]:
    """Let a message into the log; a class takes them before, during and after it is live. Pure.

    Raises:
        Forbidden: the actor only looks on.
        Invalid: `reply_to` is no message of this room.
    """
    require_allowed("message", view.role, view.kind)
    if reply_to is not None and reply_to not in view.messages:
        raise Invalid(errors=[FieldError(("reply_to",), "There is no such message in this room.")])
    return [NewEvent("message", data)]


async def get_event(rt: Runtime, room_id: UUID, seq: int) -> RoomEvent:
    """The event that a receipt of this room names."""
    (event,) = await rt.log.read(room_id, after=seq - 1, to=seq, limit=1)
    return event


async def read_history(rt: Runtime, actor: Actor, room_id: UUID, *, before: int | None, limit: int) -> list[RoomEvent]:
    """The last events of all types in front of a seq, in order.

    Raises:
        NotFound: the actor cannot see the room.
        Invalid: more events than this server reads at once.
    """
    require_limit(rt, limit)
    await _access(rt, actor, room_id)
    return await rt.log.read_back(room_id, before=before, limit=limit)


async def list_messages(rt: Runtime, actor: Actor, room_id: UUID, span: Span) -> list[RoomEvent]:
    """The messages in a part of the log in order of seq, and one more when there are more.

    Raises:
        NotFound: the actor cannot see the room.
        Invalid: more events than this server reads at once.
    """
    require_limit(rt, span.limit)
    await _access(rt, actor, room_id)
    if span.after is None:
        return await rt.log.read_back(room_id, before=span.before, limit=span.limit + 1, only="message")
    async with rt.database.connection() as conn:
        return await store.read_messages(conn, room_id, after=span.after, before=span.before, limit=span.limit + 1)


async def mark_read(rt: Runtime, actor: Actor, room_id: UUID, seq: int) -> None:
    """Remember that everything up to `seq` was read, and tell the reader's other devices; in small rooms everybody.

    A mark only moves forward and never beyond the end of the log; what would not move it does nothing.

    Raises:
        NotFound: the actor cannot see the room.
    """
    async with rt.database.connection() as conn:
        room = await access_room(conn, actor, room_id)
        moved = await store.move_read_mark(conn, room_id, actor.user_id, seq)
    if moved is not None:
        audience = "" if room.kind in ("direct", "group") else f"+{actor.user_id}"
        data = {"room_id": str(room_id), "user_id": str(actor.user_id), "seq": moved}
        rt.rooms.announce(room_id, "read", data, audience)


async def list_unread(rt: Runtime, actor: Actor) -> list[Unread]:
    """All rooms of the actor with what is unread there; in courses that an admin only oversees nothing counts."""
    async with rt.database.connection() as conn:
        return await store.list_unread(conn, actor.user_id, most=MOST_UNREAD)


async def announce_typing(rt: Runtime, actor: Actor, room_id: UUID, *, on: bool) -> None:
    """Tell the others that the actor writes or has stopped; more often than `chat.typing_interval` it is dropped.

    Raises:
        NotFound, Forbidden: the actor cannot see the room, or only looks on.
    """
    interval = rt.settings.chat.typing_interval
    if interval and rt.limits.try_take("typing", (room_id, actor.user_id), rate=1 / interval, burst=1):
        return
    room = await _access(rt, actor, room_id)
    require_allowed("typing", room.role, room.kind)
    data = {"room_id": str(room_id), "user_id": str(actor.user_id), "name": actor.name, "on": on}
    rt.rooms.announce(room_id, "typing", data, f"-{actor.user_id}")


async def _access(rt: Runtime, actor: Actor, room_id: UUID) -> Room:
    async with rt.database.connection() as conn:
        return await access_room(conn, actor, room_id)


def _check(message: MessageIn, most: int) -> None:
    errors = []
    if len(message.text) > most:
        errors.append(FieldError(("text",), f"Write at most {most} characters."))
    if message.attachments:
        errors.append(FieldError(("attachments",), "There are no files that could be attached. Leave this empty."))
    if errors:
        raise Invalid(errors=errors)


def _event_data(message: MessageIn) -> dict[str, Any]:
    """`{"id", "text", "reply_to", "attachments", "mentions"}`, ids as text."""
    return {
        "id": str(message.id),
        "text": message.text,
        "reply_to": str(message.reply_to) if message.reply_to else None,
        "attachments": [],
        "mentions": [str(user_id) for user_id in message.mentions],
    }
