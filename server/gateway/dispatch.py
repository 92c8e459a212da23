"""From a request to a handler and back: identity, arguments, deadline, answer. The errors are the edge's (edge.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs, web
from multidict import MultiMapping
from pydantic import ValidationError

from server import logs
from server.actor import Actor
from server.errors import DomainError, FieldError, Invalid, NotFound, Unauthenticated
from server.gateway.answer import JsonAnswer
from server.gateway.body import MalformedBody, read_json, refuse_content_encoding
from server.gateway.edge import CLIENT_IP, REQUEST_ID
from server.gateway.endpoint import Answer, Body, Call, Endpoint, Query
from server.gateway.headers import Headers
from server.gateway.schema import invalid, is_unparsable
from server.settings import Http

if TYPE_CHECKING:
    from server.runtime import Runtime

TOKEN_LENGTH = 4096  # characters; a longer one is refused before anybody parses it

Authenticate = Callable[["Runtime", str], Awaitable[Actor]]
Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]
Arguments = dict[str, Any]  # Any: as the handler's annotations say, checked by their adapters


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What it takes to serve endpoints."""

    rt: Runtime
    authenticate: Authenticate
    headers: Headers

    def serve(self, endpoint: Endpoint) -> Serve:
        """Make the aiohttp handler of an endpoint."""
        http = self.rt.settings.http

        async def answer(request: web.Request) -> web.StreamResponse:
            refuse_content_encoding(request)
            async with asyncio.timeout(http.request_timeout) as deadline:
                identity = await self._identify(request, public=endpoint.public)
                arguments = _arguments(endpoint, request)
                if endpoint.body is not None:
                    _add_body(arguments, endpoint.body, await _read_body(request, http, deadline))
                call = Call(self.rt, request, request[REQUEST_ID], request[CLIENT_IP], identity)
                if not endpoint.streaming:
                    return self._encode(endpoint, call, await endpoint.handler(call, **arguments))
            return self._encode(endpoint, call, await endpoint.handler(call, **arguments))

        return answer

    async def _identify(self, request: web.Request, *, public: bool) -> Actor | DomainError:
        """Find the actor; on a public endpoint a bad token is no obstacle, until the handler asks who it is."""
        try:
            actor = await self.authenticate(self.rt, _token(request))
        except DomainError as refusal:
            if public:
                return refusal
            raise
        logs.user_context.set(actor.user_id)
        return actor

    def _encode(self, endpoint: Endpoint, call: Call, answer: Answer) -> web.StreamResponse:
        if isinstance(answer, web.StreamResponse):
            return answer
        if endpoint.answer is None or answer is None:
            return web.Response(status=endpoint.status, headers=call.headers)
        # Written as the declared type: a field that only a subclass has does not leak.
        response = JsonAnswer(endpoint.status, endpoint.answer.dump_json(answer), self.headers)
        if call.headers:
            response.headers.update(call.headers)
        return response


def _token(request: web.Request) -> str:
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > TOKEN_LENGTH:
        raise Unauthenticated
    return token.strip()


def _arguments(endpoint: Endpoint, request: web.Request) -> Arguments:
    try:
        found = {name: adapter.validate_strings(request.match_info[name]) for name, adapter in endpoint.path.items()}
    except ValidationError as error:
        raise NotFound from error  # nothing has such a name
    if endpoint.query is not None:
        found["query"] = _parse_query(endpoint.query, request.query)
    return found


def _parse_query(query: Query, given: MultiMapping[str]) -> object:
    values: dict[str, str | list[str]] = {}
    for name, value in given.items():
        if name in query.lists:
            values[name] = given.getall(name)
        elif name in values:
            raise Invalid(errors=[FieldError((name,), "Give this parameter once.")])
        else:
            values[name] = value
    try:
        return query.adapter.validate_python(values)
    except ValidationError as error:
        raise invalid(error) from error


async def _read_body(request: web.Request, http: Http, deadline: asyncio.Timeout) -> bytes:
    """Read the body in a time of its own: that of the request begins when its last byte is here."""
    if request.content.is_eof():
        return await read_json(request, http)
    deadline.reschedule(None)
    body = await read_json(request, http)
    deadline.reschedule(asyncio.get_running_loop().time() + http.request_timeout)
    return body


def _add_body(arguments: Arguments, body: Body, raw: bytes) -> None:
    if not raw and not body.required:
        return  # the handler's default
    try:
        # Strict: the schema in the document says integer, so "5" is not one.
        arguments["body"] = body.adapter.validate_json(raw, strict=True)
    except ValidationError as error:
        raise MalformedBody() if is_unparsable(error) else invalid(error) from error
