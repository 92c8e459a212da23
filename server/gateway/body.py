"""Reading the JSON body of a request: its type, its size and its time are limited while it arrives.

aiohttp limits neither the time of a body nor that of a decompressed one, so nothing else may read a JSON body.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestPayloadError

from server.errors import DeadlineExceeded, Invalid, PayloadTooLarge
from server.settings import Http

T = TypeVar("T", bytes, bytearray)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_JSON = "application/json"


class UnsupportedMediaType(Invalid):
    status = 415
    message = "Send JSON with `Content-Type: application/json`."


class ContentEncodingRefused(UnsupportedMediaType):
    message = "Send the body as it is, without `Content-Encoding`."


class ExpectationFailed(Invalid):
    status = 417
    message = "Only `Expect: 100-continue` is understood."


class MalformedBody(Invalid):
    """Nothing that could be checked against a schema."""

    status = 400
    message = "The body is not valid JSON."


class BodyTooSlow(DeadlineExceeded):
    status = 408
    message = "The body took too long to arrive. Send it again."


def refuse_content_encoding(request: web.Request) -> None:
    """Refuse a compressed body before a byte of it is read.

    Raises:
        ContentEncodingRefused: the request names an encoding other than `identity`.
    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    if encoding is not None and encoding.strip().lower() != "identity":
        raise ContentEncodingRefused


async def promise_continue(_request: web.Request) -> None:
    """Put the answer to `Expect: 100-continue` off until somebody wants the body (`send_continue`)."""


async def send_continue(request: web.Request) -> None:
    """Tell a client that waits for it to send its body.

    Raises:
        ExpectationFailed: it expects something else.
    """
    expectation = request.headers.get(hdrs.EXPECT)
    if expectation is None:
        return
    if expectation.lower() != "100-continue":
        raise ExpectationFailed
    await request.writer.write(_CONTINUE)
    request.writer.output_size = 0  # aiohttp takes what was written for the beginning of the answer


async def read_json(request: web.Request, http: Http) -> bytes:
    """Read a JSON body, empty if there is none.

    Raises:
        UnsupportedMediaType: it is not declared as JSON.
        PayloadTooLarge: over `http.body_limit` bytes, declared or sent.
        BodyTooSlow: it took longer than `http.body_timeout` seconds, and one more for each `http.body_rate` bytes.
        MalformedBody: its transfer encoding is broken.
    """
    if not request.body_exists:
        return b""
    _require_json(request)
    if (request.content_length or 0) > http.body_limit:
        raise PayloadTooLarge
    await send_continue(request)
    try:
        if request.content.is_eof():  # nearly always: it came with the headers, so there is nothing to wait for
            return _within(http.body_limit, request.content.read_nowait())
        body = bytearray()
        async for chunk in read_chunks(request, http):
            body += chunk
            _within(http.body_limit, body)
        return bytes(body)
    except RequestPayloadError as error:
        raise MalformedBody("The transfer encoding of the body is broken.") from error


async def read_chunks(request: web.Request, http: Http) -> AsyncIterator[bytes]:
    """Read a body of any size as it arrives; who sends it too slowly loses.

    Raises:
        BodyTooSlow: as for `read_json`.
        RequestPayloadError: its transfer encoding is broken.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + http.body_timeout
    while True:
        try:
            async with asyncio.timeout_at(due):
                chunk = await request.content.readany()
        except TimeoutError as error:
            raise BodyTooSlow from error
        if not chunk:
            return
        due += len(chunk) / http.body_rate
        yield chunk


def _within(limit: int, body: T) -> T:
    if len(body) > limit:
        raise PayloadTooLarge
    return body


def _require_json(request: web.Request) -> None:
    declared = request.headers.get(hdrs.CONTENT_TYPE, "")
    if declared == _JSON:
        return
    if request.content_type != _JSON or (request.charset or "utf-8").lower() != "utf-8" or not declared:
        raise UnsupportedMediaType
