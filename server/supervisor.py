"""`python -m server up`: the private services, the migration and N replicas, kept alive by one small process.

Owns the order of starting and stopping and the one ready line on standard output. Never serves a request and imports
no feature, so that it starts fast and has nothing that could break; what a replica is, `python -m server serve` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import TypeVar

from server.embedded import EmbeddedServices, Services
from server.settings import ConfigurationError, Settings

T = TypeVar("T")

CONFIGURATION_EXIT = 2  # exit code of a configuration that cannot work; trying again would not help
SERVER = (sys.executable, "-m", "server")
PROBE_INTERVAL = 0.05  # seconds between two questions whether a replica can serve
PROBE_TIMEOUT = 2.0  # seconds
SERVICES_INTERVAL = 1.0  # seconds between two looks at the private services
RESTART_PAUSE = 0.2  # seconds before a dead replica is started again; doubles
RESTART_PAUSE_LIMIT = 5.0  # seconds
SCHEMA_PATIENCE = 120.0  # seconds that a replica waits for the migration that was started with it
STABLE_AFTER = 30.0  # seconds of life after which a death counts as the first one again
DRAIN_MARGIN = 5.0  # seconds that a replica gets beyond its own drain timeout
STANDARD_ERROR = 2  # standard output carries the ready line and nothing else
WILDCARDS = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to probe what listens everywhere


async def up(settings: Settings, *, replicas: int, demo: bool) -> int:
    """Run until SIGTERM or SIGINT and return the exit code; a second signal kills the replicas at once."""
    try:
        endpoints = _endpoints(settings.http.host, settings.http.port, replicas)
    except ConfigurationError as error:
        _say(str(error))
        return CONFIGURATION_EXIT
    supervisor = Supervisor(settings, endpoints, demo=demo)
    with supervisor.signals():
        return await supervisor.run()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one replica listens."""

    host: str  # as configured
    port: int

    @property
    def reachable_host(self) -> str:
        return WILDCARDS.get(self.host, self.host)

    @property
    def url(self) -> str:
        host = self.reachable_host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    async def can_serve(self) -> bool:
        """Ask for readiness with a bare request: an HTTP client would take longer to import than the answer."""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(PROBE_TIMEOUT):
                reader, writer = await asyncio.open_connection(self.reachable_host, self.port)
                try:
                    writer.write(
                        f"GET /health/ready HTTP/1.1\r\nHost: {self.url[7:]}\r\nConnection: close\r\n\r\n".encode()
                    )
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        return False


class Supervisor:
    """One run of Lectern on this machine."""

    def __init__(self, settings: Settings, endpoints: list[Endpoint], *, demo: bool) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._demo = demo
        self._ended = asyncio.Event()  # a signal came, or the work failed
        self._exit_code = 0
        self._announced = False
        self._children: set[Process] = set()

    async def run(self) -> int:
        """Bring everything up, keep it up, and take it down in the opposite order."""
        embedded = EmbeddedServices(self._settings)
        try:
            if services := await self._unless_ended(embedded.start()):
                await self._unless_ended(self._work(embedded, self._environment(services)))
        except* ConfigurationError as errors:
            _say(str(errors.exceptions[0]))
            self._exit_code = CONFIGURATION_EXIT
        finally:
            await embedded.stop()  # out of reach of what cancels the rest
        return self._exit_code

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """End on the first signal, kill on the second."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._hear)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _hear(self) -> None:
        if self._ended.is_set():
            for child in self._children:
                _send(child, signal.SIGKILL)
        self._ended.set()

    def _fail(self, exit_code: int) -> None:
        self._exit_code = exit_code if exit_code > 0 else 1  # negative: ended by a signal
        self._ended.set()

    async def _unless_ended(self, work: Coroutine[object, object, T]) -> T | None:
        """Run to the end of the work or of Lectern; what is cancelled cleans up before this returns."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work, name="supervisor")
            ended = group.create_task(self._ended.wait(), name="end")
            await asyncio.wait((task, ended), return_when=asyncio.FIRST_COMPLETED)
            task.cancel()
            ended.cancel()
        return None if task.cancelled() else task.result()

    async def _work(self, embedded: EmbeddedServices, environment: dict[str, str]) -> None:
        with _lifeline() as lifeline:
            async with asyncio.TaskGroup() as group:
                # A replica takes as long to import its program as the migration takes: they start together.
                migrated = group.create_task(self._migrate(environment), name="migrate")
                for index, endpoint in enumerate(self._endpoints):
                    own = environment | self._ports(index, endpoint)
                    group.create_task(self._keep(endpoint, own, lifeline), name=f"replica {endpoint.port}")
                group.create_task(self._announce(migrated), name="announce")
                group.create_task(_keep_services(embedded), name="private services")

    async def _migrate(self, environment: dict[str, str]) -> None:
        migration = await self._child("migrate", *["--demo"] * self._demo, environment=environment)
        if migration.returncode:
            self._fail(migration.returncode)

    def _environment(self, services: Services) -> dict[str, str]:
        """Hand our own environment on, with what the command line and the private services have settled."""
        return os.environ | {
            "LECTERN_DATABASE__URL": services.database_url,
            "LECTERN_REDIS__URL": services.redis_url,
            "LECTERN_DATA_DIR": str(self._settings.data_dir.resolve()),
            "LECTERN_HTTP__HOST": self._settings.http.host,
            **self._siblings(),
        }

    def _siblings(self) -> dict[str, str]:
        """Let the pages of one replica go on with another, which is another origin as long as nothing is in front."""
        if len(self._endpoints) == 1:
            return {}
        ports = [endpoint.port for endpoint in self._endpoints]
        hosts = dict.fromkeys(("127.0.0.1", "localhost", self._endpoints[0].reachable_host))
        origins = [*self._settings.http.cors_origins, *(f"http://{host}:{port}" for host in hosts for port in ports)]
        return {
            "LECTERN_HTTP__REPLICA_PORTS": json.dumps(ports),
            "LECTERN_HTTP__CORS_ORIGINS": json.dumps(origins),
        }

    def _ports(self, index: int, endpoint: Endpoint) -> dict[str, str]:
        metrics = self._settings.metrics.port
        return {
            "LECTERN_HTTP__PORT": str(endpoint.port),
            "LECTERN_METRICS__PORT": str(metrics + index if metrics else 0),
        }

    async def _keep(self, endpoint: Endpoint, environment: dict[str, str], lifeline: int) -> None:
        """Start a replica again whenever it dies, more slowly each time while it keeps dying."""
        clock = asyncio.get_running_loop().time
        pause = RESTART_PAUSE
        while True:
            born = clock()
            arguments = ("serve", "--watch-fd", str(lifeline), "--await-schema", str(SCHEMA_PATIENCE))
            replica = await self._child(*arguments, environment=environment, descriptors=(lifeline,))
            if replica.returncode == CONFIGURATION_EXIT and not self._announced:
                return self._fail(CONFIGURATION_EXIT)
            if clock() - born >= STABLE_AFTER:
                pause = RESTART_PAUSE
            ended = f"process {replica.pid} ended with exit code {replica.returncode}"
            _say(f"replica {endpoint.port}: {ended}; starting another in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, RESTART_PAUSE_LIMIT)

    async def _child(self, *arguments: str, environment: dict[str, str], descriptors: tuple[int, ...] = ()) -> Process:
        """Run one `python -m server` to its end; when we are cancelled, it is asked to end and then made to."""
        child = await asyncio.create_subprocess_exec(
            *SERVER,
            *arguments,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=STANDARD_ERROR,
            pass_fds=descriptors,
            start_new_session=True,  # a Ctrl-C is for us; we pass it on in order
        )
        self._children.add(child)
        try:
            await child.wait()
            return child
        finally:
            await self._retire(child)
            self._children.discard(child)

    async def _retire(self, child: Process) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            _send(child, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), self._settings.http.drain_timeout + DRAIN_MARGIN)

    async def _announce(self, migrated: asyncio.Task[None]) -> None:
        await asyncio.wait([migrated])
        for endpoint in self._endpoints:
            while not await endpoint.can_serve():  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(PROBE_INTERVAL)
        self._announced = True
        print("Lectern is ready:", *(endpoint.url for endpoint in self._endpoints), flush=True)


async def _keep_services(embedded: EmbeddedServices) -> None:
    """Start a private service again when it has died; the replicas heal by themselves."""
    while True:
        await asyncio.sleep(SERVICES_INTERVAL)
        if embedded.alive():
            continue
        _say("a private service has died and is started again")
        try:
            await embedded.start()
        except ConfigurationError as error:
            _say(str(error))


@contextlib.contextmanager
def _lifeline() -> Iterator[int]:
    """Give the end of a pipe on which replicas read the end of us, also when we are killed."""
    ours, theirs = os.pipe()[::-1]
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


def _endpoints(host: str, first: int, count: int) -> list[Endpoint]:
    """Choose the ports and make sure that they are free; port 0 stands for any free ones."""
    if count < 1:
        raise ConfigurationError("--replicas: at least 1 is needed")
    with contextlib.ExitStack() as held:  # all are held at once, so that no port is chosen twice
        ports = [first + index if first else 0 for index in range(count)]
        probes = [held.enter_context(_probe(host, port)) for port in ports]
        return [Endpoint(host, probe.getsockname()[1]) for probe in probes]


def _probe(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = "is in use" if getattr(error, "errno", None) == errno.EADDRINUSE else f"cannot be opened: {error}"
        raise ConfigurationError(f"port {port} on {host} {reason}; choose another with --port") from error


def _send(child: Process, number: signal.Signals) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)


def _say(message: str) -> None:
    print(f"lectern: {message}", file=sys.stderr, flush=True)
