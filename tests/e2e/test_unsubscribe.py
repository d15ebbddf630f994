"""RFC 8058 over a real socket, with every odd thing that mail clients and scanners send; Redis is away throughout."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import urlencode

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from notifier.web.pages import Brand, Pages
from tests.servers.service import SECRET, Service, path_of, running
from tests.servers.town import new_id

pytestmark = pytest.mark.anyio

ONE_CLICK = b"List-Unsubscribe=One-Click"
FORM = {"Content_Type": "application/x-www-form-urlencoded"}
MULTIPART = (
    b'--b0\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b0--\r\n',
    {"Content_Type": "multipart/form-data; boundary=b0"},
)


@pytest.fixture
async def service(anyio_backend, database_url, tmp_path) -> AsyncIterator[Service]:
    async with running(database_url, tmp_path) as service:
        yield service


@pytest.fixture
async def somebody(service: Service):
    """A person, the path of the link in their mail, and a message that waits."""
    person = await service.town.person("ann@one.test")
    message = await service.town.message(person, "product-news")
    waiting = await service.town.message(person, "product-news", "queued")
    return person, service.link(person, message), waiting


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (ONE_CLICK, FORM),
        MULTIPART,
        (b"", {}),
        (b"", FORM),
        (ONE_CLICK, {}),
        (ONE_CLICK, {"Content_Type": "text/plain"}),
        (b'{"unsubscribe": true}', {"Content_Type": "application/json"}),
        (b"\x00\xff\xfe", {"Content_Type": "application/octet-stream"}),
        (b"%zz&&==&scope", FORM),
        (b"scope=everything-on-earth", FORM),
        (b"x" * 200_000, FORM),
        (ONE_CLICK, FORM | {"User_Agent": "Mozilla/5.0", "Cookie": "a=b", "Origin": "https://elsewhere.example"}),
        (ONE_CLICK, FORM | {"http": "1.0"}),
    ],
    ids=["form", "multipart", "empty", "empty-form", "no-type", "text", "json", "binary", "odd", "scope", "big",
         "browser", "http-1.0"],
)  # fmt: skip
@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_post_to_the_link_is_a_no_whatever_its_body(service, somebody, body, headers, slash):
    person, path, waiting = somebody
    for _ in range(2):
        response = await service.ask("POST", path + slash, body, **headers)
        assert response.status == 200
        assert "location" not in response.headers
        assert "set-cookie" not in response.headers
        assert "You are unsubscribed" in response.text
    [line] = await service.town.ledger()
    assert (line["recipient_id"], line["scope"], line["channel"]) == (person, "topic:product-news", "email")
    assert await service.town.state(waiting) == "cancelled"


async def test_a_chunked_body_is_a_no_too(service, somebody):
    _, path, _ = somebody
    head = f"POST {path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert (await service.raw(head + b"1a\r\n" + ONE_CLICK + b"\r\n0\r\n\r\n")).status == 200
    assert len(await service.town.ledger()) == 1


async def test_twenty_at_once_are_one_no(service, somebody):
    _, path, _ = somebody
    answers = await asyncio.gather(*(service.ask("POST", path, ONE_CLICK, **FORM) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert len(await service.town.ledger()) == 1


async def test_the_ledger_keeps_the_evidence_and_no_more_of_the_visitor_than_their_network(service, somebody):
    _, path, _ = somebody
    await service.ask("POST", path, ONE_CLICK, **FORM, User_Agent="Mail/1.0 \xe9" + "x" * 500)
    [line] = await service.town.ledger()
    assert line["source"] == "one_click"
    assert line["evidence"]["wording"] == "List-Unsubscribe=One-Click"
    assert line["evidence"]["ip"] == "127.0.0.0/24"
    assert len(line["evidence"]["user_agent"]) == 200


async def test_a_scanner_changes_nothing(service, somebody):
    _, path, waiting = somebody
    for method in ("GET", "HEAD", "OPTIONS", "GET", "PUT", "DELETE", "PATCH"):
        for slash in ("", "/"):
            response = await service.ask(method, path + slash, Accept="text/html", User_Agent="scanner")
            assert response.status in (200, 204, 405)
            assert "set-cookie" not in response.headers
    assert await service.town.ledger() == []
    assert await service.town.state(waiting) == "queued"


async def test_head_and_options_say_what_get_would(service, somebody):
    _, path, _ = somebody
    shown, head = await service.ask("GET", path), await service.ask("HEAD", path)
    assert head.body == b""
    assert {**head.headers, "date": ""} == {**shown.headers, "date": ""}
    assert (await service.ask("OPTIONS", path)).headers["allow"] == "GET, HEAD, POST, OPTIONS"


async def test_the_page_carries_the_headers_that_let_nothing_in(service, somebody):
    _, path, _ = somebody
    shown, done = await service.ask("GET", path), await service.ask("POST", path)
    for response in (shown, done, await service.ask("GET", "/u/nothing")):
        headers = {name: value for name, value in response.headers.items() if name not in ("date", "content-length")}
        policy = headers.pop("content-security-policy")
        assert headers == {
            "content-type": "text/html; charset=utf-8",
            "content-language": "en",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
            "x-robots-tag": "noindex, nofollow",
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "cross-origin-opener-policy": "same-origin",
            "permissions-policy": "interest-cohort=()",
            "connection": "close",
        }
        style = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)
        digest = b64encode(sha256(style.group(1).encode()).digest()).decode()
        assert policy == (
            f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; frame-ancestors 'none'; "
            "base-uri 'none'"
        )
        assert not re.search(r"<script|<link|<img|\son\w+=|\sstyle=|https?://", response.text)


async def test_whatever_is_no_link_of_ours_looks_the_same_to_the_byte(service, somebody):
    person, path, _ = somebody
    nobody = service.link(new_id(), new_id())
    expired = path_of(service.app.links.fresh_url(person, datetime(2020, 1, 1, tzinfo=UTC)))
    undo = "/u/" + service.app.links.undo_token(person, [1], datetime.now(UTC))
    forged = [
        path[:-1] + ("A" if path[-1] != "A" else "B"),
        "/u/x",
        "/u/v1.k9.abc.def",
        f"/u/{'x' * 5000}",
        "/u/%00%ff",
    ]
    answers = [await service.ask(method, one) for one in (nobody, expired, undo, *forged) for method in ("GET", "POST")]
    assert {answer.status for answer in answers} == {404}
    assert len({answer.body for answer in answers}) == 1
    assert await service.town.ledger() == []


@pytest.mark.parametrize(
    ("choice", "scope"), [("topic", "topic:product-news"), ("marketing", "marketing"), ("all", "all")]
)
async def test_the_pages_own_form_chooses_what_stops_and_the_undo_brings_it_back(service, somebody, choice, scope):
    _, path, _ = somebody
    page = await service.ask("GET", path)
    assert "a…@o….test" in page.text
    assert "ann@one.test" not in page.text
    assert set(re.findall(r'name="scope" value="(\w+)"', page.text)) == {"topic", "marketing", "all"}
    body = urlencode({"scope": choice, "language": "en"}).encode()
    done = await service.ask("POST", path, body, **FORM)
    [line] = await service.town.ledger()
    assert (line["scope"], line["source"]) == (scope, "unsubscribe_page")
    version = Pages(Brand("", "")).words(["en"]).version
    assert (line["evidence"]["wording"], line["evidence"]["wording_version"]) == ("Unsubscribe", f"en:{version}")
    assert "already unsubscribed" in (await service.ask("GET", path)).text
    [undo] = re.findall(r'name="undo" value="([^"]+)"', done.text)
    restored = await service.ask("POST", path, urlencode({"undo": undo}).encode(), **FORM)
    assert "Everything is as before" in restored.text
    _, grant = await service.town.ledger()
    assert (grant["scope"], grant["granted"], grant["source"]) == (scope, True, "unsubscribe_page")


async def test_a_forged_undo_grants_nothing(service, somebody):
    _, path, _ = somebody
    await service.ask("POST", path, ONE_CLICK, **FORM)
    other = await service.town.person("bob@one.test")
    [line] = await service.town.ledger()
    foreign = service.app.links.undo_token(other, [line["number"]], datetime.now(UTC))
    for undo in (foreign, "v1.k1.x.y", path.rpartition("/")[2]):
        response = await service.ask("POST", path, urlencode({"undo": undo}).encode(), **FORM)
        assert response.status == 409
    assert len(await service.town.ledger()) == 1


async def test_a_mandatory_topic_stays_and_the_page_says_why(service):
    person = await service.town.person("ann@one.test")
    path = service.link(person, await service.town.message(person, "security"), "security")
    for method, status in (("GET", 200), ("POST", 409)):
        response = await service.ask(method, path)
        assert response.status == status
        assert "cannot be switched off" in response.text
    assert await service.town.ledger() == []


async def test_a_preference_link_asks_first_and_takes_no_bare_post_for_an_answer(service, somebody):
    person, _, _ = somebody
    path = path_of(service.app.links.fresh_url(person, datetime.now(UTC)))
    for answer in (await service.ask("GET", path), await service.ask("POST", path, ONE_CLICK, **FORM)):
        assert answer.status == 200
        assert set(re.findall(r'name="stop" value="(\S+)"', answer.text)) == {"marketing/any", "all/any"}
    assert await service.town.ledger() == []
    await service.ask("POST", path, b"scope=all", **FORM)
    assert [(line["scope"], line["channel"]) for line in await service.town.ledger()] == [("all", "any")]


@pytest.mark.parametrize(
    ("own", "accepted", "language"),
    [
        ("de-AT", "ar", "de"),
        (None, "pt;q=0.9, de-CH;q=0.8, en;q=0.1", "de"),
        (None, "ar", "ar"),
        ("pt", "", "en"),
        ("fr-CA", "", "fr"),
    ],
)
async def test_the_page_speaks_the_recipients_language_else_the_browsers(service, own, accepted, language):
    person = await service.town.person("ann@one.test", locale=own)
    page = await service.ask("GET", service.link(person, new_id()), Accept_Language=accepted)
    assert page.headers["content-language"] == language
    assert f'<html lang="{language}" dir="{"rtl" if language == "ar" else "ltr"}">' in page.text


# The database away


@pytest.fixture
async def cut(service, postgres, database_url):
    """A switch: the database takes no connection and ends those it has."""
    service.app.database._pool.timeout = 1.0
    name = re.search(r"/(test_\d+)", database_url).group(1)

    async def switch(*, off: bool) -> None:
        async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as c:
            await c.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {'false' if off else 'true'}")
            if off:
                await c.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        while not off and not await is_back():
            pass

    async def is_back() -> bool:
        """The pool knocks again with growing pauses; one that has waited its second has not lost anything."""
        try:
            await service.town.ledger()
        except PoolTimeout:
            return False
        return True

    yield switch
    await switch(off=False)


async def test_without_the_database_nobody_is_told_done_and_the_page_still_opens(service, somebody, cut):
    _, path, _ = somebody
    await cut(off=True)
    asked = await service.ask("GET", path)
    assert asked.status == 200
    assert 'name="scope"' in asked.text
    refused = await service.ask("POST", path, b"scope=all&language=en", **FORM)
    assert refused.status == 503
    assert refused.headers["retry-after"] == "120"
    assert "Nothing was changed" in refused.text
    assert '<input type="hidden" name="scope" value="all">' in refused.text
    assert (await service.ask("POST", path, ONE_CLICK, **FORM)).status == 503
    await cut(off=False)
    assert await service.town.ledger() == []
    assert (await service.ask("POST", path, b"scope=all&language=en", **FORM)).status == 200
    assert len(await service.town.ledger()) == 1


async def test_a_read_only_database_is_no_done_either(service, somebody, postgres, database_url):
    _, path, _ = somebody
    name = re.search(r"/(test_\d+)", database_url).group(1)
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as c:
        await c.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await c.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
    assert (await service.ask("POST", path, ONE_CLICK, **FORM)).status == 503
    assert await service.town.ledger() == []


# What the sandbox reports


def report(message, kind="complained", **changes):
    return json.dumps(
        {
            "id": "r1",
            "message_id": str(message),
            "attempt": None,
            "kind": kind,
            "occurred_at": datetime.now(UTC).isoformat(),
            "code": None,
        }
        | changes
    ).encode()


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X_Sandbox_Signature": hmac.new(secret.encode(), body, sha256).hexdigest()}


async def test_a_signed_report_is_taken_once(service):
    person = await service.town.person("ann@one.test")
    message = await service.town.message(person, "product-news")
    body = report(message)
    for _ in range(3):
        assert (await service.ask("POST", "/hooks/sandbox", body, **signed(body))).status == 204
    assert await service.town.state(message) == "complained"
    assert [line["source"] for line in await service.town.ledger()] == ["complaint"]


async def test_a_forged_unsigned_or_malformed_report_changes_nothing(service):
    message = await service.town.message(await service.town.person("ann@one.test"), "product-news")
    body = report(message)
    genuine = signed(body)["X_Sandbox_Signature"]
    forged = [
        (body, {}),
        (body, signed(body, "another secret of thirty-two characters")),
        (body, {"X_Sandbox_Signature": genuine[:-1]}),
        (body, {"X_Sandbox_Signature": genuine.upper() + "\xe9"}),
        (body + b" ", {"X_Sandbox_Signature": genuine}),
    ]
    for text, headers in forged:
        assert (await service.ask("POST", "/hooks/sandbox", text, **headers)).status == 403
    malformed = [
        b"",
        b"[]",
        report(message, kind="exploded"),
        report("x"),
        report(message, occurred_at="2026-01-01T00:00:00"),
    ]
    for text in malformed:
        assert (await service.ask("POST", "/hooks/sandbox", text, **signed(text))).status == 422
    assert await service.town.rows("SELECT 1 FROM delivery_events") == []
    assert await service.town.ledger() == []


async def test_a_report_on_a_message_we_do_not_know_is_to_be_told_again(service):
    body = report(new_id())
    assert (await service.ask("POST", "/hooks/sandbox", body, **signed(body))).status == 404


async def test_without_the_sandbox_there_is_no_such_door(anyio_backend, database_url, tmp_path):
    async with running(database_url, tmp_path, sandbox_secret=None) as service:
        body = report(new_id())
        assert (await service.ask("POST", "/hooks/sandbox", body, **signed(body))).status == 404
