"""The mail catcher over a real socket: with the standard library's client, and with bytes written by hand."""

import logging
import smtplib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifier.sandbox.catcher import MOST_BYTES
from notifier.sandbox.server import Running
from notifier.sandbox.simulators import SIMULATORS, RefuseRecipient
from tests.servers.sandbox import running_sandbox

MAIL = "From: a@notifier.test\r\nMessage-ID: <{id}@lists.notifier.test>\r\nSubject: Hello\r\n\r\nHi.\r\n"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Running]:
    with running_sandbox(secret=None) as running:
        yield running


@pytest.fixture
def client(sandbox: Running) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=20) as client:
        yield client


def at(name: str) -> str:
    return f"{name}@simulator.notifier.test"


def stored(sandbox: Running, recipient: str) -> list[bytes]:
    return [mail.raw for mail in sandbox.inbox if recipient in mail.recipients]


class Wire:
    """Bytes out, reply lines in."""

    def __init__(self, sandbox: Running) -> None:
        self.socket = socket.create_connection(("127.0.0.1", sandbox.smtp_port), timeout=20)
        self.file = self.socket.makefile("rb")
        assert self.reply() == "220"

    def write(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> str:
        """The code of the next reply; empty when the line is closed."""
        line = self.file.readline()
        while line[3:4] == b"-":
            line = self.file.readline()
        return line[:3].decode()

    def replies(self, count: int) -> list[str]:
        return [self.reply() for _ in range(count)]

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def wire(sandbox: Running) -> Iterator[Wire]:
    with closing(Wire(sandbox)) as wire:
        wire.write(b"EHLO client.test\r\n")
        assert wire.reply() == "250"
        yield wire


def test_it_offers_the_extensions_that_notifier_uses(client: smtplib.SMTP) -> None:
    client.ehlo()
    assert {"pipelining", "8bitmime", "smtputf8", "size", "enhancedstatuscodes"} <= set(client.esmtp_features)
    assert "starttls" not in client.esmtp_features
    assert "auth" not in client.esmtp_features


def test_a_mail_to_anybody_is_kept_as_it_came(sandbox: Running, client: smtplib.SMTP) -> None:
    client.sendmail("a@notifier.test", ["kept@example.test"], MAIL.format(id="1"))
    assert stored(sandbox, "kept@example.test") == [MAIL.format(id="1").encode()]


def test_the_reply_names_the_mail_so_that_a_receipt_can_refer_to_it(client: smtplib.SMTP, sandbox: Running) -> None:
    client.ehlo()
    client.mail("a@notifier.test")
    client.rcpt("named@example.test")
    code, text = client.data(MAIL.format(id="1"))
    mail = next(iter(sandbox.inbox))
    assert (code, text) == (250, f"2.0.0 OK: queued as {mail.id}".encode())


@pytest.mark.parametrize(
    ("name", "code", "enhanced"),
    [
        ("bounce", 550, "5.1.1"),
        ("mailbox-full", 552, "5.2.2"),
        ("over-quota", 452, "4.2.2"),
        ("throttle", 421, "4.7.0"),
    ],
)
def test_a_simulated_recipient_is_refused_at_rcpt(
    sandbox: Running, client: smtplib.SMTP, name: str, code: int, enhanced: str
) -> None:
    before = sandbox.inbox.refused[name]
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refusal:
        client.sendmail("a@notifier.test", [at(f"{name}+17")], MAIL.format(id="1"))
    ((told, text),) = refusal.value.recipients.values()
    assert (told, text.decode().split()[0]) == (code, enhanced)
    assert stored(sandbox, at(f"{name}+17")) == []
    assert sandbox.inbox.refused[name] == before + 1


def test_every_simulator_that_refuses_a_recipient_is_tested_here() -> None:
    names = {simulator.name for simulator in SIMULATORS if isinstance(simulator.behaviour, RefuseRecipient)}
    assert names == {"bounce", "mailbox-full", "over-quota", "throttle"}


def test_one_refused_recipient_does_not_refuse_the_others(sandbox: Running, client: smtplib.SMTP) -> None:
    refused = client.sendmail("a@notifier.test", [at("bounce"), "beside@example.test"], MAIL.format(id="1"))
    assert list(refused) == [at("bounce")]
    assert len(stored(sandbox, "beside@example.test")) == 1


def test_rejected_content_is_read_and_refused_at_the_dot(sandbox: Running, client: smtplib.SMTP) -> None:
    with pytest.raises(smtplib.SMTPDataError) as refusal:
        client.sendmail("a@notifier.test", [at("reject")], MAIL.format(id="1"))
    assert (refusal.value.smtp_code, refusal.value.smtp_error) == (554, b"5.7.1 Message content rejected")
    assert stored(sandbox, at("reject")) == []


def test_greylisting_refuses_the_first_try_of_each_message_and_takes_the_second(
    sandbox: Running, client: smtplib.SMTP
) -> None:
    recipient = at("greylist+1")
    for number in ("1", "2"):
        with pytest.raises(smtplib.SMTPDataError) as refusal:
            client.sendmail("a@notifier.test", [recipient], MAIL.format(id=number))
        assert refusal.value.smtp_code == 451
    client.sendmail("a@notifier.test", [recipient], MAIL.format(id="1"))
    assert stored(sandbox, recipient) == [MAIL.format(id="1").encode()]


def test_a_slow_recipient_has_the_mail_long_before_it_answers() -> None:
    with running_sandbox(secret=None, pace=1) as sandbox, closing(Wire(sandbox)) as wire:
        wire.write(b"EHLO x\r\nMAIL FROM:<a@notifier.test>\r\nRCPT TO:<%s>\r\nDATA\r\n" % at("slow").encode())
        assert wire.replies(4) == ["250", "250", "250", "354"]
        wire.write(b"\r\nHi.\r\n.\r\n")
        _until(lambda: stored(sandbox, at("slow")) != [])
        wire.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            wire.socket.recv(1)


def test_a_slow_recipient_answers_in_the_end(sandbox: Running, client: smtplib.SMTP) -> None:
    client.sendmail("a@notifier.test", [at("slow+2")], MAIL.format(id="1"))
    assert len(stored(sandbox, at("slow+2"))) == 1


def test_a_line_dropped_before_the_dot_was_never_asked_for_content(sandbox: Running, wire: Wire) -> None:
    wire.write(b"MAIL FROM:<a@notifier.test>\r\nRCPT TO:<%s>\r\nDATA\r\n" % at("drop-before-dot").encode())
    assert wire.replies(3) == ["250", "250", ""]
    assert stored(sandbox, at("drop-before-dot")) == []


def test_a_line_dropped_after_the_dot_leaves_the_mail_behind(sandbox: Running, wire: Wire) -> None:
    wire.write(b"MAIL FROM:<a@notifier.test>\r\nRCPT TO:<%s>\r\nDATA\r\n" % at("drop-after-dot").encode())
    assert wire.replies(3) == ["250", "250", "354"]
    wire.write(
        b"\r\nHi.\r\n.\r\nMAIL FROM:<a@notifier.test>\r\nRCPT TO:<behind@example.test>\r\nDATA\r\n\r\nx\r\n.\r\n"
    )
    assert wire.reply() == ""
    assert len(stored(sandbox, at("drop-after-dot"))) == 1
    assert stored(sandbox, "behind@example.test") == []


def test_after_a_421_the_line_is_closed_and_nothing_pipelined_is_obeyed(sandbox: Running, wire: Wire) -> None:
    wire.write(
        b"MAIL FROM:<a@notifier.test>\r\nRCPT TO:<%s>\r\nRCPT TO:<after421@example.test>\r\nDATA\r\n\r\nHi.\r\n.\r\n"
        % at("throttle").encode()
    )
    assert wire.replies(3) == ["250", "421", ""]
    assert stored(sandbox, "after421@example.test") == []


def test_pipelined_mails_are_answered_in_order_on_one_line(sandbox: Running, wire: Wire) -> None:
    def mail(recipient: str) -> bytes:
        return b"MAIL FROM:<a@notifier.test> BODY=8BITMIME SIZE=20\r\nRCPT TO:<%s>\r\nDATA\r\n" % recipient.encode()

    wire.write(mail("one@example.test"))
    assert wire.replies(3) == ["250", "250", "354"]
    wire.write(b"Subject: one\r\n\r\n..\r\n.\r\n" + mail(at("bounce")) + mail("two@example.test"))
    assert wire.replies(4) == ["250", "250", "550", "554"]  # RFC 2920 3.1: DATA behind refused recipients
    assert wire.replies(3) == ["503", "250", "354"]  # the first MAIL still stands, so the second is out of place
    wire.write(b"RSET\r\n.\r\n")
    assert wire.reply() == "250"
    assert stored(sandbox, "one@example.test") == [b"Subject: one\r\n\r\n.\r\n"]
    assert stored(sandbox, "two@example.test") == [b"RSET\r\n"]


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n\x00.\r\n"])
def test_only_crlf_dot_crlf_ends_a_mail(sandbox: Running, wire: Wire, end: bytes) -> None:
    wire.write(b"MAIL FROM:<a@notifier.test>\r\nRCPT TO:<smuggled@example.test>\r\nDATA\r\n")
    assert wire.replies(3) == ["250", "250", "354"]
    wire.write(b"one" + end + b"two\r\n.\r\n")
    assert wire.reply() == "250"
    assert stored(sandbox, "smuggled@example.test")[0] == (b"one" + end + b"two\r\n").replace(b"\r\n.", b"\r\n")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\r" not in line and b"\n" not in line), max_size=6))
def test_any_lines_survive_the_dots(sandbox: Running, wire: Wire, lines: list[bytes]) -> None:
    wire.write(b"MAIL FROM:<a@notifier.test>\r\nRCPT TO:<dots@example.test>\r\nDATA\r\n")
    assert wire.replies(3) == ["250", "250", "354"]
    stuffed = [b"." + line if line.startswith(b".") else line for line in lines]
    wire.write(b"".join(line + b"\r\n" for line in stuffed) + b".\r\n")
    assert wire.reply() == "250"
    assert stored(sandbox, "dots@example.test")[0] == b"".join(line + b"\r\n" for line in lines)


def test_a_mail_may_be_empty(sandbox: Running, wire: Wire) -> None:
    wire.write(b"MAIL FROM:<>\r\nRCPT TO:<empty@example.test>\r\nDATA\r\n")
    assert wire.replies(3) == ["250", "250", "354"]
    wire.write(b".\r\n")
    assert wire.reply() == "250"
    assert stored(sandbox, "empty@example.test") == [b""]


def test_a_mail_that_comes_in_single_bytes_is_one_mail(sandbox: Running, wire: Wire) -> None:
    for byte in b"MAIL FROM:<a@notifier.test>\r\nRCPT TO:<slowly@example.test>\r\nDATA\r\n":
        wire.write(bytes([byte]))
    assert wire.replies(3) == ["250", "250", "354"]
    for byte in b"x\r\n.\r\n":
        wire.write(bytes([byte]))
    assert wire.reply() == "250"
    assert stored(sandbox, "slowly@example.test") == [b"x\r\n"]


def test_addresses_in_other_scripts_are_taken(sandbox: Running, client: smtplib.SMTP) -> None:
    client.ehlo()
    client.command_encoding = "utf-8"
    client.mail("a@notifier.test", ["SMTPUTF8"])
    assert client.rcpt("späť@example.test")[0] == 250
    client.data(MAIL.format(id="1"))
    assert len(stored(sandbox, "späť@example.test")) == 1


def test_a_mail_that_announces_too_much_is_refused_before_it_is_sent(wire: Wire) -> None:
    wire.write(b"MAIL FROM:<a@notifier.test> SIZE=%d\r\n" % (MOST_BYTES + 1))
    assert wire.reply() == "552"


def test_a_mail_that_is_too_big_is_refused_and_not_kept(sandbox: Running, wire: Wire) -> None:
    wire.write(b"MAIL FROM:<a@notifier.test>\r\nRCPT TO:<big@example.test>\r\nDATA\r\n")
    assert wire.replies(3) == ["250", "250", "354"]
    line = b"x" * 998 + b"\r\n"
    try:
        wire.write(line * (MOST_BYTES // len(line) + 100))
        assert wire.reply() == "552"
    except ConnectionError:
        pass  # it closed the line while we were still talking: the reply may be lost with it
    assert stored(sandbox, "big@example.test") == []


def test_data_needs_a_sender_and_a_recipient(wire: Wire) -> None:
    wire.write(b"DATA\r\nMAIL FROM:<a@notifier.test>\r\nDATA\r\n")
    assert wire.replies(3) == ["503", "250", "554"]


def test_no_address_is_logged(sandbox: Running, client: smtplib.SMTP, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client.sendmail("a@notifier.test", ["secretive@example.test"], MAIL.format(id="1"))
    assert stored(sandbox, "secretive@example.test")
    assert "secretive" not in caplog.text


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
