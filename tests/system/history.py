"""What clients did and saw, and the check of it against the log: GUARANTEES.md G1 as a pure function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Sent:
    """One message: when it was first sent, and when and with which seq it was acked, on one monotonic clock."""

    id: str
    invoked_at: float
    acked_at: float | None = None
    seq: int | None = None


@dataclass
class View:
    """What one client holds at the end: events of its joins and events that arrived, in the order it applied them."""

    first_seq: int
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """Counts for people, and the findings that must be none."""

    sent: int
    acked: int
    received: int
    lost: int
    doubled: int
    reordered: int
    uncommitted: int
    problems: tuple[str, ...]

    def __str__(self) -> str:
        counts = ("sent", "acked", "received", "lost", "doubled", "reordered", "uncommitted")
        return ", ".join(f"{name} {getattr(self, name)}" for name in counts)


def check(log: Sequence[Mapping[str, Any]], sent: Sequence[Sent], views: Sequence[View]) -> Verdict:
    """Compare histories with the log of one room, which is given from seq 1 on."""
    findings = _Findings()
    seqs = [event["seq"] for event in log]
    if seqs != list(range(1, len(seqs) + 1)):
        findings.add("reordered", "the log has gaps or is out of order")
    _check_acks(log, sent, findings)
    _check_causality(sent, findings)
    for number, view in enumerate(views):
        _check_view(number, view, log, findings)
    return Verdict(
        sent=len(sent),
        acked=sum(message.acked_at is not None for message in sent),
        received=sum(len(view.events) for view in views),
        problems=tuple(findings.texts),
        **{kind: findings.counts[kind] for kind in ("lost", "doubled", "reordered", "uncommitted")},
    )


class _Findings:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.texts: list[str] = []

    def add(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        self.texts.append(f"{kind}: {text}")


def _check_acks(log: Sequence[Mapping[str, Any]], sent: Sequence[Sent], findings: _Findings) -> None:
    places: dict[str, list[int]] = {}
    for event in log:
        if event["type"] == "message":
            places.setdefault(event["data"]["id"], []).append(event["seq"])
    for message in sent:
        found = places.get(message.id, [])
        if len(found) > 1:
            findings.add("doubled", f"{message.id} stands at {found}")
        if message.acked_at is not None and message.seq not in found:
            findings.add("lost", f"{message.id} was acked with {message.seq} and stands at {found}")


def _check_causality(sent: Sequence[Sent], findings: _Findings) -> None:
    """If A was acked before B was first sent, then A stands before B."""
    acked = sorted((m for m in sent if m.acked_at is not None and m.seq), key=lambda m: m.acked_at or 0.0)
    later = sorted((m for m in sent if m.seq), key=lambda m: m.invoked_at)
    highest, position = 0, 0
    for message in later:
        while position < len(acked) and (acked[position].acked_at or 0.0) < message.invoked_at:
            highest = max(highest, acked[position].seq or 0)
            position += 1
        if (message.seq or 0) <= highest:
            findings.add("reordered", f"{message.id} has {message.seq}, after {highest} was acked")


def _check_view(number: int, view: View, log: Sequence[Mapping[str, Any]], findings: _Findings) -> None:
    by_seq = {event["seq"]: event for event in log}
    last = view.first_seq
    for event in view.events:
        if by_seq.get(event["seq"]) != event:
            findings.add("uncommitted", f"client {number} has {event['seq']}, the log does not, or otherwise")
        if event["seq"] <= last:
            findings.add("doubled", f"client {number} got {event['seq']} after {last}")
        elif event["seq"] > last + 1:
            findings.add("lost", f"client {number} got {event['seq']} after {last}")
        last = max(last, event["seq"])
    if log and last < log[-1]["seq"]:
        findings.add("lost", f"client {number} ends at {last}, the log at {log[-1]['seq']}")
