"""HTTP of the classroom: parse → service → answer."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import orjson

from modules.auth import UserSummary
from modules.classroom import service
from modules.classroom.errors import LastOwner
from modules.classroom.permissions import MANAGERS
from modules.classroom.schemas import (
    CourseChange,
    CourseIn,
    CourseOut,
    JoinIn,
    LogQuery,
    MemberChange,
    MemberIn,
    MemberOut,
    ParticipantsOut,
    RoomChange,
    RoomEventOut,
    RoomIn,
    RoomOut,
    StateOut,
    log_page,
)
from modules.classroom.store import Course, Member, Room
from server.errors import Conflict, Forbidden, NotFound
from server.gateway.conditions import Match
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.schema import Page, PageQuery, decode_cursor, encode_cursor


@endpoint(summary="Create a course; you become its owner.", status=201)
async def create_course(call: Call, body: CourseIn) -> CourseOut:
    course = await service.create_course(call.rt, call.actor, title=body.title, description=body.description)
    return _course(call, course)


@endpoint(summary="List your courses, newest first.")
async def list_courses(call: Call, query: PageQuery) -> Page[CourseOut]:
    (before,) = decode_cursor(query.cursor, tuple[UUID]) if query.cursor else (None,)
    courses = await service.list_courses(call.rt, call.actor, before=before, limit=query.limit + 1)
    cursor = encode_cursor([courses[query.limit - 1].id]) if len(courses) > query.limit else None
    return Page(items=[_course_out(course) for course in courses[: query.limit]], next_cursor=cursor)


@endpoint(summary="Get a course.", tagged=True, errors=(NotFound,))
async def get_course(call: Call, course_id: UUID) -> CourseOut:
    return _course(call, await service.get_course(call.rt, call.actor, course_id))


@endpoint(summary="Change a course.", errors=(NotFound, Forbidden))
async def change_course(call: Call, course_id: UUID, body: CourseChange, match: Match) -> CourseOut:
    course = await service.change_course(
        call.rt, call.actor, course_id, title=body.title, description=body.description, match=match
    )
    return _course(call, course)


@endpoint(summary="Delete a course with its rooms.", errors=(NotFound, Forbidden))
async def delete_course(call: Call, course_id: UUID) -> None:
    await service.delete_course(call.rt, call.actor, course_id)


@endpoint(summary="Join a course by its code.", errors=(NotFound,))
async def join_course(call: Call, body: JoinIn) -> CourseOut:
    return _course(call, await service.join_course(call.rt, call.actor, body.code))


@endpoint(summary="List the members of a course in the order in which they joined.", errors=(NotFound,))
async def list_members(call: Call, course_id: UUID, query: PageQuery) -> Page[MemberOut]:
    after = decode_cursor(query.cursor, tuple[datetime, UUID]) if query.cursor else None
    members = await service.list_members(call.rt, call.actor, course_id, after=after, limit=query.limit + 1)
    shown = members[: query.limit]
    cursor = encode_cursor([shown[-1].joined_at, shown[-1].user_id]) if len(members) > query.limit else None
    return Page(items=[_member_out(member) for member in shown], next_cursor=cursor)


@endpoint(summary="Add a member to a course.", status=201, errors=(NotFound, Forbidden, Conflict))
async def add_member(call: Call, course_id: UUID, body: MemberIn) -> MemberOut:
    return _member_out(await service.add_member(call.rt, call.actor, course_id, body.user_id, body.role))


@endpoint(summary="Give a member another role.", errors=(NotFound, Forbidden, LastOwner))
async def change_member(call: Call, course_id: UUID, user_id: UUID, body: MemberChange) -> MemberOut:
    return _member_out(await service.change_member(call.rt, call.actor, course_id, user_id, body.role))


@endpoint(summary="Remove a member, or leave a course.", errors=(NotFound, Forbidden, LastOwner))
async def remove_member(call: Call, course_id: UUID, user_id: UUID) -> None:
    await service.remove_member(call.rt, call.actor, course_id, user_id)


@endpoint(summary="Add a room to a course.", status=201, errors=(NotFound, Forbidden))
async def create_room(call: Call, course_id: UUID, body: RoomIn) -> RoomOut:
    room = await service.create_room(call.rt, call.actor, course_id, name=body.name, kind=body.kind)
    return _room(call, room)


@endpoint(summary="List the rooms of a course, oldest first.", errors=(NotFound,))
async def list_rooms(call: Call, course_id: UUID, query: PageQuery) -> Page[RoomOut]:
    (after,) = decode_cursor(query.cursor, tuple[UUID]) if query.cursor else (None,)
    rooms = await service.list_rooms(call.rt, call.actor, course_id, after=after, limit=query.limit + 1)
    cursor = encode_cursor([rooms[query.limit - 1].id]) if len(rooms) > query.limit else None
    return Page(items=[_room_out(room) for room in rooms[: query.limit]], next_cursor=cursor)


@endpoint(summary="Get a room.", tagged=True, errors=(NotFound,))
async def get_room(call: Call, room_id: UUID) -> RoomOut:
    return _room(call, await service.get_room(call.rt, call.actor, room_id))


@endpoint(summary="Rename a room.", errors=(NotFound, Forbidden))
async def change_room(call: Call, room_id: UUID, body: RoomChange, match: Match) -> RoomOut:
    return _room(call, await service.change_room(call.rt, call.actor, room_id, name=body.name, match=match))


@endpoint(summary="Delete a room.", errors=(NotFound, Forbidden))
async def delete_room(call: Call, room_id: UUID) -> None:
    await service.delete_room(call.rt, call.actor, room_id)


@endpoint(summary="Get the state of a room and the seq that it belongs to.", errors=(NotFound,))
async def get_room_state(call: Call, room_id: UUID) -> StateOut:
    head = await service.read_state(call.rt, call.actor, room_id)
    return StateOut(epoch=call.rt.log.epoch, seq=head.seq, state=orjson.loads(head.state))


@endpoint(summary="Read the log of a room.", errors=(NotFound,))
async def list_room_events(call: Call, room_id: UUID, query: LogQuery) -> Page[RoomEventOut]:
    """With `after` the events behind it, else the newest (`before`: in front of it); a page is in order of `seq`."""
    span = query.span()
    events = await service.read_events(call.rt, call.actor, room_id, span)
    return log_page(events, span, call.rt.log.epoch)


@endpoint(summary="See who is in a room now.", errors=(NotFound,))
async def get_room_participants(call: Call, room_id: UUID) -> ParticipantsOut:
    await service.get_room(call.rt, call.actor, room_id)
    people = await call.rt.rooms.participants(room_id)
    users = [UserSummary.model_validate(user) for user in people.users]
    return ParticipantsOut(count=people.count, users=users, version=people.version, stale=people.stale)


def _course(call: Call, course: Course) -> CourseOut:
    call.tag(course.updated_at)
    return _course_out(course)


def _course_out(course: Course) -> CourseOut:
    return CourseOut.model_validate(
        {
            "id": course.id,
            "title": course.title,
            "description": course.description,
            "role": course.role,
            "member_count": course.member_count,
            "join_code": course.join_code if course.role in MANAGERS else None,
        }
    )


def _member_out(member: Member) -> MemberOut:
    user = UserSummary(id=member.user_id, name=member.name, avatar_url=member.avatar_url)
    return MemberOut.model_validate({"user": user, "role": member.role, "joined_at": member.joined_at})


def _room(call: Call, room: Room) -> RoomOut:
    call.tag(room.updated_at)
    return _room_out(room)


def _room_out(room: Room) -> RoomOut:
    names = ("id", "course_id", "name", "kind", "status", "last_seq")
    return RoomOut.model_validate({name: getattr(room, name) for name in names})


ROUTES = (
    route("POST", "/api/classroom/courses", create_course),
    route("GET", "/api/classroom/courses", list_courses),
    route("POST", "/api/classroom/courses/join", join_course),
    route("GET", "/api/classroom/courses/{course_id}", get_course),
    route("PATCH", "/api/classroom/courses/{course_id}", change_course),
    route("DELETE", "/api/classroom/courses/{course_id}", delete_course),
    route("GET", "/api/classroom/courses/{course_id}/members", list_members),
    route("POST", "/api/classroom/courses/{course_id}/members", add_member),
    route("PATCH", "/api/classroom/courses/{course_id}/members/{user_id}", change_member),
    route("DELETE", "/api/classroom/courses/{course_id}/members/{user_id}", remove_member),
    route("GET", "/api/classroom/courses/{course_id}/rooms", list_rooms),
    route("POST", "/api/classroom/courses/{course_id}/rooms", create_room),
    route("GET", "/api/classroom/rooms/{room_id}", get_room),
    route("PATCH", "/api/classroom/rooms/{room_id}", change_room),
    route("DELETE", "/api/classroom/rooms/{room_id}", delete_room),
    route("GET", "/api/classroom/rooms/{room_id}/state", get_room_state),
    route("GET", "/api/classroom/rooms/{room_id}/events", list_room_events),
    route("GET", "/api/classroom/rooms/{room_id}/participants", get_room_participants),
)
