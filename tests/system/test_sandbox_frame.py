"""A hostile mail in a real browser: nothing runs, nothing leaves, and only a click on a link opens something."""

import shutil
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from notifier.sandbox.server import Running
from tests.servers.sandbox import Notifier, listening_notifier, running_sandbox

pytestmark = pytest.mark.system

TRAPS = """<!doctype html><html><head>
<base href="{stranger}/base/" target="_top">
<meta http-equiv="refresh" content="0; url={stranger}/refresh">
<link rel="stylesheet" href="{stranger}/style.css">
<link rel="prefetch" href="{stranger}/prefetch">
<link rel="preconnect" href="{stranger}">
<style>@import "{stranger}/import.css"; body {{ background: url({stranger}/background.png) }}
  @font-face {{ font-family: x; src: url({stranger}/font.woff) }} p {{ font-family: x }}</style>
<script>{mischief}</script><script src="{stranger}/script.js"></script>
</head><body onload="{mischief}">
<img src="{stranger}/pixel.png" onerror="{mischief}"><img src=x onerror="{mischief}">
<svg onload="{mischief}"><script>{mischief}</script></svg>
<iframe src="{stranger}/frame"></iframe><iframe srcdoc="<script>{mischief}</script>"></iframe>
<object data="{stranger}/object"></object><embed src="{stranger}/embed">
<video src="{stranger}/video" autoplay></video><audio src="{stranger}/audio" autoplay></audio>
<form action="{stranger}/form" method="post"><button id="submit">Win</button></form>
<p><a id="script" href="javascript:{mischief}">script</a>
<a id="scriptblank" target="_blank" href="javascript:{mischief}">script</a>
<a id="data" href="data:text/html,<script>{mischief}</script>">data</a>
<a id="top" target="_top" href="{stranger}/top">top</a>
<a id="parent" target="_parent" href="{stranger}/parent">parent</a>
<a id="self" target="_self" href="{stranger}/self">self</a>
<a id="good" href="{notifier}/u/v1.token">good</a></p>
</body></html>"""
MISCHIEF = "top.document.title='pwned';parent.postMessage('pwned','*');fetch('{stranger}/fetch')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def stranger() -> Iterator[Notifier]:
    with listening_notifier() as stranger:
        yield stranger


@pytest.fixture
def notifier() -> Iterator[Notifier]:
    with listening_notifier() as notifier:
        yield notifier


@pytest.fixture
def sandbox(notifier: Notifier, stranger: Notifier) -> Iterator[Running]:
    with running_sandbox(notifier.url, secret=None) as sandbox:
        mischief = MISCHIEF.format(stranger=stranger.url)
        mail = EmailMessage()
        mail["Subject"] = mail["From"] = "<img src=x onerror=document.title='pwned'>"
        mail["List-Unsubscribe"] = f"<{notifier.url}/u/v1.token>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        mail.set_content("Hello")
        mail.add_alternative(
            TRAPS.format(stranger=stranger.url, notifier=notifier.url, mischief=mischief), subtype="html"
        )
        with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=20) as client:
            client.sendmail("a@notifier.test", ["ann@example.test"], mail.as_bytes(policy=SMTP))
        yield sandbox


@pytest.fixture
def page(browser: Browser, sandbox: Running) -> Iterator[Page]:
    page = browser.new_page(base_url=sandbox.http_url)
    page.add_init_script("window.heard = []; addEventListener('message', (event) => heard.push(event.data))")
    yield page
    page.context.close()


def test_a_hostile_mail_runs_nothing_and_loads_nothing(page: Page, sandbox: Running, stranger: Notifier) -> None:
    page.goto("/mails/1", wait_until="networkidle")
    assert page.url == f"{sandbox.http_url}/mails/1"
    assert "pwned" not in page.title().replace("document.title='pwned'", "")
    assert page.evaluate("heard") == []
    assert stranger.requests.empty()
    frame = page.frame_locator("article iframe")
    assert frame.locator("#good").is_visible()


@pytest.mark.parametrize("trap", ["#submit", "#script", "#scriptblank", "#data", "#self"])
def test_a_click_on_a_trap_does_nothing(page: Page, sandbox: Running, stranger: Notifier, trap: str) -> None:
    page.goto("/mails/1", wait_until="networkidle")
    page.frame_locator("article iframe").locator(trap).click()
    page.wait_for_load_state("networkidle")
    assert page.url == f"{sandbox.http_url}/mails/1"
    assert page.evaluate("heard") == []
    assert stranger.requests.empty()


@pytest.mark.parametrize("trap", ["#top", "#parent"])
def test_a_mail_cannot_take_the_page_away(page: Page, sandbox: Running, trap: str) -> None:
    page.goto("/mails/1", wait_until="networkidle")
    page.frame_locator("article iframe").locator(trap).click()
    page.wait_for_load_state("networkidle")
    assert page.url == f"{sandbox.http_url}/mails/1"


def test_a_link_opens_a_tab_of_its_own(page: Page, sandbox: Running, notifier: Notifier) -> None:
    notifier.script = [200]  # on 204 a browser opens nothing
    page.goto("/mails/1", wait_until="networkidle")
    with page.expect_popup():
        page.frame_locator("article iframe").locator("#good").click()
    request = notifier.next()
    assert (request.method, request.path) == ("GET", "/u/v1.token")
    assert "Referer" not in request.headers
    assert page.url == f"{sandbox.http_url}/mails/1"


def test_the_mail_alone_in_a_tab_is_fenced_as_well(page: Page, sandbox: Running, stranger: Notifier) -> None:
    page.goto("/mails/1/html", wait_until="networkidle")
    assert page.url == f"{sandbox.http_url}/mails/1/html"
    assert page.evaluate("document.title") == ""
    assert page.evaluate("origin") == "null"
    assert stranger.requests.empty()


def test_new_mail_appears_by_itself_and_the_button_works(page: Page, sandbox: Running, notifier: Notifier) -> None:
    errors: list[object] = []
    page.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108 -- it marks what it is given
    page.goto("/")
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=20) as client:
        client.sendmail("a@notifier.test", ["late@example.test"], "Subject: Breaking\r\n\r\nNews.\r\n")
    page.get_by_text("Breaking").wait_for()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Unsubscribe").click()
    page.get_by_text("Unsubscribed.").wait_for()
    assert notifier.next().body == b"List-Unsubscribe=One-Click"
    assert errors == []
