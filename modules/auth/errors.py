"""Refusals that only auth makes; expired and bad access tokens are the general ones of server/errors.py."""

from server.errors import Conflict, DomainError, Forbidden


class EmailTaken(Conflict):
    message = "There is an account with this e-mail address. Sign in, or use another address."


class InvalidCredentials(DomainError):
    """The one answer to an unknown address, a wrong password and a disabled account."""

    code, status = "invalid_credentials", 401
    message = "The e-mail address or the password is wrong."


class RefreshReused(DomainError):
    """A refresh token came back after its successor was in use: it was stolen or copied, so the session has ended."""

    code, status = "refresh_reused", 401
    message = "This session was ended because its token was used twice. Sign in again."


class NotConfirmed(Forbidden):
    """Something that cannot be undone was asked by a session that may have been left open."""

    message = "Give your password, or sign in again and repeat this within five minutes."
