"""Refusals that only the classroom knows."""

from __future__ import annotations

from collections.abc import Sequence

from server.errors import Conflict, DomainError


class RoomClosed(DomainError):
    code, status = "room_closed", 409
    message = "The class is not live. Wait until it is started."


class LastOwner(Conflict):
    message = "This is the last owner of the course. Make somebody else an owner first, or delete the course."


class SoleOwner(Conflict):
    """Somebody wants to go for good, and would leave courses without an owner."""

    message = "You are the last owner of a course. Make somebody else an owner, or delete the course, first."

    def __init__(self, titles: Sequence[str]) -> None:
        named = ", ".join(f"“{title}”" for title in titles)
        super().__init__(self.message.replace("a course", named, 1))
