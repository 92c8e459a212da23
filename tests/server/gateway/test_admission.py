"""Too much for the machine: 503 at once for what is over the number, nothing for who only sends slowly."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from server.gateway import admission
from server.gateway.admission import Admission, Overloaded
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.schema import Schema
from server.settings import LimitGroup, load_settings


class Word(Schema):
    word: str


release = asyncio.Event()


@endpoint(summary="Wait.", public=True)
async def wait(call: Call) -> None:
    await release.wait()


@endpoint(summary="Wait as one of few.", public=True, limit="login")
async def wait_narrowly(call: Call) -> None:
    await release.wait()


@endpoint(summary="Take a word.", public=True)
async def take(call: Call, body: Word) -> None:
    return None


ROUTES = (
    route("GET", "/api/school/wait", wait),
    route("POST", "/api/school/narrow", wait_narrowly),
    route("POST", "/api/school/word", take),
)


@pytest.fixture(autouse=True)
def closed():
    release.clear()
    yield
    release.set()


def groups(**changes):
    found = dict(load_settings(secret="s" * 32).limits.groups)
    return {name: group.model_copy(update=changes.get(name, {})) for name, group in found.items()}


async def statuses(served, method, path, count):
    async def one():
        async with served.request(method, path) as answer:
            return answer.status, answer.headers.get("Retry-After"), await answer.read()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(count)]
        await asyncio.wait(tasks, timeout=0.3)
        refused = sum(task.done() for task in tasks)
        release.set()
    return refused, [task.result() for task in tasks]


async def test_requests_above_the_number_are_turned_away_at_once_and_the_others_served(serve):
    served = await serve(*ROUTES, limits={"at_once": 5})
    refused, answers = await statuses(served, "GET", "/api/school/wait", 12)
    assert refused == 7
    assert sorted(status for status, _, _ in answers) == [204] * 5 + [503] * 7
    assert all(int(retry) >= 1 for status, retry, _ in answers if status == 503)
    assert b'"code":"unavailable"' in next(body for status, _, body in answers if status == 503)
    async with served.request("GET", "/api/school/wait") as answer:
        assert answer.status == 204, "places are given back"


async def test_a_group_has_places_of_its_own(serve):
    served = await serve(*ROUTES, limits={"groups": groups(login={"at_once": 2})})
    refused, answers = await statuses(served, "POST", "/api/school/narrow", 6)
    assert refused == 4
    assert [status for status, _, _ in answers].count(503) == 4
    async with served.request("GET", "/api/school/wait") as answer:
        assert answer.status == 204


async def test_health_answers_when_there_is_no_place(serve):
    served = await serve(*ROUTES, limits={"at_once": 1})
    waiting = asyncio.ensure_future(served.json("GET", "/api/school/wait"))
    await asyncio.sleep(0.1)
    assert (await served.json("GET", "/api/school/wait"))[0] == 503
    assert (await served.json("GET", "/health/live"))[0] == 200
    assert (await served.json("GET", "/health/ready"))[0] == 200
    release.set()
    await waiting


async def test_who_sends_slowly_holds_no_place(serve):
    served = await serve(*ROUTES, limits={"at_once": 1})
    head = b"POST /api/school/word HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"
    slow = [asyncio.ensure_future(served.raw(head, then=b'{"word":"abc"}', after=0.5, quiet=0.3)) for _ in range(5)]
    await asyncio.sleep(0.2)
    assert (await served.json("POST", "/api/school/word", json={"word": "quick"}))[0] == 204
    answers = await asyncio.gather(*slow)
    assert any(answer.startswith(b"HTTP/1.1 204") for answer in answers)
    release.set()
    assert (await served.json("GET", "/api/school/wait"))[0] == 204, "places are given back"


async def test_a_late_loop_turns_requests_away_until_it_is_in_time_again(monkeypatch):
    monkeypatch.setattr(admission, "LAG_INTERVAL", 0.01)
    found = Admission(load_settings(secret="s" * 32).limits.model_copy(update={"shed_lag": 0.05}))
    gate = found.gates["read"]

    async def look(block: float = 0.0) -> None:
        if block:
            asyncio.get_running_loop().call_later(0.005, time.sleep, block)
        await found.watch_loop()
        gate.check()

    await look(block=0.1)  # one pause is no overload
    await look()
    await look(block=0.1)
    with pytest.raises(Overloaded):
        await look(block=0.1)
    await look()


def test_a_route_of_an_unknown_group_stops_the_start():
    from server.gateway.dispatch import Dispatch

    rt = SimpleNamespace(settings=load_settings(secret="s" * 32))
    limits = rt.settings.limits
    dispatch = Dispatch(rt, None, None, Admission(limits), None)  # type: ignore[arg-type]  # not reached
    unknown = endpoint(summary="x", public=True, limit="nonsense")(wait.handler)
    with pytest.raises(ValueError, match=r"limits\.groups\.nonsense"):
        dispatch.serve(route("GET", "/x", unknown))
    assert isinstance(limits.groups["read"], LimitGroup)
