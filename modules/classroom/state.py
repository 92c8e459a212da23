"""The state of a live class: what it begins as, how it follows from the events of its log, and what may happen next.

Everything here is pure. The log calls the decisions under the room's lock and folds what they return; a client that
folds the same events over a snapshot gets the same state. A state is never changed in place: the log shares it between
commands.

    {"status": "idle" | "live" | "ended", "started_at": "…Z" | null, "ended_at": "…Z" | null,
     "hands": [{"user_id", "name", "raised_at"}], "called": {"user_id", "name"} | null}

Hands are in the order in which they were raised. Rooms that are no class have the state {}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from modules.classroom.errors import RoomClosed
from modules.classroom.permissions import STAFF, require_allowed
from server.actor import Actor
from server.errors import Conflict, Forbidden
from server.realtime.work import FoldedEvent, NewEvent, RoomView, State

Hand = dict[str, Any]  # Any: JSON, {"user_id", "name", "raised_at"}

_IDLE: State = {"status": "idle", "started_at": None, "ended_at": None, "hands": [], "called": None}


def initial_state(kind: str) -> State:
    """The state of a room without events."""
    return {**_IDLE, "hands": []} if kind == "class" else {}


def fold(kind: str, state: State, event: FoldedEvent) -> State:
    """Apply an event; the same object when it does not concern the state."""
    apply = _FOLDS.get(event.type) if kind == "class" else None
    return apply(state or _IDLE, event) if apply else state


def start_class(view: RoomView, actor: Actor) -> list[NewEvent]:
    """Begin, or begin again after the end; nothing when it is live.

    Raises:
        Conflict: the room is no class.
        Forbidden: the actor does not teach here.
    """
    require_allowed("start_class", view.role, view.kind)
    return [] if _is_live(view) else [NewEvent("class_started", {})]


def end_class(view: RoomView, actor: Actor) -> list[NewEvent]:
    """End a live class; nothing when it is not live.

    Raises:
        Conflict: the room is no class.
        Forbidden: the actor does not teach here.
    """
    require_allowed("end_class", view.role, view.kind)
    return [NewEvent("class_ended", {})] if _is_live(view) else []


def raise_hand(view: RoomView, actor: Actor) -> list[NewEvent]:
    """Raise the actor's hand; nothing when it is up.

    Raises:
        Conflict: the room is no class.
        Forbidden: the actor only looks on.
        RoomClosed: the class is not live.
    """
    require_allowed("raise_hand", view.role, view.kind)
    if not _is_live(view):
        raise RoomClosed
    if _hand_of(view, actor.user_id):
        return []
    return [NewEvent("hand_raised", {"user_id": str(actor.user_id), "name": actor.name})]


def lower_hand(view: RoomView, actor: Actor, user_id: UUID) -> list[NewEvent]:
    """Lower a hand, one's own or as a teacher anybody's; nothing when it is down.

    Raises:
        Conflict: the room is no class.
        Forbidden: the actor only looks on, or it is another's hand and the actor does not teach here.
    """
    require_allowed("lower_hand", view.role, view.kind)
    if user_id != actor.user_id and view.role not in STAFF:
        raise Forbidden("You can lower only your own hand.")
    return [NewEvent("hand_lowered", {"user_id": str(user_id)})] if _hand_of(view, user_id) else []


def call_on(view: RoomView, actor: Actor, user_id: UUID) -> list[NewEvent]:
    """Give the floor to somebody who has raised a hand; takes the hand down.

    Raises:
        Conflict: the room is no class, or the hand is not raised.
        Forbidden: the actor does not teach here.
        RoomClosed: the class is not live.
    """
    require_allowed("call_on", view.role, view.kind)
    if not _is_live(view):
        raise RoomClosed
    hand = _hand_of(view, user_id)
    if hand is None:
        raise Conflict("This person has not raised a hand, or has lowered it again.")
    return [NewEvent("hand_called", {"user_id": hand["user_id"], "name": hand["name"]})]


def _is_live(view: RoomView) -> bool:
    return view.state.get("status") == "live"


def _hand_of(view: RoomView, user_id: UUID) -> Hand | None:
    wanted = str(user_id)
    return next((hand for hand in view.state.get("hands", ()) if hand["user_id"] == wanted), None)


def _without(state: State, event: FoldedEvent) -> list[Hand]:
    return [hand for hand in state["hands"] if hand["user_id"] != event.data["user_id"]]


def _started(state: State, event: FoldedEvent) -> State:
    return {**state, "status": "live", "started_at": event.at, "ended_at": None}


def _ended(state: State, event: FoldedEvent) -> State:
    return {**state, "status": "ended", "ended_at": event.at, "hands": [], "called": None}


def _raised(state: State, event: FoldedEvent) -> State:
    hand = {"user_id": event.data["user_id"], "name": event.data["name"], "raised_at": event.at}
    return {**state, "hands": [*_without(state, event), hand]}


def _lowered(state: State, event: FoldedEvent) -> State:
    return {**state, "hands": _without(state, event)}


def _called(state: State, event: FoldedEvent) -> State:
    called = {"user_id": event.data["user_id"], "name": event.data["name"]}
    return {**state, "hands": _without(state, event), "called": called}


_FOLDS: Mapping[str, Callable[[State, FoldedEvent], State]] = {
    "class_started": _started,
    "class_ended": _ended,
    "hand_raised": _raised,
    "hand_lowered": _lowered,
    "hand_called": _called,
}
