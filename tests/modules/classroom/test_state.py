"""The class state as pure functions: decisions, folds, and what holds after any sequence of commands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.classroom import RoomClosed, fold, initial_state, permissions_of
from modules.classroom.state import call_on, end_class, lower_hand, raise_hand, start_class
from server.actor import Actor
from server.clock import rfc3339
from server.errors import Conflict, DomainError, Forbidden
from server.realtime.work import FoldedEvent, NewEvent, RoomView, State

ROOM = UUID(int=1)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def person(number: int) -> Actor:
    return Actor(UUID(int=number), f"Person {number}", None, "user", UUID(int=0), 0.0)


TEACHER, ANNA, BEN = person(100), person(101), person(102)


def view(state: State, role: str = "learner", kind: str = "class", now: datetime = NOON) -> RoomView:
    return RoomView(ROOM, kind, role, 0, state, now, {})


def apply(state: State, events: list[NewEvent], actor: Actor, now: datetime = NOON) -> State:
    for event in events:
        state = fold("class", state, FoldedEvent(event.type, rfc3339(now), actor.user_id, actor.name, event.data))
    return state


def live(*hands: Actor) -> State:
    state = apply(initial_state("class"), start_class(view(initial_state("class"), "owner"), TEACHER), TEACHER)
    for actor in hands:
        state = apply(state, raise_hand(view(state), actor), actor)
    return state


def test_a_class_begins_idle_and_other_rooms_have_no_state():
    assert initial_state("class") == {
        "status": "idle",
        "started_at": None,
        "ended_at": None,
        "hands": [],
        "called": None,
    }
    assert initial_state("lounge") == {}


def test_starting_makes_the_class_live():
    assert live() == {
        "status": "live",
        "started_at": "2026-11-22T12:00:00.000Z",
        "ended_at": None,
        "hands": [],
        "called": None,
    }


def test_starting_a_live_class_does_nothing():
    assert start_class(view(live(), "owner"), TEACHER) == []


def test_a_class_can_begin_again_after_its_end():
    ended = apply(live(ANNA), end_class(view(live(ANNA), "owner"), TEACHER), TEACHER)
    assert (ended["status"], ended["hands"], ended["called"]) == ("ended", [], None)
    [event] = start_class(view(ended, "owner"), TEACHER)
    again = apply(ended, [event], TEACHER)
    assert (again["status"], again["ended_at"]) == ("live", None)


def test_ending_what_is_not_live_does_nothing():
    assert end_class(view(initial_state("class"), "owner"), TEACHER) == []


@pytest.mark.parametrize("role", ["owner", "instructor", "assistant"])
def test_those_who_teach_start_and_end(role):
    assert start_class(view(initial_state("class"), role), TEACHER) == [NewEvent("class_started", {})]
    assert end_class(view(live(), role), TEACHER) == [NewEvent("class_ended", {})]


@pytest.mark.parametrize("role", ["learner", "observer"])
@pytest.mark.parametrize("decide", [start_class, end_class])
def test_others_neither_start_nor_end(role, decide):
    with pytest.raises(Forbidden):
        decide(view(live(), role), ANNA)


def test_hands_stand_in_the_order_in_which_they_were_raised():
    hands = live(BEN, ANNA)["hands"]
    assert [hand["name"] for hand in hands] == ["Person 102", "Person 101"]
    assert hands[0] == {"user_id": str(BEN.user_id), "name": "Person 102", "raised_at": "2026-11-22T12:00:00.000Z"}


def test_raising_a_raised_hand_does_nothing():
    assert raise_hand(view(live(ANNA)), ANNA) == []


@pytest.mark.parametrize("state", [initial_state("class"), apply(live(), [NewEvent("class_ended", {})], TEACHER), {}])
def test_hands_are_raised_only_while_live(state):
    with pytest.raises(RoomClosed):
        raise_hand(view(state), ANNA)


def test_observers_raise_no_hand():
    with pytest.raises(Forbidden):
        raise_hand(view(live(), "observer"), ANNA)


def test_a_learner_lowers_only_the_own_hand():
    state = live(ANNA)
    assert lower_hand(view(state), ANNA, ANNA.user_id) == [NewEvent("hand_lowered", {"user_id": str(ANNA.user_id)})]
    with pytest.raises(Forbidden):
        lower_hand(view(state), BEN, ANNA.user_id)


def test_a_teacher_lowers_any_hand():
    assert len(lower_hand(view(live(ANNA), "instructor"), TEACHER, ANNA.user_id)) == 1


def test_lowering_a_lowered_hand_does_nothing():
    assert lower_hand(view(live()), ANNA, ANNA.user_id) == []


def test_calling_takes_the_hand_down_and_names_the_person():
    state = live(ANNA, BEN)
    events = call_on(view(state, "instructor"), TEACHER, BEN.user_id)
    assert events == [NewEvent("hand_called", {"user_id": str(BEN.user_id), "name": "Person 102"})]
    state = apply(state, events, TEACHER)
    assert state["called"] == {"user_id": str(BEN.user_id), "name": "Person 102"}
    assert [hand["name"] for hand in state["hands"]] == ["Person 101"]


def test_nobody_is_called_who_has_not_raised_a_hand():
    with pytest.raises(Conflict, match="hand"):
        call_on(view(live(BEN), "instructor"), TEACHER, ANNA.user_id)


def test_learners_call_nobody():
    with pytest.raises(Forbidden):
        call_on(view(live(ANNA)), BEN, ANNA.user_id)


@pytest.mark.parametrize("decide", [start_class, end_class, raise_hand])
def test_a_lounge_is_no_class(decide):
    with pytest.raises(Conflict, match="class"):
        decide(view({}, "owner", "lounge"), TEACHER)


def test_what_does_not_concern_the_state_leaves_the_same_object():
    state = live()
    assert fold("class", state, FoldedEvent("message", "", ANNA.user_id, "Anna", {})) is state
    lounge = initial_state("lounge")
    assert fold("lounge", lounge, FoldedEvent("class_started", "", ANNA.user_id, "Anna", {})) is lounge


def test_learners_may_do_only_what_the_contract_marks():
    assert permissions_of("learner", "class") == ["message", "typing", "read", "history", "raise_hand", "lower_hand"]
    assert permissions_of("observer", "class") == ["read", "history"]
    assert {"start_class", "end_class", "call_on"} <= set(permissions_of("assistant", "class"))
    assert "start_class" not in permissions_of("owner", "lounge")


PEOPLE = [person(number) for number in range(1, 5)]
COMMANDS = st.lists(
    st.tuples(
        st.sampled_from(["start", "end", "raise", "lower", "call"]),
        st.sampled_from(PEOPLE),
        st.sampled_from(PEOPLE),
        st.sampled_from(["owner", "instructor", "assistant", "learner", "observer"]),
    ),
    max_size=40,
)


def decide(state: State, command: str, actor: Actor, target: Actor, role: str) -> list[NewEvent]:
    look = view(state, role)
    if command == "lower":
        return lower_hand(look, actor, target.user_id)
    if command == "call":
        return call_on(look, actor, target.user_id)
    return {"start": start_class, "end": end_class, "raise": raise_hand}[command](look, actor)


@given(COMMANDS)
def test_any_sequence_of_commands_keeps_the_state_sound(commands):
    state, log, now = initial_state("class"), [], NOON
    for command, actor, target, role in commands:
        now += timedelta(seconds=1)
        before = repr(state)
        try:
            events = decide(state, command, actor, target, role)
        except DomainError:
            continue
        after = apply(state, events, actor, now)
        assert repr(state) == before, "a state is never changed in place"
        log += [(event, actor, now) for event in events]
        state = after
        check(state)
    replayed = initial_state("class")
    for event, actor, moment in log:
        replayed = apply(replayed, [event], actor, moment)
    assert replayed == state


def check(state: dict[str, Any]) -> None:
    raised = [hand["user_id"] for hand in state["hands"]]
    assert len(raised) == len(set(raised))
    assert sorted(hand["raised_at"] for hand in state["hands"]) == [hand["raised_at"] for hand in state["hands"]]
    if state["status"] != "live":
        assert not raised
        assert state["called"] is None
    assert (state["status"] == "idle") is (state["started_at"] is None)
    assert (state["status"] == "ended") is (state["ended_at"] is not None)
