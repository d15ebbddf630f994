"""The table from a relay's reply to an outcome: what suppresses, what pauses, what waits."""

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier_channels.contract import (
    Ambiguous,
    BadAddress,
    Misconfigured,
    RateLimited,
    Receipt,
    Rejected,
    Unavailable,
)
from notifier_channels.email.replies import NotSmtp, Reply, ReplyReader, Verb, blames_policy, outcome, redact


def read(line: str) -> Reply:
    (reply,) = ReplyReader().feed(line.encode() + b"\r\n")
    return reply


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        # Nobody there: these and only these suppress.
        (BadAddress, "550 5.1.1 <ann@example.net>: Recipient address rejected: User unknown in virtual mailbox table"),
        (BadAddress, "550-5.1.1 The email account that you tried to reach does not exist."),
        (BadAddress, "501 5.1.3 Bad recipient address syntax"),
        (BadAddress, "550 5.1.6 Mailbox has moved"),
        (BadAddress, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"),
        (BadAddress, "556 5.1.10 Recipient address has null MX"),
        (BadAddress, "550 5.2.1 The email account that you tried to reach is disabled."),
        (BadAddress, "550 no such user here"),
        (BadAddress, "550 Unknown user"),
        (BadAddress, "550 Mailbox does not exist"),
        # This message only.
        (Rejected, "550 5.1.2 Host unknown"),
        (Rejected, "550 5.1.0 Address rejected."),
        (Rejected, "552 5.2.2 The email account that you tried to reach is over quota"),
        (Rejected, "552 5.2.3 Message too long for this mailbox"),
        (Rejected, "552 5.3.4 Message size exceeds fixed limit"),
        (Rejected, "550 5.4.1 Recipient address rejected: Access denied"),
        (Rejected, "554 5.6.0 malformed"),
        (Rejected, "550 5.7.1 Message content rejected as spam"),
        (Rejected, "554 5.7.1 This message has been blocked by the recipient's rules"),
        (Rejected, "550 5.7.133 Sender not authenticated for group"),
        (Rejected, "550 Requested action not taken: mailbox unavailable"),
        (Rejected, "551 User not local; please try elsewhere"),
        (Rejected, "552 mailbox full"),
        (Rejected, "553 no such user"),
        (Rejected, "554 transaction failed"),
        (Rejected, "550 4.1.1 no such user"),
        (Rejected, "550 Sender verify failed: no such user"),
        (Rejected, "550 user unknown or over quota"),
        # Ours: the provider is paused, and messages stay queued.
        (Misconfigured, "530 5.7.0 Authentication required"),
        (Misconfigured, "530 5.7.1 Client was not authenticated"),
        (Misconfigured, "535 5.7.8 Authentication credentials invalid"),
        (Misconfigured, "550 5.1.8 Sender address rejected: Domain not found"),
        (Misconfigured, "554 5.7.1 <ann@example.net>: Relay access denied"),
        (Misconfigured, "550 relay not permitted"),
        (Misconfigured, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain"),
        (Misconfigured, "550 5.7.1 Unable to relay"),
        (Misconfigured, "553 5.7.1 <x@y.example>: Sender address rejected: not owned by user x"),
        (Misconfigured, "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"),
        (Misconfigured, "554 Message rejected: Email address is not verified. The following identities failed"),
        (Misconfigured, "550-5.7.26 This mail has been blocked because the sender is unauthenticated."),
        (Misconfigured, "550 5.7.515 Access denied, sending domain [X] does not meet the required level"),
        (Misconfigured, "550 5.7.509 Access denied, sending domain does not pass DMARC verification"),
        (Misconfigured, "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
        (Misconfigured, "550 5.7.25 The IP address sending this message does not have a PTR record"),
        # Later.
        (Unavailable, "450 4.2.0 <ann@example.net>: Recipient address rejected: Greylisted"),
        (Unavailable, "450 5.1.1 user unknown"),
        (Unavailable, "450 4.1.1 user unknown"),
        (Unavailable, "451 4.3.0 Temporary local problem"),
        (Unavailable, "452 4.3.1 Insufficient system storage"),
        (Unavailable, "452 4.2.2 over quota, message limit exceeded"),
        (Unavailable, "421 4.3.2 Service shutting down"),
        (Unavailable, "421 4.4.2 Error: timeout exceeded"),
        (Unavailable, "454 4.7.0 Temporary authentication failure"),
        # Told to slow down.
        (RateLimited, "421 4.7.0 too many connections from 192.0.2.1"),
        (RateLimited, "450 4.7.1 Error: too much mail from 192.0.2.1"),
        (RateLimited, "421-4.7.28 Gmail has detected an unusual rate of unsolicited mail"),
        (RateLimited, "450 4.2.1 The user you are trying to contact is receiving mail too quickly"),
        (RateLimited, "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to user complaints"),
        (RateLimited, "454 Throttling failure: Maximum sending rate exceeded."),
        (RateLimited, "454 Throttling failure: Daily message quota exceeded."),
        (RateLimited, "451 4.7.651 The mail server has been rate limited"),
        (RateLimited, "452 4.5.3 Too many recipients"),
    ],
)
@pytest.mark.parametrize("verb", [Verb.RCPT, Verb.DOT])
def test_what_a_reply_to_a_recipient_or_a_mail_means(kind, line, verb):
    reply = read(line.replace("-", " ", 1) if line[3] == "-" else line)
    result = outcome(reply, verb)
    assert type(result) is kind
    assert result.code.startswith(line[:3])


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (Misconfigured, "550 5.1.8 bad sender"),
        (Misconfigured, "550 5.1.1 user unknown"),
        (Misconfigured, "550 5.7.1 refused"),
        (Misconfigured, "501 syntax"),
        (Misconfigured, "530 5.7.0 Must issue a STARTTLS command first"),
        (Rejected, "552 5.3.4 too big"),
        (Rejected, "552 too big"),
        (Rejected, "550 5.6.7 no SMTPUTF8"),
        (Unavailable, "451 4.3.0 later"),
        (RateLimited, "450 4.7.1 rate limit"),
    ],
)
def test_a_refused_sender_is_our_own_fault_and_never_suppresses(kind, line):
    assert type(outcome(read(line), Verb.MAIL)) is kind


@pytest.mark.parametrize("verb", [Verb.GREETING, Verb.EHLO, Verb.STARTTLS, Verb.AUTH])
@pytest.mark.parametrize("line", ["554 5.7.1 go away", "550 5.1.1 user unknown", "521 no mail here", "502 what"])
def test_a_refused_session_is_our_own_fault(verb, line):
    assert type(outcome(read(line), verb)) is Misconfigured


@given(st.integers(400, 499), st.text(), st.sampled_from(Verb))
def test_no_temporary_reply_ever_fails_a_message(code, text, verb):
    assert isinstance(outcome(Reply(code, text), verb), Unavailable | RateLimited)


@given(
    st.integers(200, 599),
    st.from_regex(r"[245]\.\d{1,2}\.\d{1,2} ?", fullmatch=True) | st.just(""),
    st.sampled_from(["user unknown", "no such user", "mailbox full", "relay denied", "", "rate limit"]),
    st.sampled_from(Verb),
)
def test_only_the_listed_codes_suppress(code, enhanced, words, verb):
    reply = Reply(code, enhanced + words)
    if isinstance(outcome(reply, verb), BadAddress):
        assert 500 <= code <= 599
        assert verb in {Verb.RCPT, Verb.DATA, Verb.DOT}
        listed = enhanced.strip() in {"5.1.1", "5.1.3", "5.1.6", "5.1.10", "5.2.1"}
        assert listed or (code == 550 and not enhanced and words in {"user unknown", "no such user"})


def test_a_nonsensical_answer_to_the_dot_is_in_doubt():
    assert outcome(Reply(354, "go on"), Verb.DOT) == Ambiguous("protocol", "the mail was answered with 354")
    assert outcome(Reply(250, "ok"), Verb.DATA) == Unavailable("protocol", "data was answered with 250")


@pytest.mark.parametrize(
    ("line", "reference"),
    [
        ("250 2.0.0 Ok: queued as 4F3C12", "4F3C12"),
        ("250 OK id=1abcde-000FGh-Xy", "1abcde-000FGh-Xy"),
        ("250 Ok 0102018f-abcd-000000", "Ok 0102018f-abcd-000000"),
        ("250 2.6.0 <abc@example.com> [InternalId=1] Queued mail for delivery", "2.6.0 <…> [InternalId=1] Queued"),
        ("250 2.0.0 Ok", "2.0.0 Ok"),
        ("250", ""),
    ],
)
def test_a_receipt_carries_the_servers_own_reference(line, reference):
    receipt = outcome(read(line), Verb.DOT)
    assert isinstance(receipt, Receipt)
    assert receipt.reference.startswith(reference)


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("rate limit, try again in 90 seconds", timedelta(seconds=90)),
        ("rate limit, retry after 5 minutes", timedelta(minutes=5)),
        ("rate limit, try again in 0 seconds", timedelta(seconds=1)),
        ("rate limit, try again in 99999 hours", timedelta(hours=1)),
        ("Throttling failure: Daily message quota exceeded.", timedelta(hours=1)),
        ("rate limit", timedelta(minutes=1)),
    ],
)
def test_how_long_to_wait_is_read_from_the_text(text, wait):
    limited = outcome(Reply(451, text), Verb.RCPT)
    assert isinstance(limited, RateLimited)
    assert limited.retry_after == wait


@pytest.mark.parametrize(
    ("line", "blames"),
    [
        ("550 5.7.1 spam", True),
        ("554 no", True),
        ("550 mailbox unavailable", True),
        ("552 5.2.2 full", False),
        ("550 5.1.1 nobody", False),
        ("552 full", False),
    ],
)
def test_which_refusals_may_be_the_fault_of_all_that_we_send(line, blames):
    assert blames_policy(outcome(read(line), Verb.DOT)) is blames


# I5 -------------------------------------------------------------------------------------------------------------------

locals_ = st.from_regex(r"[A-Za-zäé0-9]{1,12}([.+_-][A-Za-z0-9]{1,12}){0,3}", fullmatch=True)


@given(
    locals_,
    st.sampled_from(["<{}@example.net>", "{}@example.net", "{}...", "'{}'", "user {} here", "{}%40example.net", "{}"])
    | st.sampled_from(["{} @ example.net", "({})", "rfc822;{}@example.net", "http://h.example/?a={}@example.net&b=1"]),
    st.sampled_from([str, str.upper, str.lower, str.title]),
)
def test_no_detail_repeats_an_address_or_its_local_part(local, shape, cased):
    text = f"5.1.1 {shape.format(cased(local))} is unknown"
    detail = redact(text, (local, "example.net"))
    assert "@" not in detail
    assert "example.net" not in detail
    words = detail.replace("5.1.1", "").replace("is unknown", "").replace("http://h.example/?a", "").split()
    assert not [word for word in words if len(local) > 2 and local.lower() in word.lower()]


def test_a_long_answer_is_cut_and_stands_in_one_line():
    detail = redact("a\r\nb\x00c\u2028" + "x y" * 1000)
    assert detail.isprintable()
    assert len(detail) == 300


# Reading --------------------------------------------------------------------------------------------------------------


@given(st.data())
def test_replies_are_read_however_they_arrive(data):
    stream = b"250-one\r\n250-2.1.0 two\r\n250 three\r\n250 ok\r\n354\r\n550 5.1.1 no\n"
    reader, replies = ReplyReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        replies += reader.feed(stream[:size])
        stream = stream[size:]
    assert replies == [Reply(250, "one\n2.1.0 two\nthree"), Reply(250, "ok"), Reply(354, ""), Reply(550, "5.1.1 no")]
    assert reader.is_clean


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\r\n",
        b"2500 ok\r\n",
        b"+25 ok\r\n",
        b"100 ok\r\n",
        b"650 ok\r\n",
        b"250-a\r\n251 b\r\n",
        b"250-a\r\n" * 200,
        b"2" * 5000,
        b"250 " + b"x" * 5000 + b"\r\n",
    ],
)
def test_what_is_no_smtp_is_refused(stream):
    with pytest.raises(NotSmtp):
        list(ReplyReader().feed(stream))


@given(st.binary())
def test_no_bytes_make_the_reader_fail_otherwise(stream):
    with contextlib.suppress(NotSmtp):
        list(ReplyReader().feed(stream))
