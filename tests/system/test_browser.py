"""A real browser that runs scripts, as link scanners do: opening the page changes nothing, pressing its button does."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from itertools import product

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.servers.service import Service, running

pytestmark = [pytest.mark.anyio, pytest.mark.system]

PHONE = {"width": 375, "height": 740}


@pytest.fixture
async def service(anyio_backend, database_url, tmp_path) -> AsyncIterator[Service]:
    async with running(database_url, tmp_path) as service:
        yield service


@pytest.fixture
async def browser(anyio_backend) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield browser
        await browser.close()


@pytest.fixture
async def link(service: Service) -> str:
    person = await service.town.person("ann@one.test")
    return service.url + service.link(person, await service.town.message(person, "product-news"))


async def opened(browser: Browser, url: str, **options: object) -> tuple[Page, list[str]]:
    """The page, and everything the browser complains of: what the content policy blocks is among it."""
    page = await (await browser.new_context(**options)).new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(url)
    return page, complaints


async def test_a_scanner_that_runs_scripts_and_follows_every_link_changes_nothing(service, browser, link):
    page, _ = await opened(browser, link)
    await page.evaluate("() => { window.dispatchEvent(new Event('load')); window.scrollTo(0, 9999) }")
    for anchor in await page.locator("a").all():
        await anchor.click()
    await page.reload(wait_until="networkidle")
    assert await service.town.ledger() == []


async def test_a_person_leaves_and_comes_back_with_the_keyboard_alone(service, browser, link):
    page, complaints = await opened(browser, link, viewport=PHONE)
    await page.keyboard.press("Tab")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Tab")
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
    assert await page.locator("h1").inner_text() == "You are unsubscribed"
    assert [line["scope"] for line in await service.town.ledger()] == ["marketing"]
    await page.keyboard.press("Tab")
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
    assert await page.locator("h1").inner_text() == "Everything is as before"
    assert [line["granted"] for line in await service.town.ledger()] == [False, True]
    assert complaints == []
    assert await page.context.cookies() == []


READABLE = """() => ["h1", "p", "legend", "label", "small", "button", "footer"].map(name => {
    const element = document.querySelector(name);
    let ground = element;
    while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    return [name, getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
})"""


@pytest.mark.parametrize("locale", ["en", "de", "ar"])
async def test_the_page_fits_every_window_and_can_be_read(service, browser, link, locale):
    for scheme, width in product(("light", "dark"), (320, 375, 1200)):
        viewport = {"width": width, "height": 740}
        page, complaints = await opened(browser, link, viewport=viewport, locale=locale, color_scheme=scheme)
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        assert await page.evaluate("document.documentElement.lang") == locale
        for name, ink, ground in await page.evaluate(READABLE):
            assert contrast(ink, ground) >= 4.5, (scheme, name, ink, ground)
        assert complaints == []
        await page.context.close()


def contrast(ink: str, ground: str) -> float:
    """WCAG 2.2, 1.4.3."""
    lighter, darker = sorted((luminance(ink), luminance(ground)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
