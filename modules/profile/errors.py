"""Refusals that only profile makes."""

from server.errors import Conflict


class Stale(Conflict):
    """A condition of the request (If-Match, RFC 9110 section 13.1.1) does not hold any more."""

    status = 412
    message = "This was changed in the meantime. Read it again."


class AdminStays(Conflict):
    """A site must not lose its last admin, and an admin has a place in every course for as long as the role lasts."""

    message = "Administrators cannot be deleted. Ask another administrator to take the role from you first."
