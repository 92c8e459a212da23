"""Leaving: everything about a person in one archive, and everything about a person gone."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from server.app import MODULES
from server.module import INSTALLED
from server.realtime.personal import DELETED_NAME
from tests.people import PASSWORD, People, Person
from tests.waiting import eventually

ME = "/api/profile/me"
EXPORT = "/api/profile/me/export"


@pytest.fixture
async def anna(people: People) -> Person:
    return await people.sign_in("student1")


@pytest.fixture
async def teacher(people: People) -> Person:
    return await people.sign_in("teacher")


async def events(person: Person, room_id: str) -> list[dict[str, Any]]:
    page = await person.call("GET", f"/api/classroom/rooms/{room_id}/events?after=0&limit=200", status=200)
    items: list[dict[str, Any]] = page["items"]
    return items


async def post_once(person: Person, path: str, body: Any) -> None:
    """Send a POST with an idempotency key, whose answer the server keeps."""
    headers = {"Authorization": f"Bearer {person.token}", "Idempotency-Key": str(uuid4())}
    async with person.session.post(person.url + path, json=body, headers=headers) as response:
        assert response.status == 201, await response.text()


async def test_every_module_that_holds_personal_data_gives_it_out_and_erases_it(server):
    for module in MODULES:
        assert module.export_user is not None, module.name
        assert module.erase_user is not None, module.name
    assert server.application[INSTALLED] == MODULES


async def test_the_archive_holds_what_the_server_knows_and_no_secret(anna, rt):
    lounge = await anna.room("Lounge")
    client = await anna.connect("/chat")
    await client.say(lounge, "for my archive")
    await client.do("read", room_id=lounge, seq=1)
    await anna.call("PATCH", ME, {"bio": "Knots"}, status=200)
    archive = await anna.call("GET", EXPORT, status=200)
    assert (archive["format"], archive["user_id"]) == ("lectern-export-1", anna.id)
    held = archive["modules"]
    assert set(held) == {module.name for module in MODULES}
    assert held["auth"]["account"]["email"] == "student1@example.com"
    assert held["auth"]["sessions"][0]["ip"] == "127.0.0.1"
    assert held["profile"]["profile"]["bio"] == "Knots"
    assert [course["title"] for course in held["classroom"]["courses"]] == ["Astronomy 101"]
    [room] = held["chat"]["rooms"]
    assert (room["id"], room["name"]) == (lounge, "Lounge")
    assert [message["data"]["text"] for message in room["messages"]] == ["for my archive"]
    assert held["chat"]["read_marks"] == [{"room_id": lounge, "seq": 1}]
    async with rt.database.connection() as conn:
        stored = await conn.fetchval("SELECT password_hash FROM users WHERE id = $1", UUID(anna.id))
    assert stored not in json.dumps(archive)
    assert "salt" not in json.dumps(archive)


async def test_the_archive_is_a_download_of_ones_own_words_only(anna, people):
    lounge = await anna.room("Lounge")
    await (await (await people.sign_in("student2")).connect("/chat")).say(lounge, "not hers")
    headers = {"Authorization": f"Bearer {anna.token}"}
    async with anna.session.get(anna.url + EXPORT, headers=headers) as response:
        assert response.headers["Content-Disposition"] == 'attachment; filename="lectern-export.json"'
        assert response.headers["Cache-Control"] == "no-store"
        assert "not hers" not in await response.text()


async def test_an_erased_person_is_nowhere(anna, people, rt):
    """The whole database is searched for the name and the address, not only the places that we think of."""
    name = anna.user["name"]
    listener, room_id = await people.in_class("student2")
    teacher = await people.sign_in("teacher")
    staff = await teacher.connect()
    await staff.do("start_class", room_id=room_id)
    client = await anna.connect()
    await client.join(room_id)
    await client.say(room_id, "my secret words")
    for _ in range(2):
        await client.do("raise_hand", room_id=room_id)
        await staff.do("call_on", room_id=room_id, user_id=anna.id)
    await client.do("raise_hand", room_id=room_id)
    await listener.wait_for("hand_raised", 3)
    await anna.call("POST", "/api/auth/password/forgot", {"email": "student1@example.com"}, status=202)
    await post_once(anna, f"/api/chat/rooms/{room_id}/messages", {"id": str(uuid4()), "text": "secret once more"})
    before = await events(teacher, room_id)
    await anna.call("DELETE", ME, {"password": PASSWORD}, status=204)

    async def outbox_is_empty() -> bool:
        async with rt.database.connection() as conn:
            return bool(await conn.fetchval("SELECT count(*) = 0 FROM outbox"))

    await eventually(outbox_is_empty)  # a letter that was asked for is on its way for a moment
    async with rt.database.connection() as conn:
        tables = await conn.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for row in tables:
            found = await conn.fetch(f'SELECT t::text AS text FROM "{row["tablename"]}" AS t')
            text = "\n".join(item["text"] for item in found)
            for secret in (name, name.split()[0], "student1@example.com", "my secret words", "once more"):
                assert secret not in text, f"{secret} in {row['tablename']}"

    after = await events(teacher, room_id)
    assert [(event["seq"], event["type"], event["at"]) for event in after] == [
        (event["seq"], event["type"], event["at"]) for event in before
    ]
    message, _ = [event for event in after if event["type"] == "message"]
    assert message["actor"] == {"id": anna.id, "name": DELETED_NAME, "avatar_url": None}
    assert message["data"] == {
        "id": message["cmd_id"],
        "text": "",
        "reply_to": None,
        "attachments": [],
        "mentions": [],
        "deleted": True,
    }


async def test_what_others_wrote_keeps_its_bytes(anna, people, rt):
    lounge = await anna.room("Lounge")
    ben = await people.sign_in("student2")
    await (await ben.connect("/chat")).say(lounge, "mine")
    await (await anna.connect("/chat")).say(lounge, "hers")
    read = "SELECT body FROM room_events WHERE actor_id = $1"
    async with rt.database.connection() as conn:
        before = await conn.fetch(read, UUID(ben.id))
        await anna.call("DELETE", ME, {"password": PASSWORD}, status=204)
        assert await conn.fetch(read, UUID(ben.id)) == before


async def test_the_class_goes_on_from_a_state_without_the_erased(anna, people, second_url):
    """Both replicas remember the state of a room; neither may write the old name back."""
    staff, room_id = await people.in_class("teacher")
    other = await (await people.sign_in("student2")).connect(url=second_url)
    await staff.do("start_class", room_id=room_id)
    await (await anna.connect(url=second_url)).do("raise_hand", room_id=room_id)
    await anna.call("DELETE", ME, {"password": PASSWORD}, status=204)
    await other.do("raise_hand", room_id=room_id)
    teacher = await people.sign_in("teacher")
    state = (await teacher.call("GET", f"/api/classroom/rooms/{room_id}/state", status=200))["state"]
    assert [hand["name"] for hand in state["hands"]] == [DELETED_NAME, "Bilal Rahman"]


async def test_an_erased_person_is_out_everywhere(anna, people, second_url):
    here, there = await anna.connect(), await anna.connect(url=second_url)
    room_id = await anna.class_room()
    for client in (here, there):
        await client.join(room_id)
    await anna.call("DELETE", ME, {"password": PASSWORD}, status=204)
    await anna.call("GET", ME, status=401)
    for client in (here, there):
        async with asyncio.timeout(5):
            await client.disconnected.wait()
    async with anna.session.post(
        f"{anna.url}/api/auth/login", json={"email": "student1@example.com", "password": PASSWORD}
    ) as response:
        assert response.status == 401
    async with anna.session.post(
        f"{anna.url}/api/auth/refresh", json={"refresh_token": anna.refresh_token}
    ) as response:
        assert response.status == 401
    teacher = await people.sign_in("teacher")
    await teacher.call("GET", f"/api/profile/users/{anna.id}", status=404)


async def test_the_address_is_free_again(anna, http):
    await anna.call("DELETE", ME, {"password": PASSWORD}, status=204)
    account = {"email": "student1@example.com", "password": "a passphrase of orange tin", "name": "Anna Again"}
    async with http.post("/api/auth/register", json=account) as response:
        assert response.status == 201, await response.text()


async def test_the_last_owner_of_a_course_is_told_which(teacher, anna):
    refused = await teacher.call("DELETE", ME, {"password": PASSWORD}, status=409)
    assert "Astronomy 101" in refused["detail"]
    [course] = (await teacher.call("GET", "/api/classroom/courses", status=200))["items"]
    members = f"/api/classroom/courses/{course['id']}/members"
    await teacher.call("PATCH", f"{members}/{anna.id}", {"role": "owner"}, status=200)
    await teacher.call("DELETE", ME, {"password": PASSWORD}, status=204)
    left = (await anna.call("GET", members, status=200))["items"]
    assert teacher.id not in [member["user"]["id"] for member in left]


async def test_a_refused_erasure_changes_nothing(teacher):
    room_id = await teacher.class_room()
    await (await teacher.connect()).say(room_id, "still here")
    before = await events(teacher, room_id)
    await teacher.call("DELETE", ME, {"password": PASSWORD}, status=409)
    assert await events(teacher, room_id) == before


async def test_admins_stay(people):
    await (await people.sign_in("admin")).call("DELETE", ME, {"password": PASSWORD}, status=409)


async def test_a_wrong_password_erases_nothing_and_cannot_be_guessed_for_long(anna):
    for _ in range(5):
        await anna.call("DELETE", ME, {"password": "wrong"}, status=403)
    await anna.call("DELETE", ME, {"password": PASSWORD}, status=429)
    await anna.call("GET", ME, status=200)


async def test_a_fresh_login_needs_no_password_and_an_old_one_does(anna, people, rt):
    ben = await people.sign_in("student2")
    async with rt.database.connection() as conn:
        await conn.execute(
            "UPDATE auth_sessions SET proved_at = now() - interval '6 minutes' WHERE user_id = $1", UUID(anna.id)
        )
    assert (await anna.call("DELETE", ME, status=403))["code"] == "step_up_required"
    await ben.call("DELETE", ME, status=204)


async def test_a_message_on_its_way_is_refused_or_redacted(anna, rt):
    """Writing while being erased: whatever was acked is a tombstone, and nothing is written afterwards."""
    lounge = await anna.room("Lounge")
    path = f"/api/chat/rooms/{lounge}/messages"
    writes = [anna.call("POST", path, {"id": str(uuid4()), "text": "late words"}) for _ in range(15)]
    await asyncio.gather(anna.call("DELETE", ME, {"password": PASSWORD}, status=204), *writes)

    async def stored() -> list[str]:
        async with rt.database.connection() as conn:
            rows = await conn.fetch("SELECT body FROM room_events WHERE actor_id = $1", UUID(anna.id))
        return [orjson.loads(row["body"])["data"]["text"] for row in rows]

    assert set(await eventually(stored) if await stored() else []) <= {""}
