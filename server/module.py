"""Module: a feature as a value. The composition root (server/app.py) collects these; nothing registers itself."""

from __future__ import annotations

from dataclasses import dataclass

from server.gateway.endpoint import Route
from server.realtime.namespace import Command


@dataclass(frozen=True, slots=True)
class Module:
    """What a feature contributes: HTTP routes under `/api/<name>/`, and Socket.IO commands."""

    name: str
    routes: tuple[Route, ...] = ()
    commands: tuple[Command, ...] = ()
