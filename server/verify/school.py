"""The people and rooms of a fault run, and REST as they use it: past the proxies, straight to a replica."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from server.verify.history import Logged, logged

PASSWORD = "lectern-demo"  # noqa: S105 - that of the demo school (CONTRACT section 6)
TOKEN_AGE = 1500.0  # seconds until somebody signs in again; tokens of a run live for an hour
REST_PATIENCE = aiohttp.ClientTimeout(8.0)  # longer than any deadline of the server, so that lateness is seen
PAGE = 200


@dataclass(slots=True)
class Person:
    """Somebody of the demo school who is signed in."""

    name: str
    id: str = ""
    token: str = ""
    signed_in_at: float = float("-inf")

    def is_stale(self) -> bool:
        return time.monotonic() - self.signed_in_at > TOKEN_AGE

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class School:
    """Signs people in, makes rooms and reads logs, over any replica that answers."""

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str]) -> None:
        self.session = session
        self.urls = list(urls)
        self._people: dict[str, Person] = {}

    async def person(self, name: str) -> Person:
        """Somebody with a token that is good for a while; a failure to renew leaves the old one in use."""
        person = self._people.setdefault(name, Person(name))
        if person.is_stale():
            answer = await self.ask(
                "POST", "/api/auth/login", json={"email": f"{name}@example.com", "password": PASSWORD}
            )
            person.id, person.token = answer["user"]["id"], answer["access_token"]
            person.signed_in_at = time.monotonic()
        return person

    async def make_rooms(self, count: int) -> list[str]:
        """New rooms in the course of the demo school, where every student may write."""
        teacher = await self.person("teacher")
        courses = await self.ask("GET", "/api/classroom/courses", headers=teacher.headers)
        course = next(item["id"] for item in courses["items"] if item["title"] == "Astronomy 101")
        path = f"/api/classroom/courses/{course}/rooms"
        kinds = ("class", "lounge")
        rooms = [
            await self.ask("POST", path, json={"name": f"Room {n}", "kind": kinds[n % 2]}, headers=teacher.headers)
            for n in range(count)
        ]
        return [room["id"] for room in rooms]

    async def read_log(self, room: str, after: int = 0) -> list[dict[str, Any]]:  # Any: JSON
        """The log of a room behind a seq, to its end."""
        teacher = await self.person("teacher")
        events: list[dict[str, Any]] = []
        while True:
            path = f"/api/classroom/rooms/{room}/events?after={after}&limit={PAGE}"
            page = (await self.ask("GET", path, headers=teacher.headers))["items"]
            if not page:
                return events
            events += page
            after = events[-1]["seq"]

    async def log_of(self, room: str) -> list[Logged]:
        return [logged(event) for event in await self.read_log(room)]

    async def ask(self, method: str, path: str, **options: Any) -> Any:  # Any: what aiohttp takes, and JSON
        """Ask one replica after the other until one answers.

        Raises:
            OSError: none did.
        """
        problem = ""
        for url in self.urls:
            try:
                async with self.session.request(method, url + path, timeout=REST_PATIENCE, **options) as response:
                    if response.ok:
                        return await response.json()
                    problem = f"{response.status} {await response.text()}"
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                problem = repr(error)
        raise OSError(f"{method} {path}: {problem}")
