"""The faults: each is done to replicas, PostgreSQL, Redis or the ways between them, lasts a while and heals itself.

All by pid or by proxy; nothing here knows what the servers do about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import asyncpg
from redis.asyncio import Redis

from server.verify.history import Dependency, Window
from server.verify.installation import Installation, Replica
from server.verify.proxy import Mode, Proxy

Act = Callable[["Scene"], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault happens: the installation, and the dice that choose a victim."""

    installation: Installation
    session: aiohttp.ClientSession
    dice: random.Random

    def victim(self) -> Replica:
        return self.dice.choice(self.installation.replicas)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault by name; `act` does it on entering and heals it on leaving."""

    name: str
    dependency: Dependency
    act: Act
    gentle: bool = False
    away: bool = False

    @asynccontextmanager
    async def on(self, scene: Scene, windows: list[Window]) -> AsyncIterator[None]:
        """Do it, note when, and heal it."""
        window = Window(self.name, self.dependency, time.monotonic(), gentle=self.gentle, away=self.away)
        windows.append(window)
        try:
            async with self.act(scene):
                try:
                    yield
                finally:
                    window.healing_at = time.monotonic()
        finally:
            window.ended_at = time.monotonic()


# Replicas


@asynccontextmanager
async def _replica_killed(scene: Scene) -> AsyncIterator[None]:
    replica = scene.victim()
    await replica.kill()
    try:
        yield
    finally:
        await replica.start()
        await replica.ready(scene.session)


@asynccontextmanager
async def _replica_hung(scene: Scene) -> AsyncIterator[None]:
    replica = scene.victim()
    replica.send(signal.SIGSTOP)
    try:
        yield
    finally:
        replica.send(signal.SIGCONT)


@asynccontextmanager
async def _replica_terminated(scene: Scene) -> AsyncIterator[None]:
    replica = scene.victim()
    await replica.terminate()
    try:
        yield
    finally:
        await replica.start()
        await replica.ready(scene.session)


@asynccontextmanager
async def _rolling_restart(scene: Scene) -> AsyncIterator[None]:
    for replica in scene.installation.replicas:
        await replica.terminate()
        await replica.start()
        await replica.ready(scene.session)
        await asyncio.sleep(1.0)  # the balancer sees it before the next one goes
    yield


# Services


def _killed(name: str, number: signal.Signals) -> Act:
    @asynccontextmanager
    async def act(scene: Scene) -> AsyncIterator[None]:
        _signal(scene.installation.pids_of(name)[:1], number)
        try:
            yield
        finally:
            await scene.installation.services.start()

    return act


def _hung(name: str) -> Act:
    @asynccontextmanager
    async def act(scene: Scene) -> AsyncIterator[None]:
        pids = scene.installation.pids_of(name)
        _signal(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(reversed(pids), signal.SIGCONT)

    return act


@asynccontextmanager
async def _backends_terminated(scene: Scene) -> AsyncIterator[None]:
    conn = await asyncpg.connect(scene.installation.located.database_url, timeout=5)
    try:
        await conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lectern'")
    finally:
        await conn.close(timeout=5)
    yield


@asynccontextmanager
async def _pubsub_killed(scene: Scene) -> AsyncIterator[None]:
    redis = Redis.from_url(scene.installation.located.redis_url)
    try:
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
    finally:
        await redis.aclose()
    yield


# Ways between them


def _edge(which: str, mode: Mode, *, all_replicas: bool = True) -> Act:
    @asynccontextmanager
    async def act(scene: Scene) -> AsyncIterator[None]:
        replicas = scene.installation.replicas if all_replicas else [scene.victim()]
        proxies: list[Proxy] = [getattr(replica.edges, which) for replica in replicas]
        for proxy in proxies:
            await proxy.set_mode(mode)
        try:
            yield
        finally:
            for proxy in proxies:
                await proxy.set_mode("pass")

    return act


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


ALL = (
    Fault("replica_killed", "replica", _replica_killed),
    Fault("replica_hung", "replica", _replica_hung),
    Fault("replica_terminated", "", _replica_terminated, gentle=True),
    Fault("rolling_restart", "", _rolling_restart, gentle=True),
    Fault("postgresql_killed", "postgresql", _killed("PostgreSQL", signal.SIGKILL), away=True),
    Fault("postgresql_immediate", "postgresql", _killed("PostgreSQL", signal.SIGQUIT), away=True),
    Fault("postgresql_hung", "postgresql", _hung("PostgreSQL"), away=True),
    Fault("postgresql_backends_terminated", "postgresql", _backends_terminated),
    Fault("postgresql_blackholed", "postgresql", _edge("postgres", "blackhole"), away=True),
    Fault("postgresql_blackholed_for_one", "postgresql", _edge("postgres", "blackhole", all_replicas=False)),
    Fault("postgresql_reset", "postgresql", _edge("postgres", "reset")),
    Fault("postgresql_stops_accepting", "postgresql", _edge("postgres", "stop-accept")),
    Fault("postgresql_slow", "postgresql", _edge("postgres", "delay")),
    Fault("postgresql_sliced", "postgresql", _edge("postgres", "slices")),
    Fault("redis_killed", "redis", _killed("Valkey", signal.SIGKILL), away=True),
    Fault("redis_hung", "redis", _hung("Valkey"), away=True),
    Fault("redis_subscribers_killed", "redis", _pubsub_killed),
    Fault("redis_blackholed", "redis", _edge("redis", "blackhole"), away=True),
    Fault("redis_blackholed_for_one", "redis", _edge("redis", "blackhole", all_replicas=False)),
    Fault("redis_reset", "redis", _edge("redis", "reset")),
    Fault("redis_slow", "redis", _edge("redis", "delay")),
    Fault("redis_sliced", "redis", _edge("redis", "slices")),
    Fault("clients_blackholed", "clients", _edge("clients", "blackhole", all_replicas=False)),
    Fault("clients_reset", "clients", _edge("clients", "reset")),
    Fault("clients_half_closed", "clients", _edge("clients", "half-close")),
    Fault("clients_slow", "clients", _edge("clients", "rate", all_replicas=False)),
    Fault("clients_delayed", "clients", _edge("clients", "delay")),
    Fault("clients_sliced", "clients", _edge("clients", "slices")),
    Fault("clients_not_accepted", "clients", _edge("clients", "stop-accept", all_replicas=False)),
)
BY_NAME = {fault.name: fault for fault in ALL}
