"""The preference page in a real browser: without a script, by keyboard alone, on a phone, in the dark, and by axe."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from playwright.async_api import Browser, Page, async_playwright
from psycopg.types.json import Jsonb

from notifier.domain.access import ApiKey, Scope
from notifier.store import keys
from notifier_channels.contract import Channel
from tests.servers.service import Service, path_of, running

pytestmark = [pytest.mark.anyio, pytest.mark.system]

SHIPPED = Path(__file__).parents[2] / "templates"
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PHONE = {"width": 360, "height": 740}
OLD = timedelta(days=3)
LANGUAGES = ["en", "de", "fr", "es", "it", "ar"]
NEWS = "#switch-topic-product-news-email"


@pytest.fixture
async def service(anyio_backend, database_url, tmp_path) -> AsyncIterator[Service]:
    async with running(database_url, tmp_path, templates_dir=SHIPPED) as service:
        yield service


@pytest.fixture
async def browser(anyio_backend) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield browser
        await browser.close()


async def somebody(service: Service, locale: str = "en") -> UUID:
    person = await service.town.person("ann@one.test", locale=locale)
    await service.town.phone(person, "+4930123456")
    return person


def manage(service: Service, person: UUID, age: timedelta = timedelta()) -> str:
    return service.url + path_of(service.app.links.fresh_url(person, datetime.now(UTC) - age))


def foot(service: Service, person: UUID, message: UUID) -> str:
    """What the link in a message's foot leads to."""
    return service.url + path_of(service.app.links.preferences_url(person, message, datetime.now(UTC)))


async def opened(browser: Browser, url: str, **options: Any) -> tuple[Page, list[str]]:
    """The page, and everything the browser complains of: what the content policy blocks is among it."""
    page = await (await browser.new_context(**options)).new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(url)
    return page, complaints


async def press(page: Page, selector: str) -> None:
    async with page.expect_navigation():
        await page.click(selector)


async def violations(page: Page) -> list[tuple[str, list[str]]]:
    """What axe-core finds. It is put in past the content policy, which no script of the page itself gets past."""
    await page.evaluate(AXE)
    found = await page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
    assert len(found["passes"]) > 15, "axe has looked"
    return [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found["violations"]]


# Scanners


async def confirmation(service: Service, person: UUID) -> str:
    """Where the mail of a double opt-in leads to."""
    key = ApiKey.new()
    async with service.app.database.connection() as c:
        await keys.create(c, key.id, "test", key.secret_hash, [Scope.PREFERENCES])
    ask = service.app.confirm.ask
    asked = await ask(f"user-{person.hex}", "newsletter", Channel.EMAIL, evidence={}, key_id=key.id)
    query = "SELECT data ->> 'confirm_url' AS url FROM notifications WHERE id = %s"
    [row] = await service.town.rows(query, (asked.notification,))
    return service.url + "/c/" + row["url"].rpartition("/c/")[2]


async def test_a_scanner_that_runs_scripts_and_follows_every_link_changes_nothing(service, browser):
    person = await somebody(service)
    message = await service.town.message(person, "product-news")
    settings = [manage(service, person), manage(service, person, OLD), foot(service, person, message)]
    confirm = await confirmation(service, person)
    for url in (*settings, service.url + service.link(person, message), confirm):
        page, _ = await opened(browser, url)
        assert await page.locator("[name=confirm]" if url == confirm else "[name=scope], [name=on]").count()
        await page.evaluate("() => { window.dispatchEvent(new Event('load')); window.scrollTo(0, 9999) }")
        for anchor in await page.locator("a, summary, label").all():
            await anchor.click(force=True)
        await page.reload(wait_until="networkidle")
    assert await service.town.ledger() == []
    assert await service.town.rows("SELECT 1 FROM messages WHERE topic = 'manage-link'") == []


# Without a script, and with the keyboard alone


async def test_a_person_without_scripts_changes_everything_and_takes_it_back(service, browser):
    person = await somebody(service)
    page, complaints = await opened(browser, manage(service, person), java_script_enabled=False)
    await page.uncheck(NEWS)
    await page.check("#switch-topic-newsletter-email")
    await page.check("input[name=pause][value=week]")
    await page.select_option("#timezone", "Europe/Vienna")
    await press(page, ".settings > button")
    said = await page.locator("[role=status]").inner_text()
    assert "Product news · Email: off" in said
    assert "Newsletter · Email: on" in said
    assert "Europe/Vienna" in said
    assert await page.title() == "Saved · Your settings · Fernweh & Co."
    assert [line["scope"] for line in await service.town.ledger()] == ["topic:product-news", "topic:newsletter"]
    await press(page, ".said .undo button")
    assert await page.locator("h1").inner_text() == "Everything is as before"
    await press(page, ".back a")
    assert await page.is_checked(NEWS)
    assert complaints == []
    assert await page.context.cookies() == []


async def test_a_person_with_a_keyboard_alone_comes_by_every_control_in_the_order_in_which_it_is_read(service, browser):
    page, _ = await opened(browser, manage(service, await somebody(service)), viewport=PHONE)
    reached = []
    for _ in range(30):
        await page.keyboard.press("Tab")
        reached.append(await page.evaluate("document.activeElement.id || document.activeElement.value || 'button'"))
        ring = await page.evaluate(FOCUS)
        assert ring, f"nobody sees that {reached[-1]} has the focus"
        if await page.evaluate("document.activeElement.closest('form')?.querySelector('[name=export]') !== null"):
            break
    assert [one for one in reached if one != "button"] == [
        "switch-topic-newsletter-email",
        "switch-topic-product-news-email",
        "switch-topic-product-news-sms",
        "switch-topic-orders-email",
        "switch-topic-orders-sms",
        "switch-marketing-any",
        "switch-all-any",
        "keep",
        "locale",
        "timezone",
    ]


FOCUS = """() => [document.activeElement, document.activeElement.closest('.choice')].some(
    element => element && getComputedStyle(element).outlineStyle !== 'none'
        && parseFloat(getComputedStyle(element).outlineWidth) >= 2)"""


async def test_a_person_with_a_keyboard_alone_leaves(service, browser):
    page, _ = await opened(browser, manage(service, await somebody(service)), viewport=PHONE)
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    async with page.expect_navigation():
        await page.keyboard.press("Enter")
    assert "Product news · Email: off" in await page.locator("[role=status]").inner_text()


async def test_what_was_held_back_is_named_at_the_top_with_the_way_to_its_switch(service, browser):
    person = await somebody(service)
    page, _ = await opened(browser, manage(service, person, timedelta(minutes=59, seconds=30)))
    await page.check("#switch-topic-newsletter-email")
    stale = manage(service, person, OLD)
    await page.evaluate("url => document.querySelector('.settings').action = url", stale)  # it lay open for days
    await press(page, ".settings > button")
    alert = page.locator("[role=alert]")
    assert "Newsletter · Email: on" in await alert.inner_text()
    await alert.locator("li a").click()
    assert page.url.endswith("#switch-topic-newsletter-email")
    assert await violations(page) == []
    await press(page, ".said .fresh button")
    assert await page.locator("h1").inner_text() == "Look into your messages"
    assert len(await service.town.rows("SELECT 1 FROM messages WHERE topic = 'manage-link'")) >= 1


# What it looks like


@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_page_fits_a_phone_and_satisfies_axe_in_the_light_and_in_the_dark(service, browser, language):
    person = await somebody(service, language)
    message = await service.town.message(person, "product-news")
    note = {"rule": "opt_out_default", "at": datetime.now(UTC).isoformat(), "numbers": [], "detail": ""}
    await service.town.execute("UPDATE messages SET decision = %s WHERE id = %s", (Jsonb(note), message))
    unsubscribe = service.url + service.link(person, message)
    addresses = [manage(service, person), foot(service, person, message), unsubscribe]
    schemes = ("light", "dark") if language in ("en", "ar") else ("light",)  # colours know no language
    for scheme, (url, width) in product(schemes, product(addresses, (320, 360, 1200))):
        viewport = {"width": width, "height": 740}
        page, complaints = await opened(browser, url, viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        assert await page.evaluate("document.documentElement.dir") == ("rtl" if language == "ar" else "ltr")
        if width == 360:
            assert await violations(page) == [], (scheme, url)
            await page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            assert await violations(page) == [], (scheme, url)
        assert complaints == []
        await page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_what_is_said_after_a_form_satisfies_axe_too(service, browser, scheme):
    page, _ = await opened(browser, manage(service, await somebody(service, "ar")), viewport=PHONE, color_scheme=scheme)
    await page.uncheck(NEWS)
    await page.check("#switch-marketing-any")
    await press(page, ".settings > button")
    assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert await violations(page) == []
    await press(page, ".said .undo button")
    assert await violations(page) == []


async def test_a_brand_of_ones_own_satisfies_axe_and_the_content_policy(browser, database_url, tmp_path):
    logo = tmp_path / "logo.svg"
    logo.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="80" height="24"><rect width="80" height="24"/></svg>'
    )
    changes = {"brand_accent": "#a3195b", "brand_logo": logo, "templates_dir": SHIPPED}
    async with running(database_url, tmp_path, **changes) as service:
        person = await somebody(service)
        for scheme in ("light", "dark"):
            page, complaints = await opened(browser, manage(service, person), viewport=PHONE, color_scheme=scheme)
            assert await page.evaluate("document.querySelector('.logo').naturalWidth") == 80
            assert await violations(page) == []
            assert complaints == []


async def test_on_paper_the_choices_stand_and_the_buttons_do_not(service, browser):
    page, _ = await opened(browser, manage(service, await somebody(service)))
    await page.emulate_media(media="print")
    assert await page.locator(NEWS).is_visible()
    assert not await page.locator(".settings > button").is_visible()
