"""Refusals that only the classroom knows."""

from __future__ import annotations

from server.errors import Conflict, DomainError


class RoomClosed(DomainError):
    code, status = "room_closed", 409
    message = "The class is not live. Wait until it is started."


class LastOwner(Conflict):
    message = "This is the last owner of the course. Make somebody else an owner first, or delete the course."


class Stale(Conflict):
    """A condition of the request (If-Match, RFC 9110 section 13.1.1) does not hold any more."""

    status = 412
    message = "This was changed in the meantime. Read it again."
