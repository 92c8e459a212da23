"""Socket.IO v5 on one connection: the sockets of its namespaces, and their commands in order.

Nothing of python-socketio's server is used: there a client can call the connect and disconnect handlers as ordinary
events, and a failing connect handler leaves a connection that is half in (PITFALLS.md 1-3). Here a socket exists only
after its namespace has accepted it, and `connect` and `disconnect` are no names that can be sent (packets.py).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from server.actor import Actor
from server.errors import DeadlineExceeded, DomainError, Internal
from server.logs import RateLimitedLog
from server.realtime import packets, wire
from server.realtime.connection import Connection, ProtocolError
from server.realtime.packets import Packet
from server.tasks import Tasks

logger = logging.getLogger(__name__)
# A client can repeat what meets a fault of ours as often as it likes.
noise = RateLimitedLog(logger)


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

    def emit(self, name: str, *arguments: Any) -> None:  # Any: JSON and bytes
        """Queue an event for this socket alone."""
        self.client.send(packets.encode(packets.EVENT, self.namespace, [name, *arguments]))

    def expire(self, reason: str) -> None:
        """Put the client out because its login is over; it may come back with a new token."""
        self.emit("session_expired", {"code": "session_expired"})
        self.disconnect(reason)

    def disconnect(self, reason: str) -> None:
        """Put the client out of this namespace."""
        self.client.expel(self.namespace, reason)


@dataclass(frozen=True, slots=True)
class Reply:
    """The ack of a command, with what must happen only once it is queued: a join starts to receive behind its ack."""

    data: Mapping[str, Any]  # Any: JSON
    after_ack: Callable[[], None]


# What a command is answered with: an object, to which `"ok": true` is added; a Reply; exactly these arguments; nothing.
Answer = Mapping[str, Any] | Reply | list[Any] | None  # Any: JSON


class Namespace(Protocol):
    """What protocol.py asks of a namespace: Lectern's (namespace.py), or those of the protocol's own tests."""

    binary: bool  # whether events with binary attachments may be sent to it

    async def connect(self, client: Client, auth: object) -> Socket:
        """Accept a client. Raises DomainError to refuse it."""

    def connected(self, socket: Socket) -> None:
        """The client has been told that it is in."""

    async def event(self, socket: Socket, name: str, arguments: list[Any]) -> Answer:
        """Carry out a command and return its ack. Raises DomainError."""

    def lagging(self, socket: Socket) -> None:
        """The client does not keep up: send it no more than it must have, and tell it."""

    def disconnected(self, socket: Socket, reason: str) -> None:
        """The socket is gone."""


class Client:
    """The Socket.IO side of one connection (a `Session` of connection.py)."""

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
        self._max_bytes = connection.engine.settings.max_packet_bytes
        self._queue: deque[tuple[Packet, int]] = deque()  # with the size that each had
        self._queued_bytes = 0
        self._partial: Packet | None = None  # waits for its attachments
        self._attachments: list[bytes] = []
        self._expelled: set[str] = set()  # namespaces that we ended: the peer may not know yet
        self._working = False
        self._space: asyncio.Future[None] | None = None
        self._finished: asyncio.Future[None] | None = None

    def send(self, frames: list[bytes]) -> None:
        """Queue the frames of one packet."""
        for framed in frames:
            self.connection.send(framed)

    async def receive(self, message: str | bytes) -> None:
        """Queue one packet; the peer's packets are carried out one after the other.

        Waits while too many are queued: then the socket is not read, which slows the peer down and nobody else.

        Raises:
            ProtocolError: the packet is malformed, or binary where that is not spoken.
        """
        packet = self._assemble(message) if isinstance(message, bytes) else self._decode(message)
        if packet is None or packet.type == packets.ACK:  # we never ask for acks
            return
        self._queue.append((packet, len(message)))
        self._queued_bytes += len(message)
        if not self._working:
            self._working = True
            self._tasks.start(self._work(), name=f"socket:{self.connection.sid}")
        while len(self._queue) >= self._max_queued or self._queued_bytes > self._max_bytes:
            self._space = asyncio.get_running_loop().create_future()
            await self._space

    async def finish(self) -> None:
        """Carry out what came before the peer left: to send something and to close at once is usual."""
        if self._working:
            self._finished = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._finished], timeout=self._timeout)

    def leave(self, namespace: str, reason: str) -> None:
        """Forget a socket and tell its namespace; nothing if it is not connected."""
        socket = self.sockets.pop(namespace, None)
        if socket is not None:
            self._namespaces[namespace].disconnected(socket, reason)
            if not self.sockets:
                self.connection.mark_idle()

    def expel(self, namespace: str, reason: str) -> None:
        """Put the peer out of a namespace. What it has sent there meanwhile is dropped and no fault of its own."""
        if namespace in self.sockets:
            self.send([wire.frame(b"4%d" % packets.DISCONNECT + wire.place(namespace))])
            self._expelled.add(namespace)
            self.leave(namespace, reason)

    def lag(self) -> None:
        """The peer does not keep up: its namespaces hold back what they can."""
        for socket in list(self.sockets.values()):
            self._namespaces[socket.namespace].lagging(socket)

    def closed(self, reason: str) -> None:
        """The connection is gone: so are all its sockets and what they still had queued."""
        self._queue.clear()
        self._queued_bytes = 0
        self._partial, self._attachments = None, []
        self._give_space()
        for namespace in list(self.sockets):
            self.leave(namespace, reason)

    def _decode(self, text: str) -> Packet | None:
        """Read a packet; None when its attachments are still to come."""
        if self._partial is not None:
            raise ProtocolError("text among the attachments of a packet")
        packet = packets.decode(text)
        if packet.type not in (packets.BINARY_EVENT, packets.BINARY_ACK):
            return packet
        namespace = self._namespaces.get(packet.namespace)
        if namespace is None or not namespace.binary:
            raise ProtocolError("binary is refused in this namespace")
        if not packet.attachments:
            return packets.attach(packet, [])
        self._partial = packet
        return None

    def _assemble(self, attachment: bytes) -> Packet | None:
        """Take an attachment; the packet when it was the last one that was missing."""
        if self._partial is None:
            raise ProtocolError("binary message without a packet")
        self._attachments.append(attachment)
        if sum(map(len, self._attachments)) > self._max_bytes:
            raise ProtocolError("attachments too large")
        if len(self._attachments) < self._partial.attachments:
            return None
        packet, self._partial = self._partial, None
        attachments, self._attachments = self._attachments, []
        return packets.attach(packet, attachments)

    async def _work(self) -> None:
        """Drain the queue. One task per connection and only while there is work, so order costs no idle task."""
        try:
            while self._queue:
                if self.connection.lagging:
                    await self.connection.relieved()
                    continue  # the queue may be empty now
                packet, size = self._queue.popleft()
                self._queued_bytes -= size
                self._give_space()
                await self._carry_out(packet)
        except ProtocolError as error:
            self.connection.fail(str(error))
        finally:
            self._working = False
            if self._finished is not None and not self._finished.done():
                self._finished.set_result(None)

    def _give_space(self) -> None:
        if self._space is not None and not self._space.done():
            self._space.set_result(None)
        self._space = None

    async def _carry_out(self, packet: Packet) -> None:
        name = packet.namespace
        if packet.type == packets.CONNECT:
            await self._connect(name, packet.data)
        elif packet.type == packets.DISCONNECT:
            self.leave(name, "client namespace disconnect")
        elif name in self.sockets:
            await self._event(self.sockets[name], packet)
        elif name not in self._expelled:
            raise ProtocolError("event without CONNECT")

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
        except Exception as error:
            noise.log(logging.ERROR, "connect failed", extra={"namespace": name}, exc_info=error)
            self._refuse(name, {"message": Internal.message, "data": error_body(Internal())})
        else:
            self._accept(name, namespace, socket)

    def _accept(self, name: str, namespace: Namespace, socket: Socket) -> None:
        self.sockets[name] = socket
        if self.connection.closed:  # it went away while its token was checked: it must not stay anywhere
            self.leave(name, "transport close")
            return
        self._expelled.discard(name)
        self.connection.mark_connected()
        # Not the connection's own sid: who knows that one can send in its name.
        sid = wire.dumps({"sid": secrets.token_urlsafe(15)})
        self.send([wire.frame(b"4%d" % packets.CONNECT + wire.place(name) + sid)])
        namespace.connected(socket)

    def _refuse(self, name: str, reason: Mapping[str, Any]) -> None:
        self.send([wire.frame(b"4%d" % packets.CONNECT_ERROR + wire.place(name) + wire.dumps(reason))])

    async def _event(self, socket: Socket, packet: Packet) -> None:
        """Carry out one command; every packet with an ack id is answered, whatever happens."""
        name, *arguments = packet.data
        answer: Answer
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._namespaces[socket.namespace].event(socket, name, arguments)
        except DomainError as error:
            answer = [refusal(error)]
        except TimeoutError:
            answer = [refusal(DeadlineExceeded())]
        except Exception as error:
            extra = {"command": name, "namespace": socket.namespace}
            noise.log(logging.ERROR, "command failed", extra=extra, exc_info=error)
            answer = [refusal(Internal())]
        if packet.id is not None:
            self.send(packets.encode(packets.ACK, socket.namespace, _ack(answer), packet.id))
        if isinstance(answer, Reply):
            answer.after_ack()


def _ack(answer: Answer) -> list[Any]:
    """The arguments of an ack. Nothing is null: a client with `retries` takes an ack without arguments for an error."""
    if answer is None:
        return [None]
    if isinstance(answer, Reply):
        answer = answer.data
    return answer if isinstance(answer, list) else [{"ok": True, **answer}]


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
