"""One fault run: fill a school, let it talk, do the faults, heal, wait until it is quiet, collect the history.

The order matters at the end: first all must be as before, then talk ends, then every view may catch up, then the log
is read, then everybody leaves, and only then it is counted what the replicas still hold.
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
SPEAKERS = 6  # clients, over all replicas and most rooms, who try whether one can speak again
ONE_SAY = 2.0  # seconds until such a try has failed
PEOPLE = 30  # students of the demo school


@dataclass(frozen=True, slots=True)
class Size:
    """How much happens in a run (GUARANTEES.md: 40 clients, 5 rooms, 50 messages a second)."""

    clients: int = 40
    rooms: int = 5  # the last one is quiet: one message in each fault, and silence behind it
    rate: float = 50.0  # messages per second
    load: int = 3  # clients that use REST
    warm_up: float = 2.0  # seconds of talk before the first fault
    cool_down: float = 3.0  # seconds of talk behind the last
    patience: float = 0.0  # seconds behind the last fault until presence is looked at for the last time
    settle: float = (
        10.0  # G1, G3, G11: seconds after healing until all is as before, and until every view equals the log
    )
    leaks: float = 12.0  # seconds until the counts are back: linger, keep-alives, leases
    rests: tuple[float, float] = (2.0, 30.0)  # seconds that those stay away who leave when a fault begins

    @property
    def people(self) -> int:
        """Persons; the clients beyond them are second tabs."""
        return min(PEOPLE, max(1, self.clients * 3 // 4))


@dataclass(frozen=True, slots=True)
class Step:
    """Do a fault for some seconds, `after` seconds behind the last one."""

    fault: Fault
    seconds: float
    after: float = 0.0


@dataclass(slots=True)
class Run:
    """A run on an installation that serves; there may be others on it before and behind."""

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
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            school = School(session, [replica.direct for replica in self.installation.replicas])
            self.rooms = await school.make_rooms(self.size.rooms)
            baseline = {replica.name: await footprint(session, replica) for replica in self.installation.replicas}
            repaired = await self._repairs(session)
            try:
                await self._fill(school)
                await self._act(session, school)
                await self._settle(school)
            finally:
                for student in self.students:
                    student.stop()
                await self.tasks.stop()
            # The count of a replica that was replaced starts again at 0.
            self.history.repairs = max(0, await self._repairs(session) - repaired)
            await self._check_leaks(session, baseline)
        return self.history

    @property
    def quiet_room(self) -> str:
        return self.rooms[-1]

    async def _fill(self, school: School) -> None:
        """Everybody comes in, each in one of the rooms; a second tab goes where the first one is."""
        urls = [replica.url for replica in self.installation.replicas]
        for index in range(self.size.clients):
            number = index % self.size.people
            person = await school.person(f"student{1 + number}")
            dice = random.Random(self.dice.random())  # noqa: S311 - a run that can be repeated, no secret
            student = Student(
                f"client {index}",
                person,
                [self.rooms[number % len(self.rooms)]],
                urls,
                history=self.history,
                tasks=self.tasks,
                dice=dice,
            )
            if index >= self.size.people:
                student.twin = self.students[number]
            self.students.append(student)
            student.start(number + index // self.size.people)
        async with asyncio.timeout(SEND_PATIENCE):
            for student in self.students:
                await student.connected()

    async def _act(self, session: aiohttp.ClientSession, school: School) -> None:
        teacher = await school.person("teacher")
        dice = random.Random(self.dice.random())  # noqa: S311 - as above
        watch = Watch(session, self.installation.replicas, teacher, self.rooms, self.history, dice)
        self.talking.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(watch.run(self.size.load), name="verify:watch")
            for student in self.students:
                if student.rooms[0] != self.quiet_room:
                    group.create_task(self._talk(student), name="verify:talk")
            try:
                await self._do_faults(session)
                await self._recover(watch)
                await asyncio.sleep(self.size.cool_down)
            finally:
                self.talking.clear()
                await asyncio.sleep(self.size.patience)
                watch.stop.set()

    async def _do_faults(self, session: aiohttp.ClientSession) -> None:
        scene = Scene(self.installation, session, self.dice)
        await asyncio.sleep(self.size.warm_up / 2)
        if len(self.students) > self.size.people:
            self.students[-1].rest(0.1)  # one of two tabs: nobody leaves
        await asyncio.sleep(self.size.warm_up / 2)
        async with asyncio.TaskGroup() as group:
            for step in self.steps:
                await asyncio.sleep(step.after)
                self.say(f"{step.fault.name} for {step.seconds:.1f} s")
                async with step.fault.on(scene, self.history.windows):
                    self._send_some_away()
                    await asyncio.sleep(step.seconds / 2)
                    group.create_task(self._break_silence(), name="verify:quiet room")
                    await asyncio.sleep(step.seconds / 2)

    def _send_some_away(self) -> None:
        """Every sixth client, but never the one who speaks in the quiet room."""
        others = [student for student in self.students if student is not self._speaker()]
        for student in self.dice.sample(others, max(2, len(others) // 6)):
            if not student.is_resting:
                student.rest(self.dice.uniform(*self.size.rests))

    def _speaker(self) -> Student:
        return next(student for student in self.students if student.rooms[0] == self.quiet_room)

    async def _break_silence(self) -> None:
        await self._speaker().say(self.quiet_room, SEND_PATIENCE)

    async def _talk(self, student: Student) -> None:
        """One message after the other, at a rate that all students together keep."""
        pause = len(self.students) / self.size.rate
        await asyncio.sleep(self.dice.random() * pause)
        while self.talking.is_set():
            began = time.monotonic()
            if not student.is_resting:
                await student.say(student.rooms[0], SEND_PATIENCE)
            await asyncio.sleep(max(0.05, pause - (time.monotonic() - began)))

    async def _recover(self, watch: Watch) -> None:
        """G3 and G11: all healthy, everybody shown who is there and nobody else, and whoever speaks is acked."""
        began = time.monotonic()
        problem = "nobody looked"
        while time.monotonic() - began < self.size.settle:
            if not (problem := await self._problem(watch)):
                self.history.recovered_after = time.monotonic() - began
                return
            await asyncio.sleep(0.1)
        self.history.unrecovered.append(f"{self.size.settle:g} s after the last fault: {problem}")

    async def _problem(self, watch: Watch) -> str:
        """What is not yet as before the faults; empty when all is."""
        for replica in self.installation.replicas:
            status, degraded = await watch.ask_readiness(replica)
            if status != 200 or degraded:
                return f"{replica.name} answers {status} {sorted(degraded)}"
            for room in self.rooms:
                roster = await watch.ask_roster(replica, room)
                mine = [student for student in self.students if student.rooms[0] == room]
                there = {student.person.id for student in mine if student.is_connected}
                maybe = {student.person.id for student in mine if not student.is_resting} | there
                if roster is None or roster.stale:
                    return f"{replica.name} does not know who is in {room}"
                if not there <= roster.users <= maybe:
                    return f"{replica.name} shows {len(roster.users)} people in {room}, there are {len(there)}"
        awake = [student for student in self.students if student.is_connected and not student.is_resting]
        speakers = [student for student in awake if student.rooms[0] != self.quiet_room][:SPEAKERS]
        said = await asyncio.gather(*(student.say(student.rooms[0], ONE_SAY) for student in speakers))
        return "" if all(message.acks for message in said) else "what is said is not acked"

    async def _settle(self, school: School) -> None:
        """Read the logs when nobody writes, and give every view the time that is promised."""
        for student in self.students:
            student.come_back()
        for room in self.rooms:
            self.history.logs[room] = await school.log_of(room)
        heads = {room: len(log) for room, log in self.history.logs.items()}
        until = time.monotonic() + self.size.settle

        def is_quiet() -> bool:
            return all(view.last_seq >= heads[view.room] for view in self.history.views)

        while not is_quiet() and time.monotonic() < until:  # noqa: ASYNC110 - many events make it quiet
            await asyncio.sleep(0.05)

    async def _repairs(self, session: aiohttp.ClientSession) -> int:
        return sum([await repairs(session, replica) for replica in self.installation.replicas])

    async def _check_leaks(self, session: aiohttp.ClientSession, baseline: dict[str, Footprint]) -> None:
        """G17: what replicas hold is what they held before the first client came."""
        until = time.monotonic() + self.size.leaks
        leaks: list[str] = []
        while time.monotonic() < until:
            leaks = [leak for item in self.installation.replicas for leak in await _leaks(session, item, baseline)]
            leaks += await _left_in_redis(self.installation)
            if not leaks:
                return
            await asyncio.sleep(0.1)
        self.history.leaks += leaks


async def _leaks(session: aiohttp.ClientSession, replica: Replica, baseline: dict[str, Footprint]) -> list[str]:
    return (await footprint(session, replica)).beyond(baseline[replica.name])


async def _left_in_redis(installation: Installation) -> list[str]:
    """Keys of rooms without people, leases without replicas, and channels that nobody needs.

    What runs out by itself (the windows of the rate limits) is none of them.
    """
    redis = Redis.from_url(installation.located.redis_url, decode_responses=True)
    try:
        keys = [str(key) async for key in redis.scan_iter("lectern:*")]
        lasting = [key for key in keys if await redis.ttl(key) == -1]
        channels = [str(channel) for channel in await redis.pubsub_channels("lectern:room:*")]
    finally:
        await redis.aclose()
    stray = [key for key in lasting if not key.startswith("lectern:presence:replica")]
    leaks = [f"Redis key {key}" for key in stray] + [f"Redis channel {channel}" for channel in channels]
    leases = [key for key in keys if key.startswith("lectern:presence:replica:")]
    if len(leases) > len(installation.replicas):
        leaks.append(f"{len(leases)} Redis keys of leases")
    return leaks
