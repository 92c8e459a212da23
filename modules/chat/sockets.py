"""Commands of chat, in both namespaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from modules.chat import service
from modules.chat.schemas import History, Read, SendMessage, Typing
from server.realtime.namespace import Command
from server.realtime.protocol import Socket

if TYPE_CHECKING:
    from server.runtime import Runtime

Ack = Mapping[str, Any]  # Any: JSON


async def message(rt: Runtime, socket: Socket, payload: SendMessage) -> Ack:
    return (await service.send_message(rt, socket.actor, payload.room_id, payload)).ack()


async def history(rt: Runtime, socket: Socket, payload: History) -> Ack:
    events = await service.read_history(rt, socket.actor, payload.room_id, before=payload.before, limit=payload.limit)
    return {"events": [orjson.Fragment(event.json(rt.log.epoch)) for event in events]}


async def typing(rt: Runtime, socket: Socket, payload: Typing) -> Ack:
    rt.rooms.require_joined(socket, payload.room_id)
    await service.announce_typing(rt, socket.actor, payload.room_id, on=payload.on)
    return {}


async def read(rt: Runtime, socket: Socket, payload: Read) -> Ack:
    await service.mark_read(rt, socket.actor, payload.room_id, payload.seq)
    return {}


COMMANDS = (
    Command("message", SendMessage, message, "Send a message."),
    Command("history", History, history, "Read the log of a room backwards."),
    Command("typing", Typing, typing, "Tell the others that you write, or have stopped."),
    Command("read", Read, read, "Remember how far you have read."),
)
