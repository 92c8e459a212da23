"""People of the demo school for tests: they sign in over HTTP and connect python-socketio's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp
import socketio

PASSWORD = "lectern-demo"
PATIENCE = 5.0  # seconds that a test waits for something to arrive


@dataclass
class Person:
    """Somebody who is signed in."""

    url: str
    session: aiohttp.ClientSession
    user: dict[str, Any]
    token: str
    refresh_token: str
    clients: list[Client] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.user["id"])

    async def call(self, method: str, path: str, body: Any = None, status: int | None = None) -> Any:
        """Send a request as this person; checks the status when one is given, and returns the JSON."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self.session.request(method, self.url + path, json=body, headers=headers) as response:
            text = await response.text()
            assert status is None or response.status == status, f"{method} {path}: {response.status} {text}"
            return await response.json(content_type=None) if text else None

    async def connect(self, namespace: str = "/classroom", url: str | None = None, **options: Any) -> Client:
        """Open a socket in one namespace."""
        client = Client(namespace)
        await client.connect(url or self.url, self.token, **options)
        self.clients.append(client)
        return client

    async def class_room(self) -> str:
        """The id of the room "Live class"."""
        return await self.room("Live class")

    async def room(self, name: str) -> str:
        courses = await self.call("GET", "/api/classroom/courses", status=200)
        [course] = [course for course in courses["items"] if course["title"] == "Astronomy 101"]
        rooms = await self.call("GET", f"/api/classroom/courses/{course['id']}/rooms", status=200)
        [room] = [room for room in rooms["items"] if room["name"] == name]
        return str(room["id"])


class Client:
    """One Socket.IO connection that remembers all it received, in order."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.received: list[tuple[str, Any]] = []
        self.disconnected = asyncio.Event()
        self._news = asyncio.Event()
        self.sio = socketio.AsyncClient(reconnection=False, handle_sigint=False)
        self.sio.on("*", self._remember, namespace=namespace)
        self.sio.on("disconnect", self._gone, namespace=namespace)

    async def connect(self, url: str, token: str | None, transports: tuple[str, ...] = ("websocket",)) -> None:
        auth = {"token": token} if token is not None else None
        await self.sio.connect(url, auth=auth, namespaces=[self.namespace], transports=list(transports), wait_timeout=5)

    async def send(self, command: str, **payload: Any) -> dict[str, Any]:
        """Send a command and return its ack."""
        ack = await self.sio.call(command, payload, namespace=self.namespace, timeout=PATIENCE)
        assert isinstance(ack, dict)
        return ack

    async def do(self, command: str, **payload: Any) -> dict[str, Any]:
        """Send a command that must succeed."""
        ack = await self.send(command, **payload)
        assert ack["ok"], ack
        return ack

    async def join(self, room_id: str, **options: Any) -> dict[str, Any]:
        return await self.do("join_room", room_id=room_id, **options)

    async def say(self, room_id: str, text: str) -> dict[str, Any]:
        return await self.do("message", room_id=room_id, id=str(uuid4()), text=text)

    def events(self, name: str) -> list[Any]:
        return [data for event, data in self.received if event == name]

    def room_events(self) -> list[Any]:
        """What came from a room's log, in the order of arrival."""
        return [data for _, data in self.received if isinstance(data, dict) and "seq" in data]

    async def until(self, condition: Callable[[Client], bool], what: str = "it") -> None:
        """Wait until what was received fulfils a condition."""
        async with asyncio.timeout(PATIENCE):
            while not condition(self):
                self._news.clear()
                await self._news.wait()

    async def wait_for(self, name: str, count: int = 1) -> Any:
        """Wait for the `count`-th event of a name and return its data."""
        await self.until(lambda client: len(client.events(name)) >= count)
        return self.events(name)[count - 1]

    async def close(self) -> None:
        await self.sio.disconnect()
        await self.sio.eio.wait()

    def _remember(self, event: str, data: Any = None) -> None:
        self.received.append((event, data))
        self._news.set()

    def _gone(self, *_: object) -> None:
        self.disconnected.set()
        self._news.set()


class People:
    """Signs people in, and closes all that they opened."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession()
        self._people: list[Person] = []

    async def __aenter__(self) -> People:
        return self

    async def __aexit__(self, *_: object) -> None:
        for person in self._people:
            for client in person.clients:
                await client.close()
        await self._session.close()

    async def sign_in(self, name: str) -> Person:
        """Sign in e.g. `teacher` or `student1`."""
        credentials = {"email": f"{name}@example.com", "password": PASSWORD}
        async with self._session.post(f"{self._url}/api/auth/login", json=credentials) as response:
            answer = await response.json()
            assert response.status == 200, answer
        person = Person(self._url, self._session, answer["user"], answer["access_token"], answer["refresh_token"])
        self._people.append(person)
        return person

    async def in_class(self, name: str, namespace: str = "/classroom") -> tuple[Client, str]:
        """Sign somebody in, connect and join the live class; the client and the room's id."""
        person = await self.sign_in(name)
        client = await person.connect(namespace)
        room_id = await person.class_room()
        await client.join(room_id)
        return client, room_id
