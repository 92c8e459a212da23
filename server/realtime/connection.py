"""One Engine.IO connection: what is still to be sent to a peer, its heartbeat, and what becomes of a slow one.

How bytes leave: whatever is sent (events, acks, pings) is a finished WebSocket frame that `send` appends to the one
pending list; all lists are flushed once per turn of the loop with one write each. That list alone makes the order, on
WebSockets, in polls and across the upgrade from one to the other (transports.py). An idle connection has no task.

A peer that does not keep up (GUARANTEES.md G2) is `lagging`: its rooms skip it, it is told so once, and it is cut off
unless it takes what is there within DRAIN_PATIENCE. Until then its commands wait, so that their acks cannot pile up.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Protocol

from server.realtime import wire

if TYPE_CHECKING:
    from server.realtime.engine import Engine

CLOSE_GRACE = 2.0  # seconds a closed socket may take to send what was queued and to answer, then it is aborted
DRAIN_PATIENCE = 2.0  # seconds a lagging peer may take to read what is there
DRAIN_INTERVAL = 0.05  # seconds between two looks at a lagging peer
NOOP_DELAY = 0.1  # seconds that a poll during the upgrade waits: without them a peer could poll in a circle
NORMAL = 1000
GOING_AWAY = 1001
POLICY_VIOLATION = 1008


class ProtocolError(Exception):
    """The peer broke the protocol; its connection is closed."""


class Session(Protocol):
    """What a connection carries: the Socket.IO client of protocol.py, or the echo of the protocol's own tests."""

    async def receive(self, message: str | bytes) -> None:
        """Take one message; waits when too many are queued. Raises ProtocolError."""

    async def finish(self) -> None:
        """Carry out what came before the peer said goodbye; takes a bounded time."""

    def lag(self) -> None:
        """The peer does not keep up: send it no more than it must have."""

    def closed(self, reason: str) -> None:
        """The connection is gone."""


class Connection:
    """One Engine.IO session: a peer, its transport and what is still to be sent to it."""

    __slots__ = (
        "_drained",
        "_handed",
        "_mark",
        "_pending",
        "_poll",
        "_poll_transport",
        "_queued",
        "_scheduled",
        "_stalled_at",
        "_transport",
        "closed",
        "engine",
        "heard_at",
        "idle_since",
        "lagging",
        "pinged_at",
        "posting",
        "session",
        "sid",
        "site",
        "upgraded",
        "upgrading",
    )

    def __init__(self, engine: Engine, site: str) -> None:
        self.engine = engine
        self.site = site
        self.sid = secrets.token_urlsafe(15)
        self.heard_at = time.monotonic()
        self.pinged_at: float | None = None
        self.idle_since: float | None = self.heard_at  # since when it is connected to no namespace
        self.closed = False
        self.lagging = False
        self.posting = False  # a polled payload is being read
        self.upgrading = False
        self.upgraded = False  # a WebSocket carries it
        self._transport: asyncio.Transport | None = None
        self._pending: list[bytes] = []
        self._scheduled = False  # a flush is due
        self._queued = 0  # bytes that were ever sent here
        self._handed = 0  # of those, bytes that the transport has taken or a poll has fetched
        self._mark = 0  # while bytes wait: those up to here were queued before `_stalled_at`
        self._stalled_at: float | None = None
        self._poll: asyncio.Future[None] | None = None
        self._poll_transport: asyncio.Transport | None = None
        self._drained: asyncio.Future[None] | None = None
        engine.lobby.enter(site)
        self.session: Session = engine.accept(self)

    def send(self, framed: bytes) -> None:
        """Queue one frame; it leaves with all others of this turn of the loop."""
        if self.closed:
            return
        if not self._scheduled:
            self._scheduled = True
            self.engine.schedule(self)
        self._pending.append(framed)
        self._queued += len(framed)

    def flush(self) -> None:
        """Write what is pending, and see whether the peer keeps up."""
        self._scheduled = False
        if self._transport is not None:
            self._write_pending()
        elif self._poll is not None:
            if not self._poll.done():
                self._poll.set_result(None)
            return  # the poll takes everything
        self._weigh()

    def mark_connected(self) -> None:
        """The peer is in a namespace: it is no stranger any more."""
        if self.idle_since is not None:
            self.idle_since = None
            self.engine.lobby.leave(self.site)

    def mark_idle(self) -> None:
        """The peer is in no namespace any more, and is put out unless it connects to one soon."""
        if self.idle_since is None and not self.closed:
            self.idle_since = time.monotonic()
            self.engine.lobby.enter(self.site)

    async def relieved(self) -> None:
        """Wait until the peer does not lag any more, or is gone."""
        while self.lagging and not self.closed:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    # The end.

    def close(
        self, reason: str, code: int = GOING_AWAY, *, text: str = "", farewell: bytes = wire.CLOSE_PACKET
    ) -> None:
        """End the session after all that is queued; idempotent. The transport is aborted if it does not drain.

        `code` and `text` are what a WebSocket is told, `farewell` is what an open poll is.
        """
        if self.closed:
            return
        if self._transport is None:
            self._pending.append(farewell)
            self.flush()
        else:
            self._pending.append(wire.close_frame(code, text))
            self._write_pending()
            # The peer's own close frame ends the transport (transports.py): closed now, with bytes of the peer still
            # unread, it would be reset, and the peer might never see why.
            asyncio.get_running_loop().call_later(CLOSE_GRACE, self._transport.abort)
        self.end(reason)

    def abort(self, reason: str) -> None:
        """End the session at once and forget what is queued."""
        if self.closed:
            return
        self._pending = [wire.CLOSE_PACKET]  # for a poll that waits
        if self._transport is not None:
            self._transport.abort()
        elif self._poll is not None and not self._poll.done():
            self._poll.set_result(None)
        self.end(reason)

    def fail(self, fault: str) -> None:
        """Close because the peer broke the protocol."""
        self.engine.count_fault(fault)
        self.close("protocol error", POLICY_VIOLATION, text=fault)

    def end(self, reason: str) -> None:
        """Take the connection out of everything; idempotent."""
        if self.closed:
            return
        self.closed = True
        self.engine.forget(self)
        if self.idle_since is not None:
            self.engine.lobby.leave(self.site)
        self._wake_waiting()
        self.session.closed(reason)

    # The heartbeat.

    def beat(self, now: float) -> None:
        """One turn of the ping wheel: send a ping, or give up a peer that is silent, stalled or never connected."""
        settings = self.engine.settings
        if self.is_silent(now):
            self.abort("ping timeout")
        elif self.idle_since is not None and now - self.idle_since > settings.connect_timeout:
            self.close("no CONNECT", POLICY_VIOLATION, text="no CONNECT")
        elif self._poll is not None and (self._poll_transport is None or self._poll_transport.is_closing()):
            self.abort("transport close")  # whoever polled has gone: what it is answered with would be lost
        else:
            if self._stalled_at is not None:
                self._weigh(now)
            due = self.heard_at + settings.ping_interval
            if self.pinged_at is None and now >= due:
                # The wheel turns a little late; the times that were announced count from when the ping was due.
                self.pinged_at = max(due, now - self.engine.beat_interval)
                self.send(wire.PING)

    def is_silent(self, now: float) -> bool:
        """True when a ping was not answered in time."""
        return self.pinged_at is not None and now - self.pinged_at >= self.engine.settings.ping_timeout

    # What the transports need.

    async def receive(self, packet: str | bytes) -> None:
        """Take one Engine.IO packet of the peer; bytes are a message.

        Raises:
            ProtocolError: it is none that a client may send here.
        """
        if isinstance(packet, bytes):
            await self.session.receive(packet)
        elif packet[:1] == "4":
            await self.session.receive(packet[1:])
        elif packet == "3":
            self.heard_at = time.monotonic()
            self.pinged_at = None
        elif packet == "1":
            await self.session.finish()
            self.close("client disconnect", NORMAL, farewell=wire.NOOP)
        else:
            raise ProtocolError("unexpected Engine.IO packet")

    async def poll(self, transport: asyncio.Transport | None) -> list[bytes]:
        """Wait until there is something to send, and take it: the frames of one long poll.

        Raises:
            ProtocolError: another poll is open already; two would split the order.
        """
        if self._poll is not None:
            raise ProtocolError("two polls at once")
        if not self._pending and not self.closed:
            await self._wait_for_news(transport)
        if self.upgraded:  # what is pending leaves through the WebSocket
            return [wire.NOOP]
        taken, self._pending, self._handed = self._pending, [], self._queued
        self._stalled_at = None
        return taken or [wire.NOOP]

    def end_poll(self) -> None:
        """Answer a poll that waits, so that the peer can stop to poll."""
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    def attach(self, transport: asyncio.Transport) -> None:
        """Go on over a WebSocket: what was queued for the next poll goes out there, in the same order."""
        self.upgraded = True
        self._transport = transport
        self.end_poll()
        if self._pending and not self._scheduled:
            self._scheduled = True
            self.engine.schedule(self)

    async def _wait_for_news(self, transport: asyncio.Transport | None) -> None:
        self._poll = asyncio.get_running_loop().create_future()
        self._poll_transport = transport
        try:
            async with asyncio.timeout(NOOP_DELAY if self.upgrading else None):
                await self._poll
        except TimeoutError:
            return
        finally:
            self._poll = self._poll_transport = None

    def _write_pending(self) -> None:
        pending, self._pending, self._handed = self._pending, [], self._queued
        if pending and self._transport is not None and not self._transport.is_closing():
            self._transport.write(pending[0] if len(pending) == 1 else b"".join(pending))

    # Keeping up.

    @property
    def unsent(self) -> int:
        """Bytes that the peer has not taken: still here, or in the transport."""
        waiting = self._queued - self._handed
        return waiting if self._transport is None else waiting + self._transport.get_write_buffer_size()

    def _weigh(self, now: float | None = None) -> None:
        """Compare what is unsent with the limits of size and age."""
        unsent, settings = self.unsent, self.engine.settings
        if not unsent:
            self._stalled_at = None
        elif unsent > settings.max_pending_bytes:
            self._fall_behind()
        elif self._stalled_at is None or self._queued - unsent >= self._mark:
            # All that waited has gone meanwhile; what waits now is newer.
            self._stalled_at, self._mark = now or time.monotonic(), self._queued
        elif now is not None and now - self._stalled_at > settings.max_pending_seconds:
            self._fall_behind()

    def _fall_behind(self) -> None:
        if self.lagging or self.closed:
            return
        self.lagging = True
        self.engine.count_slow()
        self.session.lag()
        self._watch(time.monotonic() + DRAIN_PATIENCE)

    def _watch(self, deadline: float) -> None:
        """Look at a lagging peer until it has drained or its time is up."""
        if self.closed:
            return
        if not self.unsent and not self._pending:
            self.lagging = False
            self._stalled_at = None
            self._wake_waiting()
        elif time.monotonic() >= deadline:
            self.abort("slow consumer")
        else:
            asyncio.get_running_loop().call_later(DRAIN_INTERVAL, self._watch, deadline)

    def _wake_waiting(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None
