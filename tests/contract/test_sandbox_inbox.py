"""The inbox page and its JSON, over real HTTP."""

import os
import re
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from notifier.errors import NotConfigured
from notifier.sandbox.server import Running, open_sandbox
from notifier.settings import SandboxSettings
from tests.servers.sandbox import Notifier, listening_notifier, running_sandbox

EVIL = '<script>alert("x")</script>'
MARK = "nothing here reaches a real person"


@pytest.fixture(scope="module")
def notifier() -> Iterator[Notifier]:
    with listening_notifier() as notifier:
        yield notifier


@pytest.fixture(scope="module")
def running(notifier: Notifier) -> Iterator[Running]:
    with running_sandbox(notifier.url, secret=None) as running:
        yield running


@pytest.fixture
def sandbox(running: Running, notifier: Notifier) -> Iterator[Running]:
    """Empty, with a Notifier that has heard nothing yet."""
    yield running
    httpx.delete(f"{running.http_url}/api/mails")
    notifier.script.clear()
    notifier.headers.clear()
    while not notifier.requests.empty():
        notifier.requests.get_nowait()


@pytest.fixture
def page(sandbox: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.http_url, timeout=20) as client:
        yield client


def a_mail(to: str = "ann@example.test", subject: str = "Hello", html: str | None = "<p>Hi.</p>") -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "The Shop <shop@notifier.test>"
    mail["To"] = to
    mail["Subject"] = subject
    mail["Message-ID"] = f"<{uuid4().hex}@lists.notifier.test>"
    mail.set_content("Hi in text.")
    if html is not None:
        mail.add_alternative(html, subtype="html")
    return mail


def a_list_mail(notifier: Notifier, url: str | None = None) -> EmailMessage:
    url = url or f"{notifier.url}/u/v1.token"
    mail = a_mail(html=f'<p>Hi. <a href="{notifier.url}/u/v1.token">Unsubscribe</a></p>')
    mail["List-Unsubscribe"] = f"<{url}>"
    mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail["List-Id"] = "News <news.lists.notifier.test>"
    return mail


def send(sandbox: Running, mail: EmailMessage | bytes, to: str = "ann@example.test") -> int:
    """The id under which the sandbox keeps it."""
    raw = mail if isinstance(mail, bytes) else mail.as_bytes(policy=SMTP)
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=20) as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        client.mail("shop@notifier.test", ["SMTPUTF8"])
        client.rcpt(to)
        return int(client.data(raw)[1].split()[-1])


def ids(page: httpx.Client, **query: str | int) -> list[int]:
    return [mail["id"] for mail in page.get("/api/mails", params=query).raise_for_status().json()["mails"]]


# JSON -----------------------------------------------------------------------------------------------------------------


def test_mails_are_listed_newest_first_and_found_by_recipient_and_subject(sandbox: Running, page: httpx.Client) -> None:
    one = send(sandbox, a_mail(subject="Größe und Maß"), "ann@example.test")
    two = send(sandbox, a_mail(subject="Reset"), "ben+tag@example.test")
    three = send(sandbox, a_mail(subject="Reset"), "ANN@example.test")
    assert ids(page) == [three, two, one]
    assert ids(page, to="Ann@") == [three, one]
    assert ids(page, to="ben+tag@example.test") == [two]
    assert ids(page, subject="größe") == [one]
    assert ids(page, subject="reset", to="ann") == [three]
    assert ids(page, after=one) == [three, two]
    assert ids(page, limit=1) == [three]


@pytest.mark.parametrize("query", ["limit=0", "limit=5001", "limit=x", "after=x"])
def test_a_wrong_question_is_refused(page: httpx.Client, query: str) -> None:
    assert page.get(f"/api/mails?{query}").status_code == 422


def test_one_mail_is_told_whole(sandbox: Running, page: httpx.Client, notifier: Notifier) -> None:
    mail = a_list_mail(notifier)
    number = send(sandbox, mail)
    told = page.get(f"/api/mails/{number}").json()
    assert told["from"] == "The Shop <shop@notifier.test>"
    assert told["envelope_from"] == "shop@notifier.test"
    assert told["to"] == ["ann@example.test"]
    assert told["text"].split() == ["Hi", "in", "text."]
    assert "<p>Hi." in told["html"]
    assert told["list_unsubscribe"] == f"{notifier.url}/u/v1.token"
    assert ["List-Unsubscribe-Post", "List-Unsubscribe=One-Click"] in told["headers"]
    assert [name for name, _ in told["headers"]] == list(mail.keys())
    assert [check["ok"] for check in told["one_click"]] == [True] * 5
    assert told["message_id"].replace("-", "") in mail["Message-ID"]
    assert told["simulator"] is None


def test_a_mail_that_is_not_there_is_404(page: httpx.Client) -> None:
    for path in ("/api/mails/999999", "/mails/999999", "/mails/999999/html", "/mails/999999/raw"):
        assert page.get(path).status_code == 404
    assert page.post("/api/mails/999999/unsubscribe").status_code == 404


def test_the_inbox_is_emptied_and_numbers_are_not_used_again(sandbox: Running, page: httpx.Client) -> None:
    first = send(sandbox, a_mail())
    send(sandbox, a_mail())
    assert page.delete("/api/mails").json() == {"deleted": 2}
    assert ids(page) == []
    assert send(sandbox, a_mail()) == first + 2
    assert page.post("/clear").status_code == 303
    assert page.get("/api/stats").json()["mails"] == 0


def test_the_counts_tell_what_was_read_and_refused(sandbox: Running, page: httpx.Client) -> None:
    before = page.get("/api/stats").json()
    number = send(sandbox, a_mail())
    send(sandbox, a_mail())
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port) as client, pytest.raises(smtplib.SMTPRecipientsRefused):
        client.sendmail("a@notifier.test", ["bounce@simulator.notifier.test"], "x")
    page.get(f"/api/mails/{number}")
    assert page.get("/api/stats").json()["unread"] == 2
    page.get(f"/mails/{number}")
    now = page.get("/api/stats").json()
    assert (now["mails"], now["unread"], now["taken"] - before["taken"]) == (2, 1, 2)
    assert now["refused"]["bounce"] == before["refused"].get("bounce", 0) + 1


# Unsubscribe ----------------------------------------------------------------------------------------------------------


def test_the_button_sends_what_gmail_sends(sandbox: Running, page: httpx.Client, notifier: Notifier) -> None:
    notifier.script = [200]
    notifier.headers = {"Set-Cookie": "a=b"}
    number = send(sandbox, a_list_mail(notifier))
    answer = page.post(f"/api/mails/{number}/unsubscribe").json()
    assert (answer["ok"], answer["status"]) == (True, 200)
    request = notifier.next()
    assert (request.method, request.path, request.body) == ("POST", "/u/v1.token", b"List-Unsubscribe=One-Click")
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    page.post(f"/api/mails/{number}/unsubscribe")
    assert "Cookie" not in notifier.next().headers


def test_the_button_on_the_page_shows_what_came_back(sandbox: Running, page: httpx.Client, notifier: Notifier) -> None:
    number = send(sandbox, a_list_mail(notifier))
    assert ">Unsubscribe</button>" in page.get(f"/mails/{number}").text
    assert notifier.requests.empty()
    answer = page.post(f"/mails/{number}/unsubscribe", follow_redirects=True)
    assert "<strong>Unsubscribed.</strong>" in answer.text
    assert "204 No Content" in answer.text
    assert notifier.next().method == "POST"
    assert page.get(f"/api/mails/{number}").json()["unsubscribed"]["ok"] is True


@pytest.mark.parametrize("status", [302, 307, 400, 404, 500, 503])
def test_any_answer_but_success_is_shown_as_a_failure(
    sandbox: Running, page: httpx.Client, notifier: Notifier, status: int
) -> None:
    notifier.script = [status]
    notifier.headers = {"Location": f"{notifier.url}/elsewhere"}
    number = send(sandbox, a_list_mail(notifier))
    answer = page.post(f"/api/mails/{number}/unsubscribe").json()
    assert (answer["ok"], answer["status"]) == (False, status)
    notifier.next()
    assert notifier.requests.empty()
    assert "Not unsubscribed." in page.get(f"/mails/{number}").text


def test_the_button_calls_nobody_but_notifier(sandbox: Running, page: httpx.Client, notifier: Notifier) -> None:
    with listening_notifier() as stranger:
        urls = [
            f"{stranger.url}/u/v1.token",
            f"{notifier.url}@evil.test/u/v1.token",
            notifier.url.replace("http:", "https:") + "/u/v1.token",
            notifier.url.replace("127.0.0.1", "localhost") + "/u/v1.token",
        ]
        for url in urls:
            number = send(sandbox, a_list_mail(notifier, url))
            answer = page.post(f"/api/mails/{number}/unsubscribe").json()
            assert (answer["ok"], answer["status"]) == (False, None)
        assert stranger.requests.empty()
    assert notifier.requests.empty()


def test_a_mail_without_the_headers_has_no_button(sandbox: Running, page: httpx.Client) -> None:
    number = send(sandbox, a_mail())
    shown = page.get(f"/mails/{number}").text
    assert "Unsubscribe" not in shown
    assert "no list headers" in shown
    assert page.post(f"/api/mails/{number}/unsubscribe").status_code == 409
    assert page.post(f"/mails/{number}/unsubscribe").status_code == 409


# Pages ----------------------------------------------------------------------------------------------------------------


def test_every_page_says_that_nothing_reaches_a_real_person(sandbox: Running, page: httpx.Client) -> None:
    number = send(sandbox, a_mail())
    paths = ["/", "/?q=nobody", "/simulators", f"/mails/{number}", "/mails/999999"]
    paths += [f"/mails/{number}?view={view}" for view in ("html", "text", "headers", "source")]
    for path in paths:
        assert MARK in page.get(path).text, path


def test_the_list_can_be_searched_and_paged(sandbox: Running, page: httpx.Client) -> None:
    numbers = [send(sandbox, a_mail(subject=f"Number {n}")) for n in range(52)]
    first = page.get("/").text
    assert "Number 51" in first
    assert "Number 2<" in first
    assert "Number 1<" not in first
    assert f'href="/?before={numbers[2]}"' in first
    older = page.get(f"/?before={numbers[2]}").text
    assert "Number 1<" in older
    assert "Number 2<" not in older
    found = page.get("/?q=number+51").text
    assert "Number 51" in found
    assert "Number 50" not in found
    assert "No mail to or about" in page.get("/?q=zebra").text


def test_an_unread_mail_has_a_dot_until_it_is_opened(sandbox: Running, page: httpx.Client) -> None:
    number = send(sandbox, a_mail())
    assert 'class="dot"' in page.get("/").text
    page.get(f"/mails/{number}")
    assert 'class="dot"' not in page.get("/").text


def test_a_mail_shows_the_view_that_it_has(sandbox: Running, page: httpx.Client) -> None:
    plain = send(sandbox, a_mail(html=None))
    rich = send(sandbox, a_mail())
    assert "<iframe" not in page.get(f"/mails/{plain}").text
    assert "Hi in text." in page.get(f"/mails/{plain}").text
    assert "<iframe" in page.get(f"/mails/{rich}").text


def test_the_source_can_be_taken_away_as_a_file(sandbox: Running, page: httpx.Client) -> None:
    mail = a_mail()
    answer = page.get(f"/mails/{send(sandbox, mail)}/raw")
    assert answer.content == mail.as_bytes(policy=SMTP)
    assert answer.headers["Content-Disposition"].startswith("attachment;")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


# What a mail must not do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["html", "text", "headers", "source"])
def test_nothing_in_a_mail_becomes_markup_of_the_page(sandbox: Running, page: httpx.Client, view: str) -> None:
    raw = (
        f"From: {EVIL} <{EVIL}@notifier.test>\r\nTo: {EVIL}\r\nSubject: {EVIL} \"'&\r\nX-{EVIL}: {EVIL}\r\n"
        f"List-Unsubscribe: <http://x.test/{EVIL}>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
        f"Message-ID: {EVIL}\r\nContent-Type: text/plain\r\n\r\n{EVIL}\r\n"
    )
    number = send(sandbox, raw.encode(), '"<script>alert(1)</script>"@example.test')
    for path in (f"/mails/{number}?view={view}", "/", "/?q=" + EVIL, f"/mails/{number}?q=" + EVIL):
        text = page.get(path).text
        assert "<script>alert" not in text, path
        assert not re.search(r"(?i)<[^>]*\son\w+=", text), path


def test_the_frame_allows_links_and_nothing_else(sandbox: Running, page: httpx.Client) -> None:
    number = send(sandbox, a_mail(html=EVIL))
    frame = re.search(r"<iframe sandbox=\"([^\"]*)\"", page.get(f"/mails/{number}").text)
    assert frame is not None
    assert set(frame[1].split()) == {"allow-popups", "allow-popups-to-escape-sandbox"}


def test_the_mail_itself_is_fenced_by_its_headers_too(sandbox: Running, page: httpx.Client) -> None:
    number = send(sandbox, a_mail(html=EVIL))
    headers = page.get(f"/mails/{number}/html").headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert policy["sandbox"] == "allow-popups allow-popups-to-escape-sandbox"
    assert policy["frame-ancestors"] == "'self'"
    assert "script-src" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


def test_the_page_runs_its_own_script_only(page: httpx.Client) -> None:
    policy = page.get("/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page.get("/").text):
        assert asset.startswith(("/", "#")), asset


@pytest.mark.parametrize("html", ["<head><title>x</title></head><p>", "<html><HEAD lang=en><p>", "<p>no head", ""])
def test_links_in_a_mail_open_in_a_tab_of_their_own(sandbox: Running, page: httpx.Client, html: str) -> None:
    shown = page.get(f"/mails/{send(sandbox, a_mail(html=html))}/html").text
    assert shown.count('<base target="_blank">') == 1


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1.evil.test", "", "[::1", "evil.test:80@127.0.0.1"])
def test_the_page_answers_only_under_the_name_of_this_machine(page: httpx.Client, host: str) -> None:
    assert page.get("/api/mails", headers={"Host": host}).status_code in (400, 403)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/mails"),
        ("POST", "/clear"),
        ("POST", "/mails/1/unsubscribe"),
        ("POST", "/api/mails/1/unsubscribe"),
    ],
)
@pytest.mark.parametrize("origin", ["https://evil.test", "null", "http://127.0.0.1:1"])
def test_another_site_cannot_press_a_button(
    sandbox: Running, page: httpx.Client, method: str, path: str, origin: str
) -> None:
    number = send(sandbox, a_mail())
    assert page.request(method, path, headers={"Origin": origin}).status_code == 403
    assert ids(page) == [number]


def test_its_own_page_may_press_the_buttons(sandbox: Running, page: httpx.Client) -> None:
    assert page.post("/clear", headers={"Origin": sandbox.http_url}).status_code == 303


# Starting -------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_sandbox_itself_refuses_production() -> None:
    with pytest.raises(NotConfigured, match="NOTIFIER_ENV=production"):
        async with open_sandbox(SandboxSettings(env="production"), http_port=0, smtp_port=0):
            pytest.fail("it started")


def test_the_command_refuses_production_with_one_sentence() -> None:
    done = command("--http-port", "0", "--smtp-port", "0", NOTIFIER_ENV="production")
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "does not start with NOTIFIER_ENV=production" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("option", "other"), [("--http-port", "--smtp-port"), ("--smtp-port", "--http-port")])
def test_a_taken_port_is_named_with_the_remedy(option: str, other: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = command(option, str(taken.getsockname()[1]), other, "0")
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert f"choose another port with {option}" in done.stderr


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    house = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "notifier.cli", "sandbox", *arguments],
        env={"PATH": os.defpath, "PYTHONPATH": f"{house}:{house / 'channels'}", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
