"""The live document against the live server: schemathesis asks every operation what the document allows and forbids."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships none
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from server.app import MODULES
from server.gateway.openapi import openapi_document
from tests.people import People, Person

EXAMPLES = 12  # of each operation and mode; a long run on demand has more
CHECKS = [
    not_a_server_error,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
DOCUMENT = openapi_document(MODULES)
OPERATIONS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]
RUN = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
async def known(people: People) -> tuple[Person, dict[str, str]]:
    """Somebody who may do much, and ids of what is there, for the placeholders of paths."""
    teacher = await people.sign_in("teacher")
    room = await teacher.class_room()
    course = (await teacher.call("GET", "/api/classroom/courses"))["items"][0]["id"]
    return teacher, {"course_id": course, "room_id": room, "user_id": teacher.id}


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[f"{method} {path}" for method, path in OPERATIONS])
async def test_operation_answers_as_the_document_says(known, method, path):
    """To what the document allows, and to what it forbids."""
    person, ids = known
    described = DOCUMENT["paths"][path][method]
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method.upper()]

    def ask(case: Any, more: list[Any]) -> Any:
        response = case.call(base_url=person.url, headers={"Authorization": f"Bearer {person.token}"}, timeout=10)
        case.validate_response(response, checks=[*CHECKS, *more])
        assert str(response.status_code) in described["responses"], f"{response.status_code} is not in the document"
        return response

    @RUN
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE), real=st.booleans())
    def ask_what_is_allowed(case: Any, real: bool) -> None:
        if real:
            case.path_parameters |= {name: ids[name] for name in case.path_parameters if name in ids}
        response = ask(case, [])
        # A valid request may not fit what is there, but it is never one that cannot be read.
        assert response.status_code != 400 or response.json()["code"] != "invalid"
        assert response.status_code not in (405, 408, 413, 415)

    @RUN
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def ask_what_is_not(case: Any) -> None:
        ask(case, [checks.negative_data_rejection])

    await asyncio.to_thread(ask_what_is_allowed)
    if described.get("parameters") or described.get("requestBody"):
        await asyncio.to_thread(ask_what_is_not)


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[f"{method} {path}" for method, path in OPERATIONS])
def test_operation_has_a_summary_and_examples_that_its_schemas_allow(method, path):
    operation = DOCUMENT["paths"][path][method]
    assert operation["summary"].endswith(".")
    assert {"429", "503"} <= set(operation["responses"])
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for content in (body.get("content", {}).get("application/json") for body in bodies):
        if content is None or "schema" not in content:
            continue
        schema = {**content["schema"], "components": DOCUMENT["components"]}
        Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(content["example"])


async def test_the_document_that_is_served_is_this_one(http: aiohttp.ClientSession):
    async with http.get("/api/openapi.json") as answer:
        assert await answer.json() == DOCUMENT
