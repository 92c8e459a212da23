"""The links of letters and the second factor in a real browser: what opening a link does, and what its button does."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pyotp
import pytest
from playwright.async_api import Page, async_playwright, expect

from modules.auth import authenticate, create_user
from modules.auth.letters import service as letters
from modules.auth.second_factor import service as factor
from modules.auth.service import login
from server.runtime import Runtime
from tests.modules.auth.conftest import EMAIL, PASSWORD, Mailbox

pytestmark = pytest.mark.browser


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    chromium = os.environ.get("LECTERN_TEST_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium: install one, or name it in LECTERN_TEST_CHROMIUM")
    arguments = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield await browser.new_page()
        await browser.close()


async def test_forgotten_password_is_set_anew_by_the_button_and_not_by_the_link(
    page: Page, url: str, rt: Runtime
) -> None:
    await create_user(rt, email=EMAIL, password=PASSWORD, name="Ada")
    await page.goto(url)
    await page.get_by_role("button", name="Get a letter").click()
    await page.get_by_label("E-mail").fill(EMAIL)
    await page.get_by_role("button", name="Get a letter").click()
    await expect(page.get_by_text("a letter is on its way")).to_be_visible()
    letter = await Mailbox(rt.settings.data_dir / "mail").letter("Set a new password")
    await page.goto(f"{url}/#/reset-password/{letter.token}")
    await expect(page.get_by_label("New password")).to_be_visible()
    await login(rt, email=EMAIL, password=PASSWORD, device="", ip="127.0.0.1")  # opening the link changed nothing
    await page.get_by_label("New password").fill("something else entirely")
    await page.get_by_role("button", name="Set password").click()
    await expect(page.get_by_text("Your new password is set.")).to_be_visible()
    await login(rt, email=EMAIL, password="something else entirely", device="", ip="127.0.0.1")


async def test_used_link_says_what_to_do(page: Page, url: str, rt: Runtime) -> None:
    await page.goto(f"{url}/#/verify-email/{'A' * 43}")
    await page.get_by_role("button", name="Confirm this address").click()
    await expect(page.get_by_role("alert")).to_contain_text("Ask for a new one")
    with pytest.raises(Exception, match="not valid"):
        await letters.verify_email(rt, "A" * 43)


async def test_second_factor_is_asked_for_at_sign_in(page: Page, url: str, rt: Runtime) -> None:
    await create_user(rt, email=EMAIL, password=PASSWORD, name="Ada")
    begun = await login(rt, email=EMAIL, password=PASSWORD, device="", ip="127.0.0.1")
    actor = await authenticate(rt, begun.access_token)
    secret = (await factor.begin_totp(rt, actor)).secret
    _, recovery, *_ = await factor.confirm_totp(rt, actor, pyotp.TOTP(secret).now())
    await page.goto(url)
    await page.get_by_label("E-mail").fill(EMAIL)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await page.get_by_label("Code").fill("000000")
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("The code is wrong")
    await page.get_by_label("Code").fill(recovery)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.get_by_role("button", name="Account of Ada")).to_be_visible()
