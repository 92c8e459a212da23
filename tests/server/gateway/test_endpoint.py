"""Typed handlers: what they are given, what is refused before them, what their answers become."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import pytest
from aiohttp import web
from pydantic import Field

from server.errors import Conflict, Unauthenticated
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.schema import Int64, Line, Page, PageQuery, Schema, Timestamp

COURSE = UUID("018f2b5e-0000-7000-8000-000000000001")


class CourseIn(Schema):
    title: Line = Field(min_length=1, max_length=20)
    seats: Int64 = Field(ge=1)
    opens_at: Timestamp | None = None


class CourseOut(Schema):
    id: UUID
    title: str
    opens_at: Timestamp | None = None


class ReportQuery(Schema):
    begin: Timestamp | None = Field(default=None, alias="from")
    course_id: tuple[UUID, ...] = ()
    detailed: bool = False


class ReportOut(Schema):
    begin: Timestamp | None
    courses: list[UUID]
    detailed: bool


@endpoint(summary="Create a course.", status=201)
async def create_course(call: Call, body: CourseIn) -> CourseOut:
    call.headers["Location"] = f"/api/school/courses/{COURSE}"
    return CourseOut(id=COURSE, title=body.title, opens_at=body.opens_at)


@endpoint(summary="Get a course.")
async def get_course(call: Call, course_id: UUID) -> CourseOut:
    return CourseOut(id=course_id, title=call.actor.name)


@endpoint(summary="List the courses.")
async def list_courses(call: Call, query: PageQuery) -> Page[CourseOut]:
    return Page(items=[CourseOut(id=COURSE, title="Astronomy")] * query.limit, next_cursor=query.cursor)


@endpoint(summary="Report.")
async def get_report(call: Call, name: Literal["activity", "progress"], query: ReportQuery) -> ReportOut:
    return ReportOut(begin=query.begin, courses=list(query.course_id), detailed=query.detailed)


@endpoint(summary="Delete a course.")
async def delete_course(call: Call, course_id: UUID) -> None:
    return None


@endpoint(summary="Get a page of a course.")
async def get_page(call: Call, course_id: UUID, page: int, word: str) -> web.Response:
    return web.json_response({"page": page, "word": word})


@endpoint(summary="Say who is asking.", public=True)
async def whoami(call: Call) -> CourseOut:
    return CourseOut(id=call.actor.user_id, title=call.actor.name)


@endpoint(summary="Greet.", public=True)
async def greet(call: Call, body: CourseIn | None = None) -> CourseOut:
    return CourseOut(id=COURSE, title=body.title if body else "nobody")


@endpoint(summary="Conflict.", errors=(Conflict,))
async def conflict(call: Call) -> None:
    raise Conflict("Take another name.", retry_after=0.2)


ROUTES = (
    route("POST", "/api/school/courses", create_course),
    route("GET", "/api/school/courses", list_courses),
    route("GET", "/api/school/courses/{course_id}", get_course),
    route("DELETE", "/api/school/courses/{course_id}", delete_course),
    route("GET", "/api/school/courses/{course_id}/pages/{page}/{word}", get_page),
    route("GET", "/api/school/reports/{name}", get_report),
    route("GET", "/api/school/whoami", whoami),
    route("POST", "/api/school/greet", greet),
    route("POST", "/api/school/conflict", conflict),
)


async def test_body_becomes_the_declared_model_and_the_answer_json(serve):
    served = await serve(*ROUTES)
    body = {"title": " Astronomy ", "seats": 3, "opens_at": "2026-11-22T21:30:00.1239+02:00"}
    async with served.request("POST", "/api/school/courses", json=body) as answer:
        assert answer.status == 201
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Location"] == f"/api/school/courses/{COURSE}"
        assert await answer.json() == {
            "id": str(COURSE),
            "title": "Astronomy",
            "opens_at": "2026-11-22T19:30:00.123Z",
        }


async def test_unknown_field_is_refused(serve):
    served = await serve(*ROUTES)
    status, problem = await served.json("POST", "/api/school/courses", json={"title": "A", "seats": 1, "role": "admin"})
    assert status == 422
    assert problem["code"] == "invalid"
    assert problem["errors"] == [{"loc": ["role"], "message": "This field is not known here."}]


async def test_every_invalid_field_is_listed_at_once(serve):
    served = await serve(*ROUTES)
    body = {"title": "a\nb", "seats": "3", "opens_at": "yesterday", "extra": 1}
    status, problem = await served.json("POST", "/api/school/courses", json=body)
    assert status == 422
    assert [error["loc"] for error in problem["errors"]] == [["title"], ["seats"], ["opens_at"], ["extra"]]
    assert problem["errors"][0]["message"] == "Remove the line breaks and control characters."
    assert all("yesterday" not in error["message"] for error in problem["errors"])


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b"\xff\xfe", b'{"title": "\\ud800"}', b"[" * 100_000])
async def test_body_that_is_no_json_is_400(serve, body):
    served = await serve(*ROUTES)
    headers = {"Content-Type": "application/json"}
    status, problem = await served.json("POST", "/api/school/courses", data=body, headers=headers)
    assert (status, problem["code"]) == (400, "invalid")


async def test_json_of_another_kind_than_an_object_is_422(serve):
    served = await serve(*ROUTES)
    status, problem = await served.json("POST", "/api/school/courses", json=["title"])
    assert (status, problem["code"]) == (422, "invalid")
    assert problem["errors"][0]["loc"] == []


async def test_more_errors_than_anybody_reads_are_counted_instead_of_listed(serve):
    served = await serve(*ROUTES)
    body = {f"unknown{number}": 1 for number in range(5000)}
    status, problem = await served.json("POST", "/api/school/courses", json=body)
    assert status == 422
    assert len(problem["errors"]) == 1
    assert "5002" in problem["errors"][0]["message"]


async def test_path_parameters_are_parsed_by_their_annotation(serve):
    served = await serve(*ROUTES)
    status, course = await served.json("GET", f"/api/school/courses/{str(COURSE).upper()}")
    assert (status, course["id"], course["title"]) == (200, str(COURSE), "Ada")
    status, page = await served.json("GET", f"/api/school/courses/{COURSE}/pages/7/gr%C3%BCn")
    assert (status, page) == (200, {"page": 7, "word": "grün"})


@pytest.mark.parametrize(
    "path",
    [
        "courses/7",
        f"courses/{COURSE.hex}",
        f"courses/%7B{COURSE}%7D",
        f"courses/{COURSE}/pages/seven/word",
        f"courses/{COURSE}/pages/99999999999999999999/word",
        f"courses/{COURSE}/pages/7/%00",
        "reports/secrets",
    ],
)
async def test_path_that_can_name_nothing_is_404(serve, path):
    served = await serve(*ROUTES)
    status, problem = await served.json("GET", f"/api/school/{path}")
    assert (status, problem["code"]) == (404, "not_found")


async def test_query_string_becomes_the_declared_model(serve):
    served = await serve(*ROUTES)
    status, page = await served.json("GET", "/api/school/courses")
    assert (status, len(page["items"]), page["next_cursor"]) == (200, 50, None)
    status, page = await served.json("GET", "/api/school/courses?limit=2&cursor=abc")
    assert (len(page["items"]), page["next_cursor"]) == (2, "abc")
    other = UUID(int=5)
    query = f"from=2026-11-22T00:00:00Z&course_id={COURSE}&course_id={other}&detailed=true"
    status, report = await served.json("GET", f"/api/school/reports/activity?{query}")
    assert report == {"begin": "2026-11-22T00:00:00.000Z", "courses": [str(COURSE), str(other)], "detailed": True}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("page=2", "page"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_wrong_query_string_is_422(serve, query, field):
    served = await serve(*ROUTES)
    status, problem = await served.json("GET", f"/api/school/courses?{query}")
    assert (status, problem["code"]) == (422, "invalid")
    assert [error["loc"] for error in problem["errors"]] == [[field]]


async def test_none_is_204_without_a_body(serve):
    served = await serve(*ROUTES)
    async with served.request("DELETE", f"/api/school/courses/{COURSE}") as answer:
        assert (answer.status, await answer.read()) == (204, b"")


async def test_head_answers_like_get_without_a_body(serve):
    served = await serve(*ROUTES)
    async with served.request("HEAD", f"/api/school/courses/{COURSE}") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_optional_body_may_be_left_out(serve):
    served = await serve(*ROUTES)
    assert (await served.json("POST", "/api/school/greet"))[1]["title"] == "nobody"
    assert (await served.json("POST", "/api/school/greet", json={"title": "Ada", "seats": 1}))[1]["title"] == "Ada"


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer wrong", "Bearer " + "x" * 4097]
)
async def test_request_without_a_valid_token_is_401(serve, authorization):
    served = await serve(*ROUTES)
    async with served.request("GET", "/api/school/courses/7", headers={"Authorization": authorization}) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = await answer.json(content_type=None)
    assert problem == {
        "type": "/api/docs#errors-unauthenticated",
        "title": "Unauthenticated",
        "status": 401,
        "code": "unauthenticated",
        "detail": Unauthenticated.message,
        "request_id": answer.headers["X-Request-ID"],
        "errors": [],
    }


async def test_token_that_cannot_be_checked_is_503_and_never_lets_anybody_in(serve):
    served = await serve(*ROUTES)
    headers = {"Authorization": "Bearer the-database-is-away"}
    status, problem = await served.json("GET", f"/api/school/courses/{COURSE}", headers=headers)
    assert (status, problem["code"]) == (503, "unavailable")


async def test_public_endpoint_works_with_a_stale_token(serve):
    served = await serve(*ROUTES)
    status, _ = await served.json("POST", "/api/school/greet", headers={"Authorization": "Bearer stale"})
    assert status == 200


async def test_public_endpoint_knows_the_actor_if_a_valid_token_came(serve):
    served = await serve(*ROUTES)
    assert (await served.json("GET", "/api/school/whoami"))[1]["title"] == "Ada"
    status, problem = await served.json("GET", "/api/school/whoami", headers={"Authorization": None})
    assert (status, problem["code"]) == (401, "unauthenticated")


async def test_domain_error_is_answered_with_its_code_and_retry_after_in_whole_seconds(serve):
    served = await serve(*ROUTES)
    async with served.request("POST", "/api/school/conflict") as answer:
        problem = await answer.json(content_type=None)
        assert (answer.status, answer.headers["Retry-After"]) == (409, "1")
    assert (problem["code"], problem["detail"], problem["title"]) == ("conflict", "Take another name.", "Conflict")


def test_route_whose_path_does_not_fit_the_handler_is_refused():
    with pytest.raises(TypeError, match="course_id"):
        route("GET", "/api/school/courses/{id}", get_course)


async def test_two_routes_of_one_address_are_refused(serve):
    twice = route("GET", "/api/school/courses/{course_id}", get_course)
    with pytest.raises(ValueError, match="twice"):
        await serve(twice, twice)


def test_answer_is_written_as_the_declared_type():
    class CourseWithSecret(CourseOut):
        secret: str

    assert create_course.answer is not None
    written = create_course.answer.dump_json(CourseWithSecret(id=COURSE, title="A", secret="s"))
    assert b"secret" not in written


def test_timestamp_without_an_offset_is_refused():
    with pytest.raises(ValueError, match="timezone"):
        CourseOut(id=COURSE, title="A", opens_at=datetime(2026, 1, 1))  # noqa: DTZ001
    assert CourseOut(id=COURSE, title="A", opens_at=datetime(2026, 1, 1, tzinfo=UTC)).opens_at is not None
