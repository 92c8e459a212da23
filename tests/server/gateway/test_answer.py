"""JsonAnswer says what aiohttp would have said, and leaves to aiohttp whatever is unusual."""

from __future__ import annotations

import pytest
from aiohttp import web

from server.gateway.answer import JsonAnswer
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.schema import Schema


class Word(Schema):
    word: str


@endpoint(summary="Answer.", public=True)
async def plain(call: Call) -> Word:
    return Word(word="grün")


@endpoint(summary="Answer with a header.", public=True)
async def tagged(call: Call) -> Word:
    call.headers["ETag"] = '"1"'
    return Word(word="grün")


@endpoint(summary="Answer with aiohttp's own response.", public=True)
async def generic(call: Call) -> web.Response:
    return web.Response(body='{"word":"grün"}'.encode(), content_type="application/json")


@endpoint(summary="Answer with a header that would be two.", public=True)
async def split(call: Call) -> Word:
    call.headers["ETag"] = "1\r\nSet-Cookie: a=b"
    return Word(word="grün")


ROUTES = (
    route("GET", "/api/school/plain", plain),
    route("GET", "/api/school/tagged", tagged),
    route("GET", "/api/school/generic", generic),
    route("GET", "/api/school/split", split),
)


def _get(name: str, method: str = "GET", version: str = "1.1", connection: str = "") -> bytes:
    extra = f"Connection: {connection}\r\n" if connection else ""
    return f"{method} /api/school/{name} HTTP/{version}\r\nHost: s\r\nX-Request-ID: r\r\n{extra}\r\n".encode()


def _parsed(answer: bytes) -> tuple[bytes, set[bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    # What is left of a limit differs from one request to the next.
    changing = (b"Date", b"RateLimit-Remaining", b"RateLimit-Reset")
    return first, {line.partition(b":")[0] if line.startswith(changing) else line for line in lines}, body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("connection", ["", "close", "keep-alive"])
async def test_both_ways_to_answer_are_the_same_on_the_wire(serve, method, version, connection):
    served = await serve(*ROUTES)
    ours = await served.raw(_get("plain", method, version, connection), quiet=0.1)
    theirs = await served.raw(_get("generic", method, version, connection), quiet=0.1)
    assert _parsed(ours) == _parsed(theirs)
    assert b"Date: " in ours


async def test_many_requests_of_one_connection_are_answered_in_order(serve):
    served = await serve(*ROUTES)
    answer = await served.raw(_get("plain") + _get("generic") + _get("tagged") + _get("plain", connection="close"))
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.endswith('{"word":"grün"}'.encode())


async def test_header_of_the_handler_is_sent_besides_the_usual_ones(serve):
    served = await serve(*ROUTES)
    async with served.request("GET", "/api/school/tagged") as answer:
        assert (answer.headers["ETag"], answer.headers["Content-Type"]) == ('"1"', "application/json")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert await answer.json() == {"word": "grün"}


async def test_answer_is_readable_for_an_allowed_origin(serve):
    served = await serve(*ROUTES, http={"cors_origins": ("https://school.example",)})
    async with served.request("GET", "/api/school/plain", headers={"Origin": "https://school.example"}) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "https://school.example"
        assert answer.headers["Content-Type"] == "application/json"


async def test_header_that_would_be_two_is_never_sent(serve):
    served = await serve(*ROUTES)
    answer = await served.raw(_get("split"), quiet=0.2)
    assert b"Set-Cookie" not in answer


def test_answer_shows_what_aiohttp_and_middlewares_look_at():
    served = plain.answer
    assert served is not None
    answer = JsonAnswer(201, b"{}", ready=None)  # type: ignore[arg-type]
    assert (answer.status, answer.reason, answer.body, answer.prepared) == (201, "Created", b"{}", False)
    answer.headers["X-Other"] = "1"
    assert answer.keep_alive is None
