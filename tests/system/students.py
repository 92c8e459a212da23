"""Students who talk all the time and never give up: the clients of a fault run, with their histories."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import socketio.exceptions

from tests.people import Client, Person
from tests.system.history import Sent, View
from tests.waiting import eventually

PAUSE = 0.02  # seconds between two messages, and between two attempts to connect
ACK_PATIENCE = 2.0  # seconds
PATIENCE = 15.0  # seconds until a student gives up after all
LOST = (socketio.exceptions.SocketIOError, TimeoutError, OSError)


class Student:
    """Sends messages one after the other, each until it is acked; follows the room over whichever replica lives."""

    def __init__(self, person: Person, room_id: str, urls: list[str], first: int) -> None:
        self._person = person
        self._room_id = room_id
        self._urls: Iterator[str] = itertools.cycle(urls[first % len(urls) :] + urls[: first % len(urls)])
        self._client: Client | None = None
        self._epoch: str | None = None
        self._joining = False
        self._early: list[dict[str, Any]] = []
        self.sent: list[Sent] = []
        self.view: View | None = None
        self.resumed = 0
        self.seen_on: list[str] = []

    async def talk(self, until: asyncio.Event) -> None:
        """Send messages until told to stop; every one of them is acked in the end."""
        while not until.is_set():
            message = Sent(str(uuid4()), time.monotonic())
            self.sent.append(message)
            await self._send(message)
            await asyncio.sleep(PAUSE)

    async def follow(self) -> None:
        """Make sure that there is a connection."""
        await eventually(self._is_connected, PATIENCE)

    async def catch_up(self, head: int) -> None:
        """Stay until everything up to `head` is there."""

        async def is_there() -> bool:
            return await self._is_connected() and self.last_seq >= head

        await eventually(is_there, PATIENCE)

    async def leave(self) -> None:
        if self._client is not None:
            await self._client.close()

    @property
    def last_seq(self) -> int:
        assert self.view is not None
        return self.view.events[-1]["seq"] if self.view.events else self.view.first_seq

    async def _send(self, message: Sent) -> None:
        payload = {"room_id": self._room_id, "id": message.id, "text": f"message {len(self.sent)}"}
        while message.acked_at is None:
            if not await self._is_connected():
                await asyncio.sleep(PAUSE)
                continue
            assert self._client is not None
            try:
                ack = await self._client.sio.call("message", payload, self._client.namespace, timeout=ACK_PATIENCE)
            except LOST:
                continue
            if ack["ok"]:
                message.acked_at, message.seq = time.monotonic(), ack["seq"]
            else:
                assert ack["error"]["retryable"], ack
                await asyncio.sleep(ack["error"].get("retry_after_ms", 100) / 1000)

    async def _is_connected(self) -> bool:
        if self._client is not None and not self._client.disconnected.is_set():
            return True
        if self._client is not None:
            await self._client.close()
            self._client = None
        client, url = Client("/classroom"), next(self._urls)
        client.sio.on("*", self._take, namespace="/classroom")
        try:
            await client.connect(url, self._person.token)
            self._joining, self._early = True, []
            ack = await client.sio.call("join_room", self._join(), client.namespace, timeout=ACK_PATIENCE)
        except LOST:
            await client.close()
            return False
        self._resume(ack)
        self._joining = False
        for event in self._early:
            self._take("early", event)
        self._client = client
        self.seen_on.append(url)
        return True

    def _join(self) -> dict[str, Any]:
        if self.view is None:
            return {"room_id": self._room_id}
        return {"room_id": self._room_id, "after": self.last_seq, "epoch": self._epoch, "limit": 500}

    def _resume(self, ack: dict[str, Any]) -> None:
        assert ack["ok"], ack
        self._epoch = ack["epoch"]
        if self.view is None:
            self.view = View(first_seq=ack["seq"])
            return
        assert ack["resumed"], ack
        self.resumed += 1
        self.view.events.extend(ack["events"])

    def _take(self, event: str, data: Any) -> None:
        if not isinstance(data, dict) or "seq" not in data:
            return
        if self._joining:  # it overtook the ack inside the client, which gives each its own task
            self._early.append(data)
        elif self.view is not None:
            self.view.events.append(data)
