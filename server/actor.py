"""Actor: who is asking; the first argument after `rt` of every service function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

SiteRole = Literal["admin", "user"]


@dataclass(frozen=True, slots=True)
class Actor:
    """A signed-in person, as `authenticate` found them behind a valid access token."""

    user_id: UUID
    name: str
    avatar_url: str | None
    role: SiteRole
    session_id: UUID
    expires_at: float  # Unix time in seconds at which the access token ends

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"
