"""What a person and a test see of text messages and pushes in the sandbox, over real HTTP."""

import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import httpx
import pytest

from notifier.errors import NotConfigured
from notifier.sandbox.fcm_account import write_service_account
from notifier.sandbox.pushes import Push
from notifier.sandbox.server import Running, open_sandbox
from notifier.sandbox.texts import Text
from notifier.settings import SandboxSettings
from tests.servers.sandbox import TWILIO, Notifier, listening_notifier, running_sandbox

EVIL = '<script>alert("x")</script>'
MARK = "nothing here reaches a real person"
ANN, BEN = "+4915112345678", "+4915187654321"
FID = "fid:cXq1Z9mT4sKf0aBvQw3nRe"
TOKEN = "token:dGhpcyBpcyBh:APA91bHun4MxP5egoKMwt2KZFBaFUH"
MESSAGE = "01938b7c-58d2-7d6a-9c5e-0f7c2e3f9a41"
NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
numbers = count(1)


@pytest.fixture(scope="module")
def notifier() -> Iterator[Notifier]:
    with listening_notifier() as notifier:
        yield notifier


@pytest.fixture(scope="module")
def running(notifier: Notifier) -> Iterator[Running]:
    with running_sandbox(notifier.url, secret=None) as running:
        yield running


@pytest.fixture
def sandbox(running: Running) -> Iterator[Running]:
    """Empty, and no device is dead."""
    yield running
    running.texts.clear()
    running.pushes.clear()
    running.pushes.dead.clear()


@pytest.fixture
def page(sandbox: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.http_url, timeout=20) as client:
        yield client


def text(sandbox: Running, phone: str = ANN, body: str = "Hello", **more: object) -> Text:
    made = Text("SM" + secrets.token_hex(16), NOW, phone, "+15005550006", body, 1)
    for name, value in more.items():
        setattr(made, name, value)
    return sandbox.texts.keep(made)


def push(sandbox: Running, device: str = FID, title: str = "Hello", **more: object) -> Push:
    values = {"tag": f"{MESSAGE[:-4]}{next(numbers):04x}", "body": "You.", **more}
    return sandbox.pushes.keep(Push(id=next(numbers), at=NOW, device=device, title=title, **values))  # type: ignore[arg-type]


def sids(page: httpx.Client, **query: str | int) -> list[str]:
    return [text["sid"] for text in page.get("/api/texts", params=query).raise_for_status().json()["texts"]]


def ids(page: httpx.Client, **query: str | int) -> list[int]:
    return [push["id"] for push in page.get("/api/pushes", params=query).raise_for_status().json()["pushes"]]


# JSON -----------------------------------------------------------------------------------------------------------------


def test_texts_are_listed_newest_first_and_found_by_phone(sandbox: Running, page: httpx.Client) -> None:
    one, two, three = text(sandbox), text(sandbox, BEN), text(sandbox)
    assert sids(page) == [three.sid, two.sid, one.sid]
    assert sids(page, phone=ANN) == [three.sid, one.sid]
    assert sids(page, after=one.sid) == [three.sid, two.sid]
    assert sids(page, after=one.sid, phone=BEN) == [two.sid]
    assert sids(page, after=three.sid) == []
    assert sids(page, limit=1) == [three.sid]


def test_one_text_is_told_whole(sandbox: Running, page: httpx.Client) -> None:
    sent = text(sandbox, status="undelivered", error_code=30003, told=["sent", "undelivered"])
    assert page.get(f"/api/texts/{sent.sid}").json() == {
        "sid": sent.sid,
        "at": NOW.isoformat(),
        "phone": ANN,
        "ours": "+15005550006",
        "body": "Hello",
        "segments": 1,
        "inbound": False,
        "status": "undelivered",
        "error_code": 30003,
        "told": ["sent", "undelivered"],
    }
    assert page.get("/api/texts/SM0").status_code == 404


def test_pushes_are_listed_newest_first_and_found_by_device_and_message(sandbox: Running, page: httpx.Client) -> None:
    one, two, three = push(sandbox, tag=MESSAGE), push(sandbox, TOKEN), push(sandbox, tag=MESSAGE.replace("-", ""))
    push(sandbox, "fid:other", tag="not one of ours")
    assert ids(page)[1:] == [three.id, two.id, one.id]
    assert ids(page, device=FID) == [three.id, one.id]
    assert ids(page, device=TOKEN) == [two.id]
    assert ids(page, message=MESSAGE) == [three.id, one.id]
    assert ids(page, after=one.id)[1:] == [three.id, two.id]
    assert len(ids(page, limit=1)) == 1


def test_one_push_is_told_whole(sandbox: Running, page: httpx.Client) -> None:
    sent = push(
        sandbox,
        tag=MESSAGE.replace("-", ""),
        link="shop://o/1",
        ttl="60s",
        is_urgent=True,
        data={"a": "b"},
        raw={"fid": "x"},
    )
    told = page.get(f"/api/pushes/{sent.id}").json()
    assert (told["message_id"], told["device"], told["title"], told["body"]) == (MESSAGE, FID, "Hello", "You.")
    assert (told["link"], told["ttl"], told["urgent"], told["data"]) == ("shop://o/1", "60s", True, {"a": "b"})
    assert told["raw"] == {"fid": "x"}
    assert page.get("/api/pushes/0").status_code == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=5001", "limit=x"])
@pytest.mark.parametrize("path", ["/api/texts", "/api/pushes"])
def test_a_wrong_question_is_refused(page: httpx.Client, path: str, query: str) -> None:
    assert page.get(f"{path}?{query}").status_code == 422


def test_all_is_cleared_and_the_counts_go_with_it(sandbox: Running, page: httpx.Client) -> None:
    before = page.get("/api/stats").json()
    text(sandbox, status="delivered", told=["sent"])
    text(sandbox, BEN, is_inbound=True)
    push(sandbox)
    stats = page.get("/api/stats").json()
    counts = {"here": 2, "phones": 2, "typed": 1, "told": 1, "statuses": {"delivered": 1}}
    assert stats["texts"] == {**counts, "taken": before["texts"]["taken"] + 1}
    assert stats["pushes"] == {"here": 1, "devices": 1, "dead": 0, "taken": before["pushes"]["taken"] + 1}
    assert page.delete("/api/texts").json() == {"deleted": 2}
    assert page.delete("/api/pushes").json() == {"deleted": 1}
    assert sids(page) == ids(page) == []


@pytest.mark.parametrize("device", [FID, TOKEN, "fid:strange/one two"])
def test_an_app_is_removed_from_a_device(sandbox: Running, page: httpx.Client, device: str) -> None:
    assert page.post(f"/api/devices/{device}/remove").json() == {"device": device, "dead": True}
    assert sandbox.pushes.dead == {device}
    page.delete("/api/pushes")
    assert sandbox.pushes.dead == {device}
    assert page.get(f"/api/devices/{device}").json() == {"device": device, "dead": True, "refused": 0}


# Texts ----------------------------------------------------------------------------------------------------------------


def test_empty_views_say_so(page: httpx.Client) -> None:
    assert "No texts yet" in page.get("/texts").text
    assert "No pushes yet" in page.get("/pushes").text
    assert "Nothing was sent to this phone yet." in page.get(f"/texts/{ANN}").text
    assert "No phone and no latest text with" in page.get("/texts?q=zebra").text
    assert "No device and no latest push with" in page.get("/pushes?q=zebra").text


def test_every_view_says_that_nothing_reaches_a_real_person(sandbox: Running, page: httpx.Client) -> None:
    text(sandbox)
    push(sandbox)
    for path in ("/texts", f"/texts/{ANN}", "/pushes", f"/pushes/{FID}", "/texts?q=x", "/pushes?q=x"):
        assert MARK in page.get(path).raise_for_status().text, path


def test_phones_are_listed_with_their_latest_text_and_can_be_searched(sandbox: Running, page: httpx.Client) -> None:
    text(sandbox, body="The first")
    text(sandbox, BEN, body="To Ben")
    text(sandbox, body="The last")
    listed = page.get("/texts").text
    assert listed.index(ANN) < listed.index(BEN)
    assert "The last" in listed
    assert "The first" not in listed
    for query in ("+49 151 8765-4321", "to ben", "87654"):
        found = page.get("/texts", params={"q": query}).text
        assert f"phone-{BEN}" in found, query
        assert f"phone-{ANN}" not in found, query


def test_a_thread_shows_both_sides_with_status_and_segments(sandbox: Running, page: httpx.Client) -> None:
    text(sandbox, body="Sale!", status="undelivered", error_code=30003, segments=2, told=["sent", "undelivered"])
    text(sandbox, body="STOP", is_inbound=True, status="received")
    text(sandbox, BEN, body="Somebody else's")
    thread = page.get("/parts/texts", params={"phone": ANN}).text
    thread = thread[thread.index('id="thread"') :]
    assert re.findall(r'<li id="text-SM\w+" class="(\w+)">', thread) == ["got", "typed"]
    assert "2 segments" in thread
    assert "undelivered 30003" in thread
    assert "Notifier was told: sent, undelivered" in thread
    assert "Somebody else" not in thread


def test_links_in_a_text_can_be_pressed_and_only_those_of_the_web(sandbox: Running, page: httpx.Client) -> None:
    text(sandbox, body='See https://x.test/a?b=1&c=2. Not javascript:alert(1) nor https://"onclick=x')
    shown = page.get(f"/texts/{ANN}").text
    hrefs = re.findall(r'<a href="(https[^"]*)" target="_blank" rel="noopener noreferrer">', shown)
    assert hrefs == ["https://x.test/a?b=1&amp;c=2"]
    assert 'href="javascript' not in shown


@pytest.mark.parametrize("path", ["/texts/hello", "/texts/+12", "/texts/+0123456789", "/pushes/fid:unknown"])
def test_what_is_no_phone_and_no_device_is_404(page: httpx.Client, path: str) -> None:
    assert page.get(path).status_code == 404


# Pushes ---------------------------------------------------------------------------------------------------------------


def test_a_lock_screen_shows_the_latest_of_each_tag(sandbox: Running, page: httpx.Client) -> None:
    push(sandbox, title="On its way", tag=MESSAGE)
    push(sandbox, title="Another")
    push(sandbox, title="At the door", tag=MESSAGE)
    screen = page.get("/parts/pushes", params={"device": FID}).text
    screen = screen[screen.index('id="screen"') :]
    assert re.findall(r'<h2 dir="auto">(.*?)</h2>', screen) == ["At the door", "Another"]
    assert screen.count("replaces 1") == 1


def test_a_card_tells_what_the_push_carried(sandbox: Running, page: httpx.Client) -> None:
    more = {"ttl": "600s", "is_urgent": True, "link": "shop://orders/1", "data": {"order": "4711"}}
    push(sandbox, image="https://cdn.shop.test/parcel.png", **more)
    shown = page.get(f"/pushes/{FID}").text
    for words in ("Picture from <bdi>cdn.shop.test</bdi>", "600s", "urgent", "shop://orders/1", "order = 4711"):
        assert words in shown, words
    assert "parcel.png" not in shown


def test_the_button_takes_the_app_off_the_device(sandbox: Running, page: httpx.Client) -> None:
    push(sandbox)
    assert "UNREGISTERED" not in page.get(f"/pushes/{FID}").text
    answer = page.post(f"/pushes/{FID}/remove", follow_redirects=True)
    assert sandbox.pushes.dead == {FID}
    assert "The app is gone from this device." in answer.text
    assert ">app removed<" in page.get("/pushes").text
    page.post("/pushes/clear")
    assert page.get(f"/pushes/{FID}").status_code == 200


# What it must not do --------------------------------------------------------------------------------------------------


def test_nothing_in_a_text_or_push_becomes_markup(sandbox: Running, page: httpx.Client) -> None:
    text(sandbox, ANN, EVIL + " https://x.test/" + EVIL, ours=EVIL, status=EVIL, told=[EVIL])
    text(sandbox, EVIL.replace("/", ""), EVIL)
    more = {"tag": EVIL, "link": "https://x.test/" + EVIL, "image": EVIL, "ttl": EVIL, "data": {EVIL: EVIL}}
    push(sandbox, FID, EVIL, body=EVIL, **more)
    push(sandbox, EVIL, EVIL)
    paths = [f"/texts/{ANN}", "/texts", "/texts?q=" + EVIL, f"/pushes/{FID}", "/pushes", "/pushes?q=" + EVIL]
    paths += [
        "/pushes/" + EVIL,
        "/texts/" + EVIL.replace("/", ""),
        "/parts/texts?phone=%2B4915112345678",
        f"/parts/pushes?device={FID}",
    ]
    for path in paths:
        shown = page.get(path).raise_for_status().text
        assert "<script>alert" not in shown, path
        assert not re.search(r"(?i)<[^>]*\son\w+=", shown), path


def test_the_views_load_their_own_things_only(sandbox: Running, page: httpx.Client) -> None:
    text(sandbox)
    push(sandbox, image="https://evil.test/x.png", link=None)
    for path in ("/texts", f"/texts/{ANN}", "/pushes", f"/pushes/{FID}"):
        answer = page.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert " style=" not in answer.text
        for asset in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
            assert asset.startswith(("/", "#")), asset


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/texts"),
        ("DELETE", "/api/pushes"),
        ("POST", f"/api/devices/{FID}/remove"),
        ("POST", f"/api/phones/{ANN}/type"),
        ("POST", "/texts/clear"),
        ("POST", "/texts/type"),
        ("POST", f"/texts/{ANN}/type"),
        ("POST", "/pushes/clear"),
        ("POST", f"/pushes/{FID}/remove"),
    ],
)
@pytest.mark.parametrize("origin", ["https://evil.test", "null", "http://127.0.0.1:1"])
def test_another_site_cannot_press_a_button(
    sandbox: Running, page: httpx.Client, method: str, path: str, origin: str
) -> None:
    text(sandbox)
    push(sandbox)
    assert page.request(method, path, headers={"Origin": origin}).status_code == 403
    assert (len(sandbox.texts), len(sandbox.pushes), sandbox.pushes.dead) == (1, 1, set())


def test_without_an_account_nothing_can_be_typed_and_the_page_says_why(page: httpx.Client) -> None:
    assert "NOTIFIER_TWILIO_ACCOUNT_SID" in page.get("/texts").text
    assert '<form class="type"' not in page.get("/texts").text
    assert page.post(f"/api/phones/{ANN}/type", json={"body": "STOP"}).status_code == 409
    assert page.post(f"/texts/{ANN}/type", data={"body": "STOP"}).status_code == 409


# Typing ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texting(notifier: Notifier) -> Iterator[Running]:
    """A sandbox with an account at Twilio."""
    with running_sandbox(notifier.url, secret=None, **TWILIO) as running:
        yield running


@pytest.fixture
def phone(texting: Running, notifier: Notifier) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=texting.http_url, timeout=20) as client:
        yield client
    texting.texts.clear()
    notifier.script, notifier.body = [], b""
    while not notifier.requests.empty():
        notifier.requests.get_nowait()


def answer_with(notifier: Notifier, twiml: str) -> None:
    notifier.script, notifier.body = [200], f"<Response>{twiml}</Response>".encode()


def test_what_is_typed_goes_to_notifier_and_its_answer_is_a_bubble(phone: httpx.Client, notifier: Notifier) -> None:
    answer_with(notifier, "<Message>You get &lt;b&gt;no&lt;/b&gt; more.</Message>")
    shown = phone.post(f"/texts/{ANN}/type", data={"body": " Stop "}, follow_redirects=True).text
    shown = shown[shown.index('id="thread"') :]
    bubbles = re.findall(r'class="(got|typed)">.*?<p class="bubble" dir="auto">(.*?)</p>', shown, re.DOTALL)
    assert bubbles == [("typed", "Stop"), ("got", "You get &lt;b&gt;no&lt;/b&gt; more.")]
    request = notifier.next()
    assert b"Body=Stop&" in request.body
    assert "X-Twilio-Signature" in request.headers


def test_typing_by_json_tells_what_came_back(phone: httpx.Client, texting: Running, notifier: Notifier) -> None:
    text(texting, ANN, "Sale!", ours="ACME")
    answer_with(notifier, "<Message>Bye.</Message>")
    told = phone.post(f"/api/phones/{ANN}/type", json={"body": "STOP"}).json()["texts"]
    assert [(one["body"], one["inbound"], one["ours"]) for one in told] == [
        ("STOP", True, "ACME"),
        ("Bye.", False, "ACME"),
    ]


def test_a_phone_that_nobody_wrote_to_is_typed_on_with_its_number(phone: httpx.Client) -> None:
    answer = phone.post("/texts/type", data={"phone": "+49 151 1234-5678", "body": "Hello"}, follow_redirects=True)
    assert answer.url.path == f"/texts/{ANN}"
    assert ">Hello</p>" in answer.text


def test_a_text_that_notifier_does_not_take_is_shown_as_failed(phone: httpx.Client, notifier: Notifier) -> None:
    notifier.script = [500]
    assert "failed 11200" in phone.post(f"/texts/{ANN}/type", data={"body": "x"}, follow_redirects=True).text


@pytest.mark.parametrize(
    ("path", "typed"),
    [
        ("/texts/type", {"phone": "0151", "body": "STOP"}),
        ("/texts/type", {"body": "STOP"}),
        ("/texts/type", {"phone": ANN, "body": "x" * 1601}),
        (f"/texts/{ANN}/type", {"body": "  "}),
        (f"/texts/{ANN}/type", {}),
    ],
)
def test_what_cannot_be_typed_is_refused_in_words_and_stays_in_the_field(
    phone: httpx.Client, texting: Running, path: str, typed: dict[str, str]
) -> None:
    answer = phone.post(path, data=typed)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert all(f'value="{value}"' in answer.text for value in typed.values())
    assert len(texting.texts) == 0


def test_a_form_that_is_too_big_is_refused(phone: httpx.Client) -> None:
    assert phone.post(f"/texts/{ANN}/type", data={"body": "x" * 20_000}).status_code == 413


@pytest.mark.parametrize(("number", "body"), [("hello", "x"), (ANN, ""), (ANN, " "), (ANN, "x" * 1601), ("+12", "x")])
def test_json_that_cannot_be_typed_is_refused(phone: httpx.Client, number: str, body: str) -> None:
    assert phone.post(f"/api/phones/{number}/type", json={"body": body}).status_code == 422


def test_the_vendors_own_requests_are_let_in(phone: httpx.Client, texting: Running) -> None:
    account = TWILIO["twilio_account_sid"]
    message = {"To": "+12025550100", "From": "+15005550006", "Body": "Hello"}
    path = f"/twilio/2010-04-01/Accounts/{account}/Messages.json"
    made = phone.post(path, data=message, auth=(str(account), str(TWILIO["twilio_auth_tokens"])))
    assert made.status_code == 201
    assert texting.texts.get(made.json()["sid"]) is not None
    assert phone.post(path, data=message, headers={"Origin": "https://evil.test"}).status_code == 403


def test_the_simulators_of_what_is_on_are_listed(phone: httpx.Client) -> None:
    for path in ("/simulators", "/texts"):
        assert "<code>+15005550004</code>" in phone.get(path).text
    assert "Pushes are off" in phone.get("/simulators").text


# Starting -------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"private_key": "x"}'])
async def test_a_key_file_that_is_none_is_named_with_its_setting(tmp_path: Path, content: str | None) -> None:
    key = tmp_path / "key.json"
    if content is not None:
        key.write_text(content)
    with pytest.raises(NotConfigured, match="NOTIFIER_FCM_CREDENTIALS"):
        async with open_sandbox(SandboxSettings(fcm_credentials=key), http_port=0, smtp_port=0):
            pytest.fail("it started")


@pytest.mark.anyio
async def test_devices_are_played_with_a_key_file(tmp_path: Path) -> None:
    write_service_account(tmp_path / "key.json", "http://127.0.0.1:1")
    settings = SandboxSettings(fcm_credentials=tmp_path / "key.json")
    async with (
        open_sandbox(settings, http_port=0, smtp_port=0) as running,
        httpx.AsyncClient(base_url=running.http_url) as client,
    ):
        assert "<code>unregistered-…</code>" in (await client.get("/simulators")).text
        sent = await client.post("/fcm/v1/projects/notifier-sandbox/messages:send", json={"message": {}})
        assert sent.status_code == 401
