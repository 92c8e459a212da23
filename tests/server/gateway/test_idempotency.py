"""Idempotency-Key: one effect and one answer, however often, at once or on two replicas, also after a death halfway."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from server.errors import Conflict, Unavailable
from server.gateway import idempotency
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.headers import Headers
from server.gateway.idempotency import AnswerLost, Asked, Idempotency, RequestInProgress, TakenOver, sweep
from tests.people import Person

COURSES = "/api/classroom/courses"
Answer = tuple[int, Mapping[str, str], Any]


async def post(
    person: Person, key: str | None, title: str = "Optics", url: str | None = None, path: str = COURSES
) -> Answer:
    headers = {"Authorization": f"Bearer {person.token}", **({"Idempotency-Key": key} if key is not None else {})}
    async with person.session.post((url or person.url) + path, json={"title": title}, headers=headers) as answer:
        return answer.status, answer.headers.copy(), await answer.json(content_type=None)


async def titles(person: Person) -> list[str]:
    found = await person.call("GET", f"{COURSES}?limit=200", status=200)
    return [course["title"] for course in found["items"]]


async def test_the_same_key_and_body_gets_the_first_answer_and_has_no_second_effect(people):
    ada = await people.sign_in("student1")
    first, second = await post(ada, "k1"), await post(ada, "k1")
    assert (first[0], first[2]) == (second[0], second[2])
    assert first[1]["ETag"] == second[1]["ETag"]
    assert second[1]["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first[1]
    assert (await titles(ada)).count("Optics") == 1


async def test_the_order_of_fields_and_white_space_do_not_make_another_body(people):
    ada = await people.sign_in("student1")
    headers = {
        "Authorization": f"Bearer {ada.token}",
        "Idempotency-Key": "k1",
        "Content-Type": "application/json",
    }
    bodies = ['{"title":"Optics","description":"x"}', '{ "description": "x",\n "title": "Optics" }']
    for body in bodies:
        async with ada.session.post(ada.url + COURSES, data=body, headers=headers) as answer:
            assert answer.status == 201
    assert (await titles(ada)).count("Optics") == 1


async def test_the_same_key_with_another_body_is_refused(people):
    ada = await people.sign_in("student1")
    await post(ada, "k1")
    status, _, problem = await post(ada, "k1", "Acoustics")
    assert (status, problem["code"]) == (422, "idempotency_key_reused")
    assert "Acoustics" not in await titles(ada)


async def test_keys_belong_to_a_person_and_a_route(people):
    ada, bob = await people.sign_in("student1"), await people.sign_in("student2")
    await post(ada, "k1")
    assert (await post(bob, "k1", "Acoustics"))[0] == 201
    course = (await ada.call("GET", COURSES))["items"][0]["id"]
    headers = {"Authorization": f"Bearer {ada.token}", "Idempotency-Key": "k1"}
    room = {"name": "Room", "kind": "class"}
    async with ada.session.post(f"{ada.url}{COURSES}/{course}/rooms", json=room, headers=headers) as answer:
        assert answer.status == 201


async def test_without_a_key_nothing_is_remembered(people, rt):
    ada = await people.sign_in("student1")
    await post(ada, None)
    await post(ada, None)
    assert (await titles(ada)).count("Optics") == 2
    async with rt.database.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM idempotency_keys") == 0


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256])
async def test_a_key_that_is_none_is_refused(people, key):
    ada = await people.sign_in("student1")
    status, _, problem = await post(ada, key)
    assert (status, problem["code"]) == (422, "invalid")
    assert problem["errors"][0]["loc"] == ["Idempotency-Key"]


async def test_a_refusal_is_not_remembered(people):
    ada = await people.sign_in("student1")
    path = f"{COURSES}/{uuid4()}/rooms"
    headers = {"Authorization": f"Bearer {ada.token}", "Idempotency-Key": "k1"}
    for body, status in (({"name": "Room", "kind": "class"}, 404), ({"name": "Other", "kind": "class"}, 404)):
        async with ada.session.post(ada.url + path, json=body, headers=headers) as answer:
            assert answer.status == status, await answer.text()


@pytest.mark.parametrize("rounds", [5])
async def test_both_at_once_on_two_replicas_have_one_effect_and_one_answer(people, second_url, rounds):
    """G15."""
    ada = await people.sign_in("student1")
    for number in range(rounds):
        urls = [ada.url, second_url] * 6
        answers = await asyncio.gather(*(post(ada, f"key-{number}", f"Course {number}", url) for url in urls))
        assert {status for status, _, _ in answers} == {201}
        assert len({body["id"] for _, _, body in answers}) == 1
    found = await titles(ada)
    assert [found.count(f"Course {number}") for number in range(rounds)] == [1] * rounds


class TestClaims:
    """The claim itself, with requests of the test."""

    @pytest.fixture
    def carrier(self, rt) -> Idempotency:
        return Idempotency(rt.database, "s" * 32, 0.3, Headers("http://x", ()))

    @pytest.fixture
    def asked(self) -> Asked:
        return Asked(uuid4().bytes, None, b"what was asked")

    @staticmethod
    async def effect(rt, name: str) -> None:
        async with rt.database.transaction() as conn:
            await conn.execute(
                "INSERT INTO outbox (id, event, data, trace_id) VALUES ($1, $2, '{}', '')", uuid4(), name
            )

    @staticmethod
    async def effects(rt, name: str) -> int:
        async with rt.database.connection() as conn:
            return int(await conn.fetchval("SELECT count(*) FROM outbox WHERE event = $1", name))

    async def test_a_claim_that_died_before_its_effect_is_taken_over_after_its_lease(self, rt, carrier, asked):
        assert await carrier._claim(asked, uuid4()) is None

        async def carry_out() -> Any:
            await self.effect(rt, "test.taken")
            raise Conflict

        began = asyncio.get_running_loop().time()
        with pytest.raises(Conflict):
            await carrier.once(asked, uuid4(), carry_out)
        assert await self.effects(rt, "test.taken") == 1
        assert asyncio.get_running_loop().time() - began > 0.2

    async def test_a_request_that_was_taken_over_cannot_commit_any_more(self, rt, carrier, asked):
        """The first one sleeps over its lease; the second one does the work; the first one wakes up."""
        slow_may_go, answers = asyncio.Event(), []

        async def slow() -> Any:
            await slow_may_go.wait()
            await self.effect(rt, "test.fenced")
            raise AssertionError("it has committed")

        async def quick() -> Any:
            await self.effect(rt, "test.fenced")
            raise Conflict("done")

        async with asyncio.TaskGroup() as group:
            first = group.create_task(self.outcome(carrier.once(asked, uuid4(), slow)))
            await asyncio.sleep(0.5)
            answers.append(await self.outcome(carrier.once(asked, uuid4(), quick)))
            slow_may_go.set()
        assert isinstance(first.result(), TakenOver)
        assert await self.effects(rt, "test.fenced") == 1
        assert [type(answer) for answer in answers] == [Conflict]

    async def test_what_was_committed_by_a_replica_that_died_is_never_done_again(self, rt, carrier, asked):
        async def die() -> Any:
            await self.effect(rt, "test.lost")
            raise asyncio.CancelledError

        async def again() -> Any:
            raise AssertionError("it is done twice")

        with pytest.raises(asyncio.CancelledError):
            await carrier.once(asked, uuid4(), die)
        with pytest.raises(AnswerLost):
            await carrier.once(asked, uuid4(), again)

    async def test_a_failure_of_ours_before_the_effect_frees_the_key_at_once(self, carrier, asked):
        async def fail() -> Any:
            raise Unavailable

        for _ in range(2):
            with pytest.raises(Unavailable):
                await carrier.once(asked, uuid4(), fail)

    async def test_who_waits_too_long_is_told_to_come_again(self, rt, asked, monkeypatch):
        monkeypatch.setattr(idempotency, "PAUSES", (0.01,))
        carrier = Idempotency(rt.database, "s" * 32, 60.0, Headers("http://x", ()))
        await carrier._claim(asked, uuid4())
        with pytest.raises(RequestInProgress) as caught:
            await carrier.once(asked, uuid4(), lambda: self.outcome(asyncio.sleep(0)))
        assert caught.value.retryable
        assert caught.value.retry_after

    async def test_after_a_day_the_key_is_new_and_the_row_is_swept(self, rt, carrier, asked, monkeypatch):
        monkeypatch.setattr(idempotency, "KEPT", timedelta(0))
        assert await carrier._claim(asked, uuid4()) is None
        other = Asked(asked.id, None, b"something else")
        assert await carrier._claim(other, uuid4()) is None
        monkeypatch.setattr(idempotency, "SWEPT", 1)
        await carrier._claim(Asked(uuid4().bytes, UUID(int=1), b""), uuid4())
        await sweep(rt.database)
        async with rt.database.connection() as conn:
            assert await conn.fetchval("SELECT count(*) FROM idempotency_keys") == 0

    async def test_background_work_that_a_request_started_is_not_bound_to_its_claim(self, rt, carrier, asked):
        gone = asyncio.Event()

        async def background() -> None:
            await gone.wait()
            await self.effect(rt, "test.background")

        started: list[asyncio.Task[None]] = []

        async def carry_out() -> Any:
            started.append(asyncio.get_running_loop().create_task(background()))
            raise Conflict

        with pytest.raises(Conflict):
            await carrier.once(asked, uuid4(), carry_out)
        gone.set()
        await started[0]
        assert await self.effects(rt, "test.background") == 1

    @staticmethod
    async def outcome(work: Any) -> Any:
        try:
            return await work
        except Conflict as refusal:
            return refusal


@endpoint(summary="Create.", status=201, public=True)
async def create(call: Call) -> None:
    return None


@endpoint(summary="Do something that is not creating.")
async def do(call: Call) -> None:
    return None


def test_what_answers_201_is_idempotent_and_nothing_else_unless_it_says_so():
    assert create.idempotent
    assert not do.idempotent
    assert endpoint(summary="x", idempotent=True)(do.handler).idempotent
    assert route("POST", "/x", create).group == "write"
