"""Canaries of the parts of aiohttp that protocol.py subclasses, and of the limits that it sets."""

from __future__ import annotations

import asyncio
import logging
import time

from server.gateway.endpoint import Call, endpoint, route


@endpoint(summary="Answer nothing.", public=True)
async def nothing(call: Call) -> None:
    return None


ROUTES = (route("GET", "/api/school/nothing", nothing),)
GET = b"GET /api/school/nothing HTTP/1.1\r\nHost: school\r\n"


async def test_request_that_cannot_be_read_is_a_problem_document(serve, caplog):
    served = await serve(*ROUTES)
    answer = await served.raw(b"\x16\x03\x01nonsense\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 400")
    assert b"application/problem+json" in head
    assert b"X-Content-Type-Options: nosniff" in head
    assert b"X-Request-ID" in head
    assert b'"code":"invalid"' in body
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_header_over_the_limit_is_400(serve):
    served = await serve(*ROUTES)
    answer = await served.raw(GET + b"X-Long: " + b"x" * 10_000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 400")


async def test_flood_of_unreadable_requests_is_summed_up_in_the_log(serve, caplog):
    caplog.set_level(logging.INFO)
    served = await serve(*ROUTES)
    for _ in range(20):
        await served.raw(b"nonsense\r\n\r\n")
    assert len([record for record in caplog.records if record.getMessage() == "request refused"]) <= 5


async def test_silent_connection_is_closed(serve):
    served = await serve(*ROUTES, http={"keepalive_timeout": 0.2})
    started = time.monotonic()
    assert await served.raw(b"", quiet=1.5) == b""
    assert await served.raw(b"GET /api/school/noth", quiet=1.5) == b""
    assert time.monotonic() - started < 1.2


async def test_idle_connection_is_closed_after_its_request(serve):
    served = await serve(*ROUTES, http={"keepalive_timeout": 0.2})
    started = time.monotonic()
    answer = await served.raw(GET + b"\r\n", quiet=1.5)
    assert answer.startswith(b"HTTP/1.1 204")
    assert time.monotonic() - started < 1.2


async def test_smuggled_lengths_are_refused(serve):
    served = await serve(*ROUTES)
    both = GET + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert (await served.raw(both)).startswith(b"HTTP/1.0 400")
    twice = GET + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd"
    assert (await served.raw(twice)).startswith(b"HTTP/1.0 400")


async def test_connection_that_is_lost_with_half_of_a_refused_body_leaves_no_task(serve):
    served = await serve(*ROUTES)
    before = asyncio.all_tasks()
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"POST /api/unknown HTTP/1.1\r\nHost: school\r\nContent-Length: 100\r\n\r\nhalf")
    await asyncio.sleep(0.1)
    assert asyncio.all_tasks() > before
    writer.transport.abort()
    await asyncio.sleep(0.1)
    assert asyncio.all_tasks() <= before


async def test_client_that_leaves_while_its_request_runs_logs_no_error(serve, caplog):
    caplog.set_level(logging.INFO)
    served = await serve(*ROUTES)
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(GET + b"\r\n")
        writer.transport.abort()
    await asyncio.sleep(0.1)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
