"""Commands: what a client can ask for in a Lectern namespace. Table, schema, actor, ack and errors; no feature.

A module contributes `Command` values; `LecternNamespace` looks them up, checks the payload and calls the handler, which
asks its service. The order per connection, the deadline and the ack itself are protocol.py's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from server.actor import Actor
from server.errors import FieldError, Forbidden, Invalid, NotFound, RateLimited, SessionExpired, Unauthenticated
from server.logs import sid_context, user_context
from server.metrics import ACTIVE_USERS, SOCKET_CONNECTIONS
from server.realtime.connection import Connection
from server.realtime.protocol import Client, Reply, Socket

if TYPE_CHECKING:
    from server.runtime import Runtime

logger = logging.getLogger(__name__)

CHAT = "/chat"
CLASSROOM = "/classroom"
ROOM_NAMESPACES = (CHAT, CLASSROOM)
TOKEN_WARNING = 60.0  # seconds before a token ends, `token_expiring` is sent
MAX_ERRORS = 20  # field errors in one ack

Authenticate = Callable[["Runtime", str], Awaitable[Actor]]
# Any: each command has a payload type of its own, which the table cannot express.
Handler = Callable[["Runtime", Socket, Any], Awaitable[Mapping[str, Any] | Reply]]


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the contract: its payload's schema, who carries it out, and in which namespaces it can be sent."""

    name: str
    payload: type[BaseModel]
    handler: Handler
    summary: str
    namespaces: tuple[str, ...] = ROOM_NAMESPACES


class Credentials(BaseModel):
    """What a client sends as `auth` when it connects, and as the payload of `authenticate`."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    token: str


class Sockets:
    """All sockets of this process, by user; shared by its namespaces."""

    def __init__(self, connections_per_user: int) -> None:
        self._limit = connections_per_user
        self._by_user: dict[UUID, set[Socket]] = {}

    def admit(self, actor: Actor, connection: Connection) -> None:
        """Raises:
        RateLimited: the user has too many connections already.
        """
        connections = {socket.connection for socket in self._by_user.get(actor.user_id, ())}
        if connection not in connections and len(connections) >= self._limit:
            raise RateLimited("You have too many connections. Close one of your windows.")

    def add(self, socket: Socket) -> None:
        self._by_user.setdefault(socket.actor.user_id, set()).add(socket)
        SOCKET_CONNECTIONS.labels(socket.namespace).inc()
        ACTIVE_USERS.set(len(self._by_user))

    def remove(self, socket: Socket) -> None:
        sockets = self._by_user.get(socket.actor.user_id, set())
        if socket not in sockets:
            return
        sockets.remove(socket)
        if not sockets:
            del self._by_user[socket.actor.user_id]
        SOCKET_CONNECTIONS.labels(socket.namespace).dec()
        ACTIVE_USERS.set(len(self._by_user))

    def all(self) -> list[Socket]:
        return [socket for sockets in self._by_user.values() for socket in sockets]

    def check_tokens(self, now: float) -> None:
        """Warn sockets whose token ends within a minute, and put out those whose token has ended."""
        for socket in self.all():
            left = socket.actor.expires_at - now
            if left <= 0:
                socket.expire("token ended")
            elif left <= TOKEN_WARNING and socket.warned_at != socket.actor.expires_at:
                socket.warned_at = socket.actor.expires_at
                socket.emit("token_expiring", {"expires_in_ms": int(left * 1000)})


class RoomNamespace:
    """A namespace of rooms (`protocol.Namespace`): clients sign in with a token and send commands from the table."""

    binary = False  # files go through REST

    def __init__(
        self,
        name: str,
        rt: Runtime,
        commands: Iterable[Command],
        authenticate: Authenticate,
        sockets: Sockets,
    ) -> None:
        self.name = name
        self._rt = rt
        self._commands = {command.name: command for command in commands if name in command.namespaces}
        self._authenticate = authenticate
        self._sockets = sockets

    async def connect(self, client: Client, auth: object) -> Socket:
        """Let a client with a valid token in.

        Raises:
            Unauthenticated, SessionExpired: there is no token, or none that is valid.
            RateLimited: the user has too many connections.
        """
        actor = await self._authenticate(self._rt, _token(auth))
        self._sockets.admit(actor, client.connection)
        socket = Socket(client, self.name, actor)
        self._sockets.add(socket)
        return socket

    def connected(self, socket: Socket) -> None:
        """The client knows that it is in."""
        logger.info("connected", extra={"namespace": self.name, "user_id": str(socket.actor.user_id)})

    async def event(self, socket: Socket, name: str, arguments: list[Any]) -> Mapping[str, Any] | Reply:
        """Check and carry out one command.

        Raises:
            NotFound: there is no such command in this namespace.
            Invalid: the payload does not fit its schema; `errors` names every field.
            SessionExpired: the socket's token has ended, and `check_tokens` has not come to it yet.
            DomainError: what the service refuses with.
        """
        sid_context.set(socket.connection.sid)
        user_context.set(str(socket.actor.user_id))
        if name == "authenticate":
            return await self._renew(socket, arguments)
        if socket.actor.expires_at <= self._rt.clock.unix():
            raise SessionExpired
        command = self._commands.get(name)
        if command is None:
            raise NotFound(f"{self.name} has no command of this name.")
        return await command.handler(self._rt, socket, _parse(command.payload, arguments))

    def lagging(self, socket: Socket) -> None:
        """The client does not keep up: cut it off from its rooms, and tell it once to join them again."""
        room_ids = self._rt.rooms.cut_off(socket)
        if room_ids:
            socket.emit("resync_required", {"room_ids": [str(room_id) for room_id in room_ids]})

    def disconnected(self, socket: Socket, reason: str) -> None:
        """The socket is gone, for whatever reason: take it out of everything. Idempotent."""
        self._rt.rooms.leave_all(socket)
        self._sockets.remove(socket)
        logger.info(
            "disconnected",
            extra={"namespace": self.name, "user_id": str(socket.actor.user_id), "reason": reason},
        )

    async def _renew(self, socket: Socket, arguments: list[Any]) -> Mapping[str, Any]:
        """Go on with a new token of the same user."""
        actor = await self._authenticate(self._rt, _token(arguments[0] if arguments else None))
        if actor.user_id != socket.actor.user_id:
            raise Forbidden("This token belongs to somebody else.")
        socket.actor = actor
        return {"expires_in": max(0, int(actor.expires_at - self._rt.clock.unix()))}


def _token(auth: object) -> str:
    try:
        return Credentials.model_validate(auth).token
    except ValidationError as error:
        raise Unauthenticated("Send {token} with a valid access token.") from error


def _parse(schema: type[BaseModel], arguments: list[Any]) -> BaseModel:
    """The payload of a command: its first argument, an object; none is taken for an empty one."""
    try:
        return schema.model_validate(arguments[0] if arguments else {})
    except ValidationError as error:
        raise Invalid(
            errors=[FieldError(tuple(item["loc"]), item["msg"]) for item in error.errors()[:MAX_ERRORS]]
        ) from error
