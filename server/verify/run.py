"""One fault run: fill a school, let it talk, do the faults, heal, wait until it is quiet, collect the history.

The order matters at the end: talk ends first, then every view may catch up, then the log is read, then everybody
leaves, and only then it is counted what the replicas still hold.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
from redis.asyncio import Redis

from server.tasks import Tasks
from server.verify.actors import Student
from server.verify.faults import Fault, Scene
from server.verify.history import History
from server.verify.installation import Installation, Replica
from server.verify.school import School
from server.verify.scrape import Footprint, footprint, repairs
from server.verify.watchers import Watch

SEND_PATIENCE = 20.0  # seconds until the sender of a message gives up
SETTLE_PATIENCE = 10.0  # G1: seconds after healing until every view equals the log
LEAK_PATIENCE = 12.0  # seconds until the counts are back: linger, keep-alives, leases
PEOPLE = 30  # students of the demo school


@dataclass(frozen=True, slots=True)
class Size:
    """How much happens in a run (GUARANTEES.md: 40 clients, 5 rooms, 50 messages a second)."""

    clients: int = 40
    rooms: int = 5
    rate: float = 50.0  # messages per second
    load: int = 3  # clients that use REST
    warm_up: float = 2.0  # seconds of talk before the first fault
    cool_down: float = 3.0  # seconds of talk behind the last
    patience: float = 0.0  # seconds behind the last fault until presence is looked at for the last time


@dataclass(frozen=True, slots=True)
class Step:
    """Do a fault, `after` seconds behind the last one, for some seconds; `talk` goes on in it or ends in it."""

    fault: Fault
    seconds: float
    after: float = 0.0


@dataclass(slots=True)
class Run:
    """A run on an installation that serves; may be repeated on the same one."""

    installation: Installation
    steps: Sequence[Step]
    size: Size
    dice: random.Random
    say: Callable[[str], None] = lambda text: None
    history: History = field(default_factory=History)
    students: list[Student] = field(default_factory=list)
    rooms: list[str] = field(default_factory=list)
    tasks: Tasks = field(default_factory=Tasks)
    talking: asyncio.Event = field(default_factory=asyncio.Event)

    async def carry_out(self) -> History:
        """Run everything and return what happened."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            school = School(session, [replica.direct for replica in self.installation.replicas])
            self.rooms = await school.make_rooms(self.size.rooms)
            baseline = {replica.name: await footprint(session, replica) for replica in self.installation.replicas}
            try:
                await self._fill(school)
                await self._act(session, school)
                await self._settle(school)
            finally:
                for student in self.students:
                    student.stop()
                await self.tasks.stop()
            self.history.repairs += sum([await repairs(session, replica) for replica in self.installation.replicas])
            await self._check_leaks(session, baseline)
        return self.history

    async def _fill(self, school: School) -> None:
        """Everybody comes in: two clients of some people, one of the others, each in one of the rooms."""
        urls = [replica.url for replica in self.installation.replicas]
        for index in range(self.size.clients):
            person = await school.person(f"student{1 + index % PEOPLE}")
            room = self.rooms[(index % PEOPLE) % len(self.rooms)]
            student = Student(
                f"client {index}",
                person,
                [room],
                urls,
                school=school,
                history=self.history,
                tasks=self.tasks,
                dice=random.Random(self.dice.random()),  # noqa: S311 - a schedule that can be repeated, no secret
            )
            if index >= PEOPLE:
                student.twin = self.students[index - PEOPLE]
            self.students.append(student)
            student.start(index + (index >= PEOPLE))
        async with asyncio.timeout(SEND_PATIENCE):
            for student in self.students:
                await student.connected()

    async def _act(self, session: aiohttp.ClientSession, school: School) -> None:
        teacher = await school.person("teacher")
        dice = random.Random(self.dice.random())  # noqa: S311
        watch = Watch(session, self.installation.replicas, teacher, self.rooms, self.history, dice)
        self.talking.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(watch.run(self.size.load), name="verify:watch")
            for student in self.students:
                group.create_task(self._talk(student), name="verify:talk")
            try:
                await self._do_faults(session)
                await asyncio.sleep(self.size.cool_down)
            finally:
                self.talking.clear()
                await asyncio.sleep(self.size.patience)
                watch.stop.set()

    async def _do_faults(self, session: aiohttp.ClientSession) -> None:
        scene = Scene(self.installation, session, self.dice)
        await asyncio.sleep(self.size.warm_up)
        for step in self.steps:
            await asyncio.sleep(step.after)
            self.say(f"{step.fault.name} for {step.seconds:.1f} s")
            self.history.repairs += await self._repairs_at_risk(session, step.fault)
            async with step.fault.on(scene, self.history.windows):
                await asyncio.sleep(step.seconds)

    async def _repairs_at_risk(self, session: aiohttp.ClientSession, fault: Fault) -> int:
        """What dies with a process must be counted before."""
        return 0

    async def _talk(self, student: Student) -> None:
        """One message after the other, at a rate that all students together keep."""
        pause = len(self.students) / self.size.rate
        await asyncio.sleep(self.dice.random() * pause)
        while self.talking.is_set():
            began = time.monotonic()
            await student.say(self.dice.choice(student.rooms), SEND_PATIENCE)
            await asyncio.sleep(max(0.0, pause - (time.monotonic() - began)))

    async def _settle(self, school: School) -> None:
        """Read the logs when nobody writes, and give every view the time that is promised."""
        for room in self.rooms:
            self.history.logs[room] = await school.log_of(room)
        heads = {room: len(log) for room, log in self.history.logs.items()}
        until = time.monotonic() + SETTLE_PATIENCE

        def is_quiet() -> bool:
            return all(view.last_seq >= heads[view.room] for view in self.history.views)

        while not is_quiet() and time.monotonic() < until:  # noqa: ASYNC110 - many events make it quiet
            await asyncio.sleep(0.05)

    async def _check_leaks(self, session: aiohttp.ClientSession, baseline: dict[str, Footprint]) -> None:
        """G17: what replicas hold is what they held before the first client came."""
        until = time.monotonic() + LEAK_PATIENCE
        leaks: list[str] = []
        while time.monotonic() < until:
            leaks = [
                leak for replica in self.installation.replicas for leak in await _leaks(session, replica, baseline)
            ]
            leaks += await _left_in_redis(self.installation)
            if not leaks:
                return
            await asyncio.sleep(0.25)
        self.history.leaks += leaks


async def _leaks(session: aiohttp.ClientSession, replica: Replica, baseline: dict[str, Footprint]) -> list[str]:
    return (await footprint(session, replica)).beyond(baseline[replica.name])


async def _left_in_redis(installation: Installation) -> list[str]:
    """Keys of rooms without people, leases without replicas, and channels that nobody needs."""
    redis = Redis.from_url(installation.located.redis_url, decode_responses=True)
    try:
        keys = [str(key) async for key in redis.scan_iter("lectern:*")]
        channels = [str(channel) for channel in await redis.pubsub_channels("lectern:room:*")]
    finally:
        await redis.aclose()
    stray = [key for key in keys if not key.startswith("lectern:presence:replica")]
    leaks = [f"Redis key {key}" for key in stray] + [f"Redis channel {channel}" for channel in channels]
    leases = [key for key in keys if key.startswith("lectern:presence:replica:")]
    if len(leases) > 2 * len(installation.replicas):
        leaks.append(f"{len(leases)} Redis keys of leases")
    return leaks
