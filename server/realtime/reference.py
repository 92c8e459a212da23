"""The event reference: what a client can send in each namespace, generated from the schemas that check it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from server.realtime.namespace import ROOM_NAMESPACES, Command


def describe_commands(commands: Iterable[Command]) -> dict[str, Any]:  # Any: JSON Schema
    """The document of `/api/events.json`: `{"path", "protocol", "namespaces": {name: {"commands": {…}}}}`.

    Each command is `{"summary", "payload"}`, where `payload` is a JSON Schema.
    """
    commands = sorted(commands, key=lambda command: command.name)
    return {
        "path": "/socket.io/",
        "protocol": "Socket.IO v5",
        "namespaces": {
            namespace: {
                "commands": {
                    command.name: {"summary": command.summary, "payload": command.payload.model_json_schema()}
                    for command in commands
                    if namespace in command.namespaces
                }
            }
            for namespace in ROOM_NAMESPACES
        },
    }
