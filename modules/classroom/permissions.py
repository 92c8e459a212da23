"""Who may do what in a room: one table for every command of both doors, by role and kind of room. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from server.errors import Conflict, Forbidden

Role = Literal["owner", "instructor", "assistant", "learner", "observer"]
Kind = Literal["class", "lounge", "group", "direct"]

MANAGERS = frozenset(("owner", "instructor"))  # of a course: its rooms and members
STAFF = MANAGERS | {"assistant"}  # run a class
SPEAKERS = STAFF | {"learner"}
EVERYONE = SPEAKERS | {"observer"}

ANYWHERE = frozenset(("class", "lounge", "group", "direct"))
IN_CLASS = frozenset(("class",))


@dataclass(frozen=True, slots=True)
class Rule:
    """The roles that may send a command, and the kinds of room that know it."""

    roles: frozenset[str]
    kinds: frozenset[str]


# CONTRACT §4: learners may only do what is marked *; observers look on.
RULES: Mapping[str, Rule] = {
    "message": Rule(SPEAKERS, ANYWHERE),
    "typing": Rule(SPEAKERS, ANYWHERE),
    "read": Rule(EVERYONE, ANYWHERE),
    "history": Rule(EVERYONE, ANYWHERE),
    "start_class": Rule(STAFF, IN_CLASS),
    "end_class": Rule(STAFF, IN_CLASS),
    "raise_hand": Rule(SPEAKERS, IN_CLASS),
    "lower_hand": Rule(SPEAKERS, IN_CLASS),
    "call_on": Rule(STAFF, IN_CLASS),
}


def permissions_of(role: str, kind: str) -> list[str]:
    """The names of the commands that a role may send in a kind of room."""
    return [name for name, rule in RULES.items() if role in rule.roles and kind in rule.kinds]


def require_allowed(command: str, role: str, kind: str) -> None:
    """Let a command through.

    Raises:
        Conflict: this kind of room does not know the command.
        Forbidden: the role may not send it.
    """
    rule = RULES[command]
    if kind not in rule.kinds:
        raise Conflict("This works only in a live class. Open a room of the kind `class`.")
    if role not in rule.roles:
        raise Forbidden(_REASONS.get(role))


_REASONS = {
    "observer": "Observers of this course may read, but not take part.",
    "learner": "Only those who teach this course can do this.",
}
