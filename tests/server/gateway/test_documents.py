"""What Lectern says about itself: documents and the page to browse them, in a real browser."""

from __future__ import annotations

import shutil

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from playwright.async_api import async_playwright, expect

from server.gateway.endpoint import Call, endpoint, route
from server.gateway.schema import Schema

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


class Greeting(Schema):
    text: str


@endpoint(summary="Greet the whole class.", public=True)
async def greet(call: Call) -> Greeting:
    return Greeting(text="Welcome")


ROUTES = (route("GET", "/api/school/greeting", greet),)


async def test_documents_are_served_as_json(serve):
    served = await serve(*ROUTES)
    status, document = await served.json("GET", "/api/openapi.json", headers={"Authorization": None})
    assert status == 200
    OpenAPIV31SpecValidator(document).validate()
    assert await served.json("GET", "/api/events.json") == (200, {"events": []})


async def test_page_names_every_error_where_problems_point_to(serve):
    served = await serve(*ROUTES)
    async with served.request("GET", "/api/docs") as answer:
        page = await answer.text()
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    _, problem = await served.json("GET", "/api/unknown")
    anchor = problem["type"].partition("#")[2]
    assert f'id="{anchor}"' in page
    assert 'id="errors-internal"' in page


async def test_page_loads_nothing_from_elsewhere(serve):
    served = await serve(*ROUTES)
    async with served.request("GET", "/api/docs") as answer:
        page = await answer.text()
        policy = answer.headers["Content-Security-Policy"]
    assert "http" not in page
    assert "script-src 'self';" in policy
    assert "http" not in policy


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no browser on this machine")
async def test_reference_can_be_browsed_and_tried_out_under_its_policy(serve):
    served = await serve(*ROUTES)
    faults: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = await browser.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("requestfailed", lambda request: faults.append(request.url))
        await page.goto(f"http://127.0.0.1:{served.port}/api/docs")
        await page.get_by_text("Greet the whole class.").click()
        await page.get_by_role("button", name="Try it out").click()
        await page.get_by_role("button", name="Execute").click()
        await page.locator(".live-responses-table").get_by_text("Welcome").first.wait_for(timeout=5000)
        await page.goto("about:blank")
        await page.goto(f"http://127.0.0.1:{served.port}/api/docs#errors-internal")
        await expect(page.locator("#errors-internal")).to_be_in_viewport(timeout=5000)
        await browser.close()
    assert faults == []
