"""Typed HTTP handlers: one decorator, one value per route, and the call that a handler gets.

An endpoint is declared, never registered: a module lists its routes in one table, and the application (application.py)
collects the tables. What a handler takes and answers is read once from its annotations; dispatch.py uses it for each
request and openapi.py for the document, so that the two cannot differ. Nothing here reads a body or writes an answer.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from aiohttp import hdrs, web
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter

from server.actor import Actor
from server.errors import DomainError
from server.gateway.conditions import ETAG, Match, Version, etag
from server.gateway.schema import Int64, Line

if TYPE_CHECKING:
    from server.runtime import Runtime

PLACEHOLDER = re.compile(r"\{(\w+)(?::[^{}]*)?\}")  # `{name}` or `{name:regular expression}`, as aiohttp reads them
_UNIONS = (Union, types.UnionType)
# `Any` in this file is an annotation of a handler as found at run time, or a value of the type that it names.
_COLLECTIONS = (list, tuple, set, frozenset)


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way into a handler."""

    rt: Runtime
    request: web.Request
    request_id: str
    client_ip: str
    identity: Actor | DomainError = field(repr=False)
    # Headers of the answer that the handler adds, e.g. ETag or Location.
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def actor(self) -> Actor:
        """Who is asking.

        Raises:
            Unauthenticated: the endpoint is public and the caller sent no access token that is valid.
        """
        if isinstance(self.identity, Actor):
            return self.identity
        raise self.identity

    def tag(self, version: Version) -> None:
        """Give the answer the ETag of a version: what If-Match of a later change must name."""
        self.headers[ETAG] = etag(version)


Answer = BaseModel | web.StreamResponse | None
Handler = Callable[Concatenate[Call, ...], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """The query string of an endpoint as a model; `lists` names what may be given several times."""

    model: type[BaseModel]
    adapter: TypeAdapter[BaseModel]
    lists: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The JSON body of an endpoint; an optional one has a default in the handler's signature."""

    adapter: TypeAdapter[Any]  # Any: whatever the handler's annotation says
    required: bool


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """A handler and all that its annotations and its decorator say about it."""

    handler: Handler
    summary: str
    status: int
    public: bool
    streaming: bool
    consumes: tuple[str, ...]
    produces: tuple[str, ...]
    errors: tuple[type[DomainError], ...]
    path: Mapping[str, TypeAdapter[Any]]  # Any: as annotated
    # A part of the path that is text may be a secret, e.g. the token of a link; an id or a number is none.
    discreet: bool
    query: Query | None
    body: Body | None
    answer: TypeAdapter[Any] | None  # None: no JSON (204, or the handler's own response)
    conditional: bool  # takes what If-Match demands
    tagged: bool  # its answer has an ETag
    idempotent: bool  # heeds Idempotency-Key
    limit: str | None  # a group of the settings; None: by the method of the route

    @property
    def name(self) -> str:
        return self.handler.__name__

    @property
    def description(self) -> str:
        return inspect.getdoc(self.handler) or ""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """An endpoint at its place."""

    method: str
    path: str
    endpoint: Endpoint

    @property
    def name(self) -> str:
        return self.endpoint.name

    @property
    def group(self) -> str:
        """The group of routes whose limits hold for it."""
        return self.endpoint.limit or ("read" if self.method == hdrs.METH_GET else "write")


def endpoint(
    *,
    summary: str,
    status: int | None = None,
    public: bool = False,
    errors: tuple[type[DomainError], ...] = (),
    streaming: bool = False,
    consumes: tuple[str, ...] = (),
    produces: tuple[str, ...] = (),
    tagged: bool = False,
    idempotent: bool | None = None,
    limit: str | None = None,
) -> Callable[[Handler], Endpoint]:
    """Declare a handler `async def name(call: Call, …)`.

    A parameter named `query` is a model of the query string, one named `body` is the JSON body, one named `match` is a
    Match, what If-Match demands; every other one is a part of the path (UUID, int, str or anything that pydantic reads
    from text). The answer is a model (JSON), None
    (204) or a response of the handler's own.

    `errors` are the refusals that the document names besides the general ones. A `public` endpoint needs no token, and
    knows the actor only if a valid one came. A `streaming` endpoint reads its body or writes its answer itself and has
    limits and deadlines of its own; the gateway's end with the identity. `consumes` and `produces` are for the
    document: the media types of a body that the handler reads itself and of a response of its own.

    A `tagged` endpoint gives its answer an ETag (`call.tag`). An `idempotent` one, by default what answers 201, has one
    effect for each Idempotency-Key. `limit` names the group of the settings whose limits hold for it.
    """

    def declare(handler: Handler) -> Endpoint:
        hints = get_type_hints(handler, include_extras=True)
        answer = hints.pop("return", None)
        _, *parameters = inspect.signature(handler).parameters.values()
        own = {item.name: hints[item.name] for item in parameters}
        path = {name: hint for name, hint in own.items() if name not in ("query", "body", "match")}
        conditional = own.get("match") is Match
        return Endpoint(
            handler=handler,
            summary=summary,
            status=status or (204 if answer in (None, type(None)) else 200),
            public=public,
            streaming=streaming,
            consumes=consumes,
            produces=produces,
            errors=errors,
            path={name: _path_adapter(hint) for name, hint in path.items()},
            discreet=any(hint not in (UUID, int) for hint in path.values()),
            query=_query(own["query"]) if "query" in own else None,
            body=_body(own["body"], parameters) if "body" in own else None,
            answer=_answer(answer),
            conditional=conditional,
            tagged=tagged or conditional,
            idempotent=(status == 201 and not streaming) if idempotent is None else idempotent,
            limit=limit,
        )

    return declare


def route(method: str, path: str, endpoint: Endpoint) -> Route:
    """Give an endpoint its place.

    Raises:
        TypeError: the placeholders of the path are not the path parameters of the handler.
    """
    placeholders = set(PLACEHOLDER.findall(path))
    if placeholders != set(endpoint.path):
        raise TypeError(f"{method} {path}: the path names {placeholders}, {endpoint.name} takes {set(endpoint.path)}")
    return Route(method.upper(), path, endpoint)


def _canonical(text: object) -> object:
    """Let only the form with hyphens through: the others that pydantic reads would be further names of one resource."""
    if not isinstance(text, str) or len(text) != 36:
        raise ValueError("not a UUID")
    return text


_PATH_TYPES: Mapping[type, Any] = {
    UUID: Annotated[UUID, BeforeValidator(_canonical)],
    int: Int64,
    str: Annotated[Line, Field(min_length=1, max_length=1024)],
}


def _path_adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(_PATH_TYPES.get(hint, hint) if isinstance(hint, type) else hint)


def _query(model: type[BaseModel]) -> Query:
    fields = model.model_fields.items()
    return Query(
        model,
        TypeAdapter(model),
        frozenset(item.alias or name for name, item in fields if _is_collection(item.annotation)),
    )


def _is_collection(hint: object) -> bool:
    if get_origin(hint) in _UNIONS:
        return any(map(_is_collection, get_args(hint)))
    return (get_origin(hint) or hint) in _COLLECTIONS


def _body(hint: Any, parameters: list[inspect.Parameter]) -> Body:
    default = next(item.default for item in parameters if item.name == "body")
    return Body(TypeAdapter(hint), required=default is inspect.Parameter.empty)


def _answer(hint: Any) -> TypeAdapter[Any] | None:
    if hint is None or hint is type(None) or (isinstance(hint, type) and issubclass(hint, web.StreamResponse)):
        return None
    return TypeAdapter(hint)
