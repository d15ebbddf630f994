"""What the sandbox reports back, over real HTTP to a stand-in for Notifier."""

import hmac
import json
import smtplib
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID, uuid4

import httpx
import pytest

from notifier.sandbox import reports
from notifier.sandbox.server import Running
from tests.servers.sandbox import SECRET, Notifier, Request, listening_notifier, running_sandbox


@pytest.fixture
def notifier() -> Iterator[Notifier]:
    with listening_notifier() as notifier:
        yield notifier


@pytest.fixture
def sandbox(notifier: Notifier) -> Iterator[Running]:
    with running_sandbox(notifier.url) as running:
        yield running


def send(sandbox: Running, recipient: str, message: UUID | None = None, *, message_id: str | None = None) -> UUID:
    message = message or uuid4()
    message_id = message_id or f"<{message.hex}@lists.notifier.test>"
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=20) as client:
        client.sendmail("a@notifier.test", [recipient], f"Message-ID: {message_id}\r\nSubject: Hi\r\n\r\nHi.\r\n")
    return message


def read(request: Request) -> dict[str, object]:
    assert (request.method, request.path) == ("POST", "/hooks/sandbox")
    assert request.headers["Content-Type"] == "application/json"
    expected = hmac.new(SECRET.encode(), request.body, sha256).hexdigest()
    assert request.headers["X-Sandbox-Signature"] == expected
    return json.loads(request.body)


def stats(sandbox: Running) -> dict[str, int]:
    counts = httpx.get(f"{sandbox.http_url}/api/stats").json()["reports"]
    return {name: count for name, count in counts.items() if count or name == "waiting"}


def settled(sandbox: Running) -> dict[str, int]:
    for _ in range(2_000):
        if (now := stats(sandbox))["waiting"] == 0:
            return now
    raise AssertionError(now)


def test_a_mail_that_was_taken_is_reported_as_delivered_and_signed(sandbox: Running, notifier: Notifier) -> None:
    message = send(sandbox, "ann@example.test")
    report = read(notifier.next())
    assert report.keys() == {"id", "message_id", "attempt", "kind", "occurred_at", "code"}
    assert (UUID(str(report["message_id"])), report["kind"], report["attempt"]) == (message, "delivered", None)
    age = datetime.now(UTC) - datetime.fromisoformat(str(report["occurred_at"]))
    assert timedelta(0) <= age < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("complaint+1", [("delivered", None), ("complained", None)]),
        ("late-bounce", [("bounced", "5.1.1")]),
        ("deferred", [("deferred", "4.4.1"), ("delivered", None)]),
        ("slow", [("delivered", None)]),
    ],
)
def test_a_simulator_reports_what_its_row_says(
    sandbox: Running, notifier: Notifier, name: str, expected: list[tuple[str, str | None]]
) -> None:
    message = send(sandbox, f"{name}@simulator.notifier.test")
    told = [read(notifier.next()) for _ in expected]
    assert [(report["kind"], report["code"]) for report in told] == expected
    assert {report["message_id"] for report in told} == {str(message)}
    assert len({report["id"] for report in told}) == len(expected)
    assert settled(sandbox)["told"] == len(expected)


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_report_is_repeated_unchanged_until_it_is_taken(sandbox: Running, notifier: Notifier, status: int) -> None:
    notifier.script = [status, status]
    send(sandbox, "ann@example.test")
    first, second, third = (notifier.next() for _ in range(3))
    read(first)
    assert first.body == second.body == third.body
    assert settled(sandbox) == {"waiting": 0, "told": 1}


def test_a_report_waits_for_a_notifier_that_is_down() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    with running_sandbox(f"http://127.0.0.1:{port}") as sandbox:
        message = send(sandbox, "ann@example.test")
        _until_status(sandbox, "trying again (no answer)")
        with listening_notifier(port) as notifier:
            assert read(notifier.next())["message_id"] == str(message)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 422])
def test_a_report_that_is_refused_is_not_repeated(sandbox: Running, notifier: Notifier, status: int) -> None:
    notifier.script = [status]
    send(sandbox, "complaint@simulator.notifier.test")
    notifier.next()
    assert settled(sandbox) == {"waiting": 0, "refused": 1}
    assert notifier.requests.empty()


def test_a_report_is_given_up_in_the_end(sandbox: Running, notifier: Notifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "GIVE_UP_AFTER", -1.0)
    notifier.script = [503]
    send(sandbox, "ann@example.test")
    notifier.next()
    assert settled(sandbox) == {"waiting": 0, "gave_up": 1}


@pytest.mark.parametrize(
    ("recipient", "message_id"),
    [
        ("drop-after-dot@simulator.notifier.test", None),
        ("ann@example.test", "<somebody-elses@example.test>"),
        ("ann@example.test", "<>"),
        ("ann@example.test", "<../../etc@example.test>"),
    ],
)
def test_nothing_is_reported_of_a_mail_without_report_or_without_an_id_of_ours(
    sandbox: Running, notifier: Notifier, recipient: str, message_id: str | None
) -> None:
    with suppress(smtplib.SMTPServerDisconnected):  # that is what drop-after-dot@ is for
        send(sandbox, recipient, message_id=message_id)
    ours = send(sandbox, "ann@example.test")
    assert read(notifier.next())["message_id"] == str(ours)
    assert settled(sandbox)["told"] == 1


def test_without_a_secret_nothing_is_reported(notifier: Notifier) -> None:
    with running_sandbox(notifier.url, secret=None) as sandbox:
        send(sandbox, "ann@example.test")
        assert stats(sandbox) == {"waiting": 0}
    assert notifier.requests.empty()


def test_only_a_few_reports_are_under_way_at_once(sandbox: Running, notifier: Notifier) -> None:
    notifier.gate = threading.Event()
    for _ in range(3 * reports.AT_ONCE):
        send(sandbox, "ann@example.test")
    for _ in range(reports.AT_ONCE):
        notifier.next()
    notifier.gate.set()
    assert settled(sandbox)["told"] == 3 * reports.AT_ONCE
    assert notifier.most_under_way == reports.AT_ONCE


def test_only_so_many_reports_wait(sandbox: Running, notifier: Notifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MOST_WAITING", 1)
    notifier.gate = threading.Event()
    send(sandbox, "ann@example.test")
    send(sandbox, "ben@example.test")
    notifier.gate.set()
    assert settled(sandbox) == {"waiting": 0, "dropped": 1, "told": 1}


def _until_status(sandbox: Running, status: str) -> None:
    for _ in range(2_000):
        (mail,) = httpx.get(f"{sandbox.http_url}/api/mails").json()["mails"]
        told = httpx.get(f"{sandbox.http_url}/api/mails/{mail['id']}").json()["reports"]
        if [report["status"] for report in told] == [status]:
            return
    raise AssertionError(told)
