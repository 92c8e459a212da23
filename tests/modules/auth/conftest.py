"""What the tests of auth share: an account, its login, and a runtime at another time or with other settings."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email import policy
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

from modules.auth import User, authenticate, create_user
from modules.auth.service import Login, login
from server.actor import Actor
from server.clock import Clock
from server.runtime import Runtime
from tests.waiting import eventually

EMAIL = "ada@example.com"
PASSWORD = "correct horse battery"


class ShiftedClock(Clock):
    def __init__(self, seconds: float) -> None:
        self._shift = seconds

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self._shift)

    def unix(self) -> float:
        return super().unix() + self._shift


@pytest.fixture
def later(rt: Runtime) -> Callable[[float], Runtime]:
    """The same server, so many seconds later."""
    return lambda seconds: replace(rt, clock=ShiftedClock(seconds))


@pytest.fixture
def configured(rt: Runtime) -> Callable[..., Runtime]:
    """The same server after a restart with other settings; keys of the section `auth`, or `secret` and the like."""

    def restart(auth: dict[str, Any] | None = None, **values: Any) -> Runtime:
        values["auth"] = rt.settings.auth.model_copy(update=auth or {})
        return replace(rt, settings=rt.settings.model_copy(update=values))

    return restart


@pytest.fixture
async def ada(rt: Runtime) -> User:
    return await create_user(rt, email=EMAIL, password=PASSWORD, name="Ada")


@pytest.fixture
async def signed_in(rt: Runtime, ada: User) -> Login:
    return await login(rt, email=ada.email, password=PASSWORD, device="tests", ip="127.0.0.1")


@dataclass(frozen=True)
class Received:
    """A letter as somebody reads it."""

    to: str
    subject: str
    text: str
    html: str
    message_id: str

    @property
    def token(self) -> str:
        """The token of the link."""
        found = re.search(r"#/[a-z-]+/([A-Za-z0-9_-]{43})\s", self.text)
        assert found, self.text
        return found[1]

    @property
    def code(self) -> str:
        found = re.search(r"code: (\d{6})", self.text)
        assert found, self.text
        return found[1]


class Mailbox:
    """The letters that a server without a mail server wrote into its directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def letters(self, to: str | None = None) -> list[Received]:
        """All letters, or those to one address, oldest first."""
        found = [_read(path) for path in sorted(self._directory.glob("*.eml"))]
        return [letter for letter in found if to in (None, letter.to)]

    async def letter(self, subject: str, to: str = EMAIL, number: int = 1) -> Received:
        """Wait for the `number`-th letter of a subject to an address."""

        def arrived() -> Received | None:
            fitting = [letter for letter in self.letters(to) if letter.subject == subject]
            return fitting[number - 1] if len(fitting) >= number else None

        letter: Received = await eventually(arrived)
        return letter


def _read(path: Path) -> Received:
    message = BytesParser(policy=policy.default).parsebytes(path.read_bytes())
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    return Received(message["To"], message["Subject"], text.get_content(), html.get_content(), message["Message-ID"])


@pytest.fixture
def mailbox(rt: Runtime) -> Mailbox:
    return Mailbox(rt.settings.data_dir / "mail")


@pytest.fixture
async def idle(rt: Runtime) -> Callable[[], Awaitable[None]]:
    """Waits until no durable event is left: what was going to be sent was sent."""

    async def wait() -> None:
        async def empty() -> bool:
            async with rt.database.connection() as conn:
                return not await conn.fetchval("SELECT count(*) FROM outbox WHERE dead_at IS NULL")

        await eventually(empty)

    return wait


@pytest.fixture
async def actor(rt: Runtime, signed_in: Login) -> Actor:
    return await authenticate(rt, signed_in.access_token)
