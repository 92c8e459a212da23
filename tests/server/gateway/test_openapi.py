"""The OpenAPI document says what the endpoints do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from server.errors import Conflict
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.openapi import openapi_document
from server.gateway.schema import Page, PageQuery, Schema, Timestamp


class NameTaken(Conflict):
    """A refusal of one feature."""

    code = "name_taken"
    message = "Take another name."


class CourseIn(Schema):
    title: str


class CourseOut(Schema):
    id: UUID
    title: str
    created_at: Timestamp


@endpoint(summary="Create a course.", status=201, errors=(NameTaken,))
async def create_course(call: Call, body: CourseIn) -> CourseOut:
    """The caller becomes its owner."""
    raise NotImplementedError


@endpoint(summary="List the courses.")
async def list_courses(call: Call, query: PageQuery) -> Page[CourseOut]:
    raise NotImplementedError


@endpoint(summary="Delete a course.")
async def delete_course(call: Call, course_id: UUID) -> None:
    raise NotImplementedError


@endpoint(summary="Download.", public=True, streaming=True, consumes=("text/csv",), produces=("text/csv",))
async def download(call: Call, name: str) -> None:
    raise NotImplementedError


ROUTES = (
    route("POST", "/api/school/courses", create_course),
    route("GET", "/api/school/courses", list_courses),
    route("DELETE", "/api/school/courses/{course_id}", delete_course),
    route("POST", "/api/school/files/{name:.+}", download),
)


def _document(*routes: Any) -> dict[str, Any]:
    return openapi_document([cast(Any, SimpleNamespace(name="school", routes=routes))])


def test_document_is_valid_openapi_31():
    document = _document(*ROUTES)
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"].startswith("3.1")


def test_operation_says_what_its_endpoint_takes_and_answers():
    operation = _document(*ROUTES)["paths"]["/api/school/courses"]["post"]
    assert operation["operationId"] == "school_create_course"
    assert operation["tags"] == ["school"]
    assert operation["summary"] == "Create a course."
    assert operation["description"] == "The caller becomes its owner."
    body = operation["requestBody"]
    assert body["required"]
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/CourseIn"}
    answer = operation["responses"]["201"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/CourseOut"}


def test_operation_names_every_refusal_with_an_example():
    responses = _document(*ROUTES)["paths"]["/api/school/courses"]["post"]["responses"]
    assert {"201", "400", "401", "408", "409", "413", "415", "422", "429", "503", "default"} == set(responses)
    conflict = responses["409"]["content"]["application/problem+json"]
    assert conflict["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert conflict["examples"]["name_taken"]["value"]["detail"] == "Take another name."
    assert set(responses["503"]["content"]["application/problem+json"]["examples"]) == {
        "unavailable",
        "deadline_exceeded",
    }


def test_parameters_come_from_the_path_and_the_query_model():
    paths = _document(*ROUTES)["paths"]
    limit, cursor = paths["/api/school/courses"]["get"]["parameters"]
    assert (limit["name"], limit["in"], limit["required"]) == ("limit", "query", False)
    assert (limit["schema"]["minimum"], limit["schema"]["maximum"], limit["schema"]["default"]) == (1, 200, 50)
    assert cursor["description"]
    (course,) = paths["/api/school/courses/{course_id}"]["delete"]["parameters"]
    assert (course["name"], course["in"], course["schema"]["format"]) == ("course_id", "path", "uuid")
    assert "/api/school/files/{name}" in paths


def test_times_are_documented_as_times_in_both_directions():
    schemas = _document(*ROUTES)["components"]["schemas"]
    assert schemas["CourseOut"]["properties"]["created_at"]["format"] == "date-time"
    assert schemas["CourseIn"]["additionalProperties"] is False


def test_only_public_operations_need_no_token():
    document = _document(*ROUTES)
    assert document["security"] == [{"bearer": []}]
    assert document["paths"]["/api/school/files/{name}"]["post"]["security"] == []
    assert "security" not in document["paths"]["/api/school/courses"]["get"]


def test_own_bodies_are_documented_by_their_media_types():
    operation = _document(*ROUTES)["paths"]["/api/school/files/{name}"]["post"]
    assert operation["requestBody"]["content"] == {"text/csv": {}}
    assert operation["responses"]["204"]["content"] == {"text/csv": {}}


def test_two_operations_of_one_name_are_refused():
    with pytest.raises(ValueError, match="school_delete_course"):
        _document(ROUTES[2], route("POST", "/api/school/courses/{course_id}/delete", delete_course))
