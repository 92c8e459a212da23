"""G6: what was revoked is cut off on every replica, also when Redis loses the notice."""

from uuid import uuid4

import pytest

from tests.waiting import eventually

PATIENCE = 5.0  # seconds: the promise


@pytest.fixture
def deaf(rt):
    """No notice of this replica reaches the other one."""
    publish = rt.rooms.channels.publish
    rt.rooms.channels.publish = lambda *_: None
    yield
    rt.rooms.channels.publish = publish


async def joined_elsewhere(people, second_url, name="student1"):
    person = await people.sign_in(name)
    client = await person.connect(url=second_url)
    room_id = await person.class_room()
    await client.join(room_id)
    return person, client, room_id


async def test_a_logout_ends_the_sockets_of_that_session_only(people, second_url):
    person, client, _ = await joined_elsewhere(people, second_url)
    again = await people.sign_in("student1")
    other = await again.connect(url=second_url)
    await person.call("POST", "/api/auth/logout", status=204)
    await eventually(client.disconnected.is_set, PATIENCE)
    assert client.events("session_expired") == [{"code": "session_expired"}]
    assert not other.disconnected.is_set()


async def test_a_disabled_user_is_cut_off(people, second_url, rt):
    _, client, _ = await joined_elsewhere(people, second_url)
    async with rt.database.connection() as conn:
        await conn.execute("UPDATE users SET disabled_at = now() WHERE email = 'student1@example.com'")
    await eventually(client.disconnected.is_set, PATIENCE)


@pytest.mark.usefixtures("deaf")
async def test_a_removed_member_is_put_out_also_when_redis_loses_the_notice(people, second_url):
    student, client, room_id = await joined_elsewhere(people, second_url)
    teacher = await people.sign_in("teacher")
    speaker = await teacher.connect()
    await speaker.join(room_id)
    room = await teacher.call("GET", f"/api/classroom/rooms/{room_id}", status=200)
    await teacher.call("DELETE", f"/api/classroom/courses/{room['course_id']}/members/{student.id}", status=204)
    await eventually(lambda: client.events("access_revoked"), PATIENCE)
    assert client.events("access_revoked") == [{"room_id": room_id, "code": "forbidden"}]
    await speaker.say(room_id, "among ourselves")
    ack = await client.send("message", room_id=room_id, id=str(uuid4()), text="hello?")
    assert ack["error"]["code"] == "not_found"
    assert client.events("message") == []


async def test_those_who_may_stay_are_left_alone(people, rt):
    client, room_id = await people.in_class("student1")
    await rt.rooms.presence.participants(room_id)
    await client.say(room_id, "still here")
    await client.wait_for("message")
    assert not client.disconnected.is_set()
    assert client.events("access_revoked") == []
