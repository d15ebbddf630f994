"""Mail that comes back, in the forms of many servers: what counts against an address, and what never does."""

# ruff: noqa: E501  # the lines of damaged mail stand as they are
from __future__ import annotations

from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notifier_channels.contract import EventKind
from notifier_channels.email.inbound import (
    Bounce,
    Complaint,
    Fault,
    Nothing,
    Why,
    Wish,
    judge,
    notes,
    read_report,
    read_wish,
    references,
)
from tests.servers.bounces import (
    BLAMELESS,
    DAEMON,
    DEAD,
    RETURNED,
    UNSURE,
    exim,
    gmail,
    mail,
    note,
    plain,
    postfix,
    status,
)

APPLE = (
    b"From: Ann <ann@example.com>\nSubject: \nMessage-Id: <1@example.com>\nDate: Mon, 23 Nov 2026 10:00:00 +0100\n\n\
I no longer wish to receive these messages.\n"
)
REFERENCE = "b-" + "a2" * 27 + "a"


def named(cases):
    return [pytest.param(form, words, id=f"{form.__name__}: {words[0][:50]}") for form, words in cases]


# Whose fault it is ----------------------------------------------------------------------------------------------------


def test_there_are_many_forms_in_many_languages() -> None:
    assert len({*DEAD, *BLAMELESS, *UNSURE}) >= 120
    assert len({form for form, _ in (*DEAD, *BLAMELESS)}) >= 15


@pytest.mark.parametrize(("form", "words"), named(DEAD))
def test_a_dead_address_is_recognised(monkeypatch: pytest.MonkeyPatch, form, words) -> None:
    monkeypatch.setattr(notes, "_flufl_knows", lambda _mail: False)
    report = read_report(form(*words))
    assert isinstance(report, Bounce)
    assert (report.kind, report.fault) == (EventKind.BOUNCED, Fault.DEAD)


@pytest.mark.parametrize(("form", "words"), named(BLAMELESS))
def test_an_address_without_fault_is_left_alone(form, words) -> None:
    report = read_report(form(*words))
    assert isinstance(report, Bounce)
    assert report.fault in (Fault.ELSEWHERE, None)


@pytest.mark.parametrize(("form", "words"), named(UNSURE))
def test_what_is_not_certain_proves_nothing(form, words) -> None:
    report = read_report(form(*words))
    assert isinstance(report, Bounce)
    assert report.fault in (Fault.UNCLEAR, Fault.NO_DOMAIN)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("5.1.1", Fault.DEAD), ("5.1.3", Fault.DEAD), ("5.1.6", Fault.DEAD), ("5.1.10", Fault.DEAD),
        ("5.2.1", Fault.DEAD), ("5.1.2", Fault.NO_DOMAIN), ("5.0.0", Fault.UNCLEAR), ("5.1.0", Fault.UNCLEAR),
        ("5.2.2", Fault.ELSEWHERE), ("5.2.3", Fault.ELSEWHERE), ("5.3.4", Fault.ELSEWHERE),
        ("5.4.7", Fault.ELSEWHERE), ("5.6.7", Fault.ELSEWHERE), ("5.7.1", Fault.ELSEWHERE),
        ("5.7.26", Fault.ELSEWHERE), ("5.7.515", Fault.ELSEWHERE), ("5.1.8", Fault.ELSEWHERE),
        ("4.1.1", Fault.ELSEWHERE), ("4.2.2", Fault.ELSEWHERE), ("", Fault.UNCLEAR), ("15.1.1", Fault.UNCLEAR),
    ],
)  # fmt: skip
def test_a_code_alone_says_this(code: str, fault: Fault) -> None:
    assert judge(code, "").fault is fault


FULL = ["mailbox full", "over quota", "Postfach voll", "boîte pleine", "容量がいっぱいです", "邮箱已满"]
ELSEWHERE = [*FULL, "blocked for spam", "message too large", "greylisted, try again later", "access denied"]
DEAD_CODES = ["5.1.1", "5.1.3", "5.1.6", "5.2.1"]


@pytest.mark.parametrize(("code", "words"), list(product(DEAD_CODES, ELSEWHERE)))
def test_words_that_object_to_the_code_are_believed(code: str, words: str) -> None:
    assert judge(code, f"550 {code} {words}").fault is Fault.ELSEWHERE
    assert judge("5.0.0", f"550 {words}").fault is Fault.ELSEWHERE


@pytest.mark.parametrize("words", FULL)
def test_a_full_mailbox_is_not_dead_whatever_else_is_said(words: str) -> None:
    assert judge("5.1.1", f"550 5.1.1 User unknown or {words}").fault is Fault.ELSEWHERE


def test_the_class_of_the_basic_code_wins_where_the_other_disagrees() -> None:
    assert judge("5.1.1", "450 4.1.1 User unknown").fault is Fault.ELSEWHERE
    assert judge("5.1.1", "450 5.1.1 User unknown").fault is Fault.ELSEWHERE


def test_the_name_of_a_mailbox_is_no_reason() -> None:
    assert judge("5.0.0", "550 <mailbox-full@spam.example> User unknown, see https://x.test/policy").fault is Fault.DEAD


def test_the_code_is_that_of_the_reply_and_names_nobody() -> None:
    report = read_report(postfix("550 5.1.1 <ann@example.com>: User unknown", "5.1.1"))
    assert isinstance(report, Bounce)
    assert report.code == "550 5.1.1"


# Actions --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("delayed", EventKind.DEFERRED),
        ("Delayed (will retry)", EventKind.DEFERRED),
        ("delivered", EventKind.DELIVERED),
        ("relayed", EventKind.SENT),
        ("expanded", EventKind.SENT),
        ("failed", EventKind.BOUNCED),
        ("FAILED", EventKind.BOUNCED),
    ],
)
def test_the_action_says_what_happened_and_only_a_failure_has_a_fault(action: str, kind: EventKind) -> None:
    report = read_report(mail(DAEMON, ("text/plain", "A note."), ("message/delivery-status", status(action, "5.1.1"))))
    assert isinstance(report, Bounce)
    assert (report.kind, report.fault is Fault.DEAD) == (kind, kind is EventKind.BOUNCED)


def test_delayed_is_never_a_bounce_even_with_the_code_of_one() -> None:
    report = read_report(postfix("550 5.1.1 User unknown", "5.1.1", "delayed"))
    assert isinstance(report, Bounce)
    assert (report.kind, report.fault) == (EventKind.DEFERRED, None)


def test_of_several_recipients_the_mildest_counts() -> None:
    one = status("failed", "5.1.1", "550 5.1.1 User unknown")
    other = one.partition("\n\n")[2].replace("5.1.1", "5.2.2").replace("User unknown", "full")
    report = read_report(mail(DAEMON, ("text/plain", "x"), ("message/delivery-status", f"{one}\n{other}")))
    assert isinstance(report, Bounce)
    assert report.fault is Fault.ELSEWHERE
    delivered = "Final-Recipient: rfc822; b@example.com\nAction: delivered\nStatus: 2.1.5\n"
    report = read_report(mail(DAEMON, ("text/plain", "x"), ("message/delivery-status", f"{one}\n{delivered}")))
    assert isinstance(report, Bounce)
    assert report.kind is EventKind.DELIVERED


def test_the_mail_that_is_returned_is_not_read_for_reasons() -> None:
    assert b"User unknown" in RETURNED
    report = read_report(note("It could not be delivered."))
    assert isinstance(report, Bounce)
    assert report.fault is Fault.UNCLEAR


def test_a_warning_in_words_is_not_a_failure() -> None:
    warning = exim("temporary").replace(b"This is a permanent error.", b"It has not yet been delivered.")
    assert read_report(warning) == Bounce(EventKind.DEFERRED)


# Nothing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        plain("From: ann@example.com\nSubject: Automatic reply: Hello\nAuto-Submitted: auto-replied", "User unknown"),
        plain("From: ann@example.com\nSubject: Abwesenheitsnotiz", "Ich bin nicht da."),
        plain("From: ann@example.com\nSubject: x\nX-Autoreply: yes", "Mailbox not found"),
        plain("From: ann@example.com\nSubject: x\nPrecedence: auto_reply", "I am away"),
        mail(
            "From: ann@example.com\nSubject: Read: Hello",
            ("text/plain", "Your message was read."),
            ("message/disposition-notification", "Disposition: manual-action/MDN-sent-manually; displayed\n"),
            kind="report; report-type=disposition-notification",
        ),
    ],
)
def test_an_absence_notice_or_a_receipt_is_no_report(raw: bytes) -> None:
    assert read_report(raw) == Nothing(Why.AUTOMATIC)


@pytest.mark.parametrize("raw", [APPLE, b"", b"\n\n", b"From: b@example.com\nSubject: Re: Hello\n\nThank you!\n"])
def test_what_people_write_to_a_return_path_is_no_report(raw: bytes) -> None:
    assert read_report(raw) == Nothing(Why.NOT_A_REPORT)


# Complaints -----------------------------------------------------------------------------------------------------------


def arf(feedback: str, returned: bytes = RETURNED) -> bytes:
    fields = f"Feedback-Type: {feedback}\nUser-Agent: Loop/1.0\nVersion: 1\n"
    return mail(
        "From: fbl@example.net\nSubject: FW: Hello",
        ("text/plain", "This is an email abuse report."),
        ("message/feedback-report", fields),
        ("message/rfc822", returned),
        kind="report; report-type=feedback-report",
    )


@pytest.mark.parametrize("feedback", ["abuse", "ABUSE", "fraud", "opt-out"])
def test_a_complaint_is_one(feedback: str) -> None:
    assert read_report(arf(feedback)) == Complaint(feedback.lower())


@pytest.mark.parametrize("feedback", ["not-spam", "auth-failure", "virus", "other", "", "dmarc"])
def test_a_report_that_is_no_complaint_changes_nothing(feedback: str) -> None:
    assert read_report(arf(feedback)) == Nothing(Why.NO_COMPLAINT)


def test_a_reference_is_found_in_the_mail_that_a_loop_returns() -> None:
    header = f"CFBL-Feedback-ID: {REFERENCE}\n".encode()
    assert references(arf("abuse", header + RETURNED)) == [REFERENCE]
    assert references(arf("abuse", b"Return-Path: <" + REFERENCE.upper().encode() + b"@in.test>\n")) == [REFERENCE]
    assert references(arf("abuse")) == []


# Unsubscribe ----------------------------------------------------------------------------------------------------------

PERSON = "From: Ann <ann@example.com>\nMessage-ID: <m1@example.com>\nDate: Mon, 23 Nov 2026 10:00:00 +0100"


@pytest.mark.parametrize(
    "raw",
    [
        APPLE,
        plain(f"{PERSON}\nSubject: unsubscribe", "This message was automatically generated by Gmail."),
        plain(f"{PERSON}\nSubject: Unsubscribe", ""),
        plain(f"{PERSON}\nSubject: Undeliverable junk! Mailbox full of it", "User unknown? Stop it."),
        plain(f"{PERSON}\nSubject: Abmelden", "<p>Bitte nicht mehr</p>", "text/html"),
        plain(f"{PERSON}\nAuto-Submitted: no\nSubject: x", "x"),
        PERSON.replace("ann@", "postmaster@").encode(),
        b"",
        b"\xff\xfe\x00",
    ],
)
@pytest.mark.parametrize("sender", ["ann@example.com", None])
def test_any_mail_of_a_person_is_a_wish_to_leave(raw: bytes, sender: str | None) -> None:
    assert isinstance(read_wish(raw, sender), Wish)


@pytest.mark.parametrize(
    "subject",
    [
        "Automatische Abmeldung vom Newsletter",
        "Automatisk avmelding",
        "Vacation deals: unsubscribe",
        "Read: please unsubscribe me",
        "Absence of consent: unsubscribe",
        "=?utf-8?B?6Ieq5YuV6L+U5L+h?=",  # "automatic reply": such notices go to From, and never come here
    ],
)
@pytest.mark.parametrize("sender", ["ann@example.com", None])
def test_a_wish_is_not_lost_by_its_subject(subject: str, sender: str | None) -> None:
    assert isinstance(read_wish(plain(f"{PERSON}\nSubject: {subject}", ""), sender), Wish)


def test_the_evidence_holds_headers_and_no_body() -> None:
    assert read_wish(APPLE, "ann@example.com") == Wish(
        "<1@example.com>", "Mon, 23 Nov 2026 10:00:00 +0100", "ann@example.com"
    )


@pytest.mark.parametrize(
    "header",
    [
        "Auto-Submitted: auto-replied",
        "Auto-Submitted: auto-generated (out of office)",
        "Precedence: bulk",
        "Precedence: JUNK",
        "Precedence: auto_reply",
        "X-Autoreply: yes",
        "X-Autorespond: away",
        "List-Id: <news.example.net>",
        "Return-Path: <>",
        "Content-Type: multipart/report; boundary=x",
    ],
)
def test_what_a_machine_answers_is_no_wish(header: str) -> None:
    assert read_wish(f"{PERSON}\n{header}\n\nunsubscribe\n".encode(), "ann@example.com") == Nothing(Why.AUTOMATIC)


@pytest.mark.parametrize(
    "raw",
    [
        postfix("550 5.1.1 User unknown", "5.1.1"),
        exim("550 No such user"),
        gmail("550 5.1.1 gone", "5.1.1"),
        arf("abuse"),
    ],
)
def test_a_bounce_of_our_mail_is_no_wish(raw: bytes) -> None:
    assert read_wish(raw, "") == Nothing(Why.AUTOMATIC)
    assert read_wish(raw, None) == Nothing(Why.AUTOMATIC)


def test_the_sender_of_automatic_mail_is_nobody() -> None:
    assert read_wish(APPLE, "") == Nothing(Why.AUTOMATIC)


# Anything -------------------------------------------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        b"Content-Type: multipart/report; boundary=x", b'Content-Type: multipart/mixed; boundary="x"', b"--x", b"--x--",
        b"Content-Type: message/delivery-status", b"Content-Type: message/feedback-report", b"Feedback-Type: abuse",
        b"Content-Type: message/rfc822", b"Content-Type: text/html; charset=\xff", b"Content-Type: text/plain; charset=utf-7",
        b"Content-Transfer-Encoding: base64", b"Content-Transfer-Encoding: quoted-printable", b"=?utf-8?B?////?=",
        b"Subject: =?x?q?=ff?=", b"From: MAILER-DAEMON <>", b"Return-Path: <>", b"Action: failed", b"Status: 5.1.1", b"",
        b"Final-Recipient: rfc822; a@b", b"Diagnostic-Code: smtp; 550 5.1.1 x", b" folded", b"\xe3\x81", b"User unknown",
        b"Content-Type: message/disposition-notification", b"Content-Type: ;;;==", b"Content-Type: text/plain; charset*=x",
        b"Subject: =?iso-2022-jp?B?GyRC?=", b"Content-Type: message/partial", b"Content-Transfer-Encoding: x-uuencode", b"\0",
    ]
)  # fmt: skip


@given(st.binary(max_size=2000))
@settings(max_examples=200)
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    assert isinstance(read_report(raw), Bounce | Complaint | Nothing)
    assert isinstance(read_wish(raw, None), Wish | Nothing)
    references(raw)


@example([b"Content-Type: text/plain; charset*=x", b"\x80", b"Final-Recipient: rfc822; a@b"], b"\n")
@given(st.lists(LINES | st.binary(max_size=40), max_size=25), st.sampled_from([b"\n", b"\r\n", b"\r"]))
@settings(max_examples=400)
def test_no_damaged_mail_breaks_the_reader(lines: list[bytes], end: bytes) -> None:
    raw = end.join(lines)
    assert isinstance(read_report(raw), Bounce | Complaint | Nothing)
    assert isinstance(read_wish(raw, None), Wish | Nothing)


@given(st.data())
@settings(max_examples=200)
def test_a_report_that_is_cut_or_changed_anywhere_does_not_break_the_reader(data) -> None:
    form, words = data.draw(st.sampled_from([*DEAD, *BLAMELESS]))
    raw = bytearray(form(*words))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 200))] = data.draw(st.binary(max_size=20))
    assert isinstance(read_report(bytes(raw)), Bounce | Complaint | Nothing)


@given(st.text(), st.text(max_size=300), st.text(max_size=300))
def test_any_text_is_judged(status_: str, diagnostic: str, written: str) -> None:
    judge(status_, diagnostic, written)


def test_a_mail_within_a_mail_within_a_mail_is_read_to_its_end() -> None:
    raw = b"x"
    for depth in range(100):
        raw = b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n%b\n--%d--\n' % (depth, depth, raw, depth)
    assert read_report(raw) == Nothing(Why.NOT_A_REPORT)


NOTE = DAEMON.encode() + b"\n"
MUCH = 250_000


@pytest.mark.timeout(20)  # the first of them took minutes
@pytest.mark.parametrize(
    "raw",
    [
        NOTE + b"\n" + b" " * MUCH,
        NOTE + b"\n" + b"-" * MUCH,
        NOTE + b"\n" + b"user " * (MUCH // 5),
        NOTE + b"Content-Type: text/html\n\n" + b"<style " * (MUCH // 7),
        NOTE + b"Content-Type: text/html\n\n" + b"<" * MUCH,
        NOTE + b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\n" * (MUCH // 5),
        b"Subject: " + b"=?utf-8?q?a?= " * (MUCH // 14) + b"\n\n",
        b"From: " + b"(<" * (MUCH // 2) + b"\n\n",
        b"A: b\n" * (MUCH // 5),
    ],
)
def test_no_mail_is_made_to_take_long_or_to_recurse(raw: bytes) -> None:
    read_report(raw)
    read_wish(raw, None)


def test_what_flufl_bounce_stumbles_over_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("flufl.bounce", reason="the extra `bounces`")
    read_report(b"From: \n\nThe secret of ann@example.com\n")
    assert caplog.records == []
