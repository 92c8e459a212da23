"""Who may no longer be here: ended sessions and lost memberships, asked of PostgreSQL every two seconds.

A notice in Redis is quicker, but it can be lost, and a replica that was stopped hears none. So each replica asks for
all the sessions and places that its sockets live on, and cuts off those that are gone: within five seconds, whatever
was lost (GUARANTEES.md G6). What ends a session or a membership is decided by the modules that own them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from server.actor import Actor
from server.clock import Clock
from server.database import Connection, Database
from server.errors import Unavailable
from server.realtime.fanout import Rooms
from server.realtime.namespace import Sockets

logger = logging.getLogger(__name__)

INTERVAL = 2.0  # seconds between two looks
CHUNK = 1000  # sessions or places in one statement, so that none of them takes long

T = TypeVar("T")
# Of the given sessions, those that live: (conn, session ids, now).
ReadSessions = Callable[[Connection, Sequence[UUID], datetime], Awaitable[set[UUID]]]
# The role of each (room, actor) that has one, by room and user id.
ReadRoles = Callable[[Connection, Sequence[tuple[UUID, Actor]]], Awaitable[dict[tuple[UUID, UUID], str]]]


class Revocation:
    """Looks after the sockets of this process."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        sockets: Sockets,
        rooms: Rooms,
        *,
        read_sessions: ReadSessions,
        read_roles: ReadRoles,
    ) -> None:
        self._database = database
        self._clock = clock
        self._sockets = sockets
        self._rooms = rooms
        self._read_sessions = read_sessions
        self._read_roles = read_roles

    async def check(self) -> None:
        """Cut off whoever has lost their session or their place; nothing while PostgreSQL cannot be asked."""
        try:
            await self._check_sessions()
            await self._check_places()
        except Unavailable:
            logger.warning("revocations could not be read")

    async def _check_sessions(self) -> None:
        now = self._clock.now()
        for session_ids in _chunks(list({socket.actor.session_id for socket in self._sockets.all()})):
            async with self._database.connection() as conn:
                live = await self._read_sessions(conn, session_ids, now)
            ended = set(session_ids) - live
            for socket in self._sockets.all() if ended else ():
                if socket.actor.session_id in ended:
                    socket.expire("revoked")

    async def _check_places(self) -> None:
        for places in _chunks(self._rooms.places()):
            pairs = {(room_id, socket.actor.user_id): (room_id, socket.actor) for socket, room_id in places}
            async with self._database.connection() as conn:
                roles = await self._read_roles(conn, list(pairs.values()))
            for socket, room_id in places:
                if (room_id, socket.actor.user_id) not in roles:
                    self._rooms.put_out(socket, room_id, "forbidden")


def _chunks(items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
