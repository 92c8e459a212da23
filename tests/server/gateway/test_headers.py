"""Headers of every answer: security as helmet sets it, and CORS by allow-list."""

from __future__ import annotations

import pytest
from aiohttp import web

from server.gateway.endpoint import Call, endpoint, route

SCHOOL = "https://school.example"
EVIL = "https://evil.example"
PREFLIGHT = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization,content-type"}


@endpoint(summary="Answer nothing.", public=True)
async def nothing(call: Call) -> None:
    return None


@endpoint(summary="Show a page with a policy of its own.", public=True)
async def page(call: Call) -> web.Response:
    return web.Response(text="<p>", headers={"Content-Security-Policy": "default-src 'self'", "Vary": "Accept"})


@endpoint(summary="Stream.", public=True, streaming=True)
async def stream(call: Call) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(call.request)
    await response.write(b"x")
    return response


ROUTES = (
    route("GET", "/api/school/nothing", nothing),
    route("GET", "/api/school/page", page),
    route("GET", "/api/school/stream", stream),
)


@pytest.mark.parametrize("path", ["nothing", "stream", "unknown"])
async def test_every_answer_carries_the_security_headers(serve, path):
    served = await serve(*ROUTES)
    async with served.request("GET", f"/api/school/{path}") as answer:
        headers = answer.headers
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Origin-Agent-Cluster"] == "?1"
    assert headers["X-DNS-Prefetch-Control"] == "off"
    assert headers["X-Permitted-Cross-Domain-Policies"] == "none"
    assert headers["Server"] == "Lectern"
    assert "Strict-Transport-Security" not in headers
    assert "X-Request-ID" in headers


async def test_strict_transport_security_is_sent_when_the_school_is_reached_by_https(serve):
    served = await serve(*ROUTES, http={"public_url": SCHOOL})
    async with served.request("GET", "/api/school/nothing") as answer:
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


async def test_policy_of_a_handler_is_kept(serve):
    served = await serve(*ROUTES, http={"cors_origins": (SCHOOL,)})
    async with served.request("GET", "/api/school/page") as answer:
        assert answer.headers.getall("Content-Security-Policy") == ["default-src 'self'"]
        assert answer.headers.getall("Vary") == ["Accept", "Origin"]


async def test_preflight_of_an_allowed_origin_is_answered(serve):
    served = await serve(*ROUTES, http={"cors_origins": (SCHOOL,)})
    headers = {"Origin": SCHOOL, "Authorization": None, **PREFLIGHT}
    async with served.request("OPTIONS", "/api/school/nothing", headers=headers) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == SCHOOL
        assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize("origin", [EVIL, "null", "https://school.example.evil.example", None])
async def test_preflight_of_another_origin_is_refused(serve, origin):
    served = await serve(*ROUTES, http={"cors_origins": (SCHOOL,)})
    headers = {"Origin": origin, **PREFLIGHT}
    async with served.request("OPTIONS", "/api/school/nothing", headers=headers) as answer:
        assert answer.status == 403
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["Vary"] == "Origin"


async def test_answers_and_refusals_can_be_read_by_an_allowed_origin_only(serve):
    served = await serve(*ROUTES, http={"cors_origins": (SCHOOL,)})
    for path in ("/api/school/nothing", "/api/unknown"):
        async with served.request("GET", path, headers={"Origin": SCHOOL}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == SCHOOL
            assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
            exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"X-Request-ID", "Retry-After", "RateLimit-Limit", "ETag"} <= set(exposed)
        async with served.request("GET", path, headers={"Origin": EVIL}) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert answer.headers["Vary"] == "Origin"


async def test_without_a_list_no_origin_is_allowed(serve):
    served = await serve(*ROUTES)
    async with served.request("GET", "/api/school/nothing", headers={"Origin": SCHOOL}) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Vary" not in answer.headers


async def test_star_allows_every_origin(serve):
    served = await serve(*ROUTES, http={"cors_origins": ("*",)})
    async with served.request("GET", "/api/school/nothing", headers={"Origin": EVIL}) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Vary" not in answer.headers
