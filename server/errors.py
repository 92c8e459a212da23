"""DomainError: the one error of both doors. HTTP answers it as problem+json, a socket as the `error` of an ack.

A feature raises a subclass (or a class below) where it decides; the gateway and the namespaces translate it, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One invalid field: where it is and what to do about it."""

    loc: tuple[str | int, ...]
    message: str


class DomainError(Exception):
    """A refusal that the caller can act on.

    `code` is the same string over HTTP and in an ack; `status` is the HTTP status; `retry_after` is in seconds;
    `retryable` says that the same request may succeed later, unchanged.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    retryable: ClassVar[bool] = False
    message = "The request was refused."

    def __init__(
        self, message: str | None = None, *, retry_after: float | None = None, errors: Sequence[FieldError] = ()
    ) -> None:
        self.message = message or self.message
        self.retry_after = retry_after
        self.errors = tuple(errors)
        super().__init__(self.message)


class Unauthenticated(DomainError):
    code, status = "unauthenticated", 401
    message = "Sign in and send a valid access token."


class SessionExpired(DomainError):
    code, status = "session_expired", 401
    message = "Your session has ended. Sign in again."


class Forbidden(DomainError):
    code, status = "forbidden", 403
    message = "You are not allowed to do this here."


class NotFound(DomainError):
    """Also the answer to what the actor may not see: both look the same from outside."""

    code, status = "not_found", 404
    message = "There is nothing here that you can see."


class Invalid(DomainError):
    code, status = "invalid", 422
    message = "Some fields are not valid; `errors` names them."


class PayloadTooLarge(DomainError):
    code, status = "payload_too_large", 413
    message = "This is larger than the server accepts."


class RateLimited(DomainError):
    code, status, retryable = "rate_limited", 429, True
    message = "Too many requests. Wait before you try again."


class Conflict(DomainError):
    code, status = "conflict", 409
    message = "This conflicts with what is already there."


class IdempotencyKeyReused(DomainError):
    code, status = "idempotency_key_reused", 422
    message = "This key was used before with another payload. Use a new one."


class Unavailable(DomainError):
    code, status, retryable = "unavailable", 503, True
    message = "A part of the service does not answer. Try again in a moment."

    def __init__(self, message: str | None = None, *, retry_after: float | None = 1.0) -> None:
        super().__init__(message, retry_after=retry_after)


class DeadlineExceeded(DomainError):
    code, status, retryable = "deadline_exceeded", 503, True
    message = "This took too long and was given up. Try again with the same id."


class Internal(DomainError):
    code, status = "internal", 500
    message = "Something went wrong on our side. The request id helps us to find it."
