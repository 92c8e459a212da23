"""The OpenAPI 3.1 document, written from the same endpoints that serve the requests.

Schemas come from the pydantic adapters that check and write the JSON, refusals from the declared DomainErrors.
"""

from __future__ import annotations

import http
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter

from server.errors import (
    DeadlineExceeded,
    DomainError,
    IdempotencyKeyReused,
    Invalid,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    SessionExpired,
    Unauthenticated,
    Unavailable,
)
from server.gateway.admission import Overloaded
from server.gateway.body import BodyTooSlow, MalformedBody, UnsupportedMediaType
from server.gateway.conditions import Stale
from server.gateway.endpoint import PLACEHOLDER, Endpoint, Route
from server.gateway.examples import example_of
from server.gateway.idempotency import HEADER, AnswerLost, RequestInProgress, TakenOver
from server.gateway.problems import CONTENT_TYPE, problem_type, title
from server.gateway.schema import Schema

if TYPE_CHECKING:
    from server.module import Module

VERSION = "1"  # of the API: grows when something that a client relies on changes its meaning
REFERENCE = "#/components/schemas/{model}"
Json = dict[str, Any]  # Any: a part of the document
Mode = Literal["validation", "serialization"]
_RETRIED = {"429", "503"}
_QUOTA = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_HEADERS: Json = {
    name: {"description": description, "schema": schema}
    for name, description, schema in (
        ("X-Request-ID", "Names this request in the log.", {"type": "string"}),
        ("ETag", "The version of this resource, for If-Match and If-None-Match.", {"type": "string"}),
        ("Retry-After", "Seconds to wait before the next try.", {"type": "integer", "minimum": 0}),
        (_QUOTA[0], "Requests allowed in a window.", {"type": "integer", "minimum": 1}),
        (_QUOTA[1], "How many of them are left.", {"type": "integer", "minimum": 0}),
        (_QUOTA[2], "Seconds until some come back.", {"type": "integer", "minimum": 0}),
    )
}
_TAGS = 'e.g. `"64f1c2a9b3e00"`'
_REQUEST_HEADERS: Mapping[str, Json] = {
    HEADER: {
        "description": "Made by the client, new for each intention, the same when it is sent again: within 24 hours "
        "the same key with the same body gets the first answer and has no second effect.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    },
    "If-Match": {
        "description": f"The ETag of the version that is to be changed, {_TAGS}.",
        "schema": {"type": "string"},
    },
    "If-None-Match": {"description": f"The ETag of the version that is there, {_TAGS}.", "schema": {"type": "string"}},
}
_DESCRIPTION = """\
REST interface of Lectern. Times are RFC 3339 in UTC, sizes are in bytes, durations in seconds. Lists are read page by
page: give `next_cursor` back as `cursor`. Every refusal is a problem document whose `code` is the same over Socket.IO;
the commands and events of Socket.IO are described at `/api/events.json`.
"""


class ProblemField(Schema):
    """One invalid field."""

    loc: tuple[str | int, ...]
    message: str


class Problem(Schema):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: tuple[ProblemField, ...]


@dataclass(frozen=True, slots=True)
class _Schemas:
    """The schemas of all adapters, generated in one pass so that two models of one name get names of their own."""

    found: Mapping[tuple[int, Mode], Json]
    components: Json

    def of(self, adapter: TypeAdapter[Any], mode: Mode) -> Json:
        return self.found[id(adapter), mode]

    def content(self, adapter: TypeAdapter[Any], mode: Mode) -> Json:
        """A JSON body with an example."""
        schema = self.of(adapter, mode)
        return {"application/json": {"schema": schema, "example": example_of(schema, self.components)}}


def openapi_document(modules: Sequence[Module]) -> Json:
    """Write the document of the modules' routes.

    Raises:
        ValueError: two operations have one name.
    """
    routes = [(module.name, route) for module in modules for route in module.routes]
    schemas, components = _generate([route.endpoint for _, route in routes])
    paths: Json = {}
    names: set[str] = set()
    for service, route in routes:
        operation = _operation(service, route, schemas)
        if operation["operationId"] in names:
            raise ValueError(f"{operation['operationId']} is the name of two operations")
        names.add(operation["operationId"])
        paths.setdefault(PLACEHOLDER.sub(r"{\1}", route.path), {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lectern", "version": VERSION, "description": _DESCRIPTION},
        "tags": [{"name": module.name} for module in modules if module.routes],
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": _HEADERS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        "security": [{"bearer": []}],
    }


def refusals(endpoint: Endpoint) -> tuple[type[DomainError], ...]:
    """Every refusal that an endpoint may answer: its own and those of the gateway in front of it."""
    general: list[type[DomainError]] = []
    if not endpoint.public:
        general += [Unauthenticated, SessionExpired]
    if endpoint.path:
        general.append(NotFound)
    if endpoint.query or endpoint.body:
        general.append(Invalid)
    if endpoint.body:
        general += [MalformedBody, BodyTooSlow, PayloadTooLarge, UnsupportedMediaType]
    if endpoint.conditional:
        general.append(Stale)
    if endpoint.idempotent:
        general += [Invalid, IdempotencyKeyReused, RequestInProgress, AnswerLost, TakenOver]
    general += [RateLimited, Unavailable, Overloaded, DeadlineExceeded]
    return tuple(dict.fromkeys([*endpoint.errors, *general]))


def _generate(endpoints: Iterable[Endpoint]) -> tuple[_Schemas, Json]:
    adapters: dict[tuple[int, Mode], TypeAdapter[Any]] = {}
    for endpoint in endpoints:
        for adapter, mode in _adapters(endpoint):
            adapters[id(adapter), mode] = adapter
    problem = TypeAdapter(Problem)  # kept here: its id is a key while it lives
    adapters[id(problem), "serialization"] = problem
    inputs = [((key, mode), mode, adapter) for (key, mode), adapter in adapters.items()]
    found, definitions = TypeAdapter.json_schemas(inputs, ref_template=REFERENCE)
    components = definitions.get("$defs", {})
    return _Schemas({key: schema for (key, _), schema in found.items()}, components), components


def _adapters(endpoint: Endpoint) -> Iterator[tuple[TypeAdapter[Any], Mode]]:
    for adapter in endpoint.path.values():
        yield adapter, "validation"
    if endpoint.query is not None:
        yield endpoint.query.adapter, "validation"
    if endpoint.body is not None:
        yield endpoint.body.adapter, "validation"
    if endpoint.answer is not None:
        yield endpoint.answer, "serialization"


def _operation(service: str, route: Route, schemas: _Schemas) -> Json:
    endpoint = route.endpoint
    operation: Json = {
        "operationId": f"{service}_{route.name}",
        "tags": [service],
        "summary": endpoint.summary,
        "responses": {**_success(endpoint, schemas), **_problems(endpoint)},
    }
    if endpoint.description:
        operation["description"] = endpoint.description
    parameters = [*_path_parameters(endpoint, schemas), *_query_parameters(endpoint), *_header_parameters(route)]
    if parameters:
        operation["parameters"] = parameters
    if content := _request_content(endpoint, schemas):
        operation["requestBody"] = {"required": endpoint.body is None or endpoint.body.required, "content": content}
    if endpoint.public:
        operation["security"] = []
    return operation


def _path_parameters(endpoint: Endpoint, schemas: _Schemas) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": schemas.of(adapter, "validation")}
        for name, adapter in endpoint.path.items()
    ]


def _query_parameters(endpoint: Endpoint) -> list[Json]:
    if endpoint.query is None:
        return []
    schema = endpoint.query.model.model_json_schema(ref_template=REFERENCE)
    required = schema.get("required", ())
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "schema": {key: value for key, value in field.items() if key != "description"},
            **({"description": field["description"]} if "description" in field else {}),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _header_parameters(route: Route) -> list[Json]:
    endpoint = route.endpoint
    names = [HEADER] if endpoint.idempotent else []
    names += ["If-Match"] if endpoint.conditional else []
    names += ["If-None-Match"] if endpoint.tagged and route.method == "GET" else []
    return [{"name": name, "in": "header", "required": False, **_REQUEST_HEADERS[name]} for name in names]


def _request_content(endpoint: Endpoint, schemas: _Schemas) -> Json:
    if endpoint.body is not None:
        return schemas.content(endpoint.body.adapter, "validation")
    return {media_type: {} for media_type in endpoint.consumes}


def _success(endpoint: Endpoint, schemas: _Schemas) -> Json:
    answer: Json = {"description": http.HTTPStatus(endpoint.status).phrase}
    content: Json = {media_type: {} for media_type in endpoint.produces}
    if endpoint.answer is not None:
        content |= schemas.content(endpoint.answer, "serialization")
    if content:
        answer["content"] = content
    answer["headers"] = _headers("X-Request-ID", *_QUOTA, *(["ETag"] if endpoint.tagged else []))
    answers = {str(endpoint.status): answer}
    if endpoint.tagged and endpoint.status == 200:
        answers["304"] = {"description": "Not changed since the version of If-None-Match.", "headers": _headers("ETag")}
    return answers


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _problems(endpoint: Endpoint) -> Json:
    by_status: dict[int, dict[str, type[DomainError]]] = {}
    for kind in refusals(endpoint):
        by_status.setdefault(kind.status, {}).setdefault(kind.code, kind)
    answers = {str(status): _problem(kinds.values()) for status, kinds in sorted(by_status.items())}
    for status in answers.keys() & _RETRIED:
        answers[status]["headers"] = _headers("Retry-After")
    return {**answers, "default": _problem([])}


def _problem(kinds: Iterable[type[DomainError]]) -> Json:
    schema = {"$ref": REFERENCE.format(model=Problem.__name__)}
    examples = {kind.code: {"value": _example(kind)} for kind in kinds}
    content = {"schema": schema, **({"examples": examples} if examples else {})}
    described = "; ".join(f"`{code}`" for code in examples) or "Any other refusal."
    return {"description": described, "content": {CONTENT_TYPE: content}}


def _example(kind: type[DomainError]) -> Json:
    return {
        "type": problem_type(kind.code),
        "title": title(kind.code),
        "status": kind.status,
        "code": kind.code,
        "detail": kind.message,
        "request_id": "0a1b2c3d",
        "errors": [{"loc": ["email"], "message": "This field is needed."}] if kind is Invalid else [],
    }
