"""Refusals that only auth makes; expired and bad access tokens are the general ones of server/errors.py."""

from server.errors import Conflict, DomainError, Forbidden, Invalid


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


class TotpRequired(DomainError):
    """The password was right and the account has a second factor; nobody learns this without the password."""

    code, status = "totp_required", 401
    message = "Send the same again with `totp`: a code of your authenticator app, or one of your recovery codes."


class NotConfirmed(Forbidden):
    """Something dangerous was asked by a session that may have been left open."""

    code = "step_up_required"
    message = "Prove that it is you (`POST /api/auth/step-up`), or sign in again, and repeat this within five minutes."


class TokenInvalid(DomainError):
    """The one answer to a token of a letter, or a code, that is wrong, used, too old, or for another purpose."""

    code, status = "invalid_token", 400
    message = "This link or code is not valid (any more). Ask for a new one."


class WeakPassword(Invalid):
    """A new password that can be guessed; `errors` says why."""


class SecondFactorExists(Conflict):
    message = "This account has a second factor. Remove it before you set another one up."


class OwnAccount(Conflict):
    message = "Another administrator has to change this about your own account."


class CsrfSuspected(Forbidden):
    """The refresh token came in a cookie, but nothing shows that one of our own pages sent the request."""

    message = "Send the header `X-Requested-With: lectern` with a refresh token in a cookie."
