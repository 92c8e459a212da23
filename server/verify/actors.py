"""Students: the clients of a fault run. They talk, follow, come back, and write down all of it.

A student keeps one connection, over whichever replica lives, and resumes with `after` and `epoch`; what it sends is
sent again with the same id until it is acked. Nobody here decides what is right: checker.py does.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from server.tasks import Tasks
from server.verify.client import Lost, SocketClient
from server.verify.history import Ack, Announcement, Ending, History, Message, Seen, Stay, View, digest, seen
from server.verify.school import Person

PAUSE = 0.1  # seconds between two attempts to connect
ACK_PATIENCE = 5.0  # seconds; the server answers within its own deadline of 3 s
JOIN_LIMIT = 500
TWINS = 0.1  # share of messages that are sent over two replicas at once

Json = dict[str, Any]  # Any: JSON


class Student:
    """One client of one person in some rooms."""

    def __init__(
        self,
        name: str,
        person: Person,
        rooms: Sequence[str],
        urls: Sequence[str],
        *,
        history: History,
        tasks: Tasks,
        dice: random.Random,
    ) -> None:
        self.name = name
        self.person = person
        self.rooms = list(rooms)
        self.views: dict[str, View] = {}
        self.twin: Student | None = None  # another tab of the same person
        self._urls = list(urls)
        self._next_url = 0
        self._history = history
        self._tasks = tasks
        self._dice = dice
        self._epochs: dict[str, str] = {}
        self._client: SocketClient | None = None
        self._lives = 0
        self._announced = False  # the server has said that it goes away
        self._away = False
        self._rests_until = 0.0
        self._resync: set[str] = set()
        self._stalled = False
        self._connected = asyncio.Event()

    def start(self, first_url: int) -> None:
        """Connect, and stay connected until `stop`."""
        self._next_url = first_url
        self._tasks.start(self._keep(), name=f"verify:{self.name}")

    async def connected(self) -> None:
        await self._connected.wait()

    @property
    def is_connected(self) -> bool:
        return (
            not self._stalled
            and self._client is not None
            and self._connected.is_set()
            and not self._client.closed.is_set()
        )

    @property
    def is_resting(self) -> bool:
        return self._rests_until > time.monotonic()

    def stop(self) -> None:
        """Leave for good, as a browser that is closed."""
        self._away, self._stalled = True, False
        if self._client is not None:
            self._client.cut()

    def rest(self, seconds: float) -> None:
        """Go, and come back later."""
        self._rests_until = time.monotonic() + seconds
        if self._client is not None:
            self._client.cut()

    def come_back(self) -> None:
        self._rests_until = 0.0

    def stall(self) -> None:
        """Stop to read, and neither come back nor go; what it holds counts no more, and it is no longer there."""
        for stay in self._history.stays:
            if stay.user == self.person.id and stay.left_at is None:
                stay.left_at = time.monotonic()
        for view in self.views.values():
            self._history.views.remove(view)
        self._away = self._stalled = True
        if self._client is not None:
            self._client.stall()

    async def say(self, room: str, patience: float) -> Message:
        """Send one message until it is acked or nobody waits any longer."""
        message = Message(str(UUID(int=self._dice.getrandbits(128), version=4)), room, time.monotonic())
        self._history.messages.append(message)
        senders = [self]
        if self.twin is not None and self.twin.is_connected and self._dice.random() < TWINS:
            senders.append(self.twin)
        until = message.invoked_at + patience
        await asyncio.gather(*(sender.send(message, until) for sender in senders))
        return message

    async def send(self, message: Message, until: float) -> None:
        """Send a message with its id again and again until it is answered for good."""
        # The same text from each tab: a retry is the same command.
        payload = {"room_id": message.room, "id": message.id, "text": f"message {message.id[:8]}"}
        while time.monotonic() < until and not self.is_resting and not self._away:
            client = self._client
            if client is None or not self.is_connected:
                await asyncio.sleep(PAUSE)
                continue
            try:
                ack = await client.call("message", payload, min(ACK_PATIENCE, until - time.monotonic()))
            except Lost:
                message.failed += 1
                await asyncio.sleep(PAUSE / 2)
                continue
            if not await _take_answer(message, ack):
                return

    async def _keep(self) -> None:
        while not self._away:
            if self._rests_until > time.monotonic():
                await asyncio.sleep(PAUSE)
                continue
            try:
                await self._live()
            except Lost:
                await asyncio.sleep(PAUSE + self._dice.random() * PAUSE)
            self._connected.clear()
            self._next_url += 1

    async def _live(self) -> None:
        """One connection, from its opening to its end."""
        self._lives += 1
        self._announced = False
        listener = f"{self.name}#{self._lives}"

        def on_event(name: str, data: Json, raw: bytes) -> None:
            self._take(listener, name, data, raw)

        client = SocketClient(self._tasks, on_event)
        await client.connect(self._urls[self._next_url % len(self._urls)], self.person.token)
        stays = [Stay(self.person.id, room, time.monotonic()) for room in self.rooms]
        self._history.stays += stays
        try:
            for stay in stays:
                await self._join(client, stay.room)
                stay.joined_at = time.monotonic()
            self._client = client
            self._connected.set()
            await self._follow(client)
        finally:
            client.cut()
            if client.ended_by_peer and not self._stalled:
                self._history.endings.append(Ending(time.monotonic(), self.name, self._announced))
            for stay in stays:
                stay.left_at = stay.left_at or client.closed_at or time.monotonic()

    async def _follow(self, client: SocketClient) -> None:
        """Stay until the connection ends, and join again what the server asks to."""
        while not client.closed.is_set() and (not self._away or self._stalled):
            while self._resync:
                await self._join(client, self._resync.pop())
            await asyncio.sleep(PAUSE / 2)

    async def _join(self, client: SocketClient, room: str) -> None:
        view = self.views.get(room)
        payload: Json = {"room_id": room}
        if view is not None:
            payload |= {"after": view.last_seq, "epoch": self._epochs[room], "limit": JOIN_LIMIT}
        ack = await client.call("join_room", payload, ACK_PATIENCE, lambda ack: self._resume(room, ack))
        if not ack["ok"]:
            raise Lost(str(ack["error"]["code"]))
        if ack["truncated"]:  # more than one answer holds: the middle is in the log
            raise Lost("too far behind")

    def _resume(self, room: str, ack: Json) -> None:
        if not ack["ok"] or ack["truncated"]:
            return  # a truncated answer is history with a gap before it, see `_join`
        self._epochs[room] = ack["epoch"]
        view = self.views.get(room)
        if view is None:
            view = self.views[room] = View(self.name, room, ack["seq"])
            self._history.views.append(view)
            return
        self._history.resumes += bool(ack["resumed"])
        last = view.last_seq
        # Joined again on a living connection: what came between the question and the answer is there already.
        view.events += [seen(event) for event in ack["events"] if event["seq"] > last]

    def _take(self, listener: str, name: str, data: Json, raw: bytes) -> None:
        if "seq" in data and "epoch" in data:
            view = self.views.get(data["room_id"])
            if view is not None:
                view.events.append(Seen(data["seq"], digest(raw)))
        elif name in ("user_joined", "user_left"):
            user = data["user"]["id"] if name == "user_joined" else data["user_id"]
            heard = Announcement(time.monotonic(), listener, data["room_id"], user, name == "user_joined")
            self._history.announcements.append(heard)
        elif name == "resync_required":
            self._resync |= set(data["room_ids"]) & set(self.rooms)
        elif name == "going_away":
            self._announced = True
            asyncio.get_running_loop().call_later(data["reconnect_in_ms"] / 1000, self._move)

    def _move(self) -> None:
        """The server asked to go elsewhere."""
        if self._client is not None and not self._away:
            self._client.cut()


async def _take_answer(message: Message, ack: Json) -> bool:
    """Write an answer down; returns whether to try again, after the pause that the server asked for."""
    if ack["ok"]:
        message.acks.append(Ack(time.monotonic(), ack["seq"]))
        return False
    if not ack["error"]["retryable"]:
        message.rejected = ack["error"]["code"]
        return False
    message.refused += 1
    await asyncio.sleep(ack["error"].get("retry_after_ms", 100) / 1000)
    return True
