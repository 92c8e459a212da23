"""Profiles, preferences and the search over HTTP: what people tell of themselves, and who gets to see it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.modules.classroom.actors import actor_of
from tests.people import People, Person

ME = "/api/profile/me"
PREFERENCES = "/api/profile/me/preferences"
FILLED = {
    "pronouns": "she/her",
    "bio": "Knots and stars.",
    "locale": "pt-BR",
    "time_zone": "Europe/Berlin",
    "links": ["https://example.com/anna"],
}


@pytest.fixture
async def anna(people: People) -> Person:
    return await people.sign_in("student1")


@pytest.fixture
async def teacher(people: People) -> Person:
    return await people.sign_in("teacher")


async def conditional(person: Person, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, Any]:
    """Send a request with headers of its own; the status, the entity tag and the JSON of the answer."""
    sent = {"Authorization": f"Bearer {person.token}", **headers}
    async with person.session.request(method, person.url + path, json=body, headers=sent) as response:
        return response.status, response.headers.get("ETag", ""), await response.json()


async def names(person: Person, text: str, **query: str) -> list[str]:
    async with person.session.get(
        f"{person.url}/api/profile/search",
        params={"q": text, **query},
        headers={"Authorization": f"Bearer {person.token}"},
    ) as response:
        assert response.status == 200, await response.text()
        return [person["name"] for person in (await response.json())["items"]]


async def test_a_new_profile_is_empty_and_shows_little(anna):
    assert await anna.call("GET", ME, status=200) == {
        "id": anna.id,
        "name": anna.user["name"],
        "avatar_url": None,
        "pronouns": None,
        "bio": None,
        "locale": None,
        "time_zone": None,
        "links": [],
        "visibility": {
            "pronouns": "courses",
            "bio": "courses",
            "locale": "instructors",
            "time_zone": "instructors",
            "links": "courses",
        },
    }


async def test_a_change_keeps_what_it_leaves_out(anna):
    await anna.call("PATCH", ME, FILLED, status=200)
    changed = await anna.call("PATCH", ME, {"bio": "Stars.", "visibility": {"bio": "nobody"}}, status=200)
    assert changed == await anna.call("GET", ME, status=200)
    assert {key: changed[key] for key in FILLED} == {**FILLED, "bio": "Stars."}
    assert (changed["visibility"]["bio"], changed["visibility"]["links"]) == ("nobody", "courses")


async def test_null_goes_back_to_nothing_and_to_the_default(anna):
    await anna.call("PATCH", ME, {**FILLED, "visibility": {"bio": "nobody"}}, status=200)
    emptied = await anna.call("PATCH", ME, {**dict.fromkeys(FILLED), "visibility": {"bio": None}}, status=200)
    assert (emptied["bio"], emptied["links"], emptied["visibility"]["bio"]) == (None, [], "courses")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", None),
        ("name", "x" * 101),
        ("pronouns", "a\nb"),
        ("bio", "x" * 2001),
        ("locale", "english please"),
        ("time_zone", "Mars/Olympus"),
        ("time_zone", "../../etc/passwd"),
        ("links", ["https://example.com"] * 6),
        ("links", ["javascript:alert(1)"]),
        ("links", ["https://example.com@evil.example/"]),
        ("links", ["https://"]),
        ("links", ["//example.com"]),
        ("links", ["https://exa mple.com"]),
        ("visibility", {"name": "nobody"}),
        ("visibility", {"bio": "friends"}),
        ("avatar_url", "https://example.com/a.png"),
        ("email", "other@example.com"),
        ("role", "admin"),
    ],
)
async def test_what_does_not_belong_into_a_profile_is_refused_by_name(anna, field, value):
    refused = await anna.call("PATCH", ME, {field: value}, status=422)
    assert refused["errors"][0]["loc"][0] == field


async def test_spelling_of_locales_is_unified(anna):
    assert (await anna.call("PATCH", ME, {"locale": "zh_hant-tw"}, status=200))["locale"] == "zh-Hant-TW"


async def test_a_stale_change_of_the_profile_is_refused(anna):
    _, tag, _ = await conditional(anna, "GET", ME)
    status, changed, _ = await conditional(anna, "PATCH", ME, {"bio": "One"}, **{"If-Match": tag})
    assert (status, changed != tag) == (200, True)
    status, _, refused = await conditional(anna, "PATCH", ME, {"bio": "Two"}, **{"If-Match": tag})
    assert (status, refused["code"]) == (412, "conflict")
    status, _, answer = await conditional(anna, "PATCH", ME, {"bio": "Three"}, **{"If-Match": f'"x", {changed}'})
    assert (status, answer["bio"]) == (200, "Three")


async def test_of_two_changes_of_one_version_one_wins(anna):
    _, tag, _ = await conditional(anna, "GET", PREFERENCES)
    changes = [
        conditional(anna, "PATCH", PREFERENCES, {"theme": theme}, **{"If-Match": tag}) for theme in ("dark", "light")
    ]
    assert sorted(status for status, _, _ in await asyncio.gather(*changes)) == [200, 412]


async def test_changing_preferences_does_not_make_the_profile_stale(anna):
    _, tag, _ = await conditional(anna, "GET", ME)
    await anna.call("PATCH", PREFERENCES, {"theme": "dark"}, status=200)
    assert (await conditional(anna, "GET", ME))[1] == tag


async def test_preferences_have_defaults_and_change_by_part(anna):
    before = await anna.call("GET", PREFERENCES, status=200)
    assert (before["theme"], before["notifications"]["email"]) == ("system", True)
    changed = await anna.call("PATCH", PREFERENCES, {"theme": "dark", "notifications": {"email": False}}, status=200)
    assert changed == {**before, "theme": "dark", "notifications": {**before["notifications"], "email": False}}
    again = await anna.call("PATCH", PREFERENCES, {"notifications": {"push": False}}, status=200)
    assert again["notifications"] == {**changed["notifications"], "push": False}
    assert await anna.call("GET", PREFERENCES, status=200) == again


@pytest.mark.parametrize(
    "change",
    [{"theme": "pink"}, {"colour": "red"}, {"captions": "yes"}, {"notifications": {"pigeon": True}}, {"language": "1"}],
)
async def test_unknown_preferences_are_refused(anna, change):
    await anna.call("PATCH", PREFERENCES, change, status=422)


async def test_what_a_newer_release_stored_is_kept_and_does_not_disturb(anna, rt):
    async with rt.database.connection() as conn:
        await conn.execute(
            "UPDATE users SET preferences = $2::text::jsonb, profile_data = profile_data || $3::text::jsonb"
            " WHERE id = $1",
            (await actor_of(rt, "student1")).user_id,
            '{"theme": "sepia", "haptics": true, "captions": true}',
            '{"motto": "Ad astra", "bio": 7}',
        )
    preferences = await anna.call("GET", PREFERENCES, status=200)
    assert (preferences["theme"], preferences["captions"]) == ("system", True)
    assert (await anna.call("GET", ME, status=200))["bio"] is None
    await anna.call("PATCH", PREFERENCES, {"captions": False}, status=200)
    await anna.call("PATCH", ME, {"pronouns": "they"}, status=200)
    async with rt.database.connection() as conn:
        row = await conn.fetchrow(
            "SELECT preferences ->> 'haptics', profile_data ->> 'motto' FROM users WHERE email = $1",
            "student1@example.com",
        )
    assert tuple(row) == ("true", "Ad astra")


async def test_people_of_a_course_see_what_is_for_them(anna, teacher, people):
    await anna.call("PATCH", ME, FILLED, status=200)
    path = f"/api/profile/users/{anna.id}"
    mate = await (await people.sign_in("student2")).call("GET", path, status=200)
    assert (mate["bio"], mate["links"], mate["time_zone"], mate["locale"]) == (
        FILLED["bio"],
        FILLED["links"],
        None,
        None,
    )
    assert set(mate) == {"id", "name", "avatar_url", *FILLED}
    taught = await teacher.call("GET", path, status=200)
    assert {key: taught[key] for key in FILLED} == FILLED


async def test_what_is_for_nobody_is_seen_by_nobody_but_oneself(anna, teacher, people):
    await anna.call("PATCH", ME, {**FILLED, "visibility": dict.fromkeys(FILLED, "nobody")}, status=200)
    path = f"/api/profile/users/{anna.id}"
    for viewer in (teacher, await people.sign_in("student2"), await people.sign_in("admin")):
        seen = await viewer.call("GET", path, status=200)
        assert [seen[key] for key in FILLED] == [None, None, None, None, []]
    own = await anna.call("GET", path, status=200)
    assert {key: own[key] for key in FILLED} == FILLED


async def test_who_teaches_elsewhere_is_no_instructor_here(anna, people):
    """Only a course that both are in counts, and the role of the one who looks."""
    ben = await people.sign_in("student2")
    await ben.call("POST", "/api/classroom/courses", {"title": "Knots"}, status=201)
    await anna.call("PATCH", ME, FILLED, status=200)
    assert (await ben.call("GET", f"/api/profile/users/{anna.id}", status=200))["time_zone"] is None


@pytest.fixture
async def stranger(http: aiohttp.ClientSession, people: People) -> Person:
    """Somebody with an account and without a course, with a name that others have too."""
    account = {"email": "mallory@example.com", "password": "a passphrase of orange tin", "name": "Chiara Strange"}
    async with http.post("/api/auth/register", json=account) as response:
        assert response.status == 201, await response.text()
    async with http.post("/api/auth/login", json={key: account[key] for key in ("email", "password")}) as response:
        answer = await response.json()
    return Person(str(people._url), people._session, answer["user"], answer["access_token"], answer["refresh_token"])


async def test_strangers_cannot_be_told_from_nobody(anna, stranger):
    nobody = "00000000-0000-7000-8000-000000000000"
    for viewer, user_id in ((anna, stranger.id), (stranger, anna.id), (anna, nobody)):
        refused = await viewer.call("GET", f"/api/profile/users/{user_id}", status=404)
        assert refused["code"] == "not_found"


async def test_admins_find_everybody(people, stranger):
    admin = await people.sign_in("admin")
    assert (await admin.call("GET", f"/api/profile/users/{stranger.id}", status=200))["name"] == "Chiara Strange"
    assert await names(admin, "strange") == ["Chiara Strange"]


async def test_search_finds_words_in_any_order_and_the_beginning_of_the_last(anna, stranger):
    assert await names(anna, "chia") == ["Chiara Conti"]
    assert await names(anna, "CONTI chiara") == ["Chiara Conti"]
    assert await names(anna, "chi conti") == []
    assert await names(anna, "ben-da") == ["Yael Ben-David"]
    assert await names(stranger, "conti") == []


async def test_search_minds_no_accents(anna):
    for text in ("yildiz", "Yıldız", "YILDIZ", "yıl"):
        assert await names(anna, text) == ["Elif Yıldız"], text
    assert await names(anna, "wojcik") == ["Tomasz Wójcik"]


async def test_whole_words_come_before_beginnings(anna, people):
    for student, name in (("student2", "Leander Li"), ("student3", "Li"), ("student4", "Linus Lindt")):
        await (await people.sign_in(student)).call("PATCH", ME, {"name": name}, status=200)
    first, second, *others = await names(anna, "li")
    assert (first, second) == ("Li", "Leander Li")
    assert {"Linus Lindt", "Viktor Lindqvist", "Mei-Ling Chen"} == set(others)


async def test_search_comes_in_pages(anna):
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = f"/api/profile/search?q=d&limit=2{'&cursor=' + cursor if cursor else ''}"
        page = await anna.call("GET", query, status=200)
        found += [person["name"] for person in page["items"]]
        cursor = page["next_cursor"]
    assert len(found) == len(set(found)) > 2
    assert sorted(found) == sorted(await names(anna, "d"))
    await anna.call("GET", "/api/profile/search?q=d&cursor=nonsense", status=422)


async def test_search_does_not_find_out_addresses(anna):
    for text in ("student2", "student2@example.com", "example", "example.com", "teacher@"):
        assert await names(anna, text) == []


@pytest.mark.parametrize("text", ["'", "a' | 'b", "!a", "a:*", "\\", "&", "%_", "(", "a <-> b", "²", "x" * 100])
async def test_search_has_no_language_to_break_out_of(anna, text):
    await names(anna, text)


async def test_a_new_name_is_in_new_events(anna, people, rt):
    listener, room_id = await people.in_class("student2")
    await anna.call("PATCH", ME, {"name": "Anna Nova"}, status=200)
    async with asyncio.timeout(5):
        while True:  # the name of a session is asked for again every two seconds
            message = {"id": str(rt.clock.uuid7()), "text": "hello"}
            sent = await anna.call("POST", f"/api/chat/rooms/{room_id}/messages", message, status=201)
            if sent["actor"]["name"] == "Anna Nova":
                break
            await asyncio.sleep(0.2)
    await listener.until(lambda client: client.events("message")[-1]["actor"]["name"] == "Anna Nova")
