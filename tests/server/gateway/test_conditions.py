"""Entity tags: 412 for a change of something older, 304 for what the client has."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from server.gateway.conditions import Match, Stale, etag, if_match, is_unchanged
from server.gateway.endpoint import Call, endpoint, route
from server.gateway.schema import Schema

MOMENT = datetime(2026, 11, 22, 19, 30, 0, 123456, tzinfo=UTC)


class Word(Schema):
    word: str


@endpoint(summary="Read.", public=True, tagged=True)
async def read(call: Call) -> Word:
    call.tag(7)
    call.headers["Cache-Control"] = "no-cache"
    return Word(word="green")


@endpoint(summary="Change.", public=True)
async def change(call: Call, match: Match) -> Word:
    match.check(7)
    call.tag(8)
    return Word(word="blue")


ROUTES = (route("GET", "/api/school/word", read), route("PATCH", "/api/school/word", change))


async def test_a_get_with_the_tag_that_it_has_is_304_without_a_body(serve):
    served = await serve(*ROUTES)
    async with served.request("GET", "/api/school/word") as answer:
        tag = answer.headers["ETag"]
    async with served.request("GET", "/api/school/word", headers={"If-None-Match": f'"1", W/{tag}'}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
        assert answer.headers["ETag"] == tag
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    async with served.request("GET", "/api/school/word", headers={"If-None-Match": '"other"'}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 200),
        ("*", 200),
        ('"7"', 200),
        ('"6", "7"', 200),
        ('"6"', 412),
        ('W/"7"', 412),
        ("7", 412),
        ("", 412),
    ],
)
async def test_a_change_with_if_match_needs_the_current_version(serve, header, status):
    served = await serve(*ROUTES)
    found, body = await served.json("PATCH", "/api/school/word", headers={"If-Match": header})
    assert found == status
    assert body == {"word": "blue"} or body["code"] == "conflict"


def test_versions_of_any_kind_are_tags():
    assert etag(255) == '"ff"'
    assert etag("a1") == '"a1"'
    if_match(etag(MOMENT)).check(MOMENT)
    with pytest.raises(Stale):
        if_match(etag(MOMENT)).check(MOMENT.replace(microsecond=123457))


def test_if_none_match_is_compared_weakly():
    assert is_unchanged("*", '"1"')
    assert is_unchanged('W/"1"', '"1"')
    assert not is_unchanged('"2"', '"1"')
    assert not is_unchanged('"2"', None)
    assert not is_unchanged(None, '"1"')


def test_the_document_names_the_conditions():
    from types import SimpleNamespace
    from typing import Any, cast

    from server.gateway.openapi import openapi_document

    paths = openapi_document([cast(Any, SimpleNamespace(name="school", routes=ROUTES))])["paths"]["/api/school/word"]
    assert [item["name"] for item in paths["patch"]["parameters"]] == ["If-Match"]
    assert "412" in paths["patch"]["responses"]
    assert [item["name"] for item in paths["get"]["parameters"]] == ["If-None-Match"]
    assert {"200", "304"} <= set(paths["get"]["responses"])
