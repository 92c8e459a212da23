"""The edge: request ids, errors, deadlines, cancellation, the access line and the request metrics."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

import pytest
from aiohttp import web

from server.errors import Invalid, Unavailable
from server.gateway.edge import CLIENT_CLOSED_REQUEST
from server.gateway.endpoint import Call, endpoint, route
from server.metrics import REGISTRY

COURSE = UUID(int=7)
ended: list[UUID] = []  # courses whose wait is over, one way or another


@endpoint(summary="Fail.")
async def fail(call: Call) -> None:
    raise RuntimeError("the password is hunter2")


@endpoint(summary="Wait.")
async def wait(call: Call, course_id: UUID) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        ended.append(course_id)


@endpoint(summary="Time out.")
async def time_out(call: Call) -> None:
    raise TimeoutError


@endpoint(summary="Miss a dependency.")
async def miss(call: Call) -> None:
    raise Unavailable from OSError("no route to host")


@endpoint(summary="Fail half way.", streaming=True)
async def fail_half_way(call: Call) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(call.request)
    await response.write(b"half")
    raise RuntimeError("disk full")


@endpoint(summary="Redirect.", public=True)
async def redirect(call: Call) -> web.Response:
    raise web.HTTPFound("/elsewhere")


@endpoint(summary="Use a secret link.", public=True)
async def use_link(call: Call, token: str) -> None:
    return None


ROUTES = (
    route("GET", "/api/school/fail", fail),
    route("GET", "/api/school/wait/{course_id}", wait),
    route("GET", "/api/school/time-out", time_out),
    route("GET", "/api/school/miss", miss),
    route("GET", "/api/school/half", fail_half_way),
    route("GET", "/api/school/redirect", redirect),
    route("POST", "/api/school/links/{token}", use_link),
)


def _count(route: str, status: int, method: str = "GET", service: str = "school") -> float:
    labels = {"service": service, "method": method, "route": route, "status": str(status)}
    return REGISTRY.get_sample_value("http_requests_total", labels) or 0.0


async def test_unknown_address_is_a_problem_document_with_the_request_id(serve):
    served = await serve(*ROUTES)
    async with served.request("GET", "/api/nowhere") as answer:
        problem = await answer.json(content_type=None)
        assert (answer.status, problem["code"], problem["status"]) == (404, "not_found", 404)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert problem["request_id"] == answer.headers["X-Request-ID"]


async def test_wrong_method_is_a_problem_document_that_names_the_right_ones(serve):
    served = await serve(*ROUTES)
    async with served.request("DELETE", "/api/school/fail") as answer:
        problem = await answer.json(content_type=None)
        assert (answer.status, problem["code"], problem["status"]) == (405, "invalid", 405)
        assert answer.headers["Allow"] == "GET,HEAD"
        assert problem["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("given", ["abc-123", "0af7651916cd43dd8448eb211c80319c", "A.b_c-9", "x" * 128])
async def test_sane_request_id_is_returned(serve, given):
    served = await serve(*ROUTES)
    async with served.request("GET", "/health/live", headers={"X-Request-ID": given}) as answer:
        assert answer.headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a;b", "ä", 'a"b', "<script>"])
async def test_other_request_id_is_replaced(serve, given):
    served = await serve(*ROUTES)
    async with served.request("GET", "/health/live", headers={"X-Request-ID": given}) as answer:
        assert answer.headers["X-Request-ID"] != given
        assert len(answer.headers["X-Request-ID"]) == 32


async def test_unexpected_error_is_500_without_its_text_and_logged_once_with_its_trace(serve, caplog):
    served = await serve(*ROUTES)
    async with served.request("GET", "/api/school/fail", headers={"X-Request-ID": "find-me"}) as answer:
        text = await answer.text()
        assert answer.status == 500
    assert '"code":"internal"' in text
    assert '"request_id":"find-me"' in text
    assert "hunter2" not in text
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in errors] == ["request failed"]
    assert errors[0].exc_info is not None


async def test_handler_that_waits_too_long_is_503_and_ended(serve):
    ended.clear()
    served = await serve(*ROUTES, http={"request_timeout": 0.05})
    async with served.request("GET", f"/api/school/wait/{COURSE}") as answer:
        problem = await answer.json(content_type=None)
    assert (answer.status, problem["code"]) == (503, "deadline_exceeded")
    assert ended == [COURSE]


async def test_timeout_of_a_dependency_is_503(serve):
    served = await serve(*ROUTES)
    status, problem = await served.json("GET", "/api/school/time-out")
    assert (status, problem["code"]) == (503, "deadline_exceeded")


async def test_missing_dependency_is_503_with_retry_after_and_a_warning_that_names_the_cause(serve, caplog):
    served = await serve(*ROUTES)
    async with served.request("GET", "/api/school/miss") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    warnings = [record.__dict__ for record in caplog.records if record.levelno == logging.WARNING]
    assert [warning["cause"] for warning in warnings] == ["OSError('no route to host')"]


async def test_error_after_the_answer_began_ends_the_connection(serve, caplog):
    served = await serve(*ROUTES)
    answer = await served.raw(
        b"GET /api/school/half HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer a-valid-token\r\n\r\n"
    )
    assert answer.endswith(b"half")
    assert b"problem" not in answer
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == ["request failed"]


async def test_redirect_is_no_error(serve):
    served = await serve(*ROUTES)
    async with served.request("GET", "/api/school/redirect", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "/elsewhere")
        assert "X-Request-ID" in answer.headers


async def test_cancelled_request_logs_no_error_and_is_counted(serve, caplog):
    caplog.set_level(logging.INFO)
    served = await serve(*ROUTES, http={"drain_timeout": 0.05, "request_timeout": 30.0})
    template = "/api/school/wait/{course_id}"
    before = _count(template, CLIENT_CLOSED_REQUEST)
    get = f"GET /api/school/wait/{COURSE} HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer a-valid-token\r\n\r\n"
    waiting = asyncio.ensure_future(served.raw(get.encode()))
    await asyncio.sleep(0.05)
    handlers = [task for task in asyncio.all_tasks() if "_handle_request" in repr(task.get_coro())]
    assert len(handlers) == 1
    handlers[0].cancel()
    assert await waiting == b""
    assert _count(template, CLIENT_CLOSED_REQUEST) == before + 1
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_requests_are_counted_under_their_template(serve):
    served = await serve(*ROUTES, http={"request_timeout": 0.01})
    template = "/api/school/wait/{course_id}"
    before = _count(template, 503)
    seconds = {"service": "school", "route": template}
    observed = REGISTRY.get_sample_value("http_request_duration_seconds_count", seconds) or 0.0
    await served.json("GET", f"/api/school/wait/{COURSE}")
    assert _count(template, 503) == before + 1
    assert REGISTRY.get_sample_value("http_request_duration_seconds_count", seconds) == observed + 1


async def test_addresses_and_methods_of_a_client_never_become_labels(serve):
    served = await serve(*ROUTES)
    before = _count("unmatched", 404, service="server"), _count("unmatched", 405, "OTHER", "server")
    await served.json("GET", "/api/made-up-7461")
    await served.json("PROPFIND", "/api/school/fail")
    after = _count("unmatched", 404, service="server"), _count("unmatched", 405, "OTHER", "server")
    assert after == (before[0] + 1, before[1] + 1)
    text = "".join(str(sample.labels) for metric in REGISTRY.collect() for sample in metric.samples)
    assert "7461" not in text
    assert "PROPFIND" not in text


async def test_one_access_line_per_request_names_request_user_and_path_without_the_query(serve, caplog):
    caplog.set_level(logging.INFO)
    served = await serve(*ROUTES)
    await served.json("GET", "/api/school/time-out?email=ada@example.com", headers={"X-Request-ID": "r1"})
    lines = [record.__dict__ for record in caplog.records if record.getMessage() == "request"]
    assert len(lines) == 1
    line = lines[0]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/school/time-out", 503)
    assert (line["ip"], line["levelno"]) == ("127.0.0.1", logging.INFO)
    assert line["ms"] > 0


async def test_part_of_a_path_that_may_be_a_secret_is_not_logged(serve, caplog):
    caplog.set_level(logging.DEBUG)
    served = await serve(*ROUTES)
    async with served.request("POST", "/api/school/links/s3cr3t") as answer:
        assert answer.status == 204
    lines = [record.__dict__ for record in caplog.records if record.getMessage() == "request"]
    assert [line["path"] for line in lines] == ["/api/school/links/{token}"]


async def test_health_and_metrics_are_logged_at_debug_only(serve, caplog):
    caplog.set_level(logging.INFO)
    served = await serve(*ROUTES)
    for path in ("/health/live", "/health/ready", "/metrics"):
        async with served.request("GET", path) as answer:
            assert answer.status == 200
    assert not [record for record in caplog.records if record.getMessage() == "request"]


async def test_flood_of_dependency_faults_is_summed_up(serve, caplog):
    served = await serve(*ROUTES)
    for _ in range(20):
        await served.json("GET", "/api/school/miss")
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) <= 5


async def test_socket_io_is_let_through_untouched(serve):
    async def engine(request: web.Request) -> web.Response:
        await asyncio.sleep(0.1)
        return web.Response(text="0{}")

    served = await serve(
        *ROUTES,
        http={"request_timeout": 0.01},
        extend=lambda application: application.router.add_get("/socket.io/", engine),
    )
    async with served.request("GET", "/socket.io/?EIO=4") as answer:
        assert (answer.status, await answer.text()) == (200, "0{}")
        assert "X-Request-ID" not in answer.headers


async def test_route_that_no_module_declared_is_counted_under_its_resource(serve):
    async def page(request: web.Request) -> web.Response:
        raise Invalid

    served = await serve(*ROUTES, extend=lambda application: application.router.add_get("/pages/{name}", page))
    before = _count("/pages/{name}", 422, service="server")
    assert (await served.json("GET", "/pages/a"))[0] == 422
    assert _count("/pages/{name}", 422, service="server") == before + 1
