"""The rows of auth as values: what store.py takes and gives, and nothing that decides."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from server.actor import SiteRole

RevokedWhy = Literal["logout", "logout_all", "reuse", "by_user", "password", "second_factor", "disabled"]
Purpose = Literal["verify", "reset", "change"]


@dataclass(frozen=True, slots=True)
class User:
    id: UUID
    email: str
    name: str
    avatar_url: str | None
    role: SiteRole
    verified: bool


@dataclass(frozen=True, slots=True)
class Account:
    """A user as administrators see them."""

    user: User
    disabled: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a login is checked against."""

    user: User
    password_hash: str
    disabled: bool


@dataclass(frozen=True, slots=True)
class NewUser:
    id: UUID
    email: str  # in its normal form (schemas.normalise_email)
    email_key: str | None  # what it looks like, when it is not ASCII (schemas.email_key)
    password_hash: str
    name: str
    role: SiteRole
    verified: bool


@dataclass(frozen=True, slots=True)
class NewSession:
    """A login; `device` and `ip` are shown to the user in the list of sessions."""

    id: UUID
    user_id: UUID
    salt: bytes
    expires_at: datetime
    device: str
    ip: str


@dataclass(frozen=True, slots=True)
class Session:
    """A login session under its lock, and its user."""

    user: User
    id: UUID
    salt: bytes
    generation: int
    rotated_at: datetime  # when the generation before the present one was replaced
    earlier_rotations: list[datetime]  # when those before it were, newest first
    expires_at: datetime
    revoked: bool
    disabled: bool


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session as its user sees it."""

    id: UUID
    device: str
    ip: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Identity:
    """The person behind a session that lives."""

    user_id: UUID
    name: str
    avatar_url: str | None
    role: SiteRole
    last_used_at: datetime


@dataclass(frozen=True, slots=True)
class Proof:
    """What shows that it is the owner of an account who asks."""

    password_hash: str
    proved_at: datetime | None  # when this session last gave a password or a code
    second_factor: bool


@dataclass(frozen=True, slots=True)
class NewLetter:
    """A letter with a link; `id` is that of the event that asked for it."""

    id: UUID
    user_id: UUID
    purpose: Purpose
    email: str
    token_hash: bytes
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter whose token has come back; `email` is where it was sent."""

    id: UUID
    user_id: UUID
    email: str


@dataclass(frozen=True, slots=True)
class Factor:
    """A second factor under its lock; wrong codes are counted until a right one comes."""

    secret: bytes  # sealed
    last_step: int
    failures: int
    failed_at: datetime | None
