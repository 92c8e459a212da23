"""Module: a feature as a value. The composition root (server/app.py) collects these; nothing registers itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from aiohttp import web

from server.database import Connection
from server.gateway.endpoint import Route
from server.outbox import Consumer
from server.realtime.namespace import Command

if TYPE_CHECKING:
    from server.runtime import Runtime

AfterCommit = Callable[[], Awaitable[None]]
# What a module holds about a person, by name; Any: what orjson can write.
ExportUser = Callable[["Runtime", Connection, UUID], Awaitable[Mapping[str, Any]]]
# Takes a person out of what a module holds, in the caller's transaction. What it returns is done when that committed.
EraseUser = Callable[["Runtime", Connection, UUID], Awaitable[AfterCommit | None]]


@dataclass(frozen=True, slots=True)
class Periodic:
    """Work that each replica does every so often; it may run on several at once, and a missed turn does no harm."""

    name: str
    every: float  # seconds
    run: Callable[[Runtime], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Module:
    """What a feature contributes: HTTP routes under `/api/<name>/`, Socket.IO commands, and what it knows of a person.

    People are erased from the last module of the composition root to the first, so that whoever locks rooms comes
    before whoever locks accounts.
    """

    name: str
    routes: tuple[Route, ...] = ()
    commands: tuple[Command, ...] = ()
    consumers: tuple[Consumer, ...] = ()
    periodic: tuple[Periodic, ...] = ()
    export_user: ExportUser | None = None
    erase_user: EraseUser | None = None


# All modules of this server, for the few use cases that concern each of them.
INSTALLED: web.AppKey[tuple[Module, ...]] = web.AppKey("installed", tuple)
