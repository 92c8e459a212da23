"""The classroom over HTTP: shapes, pages and refusals as the contract has them."""

from __future__ import annotations

import aiohttp
import pytest

COURSES = "/api/classroom/courses"


@pytest.fixture
async def teacher(people):
    return await people.sign_in("teacher")


@pytest.fixture
async def student(people):
    return await people.sign_in("student1")


async def test_a_course_has_the_shape_of_the_contract(teacher, student):
    course = await teacher.call("POST", COURSES, {"title": " Knots ", "description": "Rope"}, status=201)
    assert course == {
        "id": course["id"],
        "title": "Knots",
        "description": "Rope",
        "role": "owner",
        "member_count": 1,
        "join_code": course["join_code"],
    }
    joined = await student.call("POST", f"{COURSES}/join", {"code": f" {course['join_code'].lower()} "}, status=200)
    assert joined == {**course, "role": "learner", "member_count": 2, "join_code": None}
    assert await student.call("GET", f"{COURSES}/{course['id']}", status=200) == joined


async def test_lists_come_in_pages(teacher):
    for number in range(3):
        await teacher.call("POST", COURSES, {"title": f"Course {number}"}, status=201)
    first = await teacher.call("GET", f"{COURSES}?limit=3", status=200)
    second = await teacher.call("GET", f"{COURSES}?limit=3&cursor={first['next_cursor']}", status=200)
    titles = [course["title"] for course in first["items"] + second["items"]]
    assert titles == ["Course 2", "Course 1", "Course 0", "Astronomy 101"]
    assert second["next_cursor"] is None
    refused = await teacher.call("GET", f"{COURSES}?cursor=nonsense", status=422)
    assert refused["code"] == "invalid"


async def test_members_come_in_pages_without_gaps(teacher):
    course_id = (await teacher.call("GET", COURSES, status=200))["items"][0]["id"]
    page = await teacher.call("GET", f"{COURSES}/{course_id}/members?limit=7", status=200)
    seen = [member["user"]["id"] for member in page["items"]]
    while page["next_cursor"]:
        path = f"{COURSES}/{course_id}/members?limit=7&cursor={page['next_cursor']}"
        page = await teacher.call("GET", path, status=200)
        seen += [member["user"]["id"] for member in page["items"]]
    assert len(seen) == len(set(seen)) == 31
    assert set(page["items"][0]) == {"user", "role", "joined_at"}
    assert set(page["items"][0]["user"]) == {"id", "name", "avatar_url"}


async def test_a_member_is_added_changed_and_removed(teacher, people):
    admin = await people.sign_in("admin")
    course_id = (await teacher.call("GET", COURSES, status=200))["items"][0]["id"]
    members = f"{COURSES}/{course_id}/members"
    added = await teacher.call("POST", members, {"user_id": admin.id, "role": "observer"}, status=201)
    assert added["user"]["id"] == admin.id
    changed = await teacher.call("PATCH", f"{members}/{admin.id}", {"role": "learner"}, status=200)
    assert changed["role"] == "learner"
    await teacher.call("DELETE", f"{members}/{admin.id}", status=204)
    await teacher.call("PATCH", f"{members}/{admin.id}", {"role": "learner"}, status=404)


async def test_a_room_has_the_shape_of_the_contract(teacher, student):
    course_id = (await teacher.call("GET", COURSES, status=200))["items"][0]["id"]
    room = await teacher.call("POST", f"{COURSES}/{course_id}/rooms", {"name": "Lab", "kind": "class"}, status=201)
    assert room == {
        "id": room["id"],
        "course_id": course_id,
        "name": "Lab",
        "kind": "class",
        "status": "idle",
        "last_seq": 0,
    }
    path = f"/api/classroom/rooms/{room['id']}"
    assert await student.call("GET", path, status=200) == room
    assert (await teacher.call("PATCH", path, {"name": "Lab 2"}, status=200))["name"] == "Lab 2"
    await student.call("DELETE", path, status=403)
    await teacher.call("DELETE", path, status=204)
    await student.call("GET", path, status=404)


async def test_groups_are_not_made_in_courses(teacher):
    course_id = (await teacher.call("GET", COURSES, status=200))["items"][0]["id"]
    refused = await teacher.call("POST", f"{COURSES}/{course_id}/rooms", {"name": "G", "kind": "group"}, status=422)
    assert refused["errors"][0]["loc"] == ["kind"]


async def test_if_match_refuses_what_was_changed_in_the_meantime(teacher, url):
    course_id = (await teacher.call("GET", COURSES, status=200))["items"][0]["id"]
    headers = {"Authorization": f"Bearer {teacher.token}"}
    async with aiohttp.ClientSession(url, headers=headers) as session:
        async with session.get(f"{COURSES}/{course_id}") as response:
            tag = response.headers["ETag"]
        for status in (200, 412):
            change = {"title": f"After {status}"}
            async with session.patch(f"{COURSES}/{course_id}", json=change, headers={"If-Match": tag}) as response:
                assert response.status == status


async def test_the_state_of_a_class(student):
    room_id = await student.class_room()
    answer = await student.call("GET", f"/api/classroom/rooms/{room_id}/state", status=200)
    assert answer["seq"] == 0
    assert answer["epoch"]
    assert answer["state"]["status"] == "idle"


async def test_the_log_is_read_forwards_and_backwards_without_gaps(teacher):
    room_id = await teacher.class_room()
    client = await teacher.connect()
    for number in range(7):
        await client.say(room_id, str(number))
    path = f"/api/classroom/rooms/{room_id}/events"
    newest = await teacher.call("GET", f"{path}?limit=3", status=200)
    assert [event["seq"] for event in newest["items"]] == [5, 6, 7]
    older = await teacher.call("GET", f"{path}?limit=3&cursor={newest['next_cursor']}", status=200)
    assert [event["seq"] for event in older["items"]] == [2, 3, 4]
    oldest = await teacher.call("GET", f"{path}?limit=3&cursor={older['next_cursor']}", status=200)
    assert [event["seq"] for event in oldest["items"]] == [1]
    assert oldest["next_cursor"] is None
    forwards = await teacher.call("GET", f"{path}?after=1&before=6&limit=3", status=200)
    assert [event["seq"] for event in forwards["items"]] == [2, 3, 4]
    rest = await teacher.call("GET", f"{path}?limit=3&cursor={forwards['next_cursor']}", status=200)
    assert [event["seq"] for event in rest["items"]] == [5]
    assert rest["next_cursor"] is None


async def test_the_log_over_http_is_what_the_sockets_get(teacher, people):
    listener, room_id = await people.in_class("student1")
    await (await teacher.connect()).do("start_class", room_id=room_id)
    received = await listener.wait_for("class_started")
    page = await teacher.call("GET", f"/api/classroom/rooms/{room_id}/events", status=200)
    assert page["items"] == [received]


async def test_participants_are_listed(teacher, people):
    _, room_id = await people.in_class("student1")
    answer = await teacher.call("GET", f"/api/classroom/rooms/{room_id}/participants", status=200)
    assert answer["count"] == 1
    assert set(answer["users"][0]) == {"id", "name", "avatar_url"}
