"""Commands of the classroom: joining rooms in both namespaces, and the live class in `/classroom`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import orjson

from modules.classroom import service
from modules.classroom.permissions import permissions_of
from modules.classroom.schemas import CallOn, ClassCommand, JoinRoom, LeaveRoom, LowerHand
from modules.classroom.store import Room
from server.realtime.namespace import CLASSROOM, Command
from server.realtime.protocol import Reply, Socket

if TYPE_CHECKING:
    from server.realtime.catchup import CaughtUp
    from server.runtime import Runtime

Ack = Mapping[str, Any]  # Any: JSON


async def join_room(rt: Runtime, socket: Socket, payload: JoinRoom) -> Reply:
    """Subscribe to a room; the socket receives only behind this ack.

    Raises:
        NotFound: the actor cannot see the room.
        Invalid: `limit` is larger than this server reads at once.
        RateLimited: the connection is in too many rooms.
    """
    service.require_limit(rt, payload.limit)
    await service.get_room(rt, socket.actor, payload.room_id)  # before a subscription is spent on a stranger
    joined = await rt.rooms.join(socket, payload.room_id, after=payload.after, epoch=payload.epoch, limit=payload.limit)
    with ExitStack() as undo:
        undo.callback(rt.rooms.leave, socket, payload.room_id)
        # Again: whoever was put out while joining was not yet there to be cut off.
        room = await service.get_room(rt, socket.actor, payload.room_id)
        undo.pop_all()
    return Reply(_join_ack(room, joined.caught_up, payload), after_ack=joined.activate)


async def leave_room(rt: Runtime, socket: Socket, payload: LeaveRoom) -> Ack:
    rt.rooms.leave(socket, payload.room_id)
    return {}


async def start_class(rt: Runtime, socket: Socket, payload: ClassCommand) -> Ack:
    return (await service.start_class(rt, socket.actor, payload.room_id, payload.cmd_id)).ack()


async def end_class(rt: Runtime, socket: Socket, payload: ClassCommand) -> Ack:
    return (await service.end_class(rt, socket.actor, payload.room_id, payload.cmd_id)).ack()


async def raise_hand(rt: Runtime, socket: Socket, payload: ClassCommand) -> Ack:
    return (await service.raise_hand(rt, socket.actor, payload.room_id, payload.cmd_id)).ack()


async def lower_hand(rt: Runtime, socket: Socket, payload: LowerHand) -> Ack:
    receipt = await service.lower_hand(rt, socket.actor, payload.room_id, payload.cmd_id, user_id=payload.user_id)
    return receipt.ack()


async def call_on(rt: Runtime, socket: Socket, payload: CallOn) -> Ack:
    receipt = await service.call_on(rt, socket.actor, payload.room_id, payload.cmd_id, user_id=payload.user_id)
    return receipt.ack()


def _join_ack(room: Room, joined: CaughtUp, asked: JoinRoom) -> dict[str, Any]:
    """`{room, you, epoch, seq, resumed, events, truncated, snapshot?, participants}`, all of it as of `seq`."""
    state = orjson.loads(joined.state)
    ack: dict[str, Any] = {
        "room": {
            "id": room.id,
            "course_id": room.course_id,
            "name": room.name,
            "kind": room.kind,
            "status": state.get("status", room.status),
            "last_seq": joined.seq,
        },
        "you": {"role": room.role, "permissions": permissions_of(room.role, room.kind)},
        "epoch": joined.epoch,
        "seq": joined.seq,
        "resumed": joined.resumed,
        "events": orjson.Fragment(joined.events),
        "truncated": joined.truncated,
        "participants": joined.participants.ack(),
    }
    # A class always begins from a snapshot; elsewhere one tells a client that it cannot go on from where it was.
    if not joined.resumed and (room.kind == "class" or asked.after is not None):
        ack["snapshot"] = {"epoch": joined.epoch, "seq": joined.seq, "state": state}
    return ack


COMMANDS = (
    Command("join_room", JoinRoom, join_room, "Subscribe to a room and catch up."),
    Command("leave_room", LeaveRoom, leave_room, "Stop to receive a room."),
    Command("start_class", ClassCommand, start_class, "Begin the class.", (CLASSROOM,)),
    Command("end_class", ClassCommand, end_class, "End the class.", (CLASSROOM,)),
    Command("raise_hand", ClassCommand, raise_hand, "Raise your hand.", (CLASSROOM,)),
    Command("lower_hand", LowerHand, lower_hand, "Lower your hand, or as a teacher another's.", (CLASSROOM,)),
    Command("call_on", CallOn, call_on, "Give the floor to somebody whose hand is raised.", (CLASSROOM,)),
)
