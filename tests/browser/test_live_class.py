"""The web client in a real browser, against a running server with the demo school: what two people in a class see.

Chromium is taken from LECTERN_TEST_CHROMIUM or from the PATH; without one these tests are skipped. Pictures of what was
seen go to `test-results/`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, async_playwright, expect

from tests.processes import Installation

pytestmark = pytest.mark.browser

PICTURES = Path("test-results")
PASSWORD = "lectern-demo"  # of the demo school
COURSE = "Astronomy 101"
ROOM = "Live class"
SLOW = 20_000  # milliseconds for what waits for a reconnection
WATCH_POLICY = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`));
"""


class LiveServer(Protocol):
    """What the fixture `live_server` gives."""

    url: str


@dataclass
class Person:
    """Somebody in front of a browser of their own."""

    context: BrowserContext
    page: Page
    name: str = ""
    errors: list[str] = field(default_factory=list)  # what the console and the page complained of

    @property
    def roster(self) -> Locator:
        return self.page.get_by_role("list", name="In the room")

    @property
    def hands(self) -> Locator:
        return self.page.get_by_role("list", name="Raised hands")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def said(self, text: str) -> Locator:
        return self.page.get_by_role("log", name="Messages").get_by_text(text, exact=True)

    async def say(self, text: str) -> None:
        await self.page.get_by_role("textbox", name="Message").fill(text)
        await self.page.keyboard.press("Enter")

    async def picture(self, name: str) -> None:
        await self.page.screenshot(path=PICTURES / f"{name}.png")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    chromium = os.environ.get("LECTERN_TEST_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium: install one, or name it in LECTERN_TEST_CHROMIUM")
    # Chromium refuses to run its sandbox as root, which is who runs the tests in a container.
    arguments = ["--disable-gpu", "--disable-background-networking", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield running
        await running.close()


async def enter_class(browser: Browser, url: str, email: str) -> Person:
    """Sign in and open the live class, the way a person does."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    person = Person(context, page)
    await page.add_init_script(WATCH_POLICY)
    page.on("pageerror", lambda error: person.errors.append(str(error)))
    page.on("console", lambda message: _note_complaint(person, message))

    await page.goto(url)
    await page.get_by_label("E-mail").fill(email)
    await page.get_by_label("Password").fill(PASSWORD)
    await person.button("Sign in").click()
    await page.get_by_role("link", name=COURSE, exact=True).click()
    await page.get_by_role("link", name=re.compile(f"^{ROOM}")).click()
    await expect(page.get_by_text("Connected", exact=True)).to_be_visible()
    account = page.get_by_role("button", name=re.compile("^Account of "))
    person.name = (await account.get_attribute("aria-label") or "").removeprefix("Account of ")
    await expect(person.roster).to_contain_text(person.name)
    return person


async def start_class(teacher: Person) -> None:
    start = teacher.page.get_by_role("button", name=re.compile("^Start (class|again)$"))
    end = teacher.button("End class")
    await expect(start.or_(end)).to_be_visible()
    if await start.is_visible():
        await start.click()
    await expect(end).to_be_visible()


def _note_complaint(person: Person, message: ConsoleMessage) -> None:
    if message.type == "error":
        person.errors.append(message.text)


async def test_two_people_meet_in_a_class_and_see_what_the_other_does(
    live_server: LiveServer, browser: Browser
) -> None:
    teacher = await enter_class(browser, live_server.url, "teacher@example.com")
    student = await enter_class(browser, live_server.url, "student1@example.com")

    await expect(teacher.roster).to_contain_text(student.name)
    await expect(student.roster).to_contain_text(teacher.name)

    text = f"How far is the nearest star? {uuid4()}"
    await student.say(text)
    await expect(teacher.said(text)).to_have_count(1)
    await expect(student.said(text)).to_have_count(1)

    await start_class(teacher)
    await student.button("Raise hand").click()
    await expect(teacher.hands).to_contain_text(student.name)
    await expect(student.button("Lower hand")).to_be_visible()
    await teacher.picture("live-class-teacher")
    await student.picture("live-class-student")

    await teacher.button(f"Call on {student.name}").click()
    await expect(student.page.get_by_text("It is your turn to speak.")).to_be_visible()
    await expect(teacher.hands).not_to_contain_text(student.name)
    await student.picture("live-class-called-on")

    assert teacher.errors == []
    assert student.errors == []


async def test_message_sent_while_connection_was_lost_appears_once_after_resume(
    live_server: LiveServer, browser: Browser
) -> None:
    teacher = await enter_class(browser, live_server.url, "teacher@example.com")
    student = await enter_class(browser, live_server.url, "student2@example.com")
    before, meanwhile, offline, after = (f"{when} {uuid4()}" for when in ("before", "meanwhile", "offline", "after"))
    await teacher.say(before)
    await expect(student.said(before)).to_have_count(1)

    await student.context.set_offline(True)
    await expect(student.page.get_by_text("Offline", exact=True)).to_be_visible(timeout=SLOW)
    await teacher.say(meanwhile)
    await student.say(offline)
    await expect(teacher.said(meanwhile)).to_have_count(1)
    await expect(student.said(meanwhile)).to_have_count(0)
    await student.picture("live-class-offline")

    await student.context.set_offline(False)
    await expect(student.said(meanwhile)).to_have_count(1, timeout=SLOW)
    await expect(student.page.get_by_text(re.compile(r"^Reconnected\."))).to_be_visible()
    await expect(teacher.said(offline)).to_have_count(1)
    await teacher.say(after)
    await expect(student.said(after)).to_have_count(1)
    for text in (before, meanwhile, offline, after):
        assert await student.said(text).count() == 1
        assert await teacher.said(text).count() == 1
    await student.picture("live-class-resumed")

    assert teacher.errors == []  # the student's browser complains of the requests that it made without a network


async def test_page_goes_on_with_the_other_replica_when_its_own_is_killed(
    run_directory: Path, browser: Browser
) -> None:
    async with Installation(run_directory / "browser-kill", replicas=2) as installation:
        first, second = installation.urls
        teacher = await enter_class(browser, first, "teacher@example.com")
        student = await enter_class(browser, second, "student1@example.com")
        await expect(teacher.roster).to_contain_text(student.name)

        os.kill(installation.pid_of(second), signal.SIGKILL)
        text = f"Are you still there? {uuid4()}"
        await teacher.say(text)
        await expect(student.said(text)).to_have_count(1, timeout=SLOW)
        answer = f"I am. {uuid4()}"
        await student.say(answer)
        await expect(teacher.said(answer)).to_have_count(1, timeout=SLOW)
        await student.picture("live-class-after-a-kill")


async def test_reload_returns_to_the_room_with_the_draft(live_server: LiveServer, browser: Browser) -> None:
    student = await enter_class(browser, live_server.url, "student3@example.com")
    await student.page.get_by_role("textbox", name="Message").fill("half a thought")

    await student.page.reload()

    await expect(student.page.get_by_role("heading", name=ROOM, level=1)).to_be_visible()
    await expect(student.page.get_by_role("textbox", name="Message")).to_have_value("half a thought")
    await expect(student.roster).to_contain_text(student.name)
    assert student.errors == []


async def test_class_fits_a_phone_and_people_open_over_the_chat(live_server: LiveServer, browser: Browser) -> None:
    student = await enter_class(browser, live_server.url, "student4@example.com")
    await student.page.set_viewport_size({"width": 360, "height": 740})

    await expect(student.roster).to_be_hidden()
    await student.page.get_by_role("button", name=re.compile("^Show people")).click()
    await expect(student.roster).to_be_visible()
    await student.picture("live-class-phone-people")
    await student.page.keyboard.press("Escape")
    await expect(student.roster).to_be_hidden()

    assert await student.page.evaluate("document.documentElement.scrollWidth") <= 360
    await student.picture("live-class-phone")
    assert student.errors == []
