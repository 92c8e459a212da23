"""Refusals that only profile makes."""

from server.errors import Conflict


class AdminStays(Conflict):
    """A site must not lose its last admin, and an admin has a place in every course for as long as the role lasts."""

    message = "Administrators cannot be deleted. Ask another administrator to take the role from you first."
