"""Rate limits over HTTP: headers, refusals, whom they are counted for, and logins."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from server.app import running
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.schema import Schema
from server.limits import network_of
from server.metrics import RATE_LIMITED
from server.settings import load_settings
from server.windows import LocalWindows
from tests.conftest import listening
from tests.people import PASSWORD, People
from tests.waiting import eventually


class Word(Schema):
    word: str


@endpoint(summary="Read.", public=True)
async def read(call: Call) -> Word:
    return Word(word="green")


@endpoint(summary="Read with a header.")
async def tagged(call: Call) -> Word:
    call.tag(1)
    return Word(word="green")


ROUTES = (route("GET", "/api/school/word", read), route("GET", "/api/school/tagged", tagged))


class TestGateway:
    @pytest.fixture
    def narrow(self, serve):
        async def start(**read: Any) -> Any:
            found = load_settings(secret="s" * 32, limits={"groups": {"read": read}}).limits
            return await serve(*ROUTES, limits={"groups": found.groups})

        return start

    async def test_every_answer_says_how_much_is_left(self, narrow):
        served = await narrow(per_address=3, per_user=0, block=1)
        left = []
        for path in ("/api/school/word", "/api/school/tagged", "/api/school/word"):
            async with served.request("GET", path) as answer:
                assert answer.headers["RateLimit-Limit"] == "3"
                assert 1 <= int(answer.headers["RateLimit-Reset"]) <= 66
                left.append(answer.headers["RateLimit-Remaining"])
        assert left == ["2", "1", "0"]

    async def test_too_many_are_429_with_the_time_to_wait(self, narrow):
        served = await narrow(per_address=2, per_user=0, block=1)
        counter = RATE_LIMITED.labels("read")
        before = counter._value.get()
        for status in (200, 200, 429, 429):
            async with served.request("GET", "/api/school/word") as answer:
                assert answer.status == status
        async with served.request("GET", "/api/school/word") as answer:
            assert answer.status == 429
        assert answer.headers["Retry-After"] == answer.headers["RateLimit-Reset"]
        assert answer.headers["RateLimit-Remaining"] == "0"
        assert answer.content_type == "application/problem+json"
        assert counter._value.get() - before == 3

    async def test_a_user_and_an_address_have_limits_of_their_own(self, narrow):
        served = await narrow(per_address=5, per_user=2, block=1)
        statuses = [(await served.json("GET", "/api/school/tagged"))[0] for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        anonymous = {"headers": {"Authorization": None}}
        statuses = [(await served.json("GET", "/api/school/word", **anonymous))[0] for _ in range(4)]
        assert statuses == [200, 200, 200, 429], "what was refused to the user is not counted for the address"

    async def test_requests_without_a_valid_token_are_counted_too(self, narrow):
        served = await narrow(per_address=2, per_user=0, block=1)
        wrong = {"headers": {"Authorization": "Bearer nonsense"}}
        statuses = [(await served.json("GET", "/api/school/tagged", **wrong))[0] for _ in range(3)]
        assert statuses == [401, 401, 429]

    async def test_a_block_is_spent_without_asking_again(self, narrow, monkeypatch):
        served = await narrow(per_address=4000, per_user=0, block=100)
        asked = []
        take = LocalWindows.take

        def counted(self: LocalWindows, *args: Any) -> Any:
            asked.append(args)
            return take(self, *args)

        monkeypatch.setattr(LocalWindows, "take", counted)
        answers = await asyncio.gather(*(served.json("GET", "/api/school/word") for _ in range(150)))
        assert {status for status, _ in answers} == {200}
        assert len(asked) == 2

    async def test_a_limit_of_nothing_limits_nothing(self, narrow):
        served = await narrow(per_address=0, per_user=0)
        async with served.request("GET", "/api/school/word") as answer:
            assert answer.status == 200
            assert "RateLimit-Limit" not in answer.headers


def test_an_ipv6_subscriber_is_one_address():
    assert network_of("2001:db8::1") == network_of("2001:db8:0:0:ffff::2") == "2001:db8::/64"
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("nonsense") == "unknown"


async def log_in(session: aiohttp.ClientSession, name: str, password: str) -> tuple[int, float]:
    credentials = {"email": f"{name}@example.com", "password": password}
    async with session.post("/api/auth/login", json=credentials) as answer:
        await answer.read()
        return answer.status, float(answer.headers.get("Retry-After", 0))


class TestLogin:
    async def test_five_wrong_passwords_then_nobody_signs_in_from_there(self, http):
        statuses = [(await log_in(http, "student1", f"wrong {number}"))[0] for number in range(6)]
        assert statuses == [401] * 5 + [429]
        status, retry_after = await log_in(http, "student1", PASSWORD)
        assert status == 429
        assert 800 < retry_after <= 900
        assert (await log_in(http, "student2", PASSWORD))[0] == 200, "others behind the same address may"

    async def test_the_count_holds_on_the_other_replica(self, http, second_url):
        for number in range(5):
            await log_in(http, "student1", f"wrong {number}")
        async with aiohttp.ClientSession(second_url) as other:
            assert (await log_in(other, "student1", PASSWORD))[0] == 429

    async def test_a_class_signs_in_from_one_address_all_at_once(self, people: People):
        found = await asyncio.gather(*(people.sign_in(f"student{1 + number % 30}") for number in range(60)))
        assert len({person.id for person in found}) == 30

    async def test_an_unknown_account_is_limited_like_a_known_one(self, http):
        statuses = [(await log_in(http, "nobody", "wrong"))[0] for _ in range(6)]
        assert statuses == [401] * 5 + [429]


class TestTrustedProxy:
    @pytest.fixture
    def settings_changes(self) -> dict[str, Any]:
        return {"http": {"trusted_proxies": ["127.0.0.1"]}}

    async def test_a_stranger_elsewhere_cannot_lock_the_teacher_out(self, url):
        async with aiohttp.ClientSession(url, headers={"X-Forwarded-For": "203.0.113.9"}) as stranger:
            statuses = [(await log_in(stranger, "teacher", "wrong"))[0] for _ in range(7)]
        assert statuses == [401] * 5 + [429] * 2
        async with aiohttp.ClientSession(url, headers={"X-Forwarded-For": "192.0.2.5"}) as teacher:
            assert (await log_in(teacher, "teacher", PASSWORD))[0] == 200


class TestUntrustedProxy:
    async def test_an_invented_address_gives_no_further_tries(self, url):
        statuses = []
        for number in range(7):
            async with aiohttp.ClientSession(url, headers={"X-Forwarded-For": f"203.0.113.{number}"}) as stranger:
                statuses.append((await log_in(stranger, "teacher", "wrong"))[0])
        assert statuses == [401] * 5 + [429] * 2


FLOODERS = 90
FLOOD_SECONDS = 2.0


async def flood(session: aiohttp.ClientSession, name: str, answers: list[tuple[int, float]]) -> None:
    """Try passwords without a pause and without minding what was answered."""
    ends = time.monotonic() + FLOOD_SECONDS
    while time.monotonic() < ends:
        answers.append(await log_in(session, name, f"wrong {len(answers)}"))


async def look_whether_it_lives(session: aiohttp.ClientSession, seconds: list[float]) -> None:
    ends = time.monotonic() + FLOOD_SECONDS
    while time.monotonic() < ends:
        began = time.perf_counter()
        async with session.get("/health/live") as answer:
            assert answer.status == 200
        seconds.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)


async def signs_in(session: aiohttp.ClientSession, name: str) -> bool:
    return (await log_in(session, name, PASSWORD))[0] == 200


@pytest.mark.slow
class TestLoginFlood:
    """G10: argon2 as in production, many more logins than the machine can check."""

    @pytest.fixture
    def settings_changes(self) -> dict[str, Any]:
        return {"auth": {"argon2_time_cost": 2, "argon2_memory_kib": 19456}}

    async def test_a_whole_class_that_signs_in_at_once_gets_in(self, people: People):
        found = await asyncio.gather(*(people.sign_in(f"student{1 + number}") for number in range(30)))
        assert len({person.id for person in found}) == 30

    async def test_it_is_answered_soon_and_everything_else_goes_on(self, settings, record_property):
        async with running(settings) as server, listening(server) as url, aiohttp.ClientSession(url) as session:
            answers: list[tuple[int, float]] = []
            lives: list[float] = []
            async with asyncio.TaskGroup() as group:
                for number in range(FLOODERS):
                    group.create_task(flood(session, f"student{1 + number % 30}", answers))
                group.create_task(look_whether_it_lives(session, lives))
            statuses = [status for status, _ in answers]
            assert set(statuses) <= {401, 429, 503}, "nobody got in, and nothing broke"
            assert all(retry >= 1 for status, retry in answers if status != 401)
            assert statuses.count(503) > 0, "what is too much is turned away instead of waiting"
            await eventually(lambda: signs_in(session, "teacher"), 10)
        record_property("live_longest_ms", round(max(lives) * 1000))
        record_property("statuses", {status: statuses.count(status) for status in set(statuses)})
