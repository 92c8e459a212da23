"""Use cases of the classroom on a real database: who sees and changes what."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from modules.classroom import access_room, read_roles, service
from modules.classroom.errors import LastOwner, RoomClosed
from modules.classroom.service import CODE_ALPHABET
from server.errors import Conflict, Forbidden, IdempotencyKeyReused, NotFound
from server.gateway.conditions import Stale, etag, if_match
from tests.modules.classroom.actors import actor_of, add_room, course_of, room_of


async def test_who_creates_a_course_owns_it_and_finds_a_lounge(rt):
    anna = await actor_of(rt, "student1")
    course = await service.create_course(rt, anna, title="Knots", description="")
    assert (course.role, course.member_count) == ("owner", 1)
    assert len(course.join_code) == 8
    assert set(course.join_code) <= set(CODE_ALPHABET)
    [room] = await service.list_rooms(rt, anna, course.id, after=None, limit=10)
    assert (room.name, room.kind, room.status, room.last_seq) == ("Lounge", "lounge", "open", 0)


async def test_a_course_of_others_cannot_be_told_from_none(rt):
    anna, ben = await actor_of(rt, "student1"), await actor_of(rt, "student2")
    course = await service.create_course(rt, anna, title="Knots", description="")
    [room] = await service.list_rooms(rt, anna, course.id, after=None, limit=10)
    for course_id in (course.id, uuid4()):
        with pytest.raises(NotFound):
            await service.get_course(rt, ben, course_id)
    for room_id in (room.id, uuid4()):
        with pytest.raises(NotFound):
            await service.get_room(rt, ben, room_id)


async def test_courses_are_listed_newest_first_in_pages(rt):
    anna = await actor_of(rt, "student1")
    for title in ("One", "Two"):
        await service.create_course(rt, anna, title=title, description="")
    first = await service.list_courses(rt, anna, before=None, limit=2)
    rest = await service.list_courses(rt, anna, before=first[-1].id, limit=2)
    assert [course.title for course in first + rest] == ["Two", "One", "Astronomy 101"]


async def test_an_admin_owns_every_course_but_no_group(rt):
    admin, anna, ben = [await actor_of(rt, name) for name in ("admin", "student1", "student2")]
    assert (await service.get_course(rt, admin, await course_of(rt))).role == "owner"
    assert (await service.get_room(rt, admin, await room_of(rt, "Live class"))).role == "owner"
    for kind in ("group", "direct"):
        room_id = await add_room(rt, kind, anna, ben)
        assert (await service.get_room(rt, anna, room_id)).role == "learner"
        with pytest.raises(NotFound):
            await service.get_room(rt, admin, room_id)


async def test_the_roles_of_the_log_are_those_of_access_room(rt):
    people = [await actor_of(rt, name) for name in ("admin", "teacher", "student1", "student2")]
    rooms = [await room_of(rt, "Live class"), await room_of(rt, "Lounge"), await add_room(rt, "group", people[2])]
    rooms.append(uuid4())
    pairs = [(room_id, actor) for room_id in rooms for actor in people]
    expected = {}
    async with rt.database.connection() as conn:
        for room_id, actor in pairs:
            try:
                expected[(room_id, actor.user_id)] = (await access_room(conn, actor, room_id)).role
            except NotFound:
                continue
        assert await read_roles(conn, pairs) == expected
    assert len(expected) == 9


async def test_joining_by_code_makes_a_learner_once_and_never_downgrades(rt):
    admin, teacher = await actor_of(rt, "admin"), await actor_of(rt, "teacher")
    before = (await service.get_course(rt, teacher, await course_of(rt))).member_count
    for _ in range(2):
        assert (await service.join_course(rt, admin, "ASTRO101")).member_count == before + 1
    assert (await service.join_course(rt, teacher, "ASTRO101")).role == "owner"
    with pytest.raises(NotFound):
        await service.join_course(rt, teacher, "NOSUCH22")


async def test_learners_change_neither_the_course_nor_its_rooms_nor_its_members(rt):
    anna, ben, course_id = await actor_of(rt, "student1"), await actor_of(rt, "student2"), await course_of(rt)
    room_id = await room_of(rt, "Lounge")
    refused = [
        service.change_course(rt, anna, course_id, title="Mine", description=None),
        service.delete_course(rt, anna, course_id),
        service.create_room(rt, anna, course_id, name="Den", kind="lounge"),
        service.change_room(rt, anna, room_id, name="Den"),
        service.delete_room(rt, anna, room_id),
        service.add_member(rt, anna, course_id, ben.user_id, "learner"),
        service.change_member(rt, anna, course_id, anna.user_id, "owner"),
        service.remove_member(rt, anna, course_id, ben.user_id),
    ]
    for attempt in refused:
        with pytest.raises(Forbidden):
            await attempt


async def test_an_instructor_manages_members_but_no_owners_and_instructors(rt):
    teacher, anna, ben = [await actor_of(rt, name) for name in ("teacher", "student1", "student2")]
    course_id = await course_of(rt)
    await service.change_member(rt, teacher, course_id, anna.user_id, "instructor")
    assert (await service.change_member(rt, anna, course_id, ben.user_id, "assistant")).role == "assistant"
    with pytest.raises(Forbidden):
        await service.change_member(rt, anna, course_id, ben.user_id, "instructor")
    with pytest.raises(Forbidden):
        await service.remove_member(rt, anna, course_id, teacher.user_id)
    with pytest.raises(Forbidden):
        await service.delete_course(rt, anna, course_id)
    await service.remove_member(rt, anna, course_id, ben.user_id)
    with pytest.raises(NotFound):
        await service.get_course(rt, ben, course_id)


async def test_adding_somebody_needs_a_user_who_is_no_member_yet(rt):
    teacher, admin, course_id = await actor_of(rt, "teacher"), await actor_of(rt, "admin"), await course_of(rt)
    assert (await service.add_member(rt, teacher, course_id, admin.user_id, "observer")).role == "observer"
    with pytest.raises(Conflict):
        await service.add_member(rt, teacher, course_id, admin.user_id, "learner")
    with pytest.raises(NotFound):
        await service.add_member(rt, teacher, course_id, uuid4(), "learner")


async def test_the_last_owner_stays(rt):
    teacher, course_id = await actor_of(rt, "teacher"), await course_of(rt)
    with pytest.raises(LastOwner):
        await service.remove_member(rt, teacher, course_id, teacher.user_id)
    with pytest.raises(LastOwner):
        await service.change_member(rt, teacher, course_id, teacher.user_id, "learner")


async def test_of_two_owners_who_leave_at_once_one_stays(rt):
    teacher, anna, course_id = await actor_of(rt, "teacher"), await actor_of(rt, "student1"), await course_of(rt)
    await service.change_member(rt, teacher, course_id, anna.user_id, "owner")
    results = await asyncio.gather(
        *(service.remove_member(rt, actor, course_id, actor.user_id) for actor in (teacher, anna)),
        return_exceptions=True,
    )
    assert [type(result) for result in results if result] == [LastOwner]


async def test_a_change_of_an_older_version_is_refused(rt):
    teacher, course_id = await actor_of(rt, "teacher"), await course_of(rt)
    seen = if_match(etag((await service.get_course(rt, teacher, course_id)).updated_at))
    changed = await service.change_course(rt, teacher, course_id, title="Astronomy", description=None, match=seen)
    assert changed.title == "Astronomy"
    with pytest.raises(Stale):
        await service.change_course(rt, teacher, course_id, title="Astrology", description=None, match=seen)


async def test_a_room_renamed_meanwhile_is_not_renamed_again(rt):
    teacher, room_id = await actor_of(rt, "teacher"), await room_of(rt, "Lounge")
    seen = if_match(etag((await service.get_room(rt, teacher, room_id)).updated_at))
    assert (await service.change_room(rt, teacher, room_id, name="Bar", match=seen)).name == "Bar"
    with pytest.raises(Stale):
        await service.change_room(rt, teacher, room_id, name="Pub", match=seen)


async def test_a_deleted_course_takes_its_rooms_along(rt):
    teacher, room_id = await actor_of(rt, "teacher"), await room_of(rt, "Live class")
    await service.delete_course(rt, teacher, await course_of(rt))
    with pytest.raises(NotFound):
        await service.get_room(rt, teacher, room_id)
    with pytest.raises(NotFound):
        await service.start_class(rt, teacher, room_id, None)


async def test_a_class_runs_and_its_state_is_that_of_the_log(rt):
    teacher, anna, room_id = (
        await actor_of(rt, "teacher"),
        await actor_of(rt, "student1"),
        await room_of(rt, "Live class"),
    )
    with pytest.raises(RoomClosed):
        await service.raise_hand(rt, anna, room_id, None)
    await service.start_class(rt, teacher, room_id, None)
    await service.raise_hand(rt, anna, room_id, None)
    await service.call_on(rt, teacher, room_id, None, user_id=anna.user_id)
    assert (await service.get_room(rt, teacher, room_id)).status == "live"
    events = await rt.log.read(room_id, after=0, limit=10)
    assert [(event.seq, event.type) for event in events] == [
        (1, "class_started"),
        (2, "hand_raised"),
        (3, "hand_called"),
    ]
    head = await service.read_state(rt, anna, room_id)
    assert head.seq == 3
    assert str(anna.user_id).encode() in head.state


async def test_a_repeated_command_happens_once(rt):
    teacher, room_id, cmd_id = await actor_of(rt, "teacher"), await room_of(rt, "Live class"), uuid4()
    first = await service.start_class(rt, teacher, room_id, cmd_id)
    await service.end_class(rt, teacher, room_id, None)
    again = await service.start_class(rt, teacher, room_id, cmd_id)
    assert (again.seq, again.duplicate) == (first.seq, True)
    with pytest.raises(IdempotencyKeyReused):
        await service.end_class(rt, teacher, room_id, cmd_id)


async def test_a_command_without_an_event_is_acked_with_the_head(rt):
    teacher, room_id = await actor_of(rt, "teacher"), await room_of(rt, "Live class")
    first = await service.start_class(rt, teacher, room_id, None)
    assert (await service.start_class(rt, teacher, room_id, None)).seq == first.seq
