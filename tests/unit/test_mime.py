"""Every mail is read back with the standard library's parser, whatever stood in its data."""

import binascii
import re
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr, parsedate_to_datetime
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import EmailContent, ListHeaders, Mailbox, Outgoing
from notifier_channels.email import mime

ID = UUID("018f0000-0000-7000-8000-0123456789ab")
ANN = EmailAddress("ann", "example.net")
AT = datetime(2026, 11, 3, 9, 5, 7, tzinfo=UTC)
SENDER = Mailbox("Acme", EmailAddress("hello", "example.com"))
NEWSLETTER = ListHeaders(
    "newsletter.lists.example.com", "Newsletter", "https://example.com/u/token", "u.token@in.example.com"
)

anything = st.text(st.characters(exclude_categories=()))  # surrogates and controls too
hostile = st.lists(
    st.sampled_from(["\r\n", "\n", "\r", "\0", "\x0b", "\x1c", "\x85", "\u2028", "\ud800", ".", "=", "=?", "?=", " "])
    | st.sampled_from(
        ["Bcc: x@y.example", "--=_", '"', "\\", "<", ">", "grüße", "🏳️‍🌈", "a" * 80, "\t", "=?utf-8?q?x?="]
    )
    | st.text(max_size=5)
).map("".join)
data = anything | hostile


def outgoing(content: EmailContent, *, to: EmailAddress = ANN, at: datetime = AT):
    return Outgoing(ID, 1, to, content, at, at + timedelta(days=1))


def encode(content: EmailContent, **changes) -> bytes:
    message = outgoing(content, **changes)
    return mime.encode(message, message.to, "lists.example.com")


def parse(raw: bytes) -> EmailMessage:
    parsed = message_from_bytes(raw, policy=policy.default)
    assert not any(part.defects for part in parsed.walk())
    return parsed


def visible(text: str) -> str:
    """What is left of a header's text: no controls, no line separators, no halves of characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+", " ", text).strip()


def lines(text: str) -> list[str]:
    whole = text.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    return whole.removesuffix("\n").split("\n")


def head_of(raw: bytes) -> list[str]:
    return raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")


def test_a_transactional_mail_is_exactly_this():
    raw = encode(EmailContent(SENDER, "Your code", "1234\n", reply_to=Mailbox("", EmailAddress("help", "example.com"))))
    assert raw == (
        b"Date: Tue, 03 Nov 2026 09:05:07 +0000\r\n"
        b"From: Acme <hello@example.com>\r\n"
        b"To: ann@example.net\r\n"
        b"Subject: Your code\r\n"
        b"Message-ID: <018f00000000700080000123456789ab@lists.example.com>\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Reply-To: <help@example.com>\r\n"
        b"Auto-Submitted: auto-generated\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n"
        b"\r\n"
        b"1234\r\n"
    )


def test_a_marketing_mail_has_the_list_headers_and_is_not_called_automatic():
    content = EmailContent(SENDER, "News", "x", "<p>x", subscription=NEWSLETTER, feedback_id="c1:news:acme1")
    mail = parse(encode(content))
    assert mail.keys() == [
        *("Date", "From", "To", "Subject", "Message-ID", "MIME-Version"),
        *("List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "Feedback-ID", "Content-Type"),
    ]
    assert mail["List-Id"] == "Newsletter <newsletter.lists.example.com>"
    assert mail["List-Unsubscribe"] == "<https://example.com/u/token>, <mailto:u.token@in.example.com>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail["Feedback-ID"] == "c1:news:acme1"


def test_a_transactional_mail_has_no_list_header():
    assert not [name for name in parse(encode(EmailContent(SENDER, "x", "x", "x"))) if name.startswith("List-")]


def test_without_a_mailto_only_https_stands_in_list_unsubscribe():
    alone = ListHeaders("n.example.com", "N", "https://example.com/u/t")
    assert parse(encode(EmailContent(SENDER, "x", "x", subscription=alone)))["List-Unsubscribe"] == (
        "<https://example.com/u/t>"
    )


def test_every_attempt_writes_the_same_bytes():
    content = EmailContent(SENDER, "x", "x", "<p>x", subscription=NEWSLETTER)
    first = outgoing(content)
    later = Outgoing(ID, 7, first.to, content, AT, first.expires_at, "bounce+x@example.com")
    assert mime.encode(first, first.to, "d.example") == mime.encode(later, later.to, "d.example")


def test_the_date_is_told_in_utc():
    east = timezone(timedelta(hours=5, minutes=30))
    assert mime.date(datetime(2027, 1, 1, 2, 0, tzinfo=east)) == "Thu, 31 Dec 2026 20:30:00 +0000"


@given(st.integers(0, 2**32), st.integers(-720, 840))
def test_any_date_is_read_back(seconds, offset):
    at = datetime.fromtimestamp(seconds, UTC)
    there = at.astimezone(timezone(timedelta(minutes=offset)))
    assert parsedate_to_datetime(mime.date(there)) == at


@given(subject=data, name=data, reply_name=data, list_name=data, feedback=data)
@example(subject="a\r\nBcc: evil@example.com", name="\n\n", reply_name="\x85", list_name="\u2028", feedback="\n")
@example(subject="x" * 200, name="x" * 200, reply_name="a b " * 40, list_name="é" * 200, feedback="")
@example(subject="many words " * 30, name='a "b" \\', reply_name="a, b", list_name="a=?b?=", feedback="é")
def test_no_data_can_add_or_end_a_header(subject, name, reply_name, list_name, feedback):
    address = EmailAddress("hello", "example.com")
    subscription = ListHeaders("n.example.com", list_name, "https://example.com/u/t")
    content = EmailContent(
        Mailbox(name, address), subject, "text", "html", Mailbox(reply_name, address), subscription, feedback
    )
    raw = encode(content)
    head = head_of(raw)
    names = [line.partition(":")[0] for line in head if not line.startswith(" ")]
    assert names == [
        *("Date", "From", "To", "Subject", "Message-ID", "MIME-Version", "Reply-To"),
        *("List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "Feedback-ID", "Content-Type"),
    ]
    for line in head:
        assert line.isascii()
        assert line.isprintable()
        assert len(line) <= 998
        if not line.startswith("Feedback-ID"):
            assert len(line) <= 78
        assert line.strip() or len(head) == 1


@given(data)
@example("=?utf-8?q?not_encoded?= by us")
@example("ends in blanks   ")
@example("two  blanks " * 20)
def test_any_subject_is_read_back(subject):
    assert parse(encode(EmailContent(SENDER, subject, "x")))["Subject"] == visible(subject)


@given(data)
@example("Ann, Bob & Co. (Ltd.)")
@example('The "Best" \\ Shop')
@example("=?utf-8?q?x?=")
def test_any_display_name_is_read_back(name):
    raw = encode(EmailContent(Mailbox(name, EmailAddress("hello", "example.com")), "x", "x"))
    # The legacy parser, for the new one puts blanks between the encoded words of a phrase.
    shown, address = parseaddr(message_from_bytes(raw)["From"].replace("\r\n", ""))
    assert str(make_header(decode_header(shown))) == visible(name)
    assert address == "hello@example.com"


@given(data, data)
def test_any_url_stays_inside_its_brackets(url, mailto):
    subscription = ListHeaders("n.example.com", "N", f"https://example.com/{url}", f"u{mailto}@in.example.com")
    head = head_of(encode(EmailContent(SENDER, "x", "x", subscription=subscription)))
    at = next(n for n, line in enumerate(head) if line.startswith("List-Unsubscribe:"))
    assert re.fullmatch(r"List-Unsubscribe: <https://example\.com/[!-;=?-~]*>,", head[at])
    assert re.fullmatch(r" <mailto:u[!-;=?-~]*@in\.example\.com>", head[at + 1])
    assert head[at + 2] == "List-Unsubscribe-Post: List-Unsubscribe=One-Click"


@given(data, data)
@example("a" * 74 + " \nb", "a" * 74 + "\t")
@example(".\n..\n.\r.\r\n", "\n.\n")
@example("", "")
def test_any_body_is_read_back(text, html):
    raw = encode(EmailContent(SENDER, "x", text, html))
    mail = parse(raw)
    assert mail.get_content_type() == "multipart/alternative"
    plain, rich = mail.iter_parts()
    assert plain.get_content_type() == "text/plain"
    assert rich.get_content_type() == "text/html"
    assert lines(plain.get_payload(decode=True).decode()) == lines(text)
    assert lines(rich.get_payload(decode=True).decode()) == lines(html)


@given(data)
def test_a_mail_without_html_has_one_part(text):
    mail = parse(encode(EmailContent(SENDER, "x", text)))
    assert mail.get_content_type() == "text/plain"
    assert lines(mail.get_payload(decode=True).decode()) == lines(text)


@given(data, st.none() | data)
@example("no line end at all" * 20, None)
@example("a" * 74 + " \n" + "b" * 75 + " \n", "\t\n")
def test_on_the_wire_are_only_short_ascii_lines_with_crlf(text, html):
    raw = encode(EmailContent(SENDER, "x", text, html))
    assert raw.isascii()
    assert b"\0" not in raw
    body = raw.partition(b"\r\n\r\n")[2]
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", raw)
    for line in body.split(b"\r\n"):
        assert len(line) <= 76
        assert not line.endswith((b" ", b"\t"))


def test_the_boundary_cannot_be_forged():
    boundary = f"\n--=_{ID.hex}--\n"
    mail = parse(encode(EmailContent(SENDER, "x", f"before{boundary}after", f"<p>{boundary}")))
    assert len(list(mail.iter_parts())) == 2


@pytest.mark.parametrize("where", ["to", "sender", "reply_to"])
def test_an_address_that_is_not_ascii_stands_as_it_is(where):
    ann = EmailAddress("änn", "example.net")
    content = EmailContent(Mailbox("Ann", ann) if where == "sender" else SENDER, "x", "x", reply_to=Mailbox("Ann", ann))
    raw = encode(content, to=ann if where == "to" else EmailAddress("bob", "example.net"))
    assert "änn@example.net" in raw.decode()


def test_an_odd_list_id_is_made_one_token():
    odd = ListHeaders("news letter>\r\n.example.com", "N", "https://example.com/u/t")
    assert parse(encode(EmailContent(SENDER, "x", "x", subscription=odd)))["List-Id"] == "N <news-letter-.example.com>"


def test_a_reference_stands_in_a_header_of_its_own_where_one_is_wanted():
    header = "X-PM-Metadata-notifier: b-reference"
    message = outgoing(EmailContent(SENDER, "x", "x", "<p>x"))._replace(reference_header=header)
    plain = mime.encode(outgoing(EmailContent(SENDER, "x", "x", "<p>x")), ANN, "lists.example.com")
    assert mime.encode(message, ANN, "lists.example.com").replace(header.encode() + b"\r\n", b"") == plain
    assert parse(mime.encode(message, ANN, "lists.example.com"))["X-PM-Metadata-notifier"] == "b-reference"


columns = st.integers(70, 78).map("x".__mul__) | st.sampled_from(["=", ".", " ", "\t", "\n", "a=b", "\x00", "ü", "a b"])


@given(st.lists(columns, max_size=12).map("".join))
@example("x" * 75 + ".\n")
@example("a\n.\nb\n")
@example(".\nb\n")
@example("x" * 73 + "=" + "x" * 73 + "==\n=")
def test_a_body_is_encoded_as_by_the_standard_library(body):
    expected = binascii.b2a_qp(f"{body}\n".replace("\n", "\r\n").encode())
    too_long = [line for line in expected.split(b"\r\n") if len(line) > 76]
    assert all(line.endswith((b"=20", b"=09")) for line in too_long)  # where column 75 ends in a blank
    if not too_long:
        assert mime.quoted_printable(f"{body}\n") == expected
