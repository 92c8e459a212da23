"""From a request to a handler and back, in this order: a place among the requests that are worked on, identity, limits,
arguments, body, Idempotency-Key, handler, conditions, answer; all by a deadline. The errors are the edge's (edge.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from aiohttp import hdrs, web
from multidict import MultiMapping
from pydantic import ValidationError

from server import logs
from server.actor import Actor
from server.errors import DomainError, FieldError, Invalid, NotFound, RateLimited, Unauthenticated
from server.gateway.admission import Admission, Gate
from server.gateway.answer import JsonAnswer
from server.gateway.body import MalformedBody, read_json, refuse_content_encoding
from server.gateway.conditions import ETAG, if_match, is_unchanged
from server.gateway.edge import CLIENT_IP, QUOTA, REQUEST_ID
from server.gateway.endpoint import Answer, Body, Call, Endpoint, Query, Route
from server.gateway.headers import Headers
from server.gateway.idempotency import Idempotency
from server.gateway.schema import invalid, is_unparsable
from server.limits import Quota
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
    admission: Admission
    idempotency: Idempotency

    def serve(self, route: Route) -> Serve:
        """Make the aiohttp handler of a route.

        Raises:
            ValueError: the settings do not know its group.
        """
        http, endpoint, group = self.rt.settings.http, route.endpoint, route.group
        gate = self.admission.gates.get(group)
        if gate is None:
            raise ValueError(f"{route.method} {route.path}: the settings have no limits.groups.{group}")
        name, spend = f"{route.method} {route.path}", self.rt.limits.spend

        async def answer(request: web.Request) -> web.StreamResponse:
            refuse_content_encoding(request)
            gate.enter()
            try:
                gate.check()
                async with asyncio.timeout(http.request_timeout) as deadline:
                    identity = await self._identify(request)
                    user_id = identity.user_id if isinstance(identity, Actor) else None
                    quota = spend(group, request[CLIENT_IP], user_id)
                    request[QUOTA] = quota or await self._ask_for_more(request, group, user_id)
                    if not endpoint.public and isinstance(identity, DomainError):
                        raise identity
                    arguments = _arguments(endpoint, request)
                    body = b""
                    if endpoint.body is not None:
                        body = await _read_body(request, http, deadline, gate)
                        _add_body(arguments, endpoint.body, body)
                    call = Call(self.rt, request, request[REQUEST_ID], request[CLIENT_IP], identity)
                    if endpoint.idempotent:
                        return await self._once(endpoint, name, call, arguments, body)
                    if not endpoint.streaming:
                        return self._encode(endpoint, call, await endpoint.handler(call, **arguments))
                return self._encode(endpoint, call, await endpoint.handler(call, **arguments))
            finally:
                gate.leave()

        return answer

    async def _identify(self, request: web.Request) -> Actor | DomainError:
        """Find the actor; on a public endpoint a bad token is no obstacle, until the handler asks who it is."""
        try:
            actor = await self.authenticate(self.rt, _token(request))
        except DomainError as refusal:
            return refusal
        logs.user_context.set(actor.user_id)
        return actor

    async def _ask_for_more(self, request: web.Request, group: str, user_id: UUID | None) -> Quota:
        """Raises:
        RateLimited: the caller has sent too many requests of this group.
        """
        quota = await self.rt.limits.admit(group, request[CLIENT_IP], user_id)
        if quota.refused:
            request[QUOTA] = quota
            raise RateLimited(retry_after=quota.reset)
        return quota

    async def _handle(self, endpoint: Endpoint, call: Call, arguments: Arguments) -> web.StreamResponse:
        return self._encode(endpoint, call, await endpoint.handler(call, **arguments))

    async def _once(
        self, endpoint: Endpoint, route: str, call: Call, arguments: Arguments, body: bytes
    ) -> web.StreamResponse:
        actor_id = call.identity.user_id if isinstance(call.identity, Actor) else None
        asked = self.idempotency.read_key(call.request, route, actor_id, body)
        if asked is None:
            return await self._handle(endpoint, call, arguments)
        claim = self.rt.clock.uuid7()
        return await self.idempotency.once(asked, claim, lambda: self._handle(endpoint, call, arguments))

    def _encode(self, endpoint: Endpoint, call: Call, answer: Answer) -> web.StreamResponse:
        if isinstance(answer, web.StreamResponse):
            return answer
        if call.headers and _is_unchanged(call):
            return web.Response(status=304, headers=call.headers)
        if endpoint.answer is None or answer is None:
            return web.Response(status=endpoint.status, headers=call.headers)
        # Written as the declared type: a field that only a subclass has does not leak.
        response = JsonAnswer(endpoint.status, endpoint.answer.dump_json(answer), self.headers)
        if call.headers:
            response.headers.update(call.headers)
        return response


def _is_unchanged(call: Call) -> bool:
    reads = call.request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
    return reads and is_unchanged(call.request.headers.get(hdrs.IF_NONE_MATCH), call.headers.get(ETAG))


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
    if endpoint.conditional:
        found["match"] = if_match(request.headers.get(hdrs.IF_MATCH))
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


async def _read_body(request: web.Request, http: Http, deadline: asyncio.Timeout, gate: Gate) -> bytes:
    """Read the body in a time of its own, without a place: those of the request begin when its last byte is here."""
    if request.content.is_eof():
        return await read_json(request, http)
    deadline.reschedule(None)
    gate.leave()
    try:
        body = await read_json(request, http)
    finally:
        gate.enter()
    gate.check()
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
