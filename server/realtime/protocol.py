"""Socket.IO v5 on one connection: strict packets, the sockets of its namespaces, and their commands in order.

python-socketio's packet codec is used; its dispatch is not, because there a client can call the connect and disconnect
handlers as ordinary events, and a failing connect handler leaves a connection that is half in (PITFALLS.md 1-3). Here a
socket exists only after its namespace has accepted it, and `connect` and `disconnect` are no names that can be sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
import socketio.packet

from server.actor import Actor
from server.errors import DeadlineExceeded, DomainError, Internal
from server.realtime import wire
from server.realtime.engine import POLICY_VIOLATION, Connection, ProtocolError
from server.tasks import Tasks

logger = logging.getLogger(__name__)

CONNECT, DISCONNECT, EVENT, ACK = b"40", b"41", b"42", b"43"
CONNECT_ERROR = b"44"
DISCONNECT_FROM = DISCONNECT + b"%s,"
RESERVED = frozenset(
    ("connect", "connect_error", "connecting", "disconnect", "disconnecting", "newListener", "removeListener")
)
MAX_ACK_ID = 2**53 - 1  # what a JavaScript client can count to


class _Json:
    """The codec that the packet class asks for; orjson also refuses what is nested too deeply."""

    loads = staticmethod(orjson.loads)

    @staticmethod
    def dumps(value: Any, separators: object = None) -> str:  # Any: whatever JSON can hold
        return wire.dumps(value).decode()


class Packet(socketio.packet.Packet):  # type: ignore[misc]  # python-socketio has no types
    """A packet of a client, refused when it is not one that a client may send to us."""

    json = _Json
    uses_binary_events = False

    def decode(self, encoded_packet: str) -> int:
        """Parse and check.

        Raises:
            ProtocolError: malformed, binary, a server's packet, or an event with a reserved name.
        """
        try:
            attachments = super().decode(encoded_packet)
        except (ValueError, TypeError, IndexError, RecursionError) as error:
            raise ProtocolError("malformed Socket.IO packet") from error
        if attachments or self.packet_type not in (0, 1, 2, 3):
            raise ProtocolError("unexpected Socket.IO packet")
        if self.packet_type == 2 and not self._is_event():
            raise ProtocolError("malformed event")
        if self.id is not None and self.id > MAX_ACK_ID:
            raise ProtocolError("malformed ack id")
        return 0

    def _is_event(self) -> bool:
        data = self.data
        return isinstance(data, list) and bool(data) and isinstance(data[0], str) and data[0] not in RESERVED


class Socket:
    """A client in one namespace: what a namespace and its commands see of a connection."""

    __slots__ = ("actor", "client", "namespace", "warned_at")

    def __init__(self, client: Client, namespace: str, actor: Actor) -> None:
        self.client = client
        self.namespace = namespace
        self.actor = actor
        self.warned_at = 0.0  # the end of the token that `token_expiring` was last sent for

    @property
    def connection(self) -> Connection:
        return self.client.connection

    @property
    def is_connected(self) -> bool:
        return self.client.sockets.get(self.namespace) is self and not self.connection.closed

    def emit(self, name: str, data: Mapping[str, Any]) -> None:  # Any: JSON
        """Queue an event for this socket alone."""
        self.connection.send(wire.event_frame(self.namespace, name, wire.dumps(data)))

    def disconnect(self, reason: str) -> None:
        """Put the client out of this namespace."""
        self.connection.send(wire.frame(DISCONNECT_FROM % self.namespace.encode()))
        self.client.leave(self.namespace, reason)


@dataclass(frozen=True, slots=True)
class Reply:
    """The ack of a command, with what must happen only once it is queued: a join starts to receive behind its ack."""

    data: Mapping[str, Any]  # Any: JSON
    after_ack: Callable[[], None]


class Namespace(Protocol):
    """What protocol.py asks of a namespace: Lectern's (namespace.py), or those of the protocol's own tests."""

    async def connect(self, client: Client, auth: object) -> Socket:
        """Accept a client. Raises DomainError to refuse it."""

    async def event(self, socket: Socket, name: str, arguments: list[Any]) -> Mapping[str, Any] | Reply:
        """Carry out a command and return its ack. Raises DomainError."""

    def disconnected(self, socket: Socket, reason: str) -> None:
        """The socket is gone."""


class Client:
    """The Socket.IO side of one connection (a `Session` of engine.py)."""

    def __init__(
        self,
        connection: Connection,
        namespaces: Mapping[str, Namespace],
        tasks: Tasks,
        *,
        timeout: float,
        max_queued: int,
    ) -> None:
        self.connection = connection
        self.sockets: dict[str, Socket] = {}
        self._namespaces = namespaces
        self._tasks = tasks
        self._timeout = timeout
        self._max_queued = max_queued
        self._queue: deque[Packet] = deque()
        self._working = False
        self._space: asyncio.Future[None] | None = None

    @property
    def is_idle(self) -> bool:
        return not self.sockets

    async def receive(self, text: str) -> None:
        """Queue one packet; the peer's packets are carried out one after the other.

        Waits while too many are queued: then the socket is not read, which slows the peer down and nobody else.

        Raises:
            ProtocolError: the packet is malformed.
        """
        if not text:
            raise ProtocolError("empty message")
        packet = Packet(encoded_packet=text)
        if packet.packet_type == 3:
            return  # we never ask for acks
        self._queue.append(packet)
        if not self._working:
            self._working = True
            self._tasks.start(self._work(), name=f"socket:{self.connection.sid}")
        if len(self._queue) >= self._max_queued:
            self._space = asyncio.get_running_loop().create_future()
            await self._space

    def leave(self, namespace: str, reason: str) -> None:
        """Forget a socket and tell its namespace; nothing if it is not connected."""
        socket = self.sockets.pop(namespace, None)
        if socket is not None:
            self._namespaces[namespace].disconnected(socket, reason)

    def closed(self, reason: str) -> None:
        """The connection is gone: so are all its sockets and what they still had queued."""
        self._queue.clear()
        self._give_space()
        for namespace in list(self.sockets):
            self.leave(namespace, reason)

    async def _work(self) -> None:
        """Drain the queue. One task per connection and only while there is work, so order costs no idle task."""
        try:
            while self._queue:
                packet = self._queue.popleft()
                self._give_space()
                await self._carry_out(packet)
        except ProtocolError as error:
            self.connection.engine.count_fault(self.connection, str(error))
            self.connection.close("protocol error", POLICY_VIOLATION)
        finally:
            self._working = False

    def _give_space(self) -> None:
        if self._space is not None and not self._space.done():
            self._space.set_result(None)
        self._space = None

    async def _carry_out(self, packet: Packet) -> None:
        name = packet.namespace or "/"
        if packet.packet_type == 0:
            await self._connect(name, packet.data)
        elif packet.packet_type == 1:
            self.leave(name, "client namespace disconnect")
        elif name not in self.sockets:
            raise ProtocolError("event without CONNECT")
        else:
            await self._event(self.sockets[name], packet)

    async def _connect(self, name: str, auth: object) -> None:
        namespace = self._namespaces.get(name)
        if namespace is None:
            self._refuse(name, {"message": "Invalid namespace"})
            return
        if name in self.sockets:
            raise ProtocolError("second CONNECT")
        try:
            async with asyncio.timeout(self._timeout):
                socket = await namespace.connect(self, auth)
        except DomainError as error:
            self._refuse(name, {"message": error.message, "data": error_body(error)})
        except TimeoutError:
            self._refuse(name, {"message": DeadlineExceeded.message, "data": error_body(DeadlineExceeded())})
        except Exception:
            logger.exception("connect failed", extra={"namespace": name})
            self._refuse(name, {"message": Internal.message, "data": error_body(Internal())})
        else:
            self._accept(name, socket)

    def _accept(self, name: str, socket: Socket) -> None:
        self.sockets[name] = socket
        if self.connection.closed:  # it went away while its token was checked: it must not stay anywhere
            self.leave(name, "transport close")
            return
        sid = wire.dumps({"sid": f"{self.connection.sid}{name}"})
        self.connection.send(wire.frame(b"%s%s,%s" % (CONNECT, name.encode(), sid)))

    def _refuse(self, name: str, reason: Mapping[str, Any]) -> None:
        place = b"" if name == "/" else name.encode() + b","
        self.connection.send(wire.frame(CONNECT_ERROR + place + wire.dumps(reason)))

    async def _event(self, socket: Socket, packet: Packet) -> None:
        """Carry out one command; every packet with an ack id is answered, whatever happens."""
        name, *arguments = packet.data
        after_ack = None
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._namespaces[socket.namespace].event(socket, name, arguments)
            if isinstance(reply, Reply):
                after_ack = reply.after_ack
                reply = reply.data
            answer: Mapping[str, Any] = {"ok": True, **reply}
        except DomainError as error:
            answer = refusal(error)
        except TimeoutError:
            answer = refusal(DeadlineExceeded())
        except Exception:
            logger.exception("command failed", extra={"command": name, "namespace": socket.namespace})
            answer = refusal(Internal())
        if packet.id is not None:
            self.connection.send(wire.ack_frame(socket.namespace, packet.id, wire.dumps(answer)))
        if after_ack is not None:
            after_ack()


def refusal(error: DomainError) -> dict[str, Any]:
    """The ack of a refused command: `{"ok": false, "error": {…}}`."""
    return {"ok": False, "error": error_body(error)}


def error_body(error: DomainError) -> dict[str, Any]:
    """`{"code", "message", "retryable", "retry_after_ms"?, "errors"?}`, in acks and in connect errors."""
    body: dict[str, Any] = {"code": error.code, "message": error.message, "retryable": error.retryable}
    if error.retry_after is not None:
        body["retry_after_ms"] = int(error.retry_after * 1000)
    if error.errors:
        body["errors"] = [{"loc": list(item.loc), "message": item.message} for item in error.errors]
    return body
