"""`realtime`: how fast events reach everybody in a room, beside the servers that Lectern has to be better than.

One server at a time on a core of its own, all with the same clients, rooms, rates and bytes. Lectern is measured over
its whole real path: token, `join_room`, membership, the gate, and for durable messages the commit to PostgreSQL in
front of the ack. Its ephemeral event is `typing`. The peers check nothing (peers_node/server.mjs).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scripts.benches import machine
from scripts.benches.figures import Figure, compare
from scripts.benches.generator import DURABLE, EPHEMERAL, Failed, Generator, Step, generating
from scripts.benches.options import Options
from scripts.benches.school import School, school
from scripts.benches.servers import (
    LECTERN,
    NODE,
    NODE_BATCH,
    NODE_INSERT,
    NODE_REDIS,
    PING_INTERVAL,
    SETTINGS,
    STOCK,
    Server,
    install_peers,
    serving,
)
from scripts.benches.trial import FULL, QUICK, Crowd, Effort, Trial, trial

BENCH = "realtime"
SPREAD = {EPHEMERAL: (LECTERN, NODE, NODE_REDIS, STOCK), DURABLE: (LECTERN, NODE_INSERT, NODE_BATCH)}
PING_CYCLES = 2
EVENTS_OF_REPLICAS = 200.0  # per second


@dataclass(frozen=True, slots=True)
class Scenario:
    """A crowd, what it does on an ordinary day, and where the search for the most begins (0: there is none)."""

    name: str
    mode: str
    crowd: Crowd
    ordinary: float  # commands per second, all rooms together
    start: float = 0.0
    is_quick: bool = False

    @property
    def title(self) -> str:
        size = self.crowd.clients // self.crowd.rooms
        return f"{self.name} {self.mode}: {self.crowd.clients:,} clients, {self.crowd.rooms} × {size}"


SCENARIOS = (
    Scenario("S1", EPHEMERAL, Crowd(1000, 20), ordinary=400, start=400, is_quick=True),
    Scenario("S1b", EPHEMERAL, Crowd(5000, 100), ordinary=400, start=400),
    Scenario("S2", EPHEMERAL, Crowd(2000, 1), ordinary=10, start=10),
    Scenario("S4", EPHEMERAL, Crowd(1000, 500), ordinary=1000, start=2000),
    Scenario("10k", EPHEMERAL, Crowd(10_000, 200), ordinary=200),
    Scenario("S1", DURABLE, Crowd(1000, 20), ordinary=400, start=400, is_quick=True),
    Scenario("125 rooms", DURABLE, Crowd(1000, 125), ordinary=1000, start=1000),
    Scenario("one room", DURABLE, Crowd(1000, 1), ordinary=10, start=20),
    Scenario("lone", DURABLE, Crowd(1000, 500), ordinary=10),
    Scenario("S1b", DURABLE, Crowd(5000, 100), ordinary=400),
    Scenario("S2", DURABLE, Crowd(2000, 1), ordinary=10),
    Scenario("10k", DURABLE, Crowd(10_000, 200), ordinary=200),
)
# What Lectern's figures are divided by, where it was in the run.
RIVALS = (NODE, NODE_INSERT, NODE_BATCH)


async def run(options: Options) -> list[Figure]:
    """All scenarios with all their servers, or those that were asked for."""
    print(machine.settle_down())
    print("changed for Lectern:", *(f"{name}={value}" for name, value in SETTINGS.items()))
    wanted = [scenario for scenario in SCENARIOS if _is_wanted(scenario, options)]
    idle = Crowd(1000 if options.quick else 5000, 20 if options.quick else 100)
    install_peers([name for name in (NODE,) if options.wants_server(name)])
    students = max([idle.clients, *(scenario.crowd.clients for scenario in wanted)])
    figures: list[Figure] = []
    async with school(students=students + 20, rooms=500) as place:
        if options.wants("S3"):
            figures += await _idle(place, idle, options)
        for scenario in wanted:
            figures += await _scenario(place, scenario, options)
        if options.wants("replica") and not options.quick and options.wants_server(LECTERN):
            try:
                figures += await _replica(place)
            except Failed as failure:
                print(f"NOT MEASURED: one more replica: {failure}")
    return compare(figures, LECTERN, RIVALS)


def _is_wanted(scenario: Scenario, options: Options) -> bool:
    if scenario.crowd.clients > machine.most_clients():
        print(f"LEFT OUT: {scenario.title} needs more open files than this machine allows a process (ulimit -Hn)")
        return False
    return options.wants(scenario.title) and (scenario.is_quick or not options.quick)


async def _scenario(place: School, scenario: Scenario, options: Options) -> list[Figure]:
    effort = QUICK if options.quick else FULL
    figures: list[Figure] = []
    for name in SPREAD[scenario.mode]:
        if options.wants_server(name) and not (options.quick and name in (NODE_REDIS, STOCK, NODE_BATCH)):
            options.note(f"{scenario.title}: {name}")
            try:
                async with trial(place, name, scenario.crowd, scenario.mode, effort) as attempt:
                    figures += await _measure(attempt, scenario, effort)
            except Failed as failure:  # the other servers are still worth their figures
                print(f"NOT MEASURED: {scenario.title}, {name}: {failure}")
    return figures


async def _measure(attempt: Trial, scenario: Scenario, effort: Effort) -> list[Figure]:
    name = attempt.name
    steady = await attempt.step(scenario.ordinary, effort.steady_seconds)
    title = f"{scenario.title}, {scenario.ordinary:g}/s"
    figures = [
        *_load(title, name, steady, scenario.mode),
        Figure(BENCH, title, name, "memory", attempt.memory_mib, "MiB"),
        Figure(BENCH, title, name, "joins/s", attempt.joins_per_second, ""),
    ]
    if scenario.start:
        for limit, step in (await attempt.search(scenario.start)).items():
            figures += _most(f"{scenario.title}, most at p99 < {limit:g} ms", name, step, scenario.mode)
    return figures


def _most(title: str, name: str, step: Step | None, mode: str) -> list[Figure]:
    if step is None:
        return [Figure(BENCH, title, name, "messages/s", 0.0, "")]
    return [
        Figure(BENCH, title, name, "messages/s", step.sent / step.seconds, ""),
        *_load(title, name, step, mode),
    ]


def _load(title: str, name: str, step: Step, mode: str) -> list[Figure]:
    """What one rate cost, and how long it took."""
    server_cpu, services_cpu, waited = step.used

    def figure(metric: str, value: float, unit: str = "") -> Figure:
        return Figure(BENCH, title, name, metric, value, unit)

    acks = [figure("ack p50", step.ack_p50, "ms"), figure("ack p99", step.ack_p99, "ms")] if mode == DURABLE else []
    faults = [] if step.is_whole else [figure("NOT DELIVERED", step.expected - step.delivered)]
    return [
        figure("deliveries/s", step.deliveries_per_second),
        *acks,
        figure("p50", step.p50, "ms"),
        figure("p99", step.p99, "ms"),
        figure("p99.9", step.p999, "ms"),
        figure("server CPU", 100 * server_cpu / step.seconds, "%"),
        figure("deliveries/CPU-s", step.arrived / max(server_cpu, 0.001)),
        *([figure("frames/read", step.frames / step.reads)] if step.reads else []),
        figure("server waited", 100 * waited / step.seconds, "%"),
        figure("services CPU", 100 * services_cpu / step.seconds, "%"),
        figure("generator CPU", 100 * step.generator_cpu / step.seconds, "%"),
        *faults,
    ]


async def _idle(place: School, crowd: Crowd, options: Options) -> list[Figure]:
    """S3: what a client costs that only sits in its room."""
    figures: list[Figure] = []
    for name in SPREAD[EPHEMERAL]:
        if options.wants_server(name) and not (options.quick and name in (NODE_REDIS, STOCK)):
            options.note(f"S3: {name}")
            async with serving(place, name) as (server,), generating(crowd.lines(place, server)) as generator:
                figures += await _sit(server, generator, crowd.clients)
    return figures


async def _sit(server: Server, generator: Generator, clients: int) -> list[Figure]:
    title = f"S3: {clients:,} idle clients, each in a room of 50"
    before = server.resident_kib()
    connects, joins = await generator.connect(), await generator.join()
    used = server.cpu_seconds()
    seconds = PING_CYCLES * PING_INTERVAL + 2.0
    pings = await generator.hold(seconds)
    used = server.cpu_seconds() - used
    return [
        Figure(BENCH, title, server.name, "connects/s", connects, ""),
        Figure(BENCH, title, server.name, "joins/s", joins, ""),
        Figure(BENCH, title, server.name, "memory each", (server.resident_kib() - before) / clients, "KiB"),
        Figure(BENCH, title, server.name, "server CPU", 100 * used / seconds, "%"),
        Figure(BENCH, title, server.name, "pings each", pings / clients, ""),
    ]


async def _replica(place: School) -> list[Figure]:
    """What it costs per event that one more replica has a member of the room."""
    crowd, figures = Crowd(1000, 20), []
    for mode in (EPHEMERAL, DURABLE):
        async with serving(place, LECTERN, replicas=2) as (first, second):
            alone = await _cost(crowd.lines(place, first), mode, first, second)
        async with serving(place, LECTERN, replicas=2) as (first, second):
            shared = await _cost(list(_with_guests(place, crowd, first, second)), mode, first, second)
        title = f"one more replica with one member of the room, {mode}, {EVENTS_OF_REPLICAS:g}/s"
        figures += [
            Figure(BENCH, title, LECTERN, "there", shared[1] - alone[1], "µs/event"),
            Figure(BENCH, title, LECTERN, "both (noisy)", sum(shared) - sum(alone), "µs/event"),
        ]
    return figures


def _with_guests(place: School, crowd: Crowd, first: Server, second: Server) -> Iterator[str]:
    """The crowd at one replica, and in each room one more who sits at the other."""
    size = crowd.clients // crowd.rooms + 1
    for number, student in enumerate(place.students[: size * crowd.rooms]):
        server = second if number % size == size - 1 else first
        yield f"{server.port} {place.room_ids[number // size]} {student.user_id} {server.token(place, student)}"


async def _cost(lines: list[str], mode: str, *servers: Server) -> list[float]:
    """Microseconds of each server per event."""
    async with generating(lines) as generator:
        await generator.connect()
        await generator.join()
        step = await generator.step(
            mode, EVENTS_OF_REPLICAS, FULL.warm, FULL.steady_seconds, lambda: [one.cpu_seconds() for one in servers]
        )
    return [1e6 * used / step.sent for used in step.used]
