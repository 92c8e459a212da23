"""The checker itself: a clean history passes, and each kind of damage is found."""

import pytest

from server.verify.checker import check
from server.verify.history import (
    Ack,
    Announcement,
    Ending,
    Exit,
    History,
    Logged,
    Message,
    Readiness,
    Request,
    Roster,
    Seen,
    Stay,
    View,
    Window,
)

ROOM = "room"
ANNA = frozenset(("anna",))


def bytes_of(seq):
    return f"event {seq}".encode()


def clean():
    """Five messages, two clients who see them, a person who comes at 1 and goes at 50; a fault from 20 to 31."""
    return History(
        logs={ROOM: [Logged(seq, bytes_of(seq), f"m{seq}") for seq in range(1, 6)]},
        messages=[Message(f"m{seq}", ROOM, float(seq), [Ack(seq + 0.5, seq)]) for seq in range(1, 6)],
        views=[
            View("first", ROOM, 0, [Seen(seq, bytes_of(seq)) for seq in range(1, 6)]),
            View("second", ROOM, 2, [Seen(seq, bytes_of(seq)) for seq in range(3, 6)]),
        ],
        stays=[Stay("anna", ROOM, 0.9, 1.0, 50.0)],
        rosters=[Roster(2.0, ROOM, ANNA), Roster(52.0, ROOM, ANNA)],
        announcements=[Announcement(50.1, "first#1", ROOM, "anna", False)],
        requests=[Request("probe", 1.0, 1.1, 200), Request("probe", 21.0, 24.0, 503)],
        readiness=[Readiness(1.0, "one", 200), Readiness(29.0, "one", 503)],
        windows=[Window("postgresql_hung", "postgresql", 20.0, 30.0, 31.0, away=True)],
        exits=[Exit("one", 0, 2.0)],
        endings=[Ending(25.0, "first", False), Ending(60.0, "first", True)],
    )


def test_a_clean_history_has_no_problem():
    verdict = check(clean())
    assert verdict.problems == []
    assert verdict.passed
    assert verdict.counts["sent"] == verdict.counts["acked"] == 5
    assert verdict.counts["received"] == 8
    assert (verdict.counts["ghosts"], verdict.counts["longest_ghost"]) == (1, 2.0)


def test_an_unacked_message_may_be_in_the_log_or_not():
    history = clean()
    history.messages[4].acks.clear()
    history.messages.append(Message("never arrived", ROOM, 9.0))
    assert check(history).passed


def test_a_replica_that_is_stopped_may_answer_late():
    history = clean()
    history.windows.append(Window("replica_hung", "replica", 60.0, 70.0, 70.0))
    history.requests.append(Request("probe", 61.0, 68.0, 0))
    assert check(history).passed


def damage_messages(history, kind):
    log, messages = history.logs[ROOM], history.messages
    match kind:
        case "acked message missing in the log":
            log.pop()
            history.views.clear()
        case "acked with another seq":
            messages[0].acks[0] = Ack(1.5, 9)
        case "acked by two replicas with two seqs":
            messages[0].acks.append(Ack(1.6, 2))
        case "stored twice":
            log.append(Logged(6, b"", "m1"))
            history.views.clear()
        case "gap in the log":
            del log[2]
            history.views.clear()
        case "later message stands earlier":
            messages[0].acks[0], messages[4].acks[0] = Ack(1.5, 5), Ack(5.5, 1)
            log[0], log[4] = log[0]._replace(message="m5"), log[4]._replace(message="m1")
        case "refused for good":
            messages[0].rejected = "internal"


def damage_views(history, kind):
    events = history.views[0].events
    match kind:
        case "view with a gap":
            del events[2]
        case "view that ends early":
            events.pop()
        case "event delivered twice":
            events.insert(3, events[2])
        case "events swapped":
            events[1], events[2] = events[2], events[1]
        case "event that was never committed":
            events[1] = Seen(2, b"other bytes")


def damage_presence(history, kind):
    match kind:
        case "shown too long":
            history.rosters.append(Roster(71.0, ROOM, ANNA))
        case "not shown":
            history.rosters.append(Roster(15.0, ROOM, frozenset()))
        case "said to have left who is there":
            history.announcements.insert(0, Announcement(10.0, "first#1", ROOM, "anna", False))
        case "departure announced twice":
            history.announcements.append(Announcement(53.0, "first#1", ROOM, "anna", False))


def damage_answers(history, kind):
    match kind:
        case "answered too late":
            history.requests.append(Request("probe", 21.0, 26.0, 503))
        case "request failed without a fault":
            history.requests.append(Request("load", 60.0, 60.1, 503))
        case "request failed in a drain":
            history.windows.append(Window("rolling_restart", "", 60.0, 61.0, 61.0, gentle=True))
            history.requests.append(Request("load", 60.0, 60.1, 0))
        case "internal error in a fault":
            history.requests.append(Request("load", 25.0, 25.1, 500))
        case "ready without PostgreSQL":
            history.readiness.append(Readiness(29.0, "one", 200))
        case "degraded for ever":
            history.readiness.append(Readiness(60.0, "one", 200, frozenset(("redis",))))
        case "not as before in time":
            history.unrecovered.append("degraded")


def damage_without_redis(history, kind):
    history.windows = [Window("redis_hung", "redis", 20.0, 30.0, 31.0, away=True)]
    match kind:
        case "not ready without Redis":
            history.readiness = [Readiness(29.0, "one", 503)]
            history.messages[4].acks.append(Ack(25.0, 5))
        case "no chat without Redis":
            history.readiness = []


def damage_ends(history, kind):
    match kind:
        case "wrong exit code":
            history.exits.append(Exit("one", 1, 2.0))
        case "exit too late":
            history.exits.append(Exit("one", 0, 26.0))
        case "cut off without a word":
            history.endings.append(Ending(70.0, "first", False))
        case "something left":
            history.leaks.append("a key")
        case "error logged":
            history.errors.append("task failed")


@pytest.mark.parametrize(
    ("damage", "kind", "finding"),
    [
        (damage_messages, "acked message missing in the log", "lost"),
        (damage_messages, "acked with another seq", "lost"),
        (damage_messages, "acked by two replicas with two seqs", "lost"),
        (damage_messages, "stored twice", "doubled"),
        (damage_messages, "gap in the log", "reordered"),
        (damage_messages, "later message stands earlier", "reordered"),
        (damage_messages, "refused for good", "rejected"),
        (damage_views, "view with a gap", "lost"),
        (damage_views, "view that ends early", "lost"),
        (damage_views, "event delivered twice", "doubled"),
        (damage_views, "events swapped", "doubled"),
        (damage_views, "event that was never committed", "uncommitted"),
        (damage_presence, "shown too long", "ghost"),
        (damage_presence, "not shown", "missing"),
        (damage_presence, "said to have left who is there", "misannounced"),
        (damage_presence, "departure announced twice", "misannounced"),
        (damage_answers, "answered too late", "late"),
        (damage_answers, "request failed without a fault", "failed"),
        (damage_answers, "request failed in a drain", "failed"),
        (damage_answers, "internal error in a fault", "failed"),
        (damage_answers, "ready without PostgreSQL", "unhealthy"),
        (damage_answers, "degraded for ever", "unhealthy"),
        (damage_answers, "not as before in time", "unhealthy"),
        (damage_without_redis, "not ready without Redis", "unhealthy"),
        (damage_without_redis, "no chat without Redis", "unhealthy"),
        (damage_ends, "wrong exit code", "undrained"),
        (damage_ends, "exit too late", "undrained"),
        (damage_ends, "cut off without a word", "undrained"),
        (damage_ends, "something left", "leaked"),
        (damage_ends, "error logged", "error"),
    ],
)
def test_each_kind_of_damage_is_found(damage, kind, finding):
    history = clean()
    damage(history, kind)
    verdict = check(history)
    assert verdict.findings[finding] > 0
    assert not verdict.passed
    assert any(problem.startswith(f"{finding}: ") for problem in verdict.problems)
