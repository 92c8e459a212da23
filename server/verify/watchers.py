"""Those who ask over REST during a fault run: the load, the probes, and the wardens who look at rosters and health."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Literal
from uuid import UUID

import aiohttp

from server.verify.history import Ack, History, Message, Readiness, Request, Roster
from server.verify.installation import Replica
from server.verify.school import REST_PATIENCE, Person

LOAD_PAUSE = 0.05  # seconds between two requests of one client
LOOK_PAUSE = 0.25
BALANCER_PAUSE = 0.25  # seconds between two looks of the balancer at a replica


class Watch:
    """All who ask, until `stop` is set."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        replicas: Sequence[Replica],
        person: Person,
        rooms: Sequence[str],
        history: History,
        dice: random.Random,
    ) -> None:
        self._session = session
        self._replicas = replicas
        self._person = person
        self._rooms = list(rooms)
        self._history = history
        self._dice = dice
        self._ready = {replica.name for replica in replicas}
        self.stop = asyncio.Event()

    async def run(self, clients: int) -> None:
        """Ask until told to stop."""
        async with asyncio.TaskGroup() as group:
            for replica in self._replicas:
                group.create_task(self._look(replica), name="verify:look")
                group.create_task(self._probe(replica), name="verify:probe")
                group.create_task(self._roster(replica), name="verify:roster")
            for _ in range(clients):
                group.create_task(self._load(), name="verify:load")

    async def _look(self, replica: Replica) -> None:
        """What a load balancer does: a replica that does not answer 200 gets nothing more."""
        while not self.stop.is_set():
            status, degraded = await self.ask_readiness(replica)
            (self._ready.add if status == 200 else self._ready.discard)(replica.name)
            self._history.readiness.append(Readiness(time.monotonic(), replica.name, status, degraded))
            await asyncio.sleep(BALANCER_PAUSE)

    async def ask_readiness(self, replica: Replica) -> tuple[int, frozenset[str]]:
        """The status of `/health/ready` (0: no answer) and what it names as degraded."""
        try:
            async with self._session.get(f"{replica.direct}/health/ready", timeout=REST_PATIENCE) as response:
                return response.status, frozenset((await response.json())["degraded"])
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0, frozenset()

    async def _probe(self, replica: Replica) -> None:
        """Ask for what needs PostgreSQL, of a replica whatever it says of itself."""
        while not self.stop.is_set():
            if replica.process is not None and replica.process.returncode is None:
                await self._request("probe", replica, "GET", f"/api/classroom/rooms/{self._rooms[0]}/state")
            await asyncio.sleep(LOOK_PAUSE)

    async def _load(self) -> None:
        """Ordinary use over the balancer: reads and messages."""
        while not self.stop.is_set():
            ready = [replica for replica in self._replicas if replica.name in self._ready]
            if ready:
                replica = self._dice.choice(ready)
                if self._dice.random() < 0.3:
                    await self._post(replica)
                else:
                    await self._request("load", replica, "GET", f"/api/classroom/rooms/{self._rooms[0]}")
            await asyncio.sleep(LOAD_PAUSE)

    async def _post(self, replica: Replica) -> None:
        """A message over the other door; what was not answered is not sent again."""
        room = self._dice.choice(self._rooms[:-1])  # the last one is quiet
        message = Message(str(UUID(int=self._dice.getrandbits(128), version=4)), room, time.monotonic())
        self._history.messages.append(message)
        body = {"id": message.id, "text": "over REST"}
        status, seq = await self._request("load", replica, "POST", f"/api/chat/rooms/{room}/messages", body)
        if seq is not None:
            message.acks.append(Ack(time.monotonic(), seq))
        elif status:
            message.refused += 1
        else:
            message.failed += 1

    async def _request(
        self, kind: Literal["load", "probe"], replica: Replica, method: str, path: str, body: object = None
    ) -> tuple[int, int | None]:
        """One request, written down. Returns its status (0: no answer) and the `seq` in the answer."""
        began, status, seq = time.monotonic(), 0, None
        detail = f"{method} {path.split('/')[-1]} on {replica.name}"
        try:
            async with self._session.request(
                method, replica.direct + path, json=body, headers=self._person.headers, timeout=REST_PATIENCE
            ) as response:
                answer = await response.json(content_type=None)
                status = response.status
                seq = answer.get("seq") if response.ok else None
                detail += "" if response.ok else f" {answer.get('code')}"
        except aiohttp.ClientConnectorError:
            # The port is closed: a balancer asks the next one, and nothing has happened.
            self._ready.discard(replica.name)
            return 0, None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            detail += f" {error!r}"
        self._history.requests.append(Request(kind, began, time.monotonic(), status, detail))
        return status, seq

    async def _roster(self, replica: Replica) -> None:
        while not self.stop.is_set():
            for room in self._rooms:
                await self.ask_roster(replica, room)
            await asyncio.sleep(LOOK_PAUSE)

    async def ask_roster(self, replica: Replica, room: str) -> Roster | None:
        """Who is shown in a room; written down. None without an answer: the probes say so."""
        url = f"{replica.direct}/api/classroom/rooms/{room}/participants"
        try:
            async with self._session.get(url, headers=self._person.headers, timeout=REST_PATIENCE) as response:
                answer = await response.json()
                if not response.ok:
                    return None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        users = frozenset(user["id"] for user in answer["users"])
        roster = Roster(time.monotonic(), room, users, answer["stale"])
        self._history.rosters.append(roster)
        return roster
