"""JSON bodies: type, size, time and encoding, on the wire."""

from __future__ import annotations

import asyncio
import gzip

import pytest
from aiohttp import web

from server.gateway.body import send_continue
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.schema import Schema

LIMIT = 10_000
HEAD = b"POST /api/school/words HTTP/1.1\r\nHost: school\r\nAuthorization: Bearer a-valid-token\r\n"
JSON = b"Content-Type: application/json\r\n"


class Words(Schema):
    words: list[str]


class Count(Schema):
    count: int


@endpoint(summary="Count words.", status=201)
async def count_words(call: Call, body: Words) -> Count:
    return Count(count=len(body.words))


@endpoint(summary="Take a file.", streaming=True)
async def take_file(call: Call) -> web.Response:
    await send_continue(call.request)
    size = 0
    async for chunk in call.request.content.iter_any():
        size += len(chunk)
    return web.json_response({"size": size})


ROUTES = (route("POST", "/api/school/words", count_words), route("PUT", "/api/school/file", take_file))


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", ""]
)
async def test_body_that_is_not_declared_as_json_is_415(serve, content_type):
    served = await serve(*ROUTES)
    headers = {"Content-Type": content_type}
    status, problem = await served.json("POST", "/api/school/words", data=b'{"words": []}', headers=headers)
    assert (status, problem["code"]) == (415, "invalid")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON;charset=UTF-8"])
async def test_json_may_name_its_charset(serve, content_type):
    served = await serve(*ROUTES)
    headers = {"Content-Type": content_type}
    status, _ = await served.json("POST", "/api/school/words", data=b'{"words": []}', headers=headers)
    assert status == 201


@pytest.mark.parametrize("path", ["/api/school/words", "/api/school/file"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
async def test_content_encoding_is_refused(serve, path, encoding):
    served = await serve(*ROUTES)
    method = "POST" if path.endswith("words") else "PUT"
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    body = gzip.compress(b'{"words": []}')
    status, problem = await served.json(method, path, data=body, headers=headers)
    assert (status, problem["code"]) == (415, "invalid")


async def test_declared_body_over_the_limit_is_413_before_it_is_sent(serve):
    served = await serve(*ROUTES, http={"body_limit": LIMIT})
    answer = await served.raw(HEAD + JSON + b"Content-Length: 10001\r\n\r\n{")
    assert _status(answer) == 413
    assert b'"code":"payload_too_large"' in answer


async def test_chunked_body_over_the_limit_is_413(serve):
    served = await serve(*ROUTES, http={"body_limit": LIMIT})
    chunk = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
    answer = await served.raw(HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2)
    assert _status(answer) == 413


async def test_body_of_exactly_the_limit_is_read(serve):
    served = await serve(*ROUTES, http={"body_limit": LIMIT})
    body = b'{"words": []' + b" " * (LIMIT - 13) + b"}"
    headers = {"Content-Type": "application/json"}
    status, _ = await served.json("POST", "/api/school/words", data=body, headers=headers)
    assert (len(body), status) == (LIMIT, 201)


async def test_body_that_stops_half_way_is_408_and_the_connection_ends(serve):
    served = await serve(*ROUTES, http={"body_timeout": 0.1})
    answer = await served.raw(HEAD + JSON + b'Content-Length: 50\r\n\r\n{"words":')
    assert _status(answer) == 408
    assert b'"code":"deadline_exceeded"' in answer


async def test_slow_body_may_take_longer_than_a_dependency(serve):
    served = await serve(*ROUTES, http={"body_timeout": 5.0, "request_timeout": 0.1})
    answer = await served.raw(HEAD + JSON + b'Content-Length: 13\r\n\r\n{"words":', then=b" []}", after=0.4)
    assert _status(answer) == 201


@pytest.mark.parametrize(("rate", "status"), [(200, 201), (20_000, 408)])
async def test_body_may_take_longer_while_it_keeps_coming_fast_enough(serve, rate, status):
    """50 bytes each 50 ms for half a second: 1,000 bytes per second, and body_timeout alone is a fifth of a second."""
    served = await serve(*ROUTES, http={"body_timeout": 0.2, "body_rate": rate, "body_limit": 10_000})

    async def pieces():
        yield b'{"words": ["'
        for _ in range(10):
            yield b"x" * 50
            await asyncio.sleep(0.05)
        yield b'"]}'

    headers = {"Content-Type": "application/json"}
    found, _ = await served.json("POST", "/api/school/words", data=pieces(), headers=headers)
    assert found == status


async def test_body_in_many_pieces_is_read_whole(serve):
    served = await serve(*ROUTES)

    async def pieces():
        for piece in (b'{"wor', b'ds": ["', b'a", "b"]}'):
            yield piece
            await asyncio.sleep(0.01)

    headers = {"Content-Type": "application/json"}
    status, answer = await served.json("POST", "/api/school/words", data=pieces(), headers=headers)
    assert (status, answer) == (201, {"count": 2})


async def test_broken_chunked_encoding_is_400(serve):
    served = await serve(*ROUTES)
    answer = await served.raw(HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n")
    assert _status(answer) == 400


async def test_client_is_told_to_continue_only_when_its_body_is_wanted(serve):
    served = await serve(*ROUTES, http={"body_limit": LIMIT})
    expect = HEAD + JSON + b"Expect: 100-continue\r\nContent-Length: 13\r\n\r\n"
    answer = await served.raw(expect, then=b'{"words": []}', after=0.1)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201")
    refused = await served.raw(expect.replace(b"a-valid-token", b"wrong"))
    assert _status(refused) == 401
    too_large = await served.raw(expect.replace(b": 13", b": 10001"))
    assert _status(too_large) == 413


async def test_other_expectation_is_417(serve):
    served = await serve(*ROUTES)
    answer = await served.raw(HEAD + JSON + b"Expect: magic\r\nContent-Length: 13\r\n\r\n" + b'{"words": []}')
    assert _status(answer) == 417


async def test_streaming_endpoint_reads_what_it_likes_without_the_gateways_limits(serve):
    served = await serve(*ROUTES, http={"body_limit": LIMIT, "request_timeout": 0.1, "body_timeout": 0.1})
    status, answer = await served.json("PUT", "/api/school/file", data=b"x" * 1_000_000)
    assert (status, answer) == (200, {"size": 1_000_000})


async def test_keep_alive_connection_serves_the_next_request_after_a_refusal(serve):
    served = await serve(*ROUTES)
    bad = HEAD + JSON + b"Content-Length: 2\r\n\r\n{]"
    good = HEAD + JSON + b"Connection: close\r\nContent-Length: 13\r\n\r\n" + b'{"words": []}'
    answer = await served.raw(bad + good)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"HTTP/1.1 201" in answer
