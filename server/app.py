"""The composition root: what a Lectern process consists of, in the order in which it starts and stops.

The only file that imports every module. Nothing here decides anything about a class or a message.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import redis.exceptions
from aiohttp import web
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from modules import auth, chat, classroom, profile
from modules.web.routes import add_static
from server.clock import Clock
from server.cpu import CpuThreads
from server.database import Database
from server.gateway.admission import Admission
from server.gateway.application import build_application
from server.gateway.idempotency import sweep
from server.gateway.protocol import GatewayRunner
from server.gateway.proxies import TrustedProxies
from server.health import Health
from server.limits import Limits
from server.logs import RateLimitedLog
from server.metrics import EVENT_LOOP_LAG, EVENT_LOOP_TASKS, SLOW_CONSUMERS, start_metrics_site
from server.migrate import await_schema
from server.module import INSTALLED
from server.outbox import Outbox
from server.realtime.channels import Channels
from server.realtime.connection import Connection
from server.realtime.engine import Engine
from server.realtime.fanout import Rooms
from server.realtime.log import RoomLog
from server.realtime.namespace import ROOM_NAMESPACES, RoomNamespace, Sockets
from server.realtime.presence import Presence
from server.realtime.protocol import Client
from server.realtime.reference import describe_commands
from server.realtime.revocation import INTERVAL as REVOCATION_INTERVAL
from server.realtime.revocation import Revocation
from server.realtime.work import RoomRules
from server.runtime import Runtime
from server.settings import Settings, planted_bugs
from server.tasks import Tasks

logger = logging.getLogger(__name__)

MODULES = (auth.MODULE, profile.MODULE, classroom.MODULE, chat.MODULE)
RULES = RoomRules(read_roles=classroom.read_roles, fold=classroom.fold)

SOCKET_PATH = "/socket.io/"
GOODBYE_WAIT = 1.0  # seconds that clients get to leave by themselves when the server drains
RECONNECT_SPREAD = 3000  # milliseconds over which drained clients come back
SWEEP_PAUSE = (300.0, 600.0)  # seconds between two sweeps of old idempotency keys
# What a connection that died while it was idle raises; RuntimeError is uvloop's word for a closed transport.
LOST_CONNECTION = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, RuntimeError)
LAG_INTERVAL = 0.25  # seconds between two samples of the loop's lag
TOKEN_INTERVAL = 2.0  # seconds between two looks at the ends of tokens


@dataclass(frozen=True, slots=True)
class Server:
    """A Lectern process that has started: its runtime and what answers HTTP and Socket.IO."""

    rt: Runtime
    application: web.Application
    engine: Engine
    namespaces: dict[str, RoomNamespace]
    health: Health
    tasks: Tasks


@asynccontextmanager
async def running(settings: Settings, *, schema_patience: float = 0.0) -> AsyncIterator[Server]:
    """Start everything but the listening port, and stop it again in the reverse order.

    Somebody who migrates at this moment gets `schema_patience` seconds for it.

    Raises:
        ConfigurationError: PostgreSQL cannot be reached, or its schema is not ours.
    """
    await await_schema(settings.database, schema_patience)
    async with AsyncExitStack() as stack:
        rt, tasks = await _start_runtime(settings, stack)
        server = _assemble(rt, tasks)
        _start_background_work(rt, tasks)
        tasks.forever(_measure_lag, name="loop lag", pause=lambda: 0.0)
        loop = asyncio.get_running_loop()
        EVENT_LOOP_TASKS.set_function(lambda: len(asyncio.all_tasks(loop)))  # it may be asked from outside of it
        yield server


async def serve(settings: Settings, stop: asyncio.Event, *, schema_patience: float = 0.0) -> None:
    """Serve until `stop` is set, then drain: no request that was accepted fails.

    Raises:
        ConfigurationError: as for `running`.
        OSError: the port is taken.
    """
    async with running(settings, schema_patience=schema_patience) as server:
        runner = GatewayRunner(server.application, settings.http)
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.http.host, settings.http.port, backlog=1024).start()
            metrics = (
                await start_metrics_site(settings.http.host, settings.metrics.port) if settings.metrics.port else None
            )
            # What lives now lives for ever: the collector need not look at it again (REALTIME.md step 6).
            gc.collect()
            gc.freeze()
            logger.info("serving", extra={"host": settings.http.host, "port": settings.http.port})
            await stop.wait()
            if "no_drain" in planted_bugs():
                os._exit(0)
            await _drain(server)
            if metrics is not None:
                await metrics.cleanup()
        finally:
            await runner.cleanup()


async def _start_runtime(settings: Settings, stack: AsyncExitStack) -> tuple[Runtime, Tasks]:
    """Open the connections and start the room log; PostgreSQL must answer, Redis may be away."""
    tasks = Tasks()
    clock = Clock()
    database = Database(settings.database)
    stack.push_async_callback(database.close)
    redis = _redis(settings)
    stack.push_async_callback(redis.aclose)
    stack.push_async_callback(tasks.stop)
    cpu = CpuThreads(queue=settings.auth.argon2_queue)
    stack.callback(cpu.close)

    rooms = Rooms(settings.realtime, _bus_key(settings), tasks)
    prefix = settings.redis.prefix
    rooms.channels = Channels(redis, prefix, tasks, on_payload=rooms.receive, on_restore=rooms.restored)
    rooms.presence = Presence(redis, prefix, tasks, settings.realtime, rooms.change_presence)
    rooms.log = RoomLog(database, clock, tasks, RULES, rooms.deliver, settings.realtime.max_event_bytes)
    await rooms.log.start()
    rooms.channels.start()
    rooms.presence.start()
    stack.push_async_callback(rooms.presence.stop)
    stack.callback(rooms.stop)
    rooms.start()
    rt = Runtime(settings, clock, database, redis, cpu, Limits(settings.limits, redis, prefix, tasks), rooms.log, rooms)
    return rt, tasks


def _assemble(rt: Runtime, tasks: Tasks) -> Server:
    """The doors: REST, Socket.IO and the web client over one runtime."""
    settings = rt.settings
    commands = [command for module in MODULES for command in module.commands]
    sockets = Sockets(settings.realtime.connections_per_user)
    namespaces = {name: RoomNamespace(name, rt, commands, auth.authenticate, sockets) for name in ROOM_NAMESPACES}
    engine = _build_engine(settings, namespaces, tasks)
    tasks.forever(_beating(engine), name="ping wheel", pause=lambda: engine.beat_interval)
    tasks.forever(_checking_tokens(sockets, rt.clock), name="token ends", pause=lambda: TOKEN_INTERVAL)
    revocation = Revocation(
        rt.database,
        rt.clock,
        sockets,
        rt.rooms,
        read_sessions=auth.live_sessions,
        read_roles=classroom.read_roles,
    )
    tasks.forever(revocation.check, name="revocations", pause=lambda: REVOCATION_INTERVAL)

    health = Health({"postgresql": rt.database.ping})
    rt.rooms.channels.on_up = lambda up: health.report("redis", up=up)
    health.report("redis", up=rt.rooms.channels.up)
    admission = Admission(settings.limits)
    tasks.forever(admission.watch_loop, name="admission", pause=lambda: 0.0)
    tasks.forever(partial(sweep, rt.database), name="idempotency keys", pause=partial(random.uniform, *SWEEP_PAUSE))
    application = build_application(
        rt,
        MODULES,
        auth.authenticate,
        health=health,
        admission=admission,
        events_document=describe_commands(commands),
    )
    application[INSTALLED] = MODULES
    application.router.add_route("*", SOCKET_PATH, engine.handle)
    add_static(application, replica_ports=settings.http.replica_ports)
    return Server(rt, application, engine, namespaces, health, tasks)


def _build_engine(settings: Settings, namespaces: dict[str, RoomNamespace], tasks: Tasks) -> Engine:
    """The Socket.IO door: each connection carries a client of our namespaces."""
    faults = RateLimitedLog(logger, lines=5, interval=10.0)

    def accept(connection: Connection) -> Client:
        limits = settings.realtime
        return Client(
            connection, namespaces, tasks, timeout=limits.command_timeout, max_queued=limits.max_queued_commands
        )

    return Engine(
        settings.realtime,
        accept,
        origins=_origins(settings),
        address=TrustedProxies(settings.http.trusted_proxies).client_ip,
        on_fault=lambda reason: faults.info("a client broke the protocol", extra={"reason": reason}),
        on_slow=SLOW_CONSUMERS.inc,
    )


def _start_background_work(rt: Runtime, tasks: Tasks) -> None:
    """The consumers of durable events and the periodic work of the modules."""
    Outbox(rt, tasks, [consumer for module in MODULES for consumer in module.consumers]).start()
    for work in (work for module in MODULES for work in module.periodic):
        tasks.forever(partial(work.run, rt), name=work.name, pause=partial(random.uniform, work.every / 2, work.every))


async def _drain(server: Server) -> None:
    """Send clients elsewhere, spread over some seconds, before the port closes."""
    server.health.draining = True
    server.engine.draining = True
    for connection in list(server.engine.connections.values()):
        session = connection.session
        if isinstance(session, Client):
            for socket in session.sockets.values():
                socket.emit("going_away", {"reconnect_in_ms": random.randrange(RECONNECT_SPREAD)})  # noqa: S311 (jitter)
    await server.engine.wait_until_empty(GOODBYE_WAIT)
    server.engine.close_all("server is going away")


def _redis(settings: Settings) -> Redis:
    """A client whose every call ends soon: one retry at once, for a connection that died while it was idle."""
    timeout = settings.redis.timeout
    pool = BlockingConnectionPool.from_url(
        settings.redis.url,
        max_connections=settings.redis.pool_size,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1, supported_errors=LOST_CONNECTION),  # type: ignore[arg-type]  # it takes any
        health_check_interval=0,
    )
    return Redis.from_pool(pool)


def _bus_key(settings: Settings) -> bytes:
    """The key that seals what replicas tell each other; all replicas share the secret, so they share the key."""
    return hashlib.blake2b(settings.secret.encode(), digest_size=32, person=b"lectern bus").digest()


def _origins(settings: Settings) -> Callable[[web.Request], frozenset[str] | None]:
    """Browser origins that may open a socket: those of the configuration, and the one the request itself came to."""
    configured = frozenset((*settings.http.cors_origins, settings.public_url))
    return lambda request: configured | {f"{request.scheme}://{request.host}"}


def _beating(engine: Engine) -> Callable[[], Awaitable[None]]:
    async def beat() -> None:
        engine.beat()

    return beat


def _checking_tokens(sockets: Sockets, clock: Clock) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        sockets.check_tokens(clock.unix())

    return check


async def _measure_lag() -> None:
    began = time.perf_counter()
    await asyncio.sleep(LAG_INTERVAL)
    EVENT_LOOP_LAG.observe(max(0.0, time.perf_counter() - began - LAG_INTERVAL))
