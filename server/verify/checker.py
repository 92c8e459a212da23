"""The judge: a pure function from a history to a verdict. What each kind of finding means stands with its check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from server.verify.history import Announcement, History, Logged, Message, Request, Roster, Stay, View, Window

SHOWN = 5  # findings of one kind that are spelled out


# G11: seconds until a dependency that is away is reported.
NOTICE: Mapping[str, float] = {"redis": 5.0, "postgresql": 2.5}


@dataclass(frozen=True, slots=True)
class Limits:
    """The promises in seconds (GUARANTEES.md)."""

    ghost: float = 20.0  # G3: a dead socket's user leaves every roster
    healing: float = 10.0  # G1, G3, G11: from the end of a fault until all is as before
    deadline: float = 4.0  # G11: 3 s and a margin
    exit: float = 25.0  # G7
    notice: Mapping[str, float] = field(default_factory=lambda: NOTICE)


@dataclass(slots=True)
class Verdict:
    """Counts for people, and the findings that must be none."""

    counts: dict[str, float] = field(default_factory=dict)
    findings: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.findings

    def add(self, kind: str, text: str) -> None:
        self.findings[kind] += 1
        if self.findings[kind] <= SHOWN:
            self.problems.append(f"{kind}: {text}")

    def __str__(self) -> str:
        counts = [f"{name} {value:g}" for name, value in self.counts.items()]
        return ", ".join(counts + [f"{name} {self.findings[name]}" for name in FINDINGS])


FINDINGS = (
    "lost",
    "doubled",
    "reordered",
    "uncommitted",
    "rejected",
    "ghost",
    "missing",
    "misannounced",
    "late",
    "failed",
    "unhealthy",
    "undrained",
    "leaked",
    "error",
)


def check(history: History, limits: Limits | None = None) -> Verdict:
    """Judge a run."""
    limits = limits or Limits()
    verdict = Verdict()
    _count(verdict, history)
    for room, log in history.logs.items():
        _check_log(verdict, room, log)
        _check_messages(verdict, log, [message for message in history.messages if message.room == room])
        _check_order(verdict, [message for message in history.messages if message.room == room])
        for view in history.views:
            if view.room == room:
                _check_view(verdict, view, log)
    _check_presence(verdict, history, limits)
    _check_announcements(verdict, history, limits)
    _check_requests(verdict, history, limits)
    _check_readiness(verdict, history, limits)
    _check_chat_without_redis(verdict, history)
    _check_drain(verdict, history, limits)
    for leak in history.leaks:
        verdict.add("leaked", leak)
    for text in history.unrecovered:
        verdict.add("unhealthy", text)
    for line in history.errors:
        verdict.add("error", line)
    return verdict


def _count(verdict: Verdict, history: History) -> None:
    messages = history.messages
    verdict.counts = {
        "sent": len(messages),
        "acked": sum(bool(message.acks) for message in messages),
        "refused": sum(message.refused for message in messages),
        "unanswered": sum(message.failed for message in messages),
        "received": sum(len(view.events) for view in history.views),
        "resumes": history.resumes,
        "repairs": history.repairs,
        "requests": len(history.requests),
        "recovered_after": round(history.recovered_after, 1),
    }


def _check_log(verdict: Verdict, room: str, log: list[Logged]) -> None:
    """G1: 1..N without gaps."""
    if [event.seq for event in log] != list(range(1, len(log) + 1)):
        verdict.add("reordered", f"the log of {room} has gaps or is out of order")


def _check_messages(verdict: Verdict, log: list[Logged], messages: list[Message]) -> None:
    """G1 and G15: what was acked stands in the log with the acked seq, once, whoever was asked."""
    places: dict[str, list[int]] = {}
    for event in log:
        if event.message:
            places.setdefault(event.message, []).append(event.seq)
    for message in messages:
        found = places.get(message.id, [])
        if len(found) > 1:
            verdict.add("doubled", f"{message.id} stands at {found}")
        for ack in message.acks:
            if ack.seq not in found:
                verdict.add("lost", f"{message.id} was acked with {ack.seq} and stands at {found}")
        if message.rejected:
            verdict.add("rejected", f"{message.id} was refused for good: {message.rejected}")


def _check_order(verdict: Verdict, messages: list[Message]) -> None:
    """G1: if A was acked before B was first sent, then A stands before B."""
    pairs = [(message, ack) for message in messages if (ack := message.first_ack)]
    by_ack = sorted(pairs, key=lambda pair: pair[1].at)
    highest, position = 0, 0
    for message, ack in sorted(pairs, key=lambda pair: pair[0].invoked_at):
        while position < len(by_ack) and by_ack[position][1].at < message.invoked_at:
            highest = max(highest, by_ack[position][1].seq)
            position += 1
        if ack.seq <= highest:
            verdict.add("reordered", f"{message.id} has {ack.seq}, first sent after {highest} was acked")


def _check_view(verdict: Verdict, view: View, log: list[Logged]) -> None:
    """G1: the log from where the client joined, the same bytes in the same order, to the end."""
    by_seq = {event.seq: event.digest for event in log}
    last = view.first_seq
    for seq, digest in view.events:
        if by_seq.get(seq) != digest:
            verdict.add("uncommitted", f"{view.client} holds {seq}, the log does not, or otherwise")
        if seq <= last:
            verdict.add("doubled", f"{view.client} got {seq} after {last}")
        elif seq > last + 1:
            verdict.add("lost", f"{view.client} got {seq} after {last}")
        last = max(last, seq)
    if log and last < log[-1].seq:
        verdict.add("lost", f"{view.client} ends at {last}, the log at {log[-1].seq}")


def _check_presence(verdict: Verdict, history: History, limits: Limits) -> None:
    """G3: nobody is shown long after the last socket is gone, and everybody is shown who has been there for long."""
    stays = _by_person(history.stays)
    ghosts: dict[tuple[str, str, float], float] = {}
    harsh = [window for window in history.windows if not window.gentle]
    for roster in history.rosters:
        for user in roster.users:
            left_at = _gone_since(stays.get((roster.room, user), ()), roster.at)
            if left_at is not None:
                ghost = (roster.room, user, left_at)
                ghosts[ghost] = max(ghosts.get(ghost, 0.0), roster.at - left_at)
        for user in _overlooked(roster, stays, harsh, limits):
            verdict.add("missing", f"{user} is not shown in {roster.room} at {roster.at:.1f}")
    verdict.counts["ghosts"] = len(ghosts)
    verdict.counts["longest_ghost"] = round(max(ghosts.values(), default=0.0), 1)
    for (room, user, _), life in ghosts.items():
        if life > limits.ghost:
            verdict.add("ghost", f"{user} was shown in {room} for {life:.1f} s too long")


def _by_person(stays: Iterable[Stay]) -> Mapping[tuple[str, str], list[Stay]]:
    found: dict[tuple[str, str], list[Stay]] = {}
    for stay in stays:
        found.setdefault((stay.room, stay.user), []).append(stay)
    return found


def _gone_since(stays: Iterable[Stay], at: float) -> float | None:
    """When the last socket of somebody ended who has none at this time; None for who is, or may be, there."""
    last = float("-inf")
    for stay in stays:
        if stay.asked_at <= at:
            if stay.left_at is None or stay.left_at >= at:
                return None
            last = max(last, stay.left_at)
    return last


def _overlooked(
    roster: Roster, stays: Mapping[tuple[str, str], list[Stay]], harsh: list[Window], limits: Limits
) -> list[str]:
    began = roster.at - limits.healing
    if roster.stale or any(window.touches(began, roster.at) for window in harsh):
        return []
    return [
        user
        for (room, user), found in stays.items()
        if room == roster.room
        and user not in roster.users
        and any(_spans(stay, began, roster.at + 0.5) for stay in found)
    ]


def _spans(stay: Stay, began: float, ended: float) -> bool:
    return stay.joined_at is not None and stay.joined_at <= began and (stay.left_at is None or stay.left_at >= ended)


def _check_announcements(verdict: Verdict, history: History, limits: Limits) -> None:
    """G3: each departure is announced once, and nobody is said to have left who is there."""
    stays = _by_person(history.stays)
    harsh = [window for window in history.windows if not window.gentle]
    last: dict[tuple[str, str, str], Announcement] = {}
    for heard in sorted(history.announcements, key=lambda heard: heard.at):
        key = (heard.listener, heard.room, heard.user)
        before = last.get(key)
        last[key] = heard
        if heard.joined:
            continue
        mine = stays.get((heard.room, heard.user), [])
        if before is not None and not before.joined and not _was_there(mine, before.at, heard.at):
            verdict.add("misannounced", f"{heard.user} left {heard.room} twice for {heard.listener}")
        calm = not any(window.touches(heard.at, heard.at, limits.healing) for window in harsh)
        if calm and any(_spans(stay, heard.at - 0.2, heard.at + 0.2) for stay in mine):
            verdict.add("misannounced", f"{heard.user} is said to have left {heard.room} at {heard.at:.1f}")


def _was_there(stays: Iterable[Stay], began: float, ended: float) -> bool:
    """Whether some socket can have come between two departures."""
    return any(stay.asked_at <= ended and (stay.left_at is None or stay.left_at > began) for stay in stays)


def _check_requests(verdict: Verdict, history: History, limits: Limits) -> None:
    """G7 and G11: every request ends by its deadline; outside of faults, and in a drain, none fails."""
    for request in history.requests:
        harsh = [window for window in history.windows if not window.gentle]
        during = [window for window in harsh if window.touches(request.began_at, request.ended_at, limits.healing)]
        if _is_late(request, history.windows, limits):
            took = request.ended_at - request.began_at
            verdict.add("late", f"{request.kind} {request.detail} took {took:.1f} s at {request.began_at:.1f}")
        if (not during and not 200 <= request.status < 300) or (
            request.status not in (0, 503) and not 200 <= request.status < 300
        ):
            verdict.add("failed", f"{request.kind} {request.detail}: {request.status} at {request.began_at:.1f}")


def _is_late(request: Request, windows: list[Window], limits: Limits) -> bool:
    """A replica that is stopped or dead answers nobody; one that lives answers in time, whatever it waits for."""
    if request.ended_at - request.began_at <= limits.deadline:
        return False
    return not any(
        window.dependency == "replica" and window.touches(request.began_at, request.ended_at, 1.0) for window in windows
    )


def _check_readiness(verdict: Verdict, history: History, limits: Limits) -> None:
    """G11: without PostgreSQL 503, without Redis 200 and `degraded`, and all well some time after the last fault."""
    for answer in history.readiness:
        around = [window for window in history.windows if window.touches(answer.at, answer.at, limits.healing)]
        place = f"{answer.replica} at {answer.at:.1f} answers {answer.status} {sorted(answer.degraded)}"
        if not around and (answer.status != 200 or answer.degraded):
            verdict.add("unhealthy", f"{place} without a fault")
        if len(around) != 1 or not around[0].away or not _is_inside(around[0], answer.at, limits.notice):
            continue
        if around[0].dependency == "redis" and (answer.status != 200 or answer.degraded != {"redis"}):
            verdict.add("unhealthy", f"{place} without Redis")
        if around[0].dependency == "postgresql" and answer.status != 503:
            verdict.add("unhealthy", f"{place} without PostgreSQL")


def _check_drain(verdict: Verdict, history: History, limits: Limits) -> None:
    """G7: exit 0 in time, and nobody is cut off in a drain without having been told to go elsewhere."""
    for gone in history.exits:
        if gone.code != 0 or gone.seconds > limits.exit:
            verdict.add("undrained", f"{gone.replica} ended with {gone.code} after {gone.seconds:.1f} s")
    for end in history.endings:
        around = [window for window in history.windows if window.touches(end.at, end.at, limits.healing)]
        if not end.announced and all(window.gentle for window in around):
            verdict.add("undrained", f"{end.client} was cut off at {end.at:.1f} and not told before")


def _is_inside(window: Window, at: float, notice: Mapping[str, float]) -> bool:
    return window.began_at + notice[window.dependency] <= at <= window.healing_at


def _check_chat_without_redis(verdict: Verdict, history: History) -> None:
    """ARCHITECTURE section 1: commands commit and are acked while Redis is away."""
    for window in history.windows:
        if window.dependency != "redis" or not window.away or window.ended_at - window.began_at < 1.0:
            continue
        others = [other for other in history.windows if other is not window]
        if any(other.touches(window.began_at, window.ended_at, 10.0) for other in others):
            continue
        if not any(window.began_at + 0.5 < ack.at < window.ended_at for m in history.messages for ack in m.acks):
            verdict.add("unhealthy", f"nothing was acked during {window.fault}")
