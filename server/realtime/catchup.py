"""What a join reads, read once for all who join a room at the same moment.

After a replica has died, its whole classroom joins within seconds. Who asks while a read is under way shares the next
one: a read must begin after the socket was attached to the room (fanout.py), so one that is under way is too old.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

from server.errors import DomainError, Unavailable
from server.realtime.log import RoomLog
from server.realtime.presence import Participants, Presence
from server.realtime.wire import RoomEvent
from server.realtime.work import Head
from server.tasks import Tasks


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Where a client stands after a join, see `join_room` in the contract."""

    epoch: str
    seq: int
    resumed: bool
    truncated: bool
    events: bytes  # a JSON array
    state: bytes  # JSON, the state at `seq`
    participants: Participants


@dataclass(slots=True, eq=False)
class _Ask:
    """One join that waits: from where it wants to go on, and how much it takes at most."""

    after: int | None
    epoch: str | None
    limit: int
    answer: asyncio.Future[CaughtUp]

    def resumes(self, head: int, epoch: str) -> bool:
        return self.knows(head, epoch) and head - (self.after or 0) <= self.limit

    def knows(self, head: int, epoch: str) -> bool:
        """Whether the place it names is one of this log."""
        return self.after is not None and self.epoch == epoch and 0 <= self.after <= head

    def first(self, head: int, epoch: str) -> int:
        """The `seq` before the first event of its answer."""
        return (self.after or 0) if self.resumes(head, epoch) else max(0, head - self.limit)


@dataclass(slots=True)
class _Moment:
    """A room as one read found it; joins with the same first event share the same bytes."""

    epoch: str
    head: Head
    first: int  # the `seq` before the first of `events`, which are fewer than asked for when they are large
    events: list[RoomEvent]
    participants: Participants
    arrays: dict[int, bytes] = field(default_factory=dict)

    def array_after(self, first: int) -> bytes:
        if first not in self.arrays:
            events = self.events[first - self.first :]
            self.arrays[first] = b"[%s]" % b",".join(event.json(self.epoch) for event in events)
        return self.arrays[first]


class CatchUp:
    """The shared reads of all rooms of this process."""

    def __init__(self, log: RoomLog, presence: Presence, tasks: Tasks) -> None:
        self._log = log
        self._presence = presence
        self._tasks = tasks
        self._waiting: dict[UUID, list[_Ask]] = {}  # rooms with a reader, and who waits for its next read

    async def read(self, room_id: UUID, after: int | None, epoch: str | None, limit: int) -> CaughtUp:
        """Read a room as it is at some moment after this call.

        Raises:
            NotFound: the room is gone.
            Unavailable: PostgreSQL does not answer.
        """
        ask = _Ask(after, epoch, limit, asyncio.get_running_loop().create_future())
        if room_id in self._waiting:
            self._waiting[room_id].append(ask)
        else:
            self._waiting[room_id] = [ask]
            self._tasks.start(self._serve(room_id), name=f"room:{room_id}:catch up")
        return await ask.answer

    async def _serve(self, room_id: UUID) -> None:
        try:
            while asks := [ask for ask in self._waiting[room_id] if not ask.answer.done()]:
                self._waiting[room_id] = []
                await self._answer(room_id, asks)
        finally:
            del self._waiting[room_id]

    async def _answer(self, room_id: UUID, asks: list[_Ask]) -> None:
        failure: DomainError = Unavailable()  # of whoever is not answered, whatever goes wrong here
        try:
            moment = await self._look(room_id, asks)
            for ask in asks:
                if not ask.answer.done():
                    ask.answer.set_result(_answer(ask, moment))
        except DomainError as error:
            failure = error
        finally:
            for ask in asks:
                if not ask.answer.done():
                    ask.answer.set_exception(failure)

    async def _look(self, room_id: UUID, asks: list[_Ask]) -> _Moment:
        """One read for all: everybody wants some of the last events, so the longest tail holds all answers."""
        participants = await self._presence.participants(room_id)
        head = await self._log.head(room_id)
        epoch = self._log.epoch
        first = min(ask.first(head.seq, epoch) for ask in asks)
        if first == head.seq:
            return _Moment(epoch, head, first, [], participants)
        events = await self._log.read_back(room_id, before=head.seq + 1, limit=head.seq - first)
        return _Moment(epoch, head, events[0].seq - 1, events, participants)


def _answer(ask: _Ask, moment: _Moment) -> CaughtUp:
    seq, epoch = moment.head.seq, moment.epoch
    resumed = ask.resumes(seq, epoch) and ask.first(seq, epoch) >= moment.first
    return CaughtUp(
        epoch=epoch,
        seq=seq,
        resumed=resumed,
        truncated=ask.knows(seq, epoch) and not resumed,
        events=moment.array_after(max(ask.first(seq, epoch), moment.first)),
        state=moment.head.state,
        participants=moment.participants,
    )
