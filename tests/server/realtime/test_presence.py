"""Who is here, over two replicas: everybody once, nobody who is gone."""

import itertools

from server.app import running
from tests.conftest import listening
from tests.waiting import eventually


async def count_in(person, room_id):
    return (await person.call("GET", f"/api/classroom/rooms/{room_id}/participants", status=200))["count"]


async def test_coming_and_going_is_told_to_the_others_once(people, second_url):
    teacher, room_id = await people.in_class("teacher")
    student = await people.sign_in("student1")
    client = await student.connect(url=second_url)
    ack = await client.join(room_id)
    assert ack["participants"]["count"] == 2
    joined = await teacher.wait_for("user_joined")
    assert (joined["user"]["id"], joined["count"]) == (student.id, 2)
    await client.close()
    left = await teacher.wait_for("user_left")
    assert (left["user_id"], left["count"]) == (student.id, 1)
    assert len(teacher.events("user_joined")) == 1


async def test_two_tabs_leave_only_when_both_are_gone(people, second_url):
    teacher, room_id = await people.in_class("teacher")
    student = await people.sign_in("student1")
    tabs = [await student.connect(), await student.connect(url=second_url), await student.connect("/chat")]
    for tab in tabs:
        await tab.join(room_id)
    assert await count_in(student, room_id) == 2
    for tab in tabs[:2]:
        await tab.close()
    assert teacher.events("user_left") == []
    await tabs[2].close()
    await teacher.wait_for("user_left")
    assert len(teacher.events("user_joined")) == 1


async def test_joining_twice_with_one_socket_counts_once(people):
    client, room_id = await people.in_class("student1")
    ack = await client.join(room_id)
    assert ack["participants"]["count"] == 1


async def test_the_people_of_a_silent_replica_leave_when_its_lease_runs_out(people, settings, rt):
    teacher, room_id = await people.in_class("teacher")
    async with running(settings) as other, listening(other) as url:
        student = await people.sign_in("student1")
        client = await student.connect(url=url)
        await client.join(room_id)
        await teacher.wait_for("user_joined")
        # It falls silent, as SIGSTOP makes it: no renewal, no departure.
        other.rt.rooms.presence.leave = lambda *_: None  # type: ignore[method-assign]
        other.rt.rooms.presence._renew_lease = _never  # type: ignore[method-assign]
        other.rt.rooms.presence._begin_incarnation = _nothing  # type: ignore[method-assign]
        other.rt.rooms.presence._sweep = _nothing  # type: ignore[method-assign]
        limits = settings.realtime
        patience = limits.presence_lease + 2 * limits.presence_interval + 2
        await eventually(lambda: teacher.events("user_left"), patience)
        assert teacher.events("user_left") == [{"room_id": room_id, "user_id": student.id, "count": 1}]


async def test_a_replica_that_lost_its_lease_enters_its_people_again(people, rt):
    _, room_id = await people.in_class("student1")
    teacher = await people.sign_in("teacher")
    for key in [key async for key in rt.redis.scan_iter(f"{rt.settings.redis.prefix}:presence:*")]:
        await rt.redis.delete(key)

    async def is_back():
        return await count_in(teacher, room_id) == 1

    await eventually(is_back, 2 * rt.settings.realtime.presence_interval + 2)


async def test_an_empty_room_leaves_no_key_behind(people, rt):
    client, room_id = await people.in_class("student1")
    await client.close()

    async def is_clean():
        return not [key async for key in rt.redis.scan_iter(f"{rt.settings.redis.prefix}:presence:{room_id}:*")]

    await eventually(is_clean)


async def test_large_rooms_get_a_summary_instead_of_each_coming_and_going(people, rt, monkeypatch):
    limits = rt.settings.realtime.model_copy(update={"presence_detail_limit": 2})
    monkeypatch.setattr(rt.rooms, "_settings", limits)
    teacher, room_id = await people.in_class("teacher")
    ids = set()
    for number in range(1, 6):
        student = await people.sign_in(f"student{number}")
        ids.add(student.id)
        await (await student.connect()).join(room_id)
    await teacher.until(lambda client: sum(len(c["joined"]) for c in client.events("presence_changed")) >= 4)
    changes = teacher.events("presence_changed")
    assert changes[-1]["count"] == 6
    for earlier, later in itertools.pairwise(changes):
        assert later["since"] == earlier["version"] < later["version"]
    assert len(teacher.events("user_joined")) == 1
    assert {user["id"] for change in changes for user in change["joined"]} < ids


async def _never(*_):
    return False


async def _nothing(*_):
    return None
