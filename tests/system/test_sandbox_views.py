"""The sandbox's texts and pushes in a real browser: typed on, live, narrow and dark."""

import secrets
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from notifier.sandbox.pushes import Push
from notifier.sandbox.server import Running
from notifier.sandbox.texts import Text
from tests.servers.sandbox import TWILIO, Notifier, listening_notifier, running_sandbox

pytestmark = pytest.mark.system

ANN = "+4915112345678"
FID = "fid:cXq1Z9mT4sKf0aBvQw3nRe"
TAG = "01938b7c-58d2-7d6a-9c5e-0f7c2e3f9a41"
LONG = "Donaudampfschifffahrtsgesellschaft" * 8
numbers = count(1)

CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const style = getComputedStyle(one), color = rgba(style.backgroundColor);
      if (color[3] === 255) return color.slice(0, 3);
      if (style.backgroundImage.startsWith("linear-gradient")) return [19, 78, 74]; // its lightest stop
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest(".hidden, .skip, noscript, .picture")) continue;
    const [a, b] = [rgba(getComputedStyle(element).color).slice(0, 3), behind(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)} ${element.textContent}`);
  }
  return bad;
}"""


SIDEWAYS = """() => [...document.querySelectorAll("body *")]
  .filter((one) => /auto|scroll/.test(getComputedStyle(one).overflowX) && one.scrollWidth > one.clientWidth)
  .map((one) => `${one.tagName}.${one.className}`)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def notifier() -> Iterator[Notifier]:
    with listening_notifier() as notifier:
        yield notifier


@pytest.fixture
def sandbox(notifier: Notifier) -> Iterator[Running]:
    with running_sandbox(notifier.url, **TWILIO) as sandbox:
        yield sandbox


@pytest.fixture
def page(browser: Browser, sandbox: Running) -> Iterator[Page]:
    context = browser.new_context(base_url=sandbox.http_url)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert errors == []


def text(sandbox: Running, body: str, phone: str = ANN) -> Text:
    sid = "SM" + secrets.token_hex(16)
    return sandbox.texts.keep(Text(sid, datetime.now(UTC), phone, "+15005550006", body, 1))


def push(sandbox: Running, title: str, device: str = FID, **more: object) -> Push:
    number = next(numbers)
    values = {"tag": f"{number}", "body": "Come and see.", **more}
    return sandbox.pushes.keep(Push(id=number, at=datetime.now(UTC), device=device, title=title, **values))  # type: ignore[arg-type]


def test_typing_stop_on_the_page_shows_the_bubble_and_tells_notifier(
    page: Page, sandbox: Running, notifier: Notifier
) -> None:
    text(sandbox, "Sale! Reply STOP to opt out.")
    page.goto(f"/texts/{ANN}")
    page.get_by_label("Type as if on this phone").fill("Stop please")
    page.keyboard.press("Enter")
    expect(page.locator("li.typed .bubble")).to_have_text(["Stop please"])
    page.get_by_role("button", name="STOP", exact=True).click()
    expect(page.locator("li.typed .bubble")).to_have_text(["Stop please", "STOP"])
    assert b"Body=Stop+please" in notifier.next().body
    assert b"Body=STOP" in notifier.next().body


def test_a_phone_that_nobody_wrote_to_can_be_typed_on_without_javascript(
    browser: Browser, sandbox: Running, notifier: Notifier
) -> None:
    page = browser.new_page(base_url=sandbox.http_url, java_script_enabled=False)
    page.goto("/texts")
    page.get_by_label("Number", exact=True).fill("+49 (151) 1234-5678")
    page.get_by_label("Text", exact=True).fill("help")
    page.get_by_role("button", name="Send to Notifier").click()
    expect(page.get_by_role("heading", name=ANN)).to_be_visible()
    expect(page.locator("li.typed .bubble")).to_have_text(["help"])
    assert b"Body=help" in notifier.next().body
    page.close()


def test_texts_and_their_status_appear_by_themselves_and_what_is_typed_stays(page: Page, sandbox: Running) -> None:
    page.goto(f"/texts/{ANN}")
    page.get_by_label("Type as if on this phone").type("half a sen")
    late = text(sandbox, "Late news")
    expect(page.locator("li.got .bubble")).to_have_text(["Late news"])
    expect(page.locator("#phones")).to_contain_text(ANN)
    late.status = "delivered"
    expect(page.locator("li.got .fate")).to_contain_text("delivered")
    expect(page.get_by_label("Type as if on this phone")).to_have_value("half a sen")
    expect(page.get_by_label("Type as if on this phone")).to_be_focused()


def test_a_push_that_repeats_another_takes_its_place_by_itself(page: Page, sandbox: Running) -> None:
    push(sandbox, "On its way", tag=TAG)
    page.goto(f"/pushes/{FID}")
    push(sandbox, "At the door", tag=TAG)
    expect(page.locator(".card h2")).to_have_text(["At the door"])
    page.get_by_role("button", name="App removed").click()
    expect(page.get_by_text("The app is gone from this device.")).to_be_visible()
    assert sandbox.pushes.dead == {FID}


def test_the_end_of_a_long_thread_is_in_view(page: Page, sandbox: Running) -> None:
    for number in range(30):
        text(sandbox, f"Text {number}")
    page.goto(f"/texts/{ANN}")
    expect(page.get_by_text("Text 29", exact=True).last).to_be_in_viewport()


def test_a_row_keeps_the_focus_while_others_come_in(page: Page, sandbox: Running) -> None:
    text(sandbox, "One")
    page.goto("/texts")
    page.keyboard.press("j")
    row = page.locator(f"[id='phone-{ANN}'] .row")
    expect(row).to_be_focused()
    text(sandbox, "Another", phone="+4915187654321")
    expect(page.locator("#phones li")).to_have_count(2)
    expect(row).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=ANN)).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/texts", f"/texts/{ANN}", "/pushes", f"/pushes/{FID}", "/simulators"])
def test_nothing_overflows_a_phone_and_all_can_be_read(page: Page, sandbox: Running, path: str, scheme: str) -> None:
    text(sandbox, LONG).status = "delivered"
    text(sandbox, LONG).error_code = 30003
    text(sandbox, "שלום", phone=ANN).is_inbound = True
    push(
        sandbox, LONG, image=f"https://{LONG[:60]}.test/x.png", link=f"shop://{LONG}", data={LONG: LONG}, is_urgent=True
    )
    push(sandbox, "Hello", device="token:" + "x" * 160)
    sandbox.pushes.dead.add(FID)
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for width in (360, 1200):
        page.set_viewport_size({"width": width, "height": 740})
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(SIDEWAYS) == []
        assert page.evaluate(CONTRAST) == []
