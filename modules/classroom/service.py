"""Use cases of the classroom: courses, members, rooms and the live class, whose rules are in state.py."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from modules.classroom import state, store
from modules.classroom.errors import LastOwner
from modules.classroom.permissions import MANAGERS, Role
from modules.classroom.schemas import Span
from modules.classroom.store import Course, Member, Room
from server.actor import Actor
from server.database import Connection
from server.errors import Conflict, FieldError, Forbidden, Invalid, NotFound
from server.gateway.conditions import ANY_VERSION, Match, Stale
from server.realtime import wire
from server.realtime.wire import RoomEvent
from server.realtime.work import Head, NewEvent, Receipt, RoomView, Work
from server.settings import planted_bugs

if TYPE_CHECKING:
    from server.runtime import Runtime

LOUNGE = "Lounge"
CODE_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # without I, L, O, 0 and 1, which are mistaken for one another
CODE_LENGTH = 8  # characters, so 8.5e11 codes
# Guessing a code is a way into a course: 60 tries at once, then one in two seconds, for each user and replica.
JOIN_RATE, JOIN_BURST = 0.5, 60
LEADING = frozenset(("owner", "instructor"))  # roles that only an owner gives and takes


async def access_course(conn: Connection, actor: Actor, course_id: UUID) -> Course:
    """The only way to a course.

    Raises:
        NotFound: there is none, or the actor has no role in it.
    """
    course = await store.read_course(conn, actor, course_id)
    if course is None or course.role is None:
        raise NotFound
    return course


async def access_room(conn: Connection, actor: Actor, room_id: UUID) -> Room:
    """The only way to a room; `Room.role` is the actor's.

    Raises:
        NotFound: there is none, or the actor has no role in it.
    """
    room = await store.read_room(conn, actor, room_id)
    if room is None:
        raise NotFound
    return room


# Courses


async def create_course(rt: Runtime, actor: Actor, *, title: str, description: str) -> Course:
    """Found a course with the actor as its owner and a lounge."""
    course_id = rt.clock.uuid7()
    async with rt.database.transaction() as conn:
        await _insert_course(conn, actor, course_id, title, description)
        await store.insert_member(conn, course_id, actor.user_id, "owner")
        await _insert_room(rt, conn, actor, course_id, LOUNGE, "lounge")
        return await access_course(conn, actor, course_id)


async def get_course(rt: Runtime, actor: Actor, course_id: UUID) -> Course:
    """Raises:
    NotFound: the actor cannot see such a course.
    """
    async with rt.database.connection() as conn:
        return await access_course(conn, actor, course_id)


async def list_courses(rt: Runtime, actor: Actor, *, before: UUID | None, limit: int) -> list[Course]:
    """The actor's courses (an admin's: all), newest first."""
    async with rt.database.connection() as conn:
        return await store.list_courses(conn, actor, before=before, limit=limit)


async def change_course(
    rt: Runtime,
    actor: Actor,
    course_id: UUID,
    *,
    title: str | None,
    description: str | None,
    match: Match = ANY_VERSION,
) -> Course:
    """Change what is not None.

    Raises:
        NotFound, Forbidden: the actor cannot see the course, or does not manage it.
        Stale: it was changed since the version of `match`.
    """
    async with rt.database.transaction() as conn:
        course = await _lock_managed(conn, actor, course_id)
        match.check(course.updated_at)
        await store.update_course(conn, course_id, title, description)
        return await access_course(conn, actor, course_id)


async def delete_course(rt: Runtime, actor: Actor, course_id: UUID) -> None:
    """Remove a course with its rooms and their logs; who is in one is put out.

    Raises:
        NotFound, Forbidden: the actor cannot see the course, or does not own it.
    """
    async with rt.database.transaction() as conn:
        course = await access_course(conn, actor, course_id)
        if course.role != "owner":
            raise Forbidden("Only an owner can delete a course.")
        # Before the cascade gets at them, in the order of the room log, so that the two cannot deadlock.
        await store.lock_rooms(conn, course_id)
        rooms = await store.list_room_ids(conn, course_id)
        await store.delete_course(conn, course_id)
        await rt.log.forget(conn, rooms)
    for room_id in rooms:
        await rt.rooms.close(room_id)


async def join_course(rt: Runtime, actor: Actor, code: str) -> Course:
    """Become a learner of the course with this code; a role that is there already stays.

    Raises:
        NotFound: no course has this code.
        RateLimited: the actor has tried too many codes.
    """
    rt.limits.take("join_course", actor.user_id, rate=JOIN_RATE, burst=JOIN_BURST)
    async with rt.database.transaction() as conn:
        course_id = await store.find_course(conn, code)
        if course_id is None:
            raise NotFound("No course has this code. Check it and try again.")
        await store.insert_member(conn, course_id, actor.user_id, "learner")
        return await access_course(conn, actor, course_id)


# Members


async def list_members(
    rt: Runtime, actor: Actor, course_id: UUID, *, after: tuple[datetime, UUID] | None, limit: int
) -> list[Member]:
    """The members in the order in which they joined.

    Raises:
        NotFound: the actor cannot see the course.
    """
    async with rt.database.connection() as conn:
        await access_course(conn, actor, course_id)
        return await store.list_members(conn, course_id, after=after, limit=limit)


async def add_member(rt: Runtime, actor: Actor, course_id: UUID, user_id: UUID, role: Role) -> Member:
    """Enrol somebody.

    Raises:
        NotFound: the actor cannot see the course, or there is no such user.
        Forbidden: the actor does not manage the course, or only an owner gives this role.
        Conflict: they are a member already.
    """
    async with rt.database.transaction() as conn:
        course = await _lock_managed(conn, actor, course_id)
        _require_authority(course, role)
        added = await store.insert_member(conn, course_id, user_id, role)
        member = await store.read_member(conn, course_id, user_id)
    if member is None:
        raise NotFound("There is no such user.")
    if not added:
        raise Conflict("This person is a member already. Change their role instead.")
    return member


async def change_member(rt: Runtime, actor: Actor, course_id: UUID, user_id: UUID, role: Role) -> Member:
    """Give a member another role.

    Raises:
        NotFound: the actor cannot see the course, or there is no such member.
        Forbidden: the actor does not manage the course, or only an owner gives or takes this role.
        LastOwner: the course would be without an owner.
    """
    async with rt.database.transaction() as conn:
        course = await _lock_managed(conn, actor, course_id)
        member = await _access_member(conn, course_id, user_id)
        _require_authority(course, role, member.role)
        await store.update_member(conn, course_id, user_id, role)
        await _require_owner(conn, course_id, before=member)
        return await _access_member(conn, course_id, user_id)


async def remove_member(rt: Runtime, actor: Actor, course_id: UUID, user_id: UUID) -> None:
    """Take somebody, or oneself, out of a course and at once out of its rooms.

    Raises:
        NotFound: the actor cannot see the course, or there is no such member.
        Forbidden: it is not the actor, who does not manage the course; or only an owner removes this role.
        LastOwner: the course would be without an owner.
    """
    async with rt.database.transaction() as conn:
        course = await _lock_course(conn, actor, course_id)
        member = await _access_member(conn, course_id, user_id)
        if user_id != actor.user_id:
            _require_manager(course)
            _require_authority(course, member.role)
        await store.delete_member(conn, course_id, user_id)
        await _require_owner(conn, course_id, before=member)
        rooms = await store.list_room_ids(conn, course_id)
    for room_id in rooms:
        await rt.rooms.revoke(room_id, user_id, "forbidden")


# Rooms


async def create_room(rt: Runtime, actor: Actor, course_id: UUID, *, name: str, kind: str) -> Room:
    """Add a room to a course.

    Raises:
        NotFound, Forbidden: the actor cannot see the course, or does not manage it.
    """
    async with rt.database.transaction() as conn:
        await _lock_managed(conn, actor, course_id)
        room_id = await _insert_room(rt, conn, actor, course_id, name, kind)
        return await access_room(conn, actor, room_id)


async def list_rooms(rt: Runtime, actor: Actor, course_id: UUID, *, after: UUID | None, limit: int) -> list[Room]:
    """The rooms of a course, oldest first.

    Raises:
        NotFound: the actor cannot see the course.
    """
    async with rt.database.connection() as conn:
        course = await access_course(conn, actor, course_id)
        return await store.list_rooms(conn, course_id, role=str(course.role), after=after, limit=limit)


async def get_room(rt: Runtime, actor: Actor, room_id: UUID) -> Room:
    """Raises:
    NotFound: the actor cannot see such a room.
    """
    async with rt.database.connection() as conn:
        return await access_room(conn, actor, room_id)


async def change_room(
    rt: Runtime, actor: Actor, room_id: UUID, *, name: str | None, match: Match = ANY_VERSION
) -> Room:
    """Rename a room, unless `name` is None.

    Raises:
        NotFound, Forbidden: the actor cannot see the room, or does not manage it.
        Stale: it was renamed since the version of `match`.
    """
    async with rt.database.transaction() as conn:
        room = await access_room(conn, actor, room_id)
        _require_manager(room)
        match.check(room.updated_at)
        seen = None if match == ANY_VERSION else room.updated_at
        if not await store.update_room(conn, room_id, name, unless_changed_since=seen):
            raise Stale
        return await access_room(conn, actor, room_id)


async def delete_room(rt: Runtime, actor: Actor, room_id: UUID) -> None:
    """Remove a room and its log; who is in it is put out.

    Raises:
        NotFound, Forbidden: the actor cannot see the room, or does not manage it.
    """
    async with rt.database.transaction() as conn:
        _require_manager(await access_room(conn, actor, room_id))
        await store.delete_room(conn, room_id)
        await rt.log.forget(conn, [room_id])
    await rt.rooms.close(room_id)


async def read_state(rt: Runtime, actor: Actor, room_id: UUID) -> Head:
    """The head of a room with its state there, of one moment.

    Raises:
        NotFound: the actor cannot see the room.
    """
    await get_room(rt, actor, room_id)
    return await rt.log.head(room_id)


async def read_events(rt: Runtime, actor: Actor, room_id: UUID, span: Span) -> list[RoomEvent]:
    """A part of the log in order of seq, and one event more when there is more.

    Raises:
        NotFound: the actor cannot see the room.
        Invalid: more events than this server reads at once.
    """
    require_limit(rt, span.limit)
    await get_room(rt, actor, room_id)
    if span.after is None:
        return await rt.log.read_back(room_id, before=span.before, limit=span.limit + 1)
    to = None if span.before is None else span.before - 1
    return await rt.log.read(room_id, after=span.after, to=to, limit=span.limit + 1)


def require_limit(rt: Runtime, limit: int) -> None:
    """Raises:
    Invalid: more events than this server reads at once (`realtime.join_limit`).
    """
    most = rt.settings.realtime.join_limit
    if limit > most:
        raise Invalid(errors=[FieldError(("limit",), f"Ask for at most {most} events.")])


# The live class: what each command decides is in state.py.


async def start_class(rt: Runtime, actor: Actor, room_id: UUID, cmd_id: UUID | None) -> Receipt:
    """Raises:
    NotFound: the actor cannot see the room. And what `state.start_class` and `RoomLog.commit` refuse with.
    """
    return await _commit(rt, actor, room_id, cmd_id, "start_class", state.start_class)


async def end_class(rt: Runtime, actor: Actor, room_id: UUID, cmd_id: UUID | None) -> Receipt:
    """Raises:
    NotFound: the actor cannot see the room. And what `state.end_class` and `RoomLog.commit` refuse with.
    """
    return await _commit(rt, actor, room_id, cmd_id, "end_class", state.end_class)


async def raise_hand(rt: Runtime, actor: Actor, room_id: UUID, cmd_id: UUID | None) -> Receipt:
    """Raises:
    NotFound: the actor cannot see the room. And what `state.raise_hand` and `RoomLog.commit` refuse with.
    """
    return await _commit(rt, actor, room_id, cmd_id, "raise_hand", state.raise_hand)


async def lower_hand(rt: Runtime, actor: Actor, room_id: UUID, cmd_id: UUID | None, *, user_id: UUID | None) -> Receipt:
    """Lower a hand; the actor's own for None.

    Raises:
        NotFound: the actor cannot see the room. And what `state.lower_hand` and `RoomLog.commit` refuse with.
    """
    target = user_id or actor.user_id
    return await _commit(rt, actor, room_id, cmd_id, "lower_hand", state.lower_hand, user_id=target)


async def call_on(rt: Runtime, actor: Actor, room_id: UUID, cmd_id: UUID | None, *, user_id: UUID) -> Receipt:
    """Raises:
    NotFound: the actor cannot see the room. And what `state.call_on` and `RoomLog.commit` refuse with.
    """
    return await _commit(rt, actor, room_id, cmd_id, "call_on", state.call_on, user_id=user_id)


async def _commit(
    rt: Runtime,
    actor: Actor,
    room_id: UUID,
    cmd_id: UUID | None,
    command: str,
    decide: Callable[..., Sequence[NewEvent]],
    **payload: Any,  # Any: JSON, the arguments of the decision besides view and actor
) -> Receipt:
    def decide_now(view: RoomView) -> Sequence[NewEvent]:
        return decide(view, actor, **payload)

    return await rt.log.commit(Work(room_id, actor, command, decide_now, cmd_id=cmd_id, payload=wire.dumps(payload)))


async def _insert_course(conn: Connection, actor: Actor, course_id: UUID, title: str, description: str) -> None:
    insert = partial(store.insert_course, conn, course_id, title, description, created_by=actor.user_id)
    while not await insert(join_code=_new_code()):
        pass  # taken, which is as likely as one in a million while there are 850,000 courses


def _new_code() -> str:
    return "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_LENGTH))


async def _insert_room(rt: Runtime, conn: Connection, actor: Actor, course_id: UUID, name: str, kind: str) -> UUID:
    room_id = rt.clock.uuid7()
    first = wire.dumps(state.initial_state(kind)).decode()
    await store.insert_room(conn, room_id, course_id, name, kind=kind, state=first, created_by=actor.user_id)
    return room_id


async def _lock_course(conn: Connection, actor: Actor, course_id: UUID) -> Course:
    """Changes of a course and its members come one after the other, so that two owners cannot leave at once."""
    await access_course(conn, actor, course_id)
    await store.lock_course(conn, course_id)
    return await access_course(conn, actor, course_id)


async def _lock_managed(conn: Connection, actor: Actor, course_id: UUID) -> Course:
    course = await _lock_course(conn, actor, course_id)
    _require_manager(course)
    return course


async def _access_member(conn: Connection, course_id: UUID, user_id: UUID) -> Member:
    member = await store.read_member(conn, course_id, user_id)
    if member is None:
        raise NotFound("This person is not a member of the course.")
    return member


def _require_manager(place: Course | Room) -> None:
    if place.role not in MANAGERS and "anybody-manages" not in planted_bugs():
        raise Forbidden("Only owners and instructors can do this.")


def _require_authority(course: Course, *roles: str) -> None:
    if course.role != "owner" and not LEADING.isdisjoint(roles):
        raise Forbidden("Only an owner can add, change or remove owners and instructors.")


async def _require_owner(conn: Connection, course_id: UUID, *, before: Member) -> None:
    if before.role == "owner" and not await store.count_owners(conn, course_id):
        raise LastOwner
