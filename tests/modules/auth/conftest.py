"""What the tests of auth share: an account, its login, and a runtime at another time or with other settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from modules.auth import User, create_user
from modules.auth.service import Login, login
from server.clock import Clock
from server.runtime import Runtime

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
