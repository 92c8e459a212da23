"""Rooms as this process sees them: local members, the gate that keeps the order, and delivery to every socket.

What reaches the gate of a room is news from three sides: the log after a commit here, Redis for commits elsewhere, and
PostgreSQL for what Redis lost. The gate lets each `seq` pass once and in order; a gap waits a moment for Redis and is
then read from the log. Heads are compared with PostgreSQL all the time, so that even the last event before a silence
arrives. Delivery never waits for anybody: an event is encoded once per namespace and its bytes are appended to each
member's pending list (engine.py).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from server.errors import Forbidden, RateLimited, Unauthenticated, Unavailable
from server.metrics import ROOM_EVENT_DELIVERIES, ROOM_GAP_REPAIRS
from server.realtime import wire
from server.realtime.catchup import CatchUp, CaughtUp
from server.realtime.channels import Channels
from server.realtime.log import RoomLog
from server.realtime.presence import Participants, Presence, PresenceChange
from server.realtime.protocol import Socket
from server.realtime.wire import News, RoomEvent
from server.settings import Realtime as RealtimeSettings
from server.settings import planted_bugs
from server.tasks import Tasks

logger = logging.getLogger(__name__)

REPAIR_PAGE = 500  # events read at once to close a gap
EARLY_LIMIT = 5000  # events behind a gap that are kept; more are read from PostgreSQL again
PRESENCE_PAUSE = 0.5  # seconds between two presence_changed of one room
NEVER = 2**63  # above every seq


@dataclass(slots=True, eq=False)
class Member:
    """A socket in a room. Until its join is acked, what it is to receive is held back.

    One whose connection lags is cut off: it gets no room event before it has joined again, so it never has a gap.
    """

    socket: Socket
    room_id: UUID
    joined_seq: int = 0
    held: list[tuple[int, bytes]] | None = field(default_factory=list)  # seq (0: ephemeral) and frame

    def take(self, seq: int, framed: bytes) -> None:
        if self.held is not None:
            self.held.append((seq, framed))
        elif seq > self.joined_seq or (not seq and not self.socket.connection.lagging):
            self.socket.connection.send(framed)

    def activate(self, joined_seq: int) -> None:
        """Start to receive: first what came since the join was answered."""
        if self.socket.connection.lagging:  # it fell behind while it joined, so it was not told then
            self.held, self.joined_seq = None, NEVER
            self.socket.emit("resync_required", {"room_ids": [str(self.room_id)]})
            return
        held, self.held, self.joined_seq = self.held or [], None, joined_seq
        for seq, framed in held:
            self.take(seq, framed)


@dataclass(frozen=True, slots=True)
class Joined:
    """A join that was read and is not yet live: `activate` is called behind its ack."""

    caught_up: CaughtUp
    activate: Callable[[], None]


@dataclass(slots=True, eq=False)
class _Room:
    id: UUID
    opened: asyncio.Future[None]
    gate: int | None = None  # the last seq delivered; None until the head is known
    members: dict[str, dict[Socket, Member]] = field(default_factory=dict)  # by namespace
    early: dict[int, RoomEvent] = field(default_factory=dict)  # behind a gap
    repairing: bool = False
    closing: asyncio.TimerHandle | None = None
    changes: list[PresenceChange] = field(default_factory=list)  # for the next presence_changed

    def is_empty(self) -> bool:
        return not any(self.members.values())


class Rooms:
    """All rooms with members on this replica. `log`, `channels` and `presence` are set by the composition root."""

    log: RoomLog
    channels: Channels
    presence: Presence
    _catch_up: CatchUp

    def __init__(self, settings: RealtimeSettings, key: bytes, tasks: Tasks) -> None:
        self._settings = settings
        self._key = key
        self._tasks = tasks
        self._rooms: dict[UUID, _Room] = {}
        self._memberships: dict[Socket, dict[UUID, Member]] = {}
        self._replica = secrets.token_hex(4)
        self._bugs = planted_bugs()
        self._epoch = ""

    def start(self) -> None:
        """Start to compare heads; `log`, `channels` and `presence` are there by now."""
        self._catch_up = CatchUp(self.log, self.presence, self._tasks)
        self._epoch = self.log.epoch
        self._tasks.forever(self._compare_heads, name="rooms:heads", pause=self._head_pause)

    def stop(self) -> None:
        """Let go of all rooms; whoever is still in one hears no more of it."""
        for room in self._rooms.values():
            if room.closing is not None:
                room.closing.cancel()
        self._rooms.clear()

    async def join(self, socket: Socket, room_id: UUID, *, after: int | None, epoch: str | None, limit: int) -> Joined:
        """Subscribe a socket to a room that its actor may see. `Joined.activate` must be called behind the ack.

        Raises:
            RateLimited: the connection is in too many rooms.
            NotFound: the room is gone.
            Unavailable: PostgreSQL does not answer.
        """
        joined = self._memberships.get(socket, {})
        if room_id not in joined and len(joined) >= self._settings.rooms_per_connection:
            raise RateLimited("This connection is in too many rooms. Leave one first.")
        room = await self._open(room_id)
        if not socket.is_connected:
            raise Unauthenticated("The connection was closed.")
        is_new = room_id not in joined
        # From here on a disconnect finds the membership and ends it, however far the join has come.
        member = self._attach(room, socket)
        self._memberships.setdefault(socket, {})[room_id] = member
        try:
            if is_new:
                await self.presence.enter(room_id, socket.actor.user_id, _person(socket))
            # The member is attached already, so the head cannot be older than what it will receive.
            caught_up = await self._catch_up.read(room_id, after, epoch, limit)
            return Joined(caught_up, lambda: member.activate(caught_up.seq))
        except BaseException:
            self.leave(socket, room_id)
            raise

    def leave(self, socket: Socket, room_id: UUID) -> None:
        """Unsubscribe a socket; nothing if it is not in the room."""
        member = self._memberships.get(socket, {}).pop(room_id, None)
        room = self._rooms.get(room_id)
        if member is None:
            return
        self.presence.leave(room_id, socket.actor.user_id)
        if room is not None:
            room.members.get(socket.namespace, {}).pop(socket, None)
            self._linger(room)

    def leave_all(self, socket: Socket) -> None:
        """The socket is gone: so are its memberships."""
        for room_id in list(self._memberships.get(socket, ())):
            self.leave(socket, room_id)
        self._memberships.pop(socket, None)

    def cut_off(self, socket: Socket) -> list[UUID]:
        """Send a socket no more events of its rooms until it joins them again; the rooms that this concerns.

        It stays among the participants. Of a room that it is just joining it hears by `Member.activate`.
        """
        members = self._memberships.get(socket, {})
        concerned = [room_id for room_id, member in members.items() if member.held is None]
        for room_id in concerned:
            members[room_id].joined_seq = NEVER
        return concerned

    def places(self) -> list[tuple[Socket, UUID]]:
        """Every socket with every room that it is in."""
        return [(socket, room_id) for socket, rooms in self._memberships.items() for room_id in rooms]

    def put_out(self, socket: Socket, room_id: UUID, code: str) -> None:
        """Tell a socket that it may not be in a room any more, and take it out."""
        if room_id in self._memberships.get(socket, {}):
            socket.emit("access_revoked", {"room_id": str(room_id), "code": code})
            self.leave(socket, room_id)

    def require_joined(self, socket: Socket, room_id: UUID) -> None:
        """Raises:
        Forbidden: the socket has not joined the room.
        """
        if room_id not in self._memberships.get(socket, {}):
            raise Forbidden("Join the room first.")

    async def participants(self, room_id: UUID, limit: int = 100) -> Participants:
        """Who is in a room, over all replicas."""
        return await self.presence.participants(room_id, limit)

    def announce(self, room_id: UUID, name: str, data: dict[str, Any], audience: str = "") -> None:
        """Send an ephemeral event to a room on all replicas: never stored, and lost where it cannot be sent now.

        `audience` is empty for everyone, `+user_id` for the sockets of one user, `-user_id` for those of all others.
        """
        news = News(wire.EPHEMERAL, self._replica, 0, name, audience, wire.dumps(data))
        self._hear(room_id, news)
        self.channels.publish(room_id, wire.seal(self._key, room_id, news))

    async def revoke(self, room_id: UUID, user_id: UUID, code: str) -> None:
        """Put a user out of a room on all replicas; each of the user's sockets there gets `access_revoked`."""
        self._revoke(room_id, code, f"+{user_id}")

    async def close(self, room_id: UUID) -> None:
        """Put everybody out of a room that was deleted, on all replicas."""
        self._revoke(room_id, "not_found", "")

    def _revoke(self, room_id: UUID, code: str, audience: str) -> None:
        data = {"room_id": str(room_id), "code": code}
        news = News(wire.REVOKED, self._replica, 0, "access_revoked", audience, wire.dumps(data))
        self._hear(room_id, news)
        self.channels.publish(room_id, wire.seal(self._key, room_id, news))

    def deliver(self, events: Sequence[RoomEvent]) -> None:
        """Take events that were committed here: to the local members first, then to the other replicas."""
        for event in events:
            room = self._rooms.get(event.room_id)
            if room is not None:
                self._pass(room, event)
            news = News(wire.ROOM_EVENT, self.log.epoch, event.seq, event.type, "", event.body)
            self.channels.publish(event.room_id, wire.seal(self._key, event.room_id, news))

    def receive(self, room_id: UUID, payload: bytes) -> None:
        """Take what Redis brought for a room; forged and malformed payloads are dropped."""
        room = self._rooms.get(room_id)
        if room is None:
            return
        news = wire.unseal(self._key, room_id, payload)
        if news is None:
            logger.warning("a payload in Redis is not ours", extra={"room_id": str(room_id)})
        elif news.kind == wire.ROOM_EVENT:
            if news.epoch == self._epoch:
                self._pass(room, RoomEvent(room_id, news.seq, news.name, news.body))
        elif news.epoch != self._replica:  # our own were delivered when they were announced
            self._hear(room_id, news)

    def restored(self) -> None:
        """Redis is back: what it did not carry meanwhile is found by comparing heads at once."""
        self._tasks.start(self._compare_heads(), name="rooms:restored")

    def change_presence(self, change: PresenceChange) -> None:
        """Tell all replicas who came and who left; called once in the installation for each change."""
        body = wire.dumps(
            {"joined": change.joined, "left": change.left, "count": change.count, "version": change.version}
        )
        news = News(wire.PRESENCE, self._replica, 0, "presence", "", body)
        self._hear(change.room_id, news)
        self.channels.publish(change.room_id, wire.seal(self._key, change.room_id, news))

    # Opening and closing.

    async def _open(self, room_id: UUID) -> _Room:
        room = self._rooms.get(room_id)
        if room is None:
            room = self._rooms[room_id] = _Room(room_id, asyncio.get_running_loop().create_future())
            self._tasks.start(self._start(room), name=f"room:{room_id}")
        if room.closing is not None:
            room.closing.cancel()
            room.closing = None
        await asyncio.shield(room.opened)
        return room

    async def _start(self, room: _Room) -> None:
        """First subscribe, then read the head: what happens in between is buffered and passes the gate afterwards."""
        try:
            await self.channels.subscribe(room.id)
            head = (await self.log.heads([room.id])).get(room.id, 0)
        except Unavailable as error:
            self._rooms.pop(room.id, None)
            await self.channels.unsubscribe(room.id)
            room.opened.set_exception(error)
            room.opened.exception()  # whoever waited has gone: it must not be reported as never retrieved
            return
        room.gate = head
        room.early = {seq: event for seq, event in room.early.items() if seq > head}
        self._drain_early(room)
        room.opened.set_result(None)
        self._linger(room)

    def _attach(self, room: _Room, socket: Socket) -> Member:
        if room.closing is not None:
            room.closing.cancel()
            room.closing = None
        member = Member(socket, room.id)
        room.members.setdefault(socket.namespace, {})[socket] = member
        return member

    def _linger(self, room: _Room) -> None:
        """Keep an empty room for a while: people reload pages, and the next class follows in the same room."""
        if room.is_empty() and room.closing is None and self._rooms.get(room.id) is room:
            room.closing = asyncio.get_running_loop().call_later(self._settings.linger, self._close, room)

    def _close(self, room: _Room) -> None:
        room.closing = None
        if room.is_empty() and self._rooms.get(room.id) is room:
            del self._rooms[room.id]
            self._tasks.start(self._unsubscribe(room.id), name=f"room:{room.id}:close")

    async def _unsubscribe(self, room_id: UUID) -> None:
        if room_id not in self._rooms:  # it may have been opened again before this task had its turn
            await self.channels.unsubscribe(room_id)

    # The gate.

    def _pass(self, room: _Room, event: RoomEvent) -> None:
        if room.gate is not None and event.seq <= room.gate and "gate_passes_twice" not in self._bugs:
            return
        if room.gate is None or (event.seq > room.gate + 1 and "no_gap_repair" not in self._bugs):
            self._keep_early(room, event)
            return
        self._send(room, event)
        self._drain_early(room)

    def _keep_early(self, room: _Room, event: RoomEvent) -> None:
        if len(room.early) < EARLY_LIMIT:
            room.early[event.seq] = event
        if room.gate is not None:
            self._repair_soon(room)

    def _drain_early(self, room: _Room) -> None:
        while room.early and room.gate is not None and (event := room.early.pop(room.gate + 1, None)):
            self._send(room, event)

    def _repair_soon(self, room: _Room) -> None:
        """Give Redis a moment to bring what is missing, then read it from PostgreSQL."""
        if not room.repairing:
            room.repairing = True
            gate = room.gate
            asyncio.get_running_loop().call_later(self._settings.gap_wait, self._repair_if_stuck, room, gate)

    def _repair_if_stuck(self, room: _Room, gate: int | None) -> None:
        if room.early or room.gate == gate:
            self._tasks.start(self._repair(room), name=f"room:{room.id}:repair")
        else:
            room.repairing = False

    async def _repair(self, room: _Room) -> None:
        """Read what is missing until there is no more; a failure is made good by the next comparison of heads."""
        before = room.gate
        try:
            while room.gate is not None:
                events = await self.log.read(room.id, after=room.gate, limit=REPAIR_PAGE)
                if events:
                    ROOM_GAP_REPAIRS.inc()
                for event in events:
                    self._pass(room, event)
                if len(events) < REPAIR_PAGE:
                    break
            room.early = {seq: event for seq, event in room.early.items() if room.gate is None or seq > room.gate}
        except Unavailable:
            logger.warning("a gap could not be read", extra={"room_id": str(room.id)})
        finally:
            room.repairing = False
            if room.early and room.gate != before:
                self._repair_soon(room)

    def _send(self, room: _Room, event: RoomEvent) -> None:
        room.gate = event.seq
        for namespace, members in room.members.items():
            if members:
                framed = event.frame(namespace, self._epoch)
                for member in members.values():
                    member.take(event.seq, framed)
                ROOM_EVENT_DELIVERIES.inc(len(members))

    # Comparing heads with PostgreSQL.

    def _head_pause(self) -> float:
        return self._settings.head_interval if self.channels.up else self._settings.head_interval_degraded

    async def _compare_heads(self) -> None:
        # The gates of now: while the heads are read they may move on beyond them, which is no sign of another log.
        rooms = [(room, room.gate) for room in self._rooms.values() if room.gate is not None]
        if "no_head_compare" in self._bugs:
            return
        try:
            heads = await self.log.heads([room.id for room, _ in rooms])
        except Unavailable:
            return  # asked again after the pause
        replaced = self.log.epoch != self._epoch
        self._epoch = self.log.epoch
        for room, gate in rooms:
            head = heads.get(room.id)
            if head is None:
                self._drop(room)
            elif replaced or head < gate:
                self._resync(room, head)
            elif room.gate is not None and head > room.gate:
                self._repair_soon(room)

    def _resync(self, room: _Room, head: int) -> None:
        """The log is not the one we followed: tell everybody to join again."""
        room.gate, room.early = head, {}
        self._emit(room, "resync_required", wire.dumps({"room_ids": [str(room.id)]}))

    def _drop(self, room: _Room) -> None:
        """The room was deleted."""
        self._emit(room, "access_revoked", wire.dumps({"room_id": str(room.id), "code": "not_found"}))
        for socket in [socket for members in room.members.values() for socket in members]:
            self.leave(socket, room.id)

    # Ephemeral events.

    def _hear(self, room_id: UUID, news: News) -> None:
        room = self._rooms.get(room_id)
        if room is None:
            return
        if news.kind == wire.PRESENCE:
            body = orjson.loads(news.body)
            change = PresenceChange(room_id, tuple(body["joined"]), tuple(body["left"]), body["count"], body["version"])
            self._show_presence(room, change)
            return
        self._emit(room, news.name, news.body, news.audience)
        if news.kind == wire.REVOKED:
            for socket in self._audience(room, news.audience):
                self.leave(socket, room_id)

    def _emit(self, room: _Room, name: str, body: bytes, audience: str = "") -> None:
        frames = {namespace: wire.event_frame(namespace, name, body) for namespace in room.members}
        for socket in self._audience(room, audience):
            room.members[socket.namespace][socket].take(0, frames[socket.namespace])

    @staticmethod
    def _audience(room: _Room, audience: str) -> list[Socket]:
        sockets = [socket for members in room.members.values() for socket in members]
        if not audience:
            return sockets
        wanted = audience[0] == "+"
        return [socket for socket in sockets if (str(socket.actor.user_id) == audience[1:]) is wanted]

    def _show_presence(self, room: _Room, change: PresenceChange) -> None:
        """Small rooms see each person come and go; large ones get a summary, at most twice a second."""
        if change.count > self._settings.presence_detail_limit or room.changes:
            if not room.changes:
                asyncio.get_running_loop().call_later(PRESENCE_PAUSE, self._summarise_presence, room)
            room.changes.append(change)
            return
        for user in change.joined:
            body = {"room_id": str(room.id), "user": user, "count": change.count}
            self._emit(room, "user_joined", wire.dumps(body), f"-{user['id']}")
        for user_id in change.left:
            body = {"room_id": str(room.id), "user_id": user_id, "count": change.count}
            self._emit(room, "user_left", wire.dumps(body))

    def _summarise_presence(self, room: _Room) -> None:
        changes, room.changes = room.changes, []
        joined: dict[str, Any] = {}
        left: set[str] = set()
        for change in changes:
            for user in change.joined:
                joined[user["id"]] = user
                left.discard(user["id"])
            for user_id in change.left:
                joined.pop(user_id, None)
                left.add(user_id)
        last = max(changes, key=lambda change: change.version)
        since = min(change.version for change in changes) - 1
        body = {
            "room_id": str(room.id),
            "version": last.version,
            "since": since,  # whoever knows a version before this has missed something
            "count": last.count,
            "joined": list(joined.values()),
            "left": list(left),
        }
        self._emit(room, "presence_changed", wire.dumps(body))


def _person(socket: Socket) -> dict[str, Any]:
    actor = socket.actor
    return {"id": str(actor.user_id), "name": actor.name, "avatar_url": actor.avatar_url}
