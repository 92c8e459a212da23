"""The checker itself: a clean history passes, and each kind of damage is found."""

from copy import deepcopy

import pytest

from tests.system.history import Sent, View, check

LOG = [{"seq": seq, "type": "message", "data": {"id": f"m{seq}"}} for seq in range(1, 6)]


def history():
    sent = [Sent(f"m{seq}", invoked_at=seq, acked_at=seq + 0.5, seq=seq) for seq in range(1, 6)]
    return deepcopy(LOG), sent, [View(0, deepcopy(LOG)), View(2, deepcopy(LOG[2:]))]


def test_a_clean_history_has_no_problem():
    verdict = check(*history())
    assert verdict.problems == ()
    assert (verdict.sent, verdict.acked, verdict.received) == (5, 5, 8)


def test_an_unacked_message_may_be_in_the_log_or_not():
    log, sent, views = history()
    sent[4].acked_at = sent[4].seq = None
    sent.append(Sent("never arrived", invoked_at=9))
    assert check(log, sent, views).problems == ()


def damage(kind):
    log, sent, views = history()
    if kind == "acked message missing in the log":
        log.pop()
        views = []
    elif kind == "acked with another seq":
        sent[0].seq = 9
    elif kind == "stored twice":
        log.append({"seq": 6, "type": "message", "data": {"id": "m1"}})
        views = []
    elif kind == "gap in the log":
        del log[2]
        views = []
    elif kind == "later message stands earlier":
        sent[0].seq, sent[4].seq = 5, 1
        log[0]["data"]["id"], log[4]["data"]["id"] = "m5", "m1"
        views = []
    elif kind == "view with a gap":
        del views[0].events[2]
    elif kind == "view that ends early":
        views[0].events.pop()
    elif kind == "event delivered twice":
        views[0].events.insert(3, views[0].events[2])
    elif kind == "events swapped":
        events = views[0].events
        events[1], events[2] = events[2], events[1]
    elif kind == "event that was never committed":
        views[0].events[1] = {"seq": 2, "type": "message", "data": {"id": "another"}}
    return log, sent, views


@pytest.mark.parametrize(
    ("kind", "finding"),
    [
        ("acked message missing in the log", "lost"),
        ("acked with another seq", "lost"),
        ("stored twice", "doubled"),
        ("gap in the log", "reordered"),
        ("later message stands earlier", "reordered"),
        ("view with a gap", "lost"),
        ("view that ends early", "lost"),
        ("event delivered twice", "doubled"),
        ("events swapped", "doubled"),
        ("event that was never committed", "uncommitted"),
    ],
)
def test_each_kind_of_damage_is_found(kind, finding):
    verdict = check(*damage(kind))
    assert getattr(verdict, finding) > 0
