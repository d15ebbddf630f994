"""Writing a mail down: rendered content becomes the bytes that go over the wire.

`email.message` takes ten times as long, so the headers of RFC 5322, 2047, 2369, 2919 and 8058 are written by hand here,
and tests read them back with it. Whatever the data holds, nothing of it can begin a line, end a header or open a part:
control characters become spaces, and bodies are quoted-printable, in which neither a bare CR or LF nor our boundary can
stand.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64encode
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote

from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import EmailContent, ListHeaders, Mailbox, Outgoing

LINE = 76  #: RFC 2047: a line with an encoded word is no longer; RFC 2045: nor is a quoted-printable one
LONGEST_WORD = 60  #: of a header in plain ASCII; a longer one is encoded, so that it can be folded

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_ATOMS = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(?: [\w!#$%&'*+/=?^`{|}~-]+)*", re.ASCII)
_NOT_IN_URI = re.compile(r"[^!#-;=?-\[\]_a-z~]")
_NOT_IN_LIST_ID = re.compile(r"[^A-Za-z0-9._-]+")
_AS_IT_IS = bytes(range(0x20, 0x7F)) + b"\t\n"  #: what a quoted-printable line may hold, `=` being encoded
_ODD_LINE = re.compile(rb"\n(?:(?<=[ \t]\n)|\.\n)")  # ends in a blank, or is a dot alone: both are encoded
_LINES = re.compile(rb"(?:.{0,75}+\n)*+.{73,75}(?<!=)(?<!=.)|(?:.{0,75}+\n)++")  # up to where a soft break has to come
_BLANK_AT_COLUMN_75 = re.compile(rb"(?m)^([^\n]{74})(=20|=09)(?=\r\n)")

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def encode(outgoing: Outgoing[EmailContent], to: EmailAddress, domain: str) -> bytes:
    """The whole mail with CRLF line ends; its lines are not dot-stuffed yet.

    The same bytes on every attempt, but for the header that carries the attempt's reference, where one is wanted.
    It is ASCII unless an address in it is not; then it needs a server with SMTPUTF8.
    """
    content = outgoing.content
    head = written_head(
        content,
        at=date(outgoing.first_attempted_at),
        to=str(to),
        subject=written_subject(content.subject),
        message_id=f"{outgoing.id.hex}@{domain}",
        ways_out="" if content.subscription is None else ways_out(content.subscription),
    )
    if outgoing.reference_header is not None:
        head = f"{head}\r\n{outgoing.reference_header}"
    return head.encode() + _body(content, outgoing.id.hex)


def written_head(content: EmailContent, *, at: str, to: str, subject: str, message_id: str, ways_out: str) -> str:
    """All headers but those of the body, without a CRLF at their end; what is given by name stands in them as it is."""
    lines = [
        f"Date: {at}",
        f"From: {_mailbox(content.sender, len('From: '))}",
        f"To: {to}",
        f"Subject: {subject}",
        f"Message-ID: <{message_id}>",
        "MIME-Version: 1.0",
    ]
    if content.reply_to is not None:
        lines.append(f"Reply-To: {_mailbox(content.reply_to, len('Reply-To: '))}")
    if content.subscription is None:
        lines.append("Auto-Submitted: auto-generated")  # RFC 3834; what has a List-Id says so by that
    else:
        lines += _list_headers(content.subscription, ways_out)
    if content.feedback_id is not None:
        lines.append(f"Feedback-ID: {_CONTROLS.sub(' ', content.feedback_id).encode('ascii', 'replace').decode()}")
    return "\r\n".join(lines)


def written_subject(subject: str) -> str:
    """What stands behind `Subject: `."""
    return _text(subject, len("Subject: "))


def ways_out(subscription: ListHeaders) -> str:
    """What stands behind `List-Unsubscribe: `."""
    ways = f"<{_uri(subscription.unsubscribe_url)}>"
    if subscription.unsubscribe_mailto is not None:
        ways += f",\r\n <mailto:{_uri(subscription.unsubscribe_mailto)}>"
    return ways


def date(at: datetime) -> str:
    """RFC 5322 3.3, always in UTC."""
    return _date(int(at.timestamp()))


@lru_cache(maxsize=64)  # hundreds of mails have one second in common
def _date(seconds: int) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04} {at:%H:%M:%S} +0000"


# Bodies ---------------------------------------------------------------------------------------------------------------


def _body(content: EmailContent, unique: str) -> bytes:
    before, between, after = frame(unique, has_html=content.html is not None)
    html = b"" if content.html is None else quoted_printable(content.html)
    return b"".join((before, quoted_printable(content.text), between, html, after))


def frame(unique: str, *, has_html: bool) -> tuple[bytes, bytes, bytes]:
    """What stands before the text, between it and the HTML, and behind that. It begins by ending the last header."""
    if not has_html:
        return b"\r\n" + _opening("plain"), b"", b""
    boundary = b"=_" + unique.encode()  # `=_` never stands in quoted-printable text (RFC 2045 6.7, rule 1)
    return (
        b'\r\nContent-Type: multipart/alternative;\r\n boundary="%b"\r\n\r\n--%b\r\n%b'
        % (boundary, boundary, _opening("plain")),
        b"\r\n--%b\r\n%b" % (boundary, _opening("html")),
        b"\r\n--%b--\r\n" % boundary,
    )


def _opening(kind: str) -> bytes:
    lines = (f"Content-Type: text/{kind}; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", "", "")
    return "\r\n".join(lines).encode()


def quoted_printable(body: str) -> bytes:
    """A body with CRLF line ends, of which one ends it, and no line longer than 76."""
    if "\r" in body:
        body = body.replace("\r\n", "\n").replace("\r", "\n")
    if not body.endswith("\n"):
        body += "\n"  # without any line end b2a_qp would break its lines with bare LF
    raw = body.encode("utf-8", "replace")
    return _plainly_encoded(raw) or _encoded(raw)


def _plainly_encoded(raw: bytes) -> bytes:
    """The same as `_encoded` in a third of the time, for text in which only `=` is encoded; else nothing."""
    if raw.translate(None, _AS_IT_IS) or _ODD_LINE.search(raw) or raw.startswith(b".\n"):
        return b""
    return b"=\n".join(_LINES.findall(raw.replace(b"=", b"=3D"))).replace(b"\n", b"\r\n")


def _encoded(raw: bytes) -> bytes:
    encoded = binascii.b2a_qp(raw.replace(b"\n", b"\r\n"))
    if b"=20\r\n" in encoded or b"=09\r\n" in encoded:  # b2a_qp makes a line of 77 where column 75 ends in a blank
        encoded = _BLANK_AT_COLUMN_75.sub(rb"\1=\r\n\2", encoded)
    return encoded


# Headers --------------------------------------------------------------------------------------------------------------


def _list_headers(subscription: ListHeaders, ways_out: str) -> list[str]:
    list_id = _NOT_IN_LIST_ID.sub("-", subscription.list_id)
    return [
        f"List-Id: {_named(subscription.list_name, list_id, len('List-Id: '))}",
        f"List-Unsubscribe: {ways_out}",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",  # RFC 8058 3.1: exactly this
    ]


def _uri(uri: str) -> str:
    """Percent-encode what could end the angle brackets around it, or may not stand in a URI (RFC 3986)."""
    return _NOT_IN_URI.sub(lambda found: quote(found.group(), safe="", errors="replace"), uri)


def _mailbox(mailbox: Mailbox, used: int) -> str:
    return _named(mailbox.name, str(mailbox.address), used)


def _named(name: str, inside: str, used: int) -> str:
    """`name <inside>`; `used` columns of the first line are taken."""
    name = _CONTROLS.sub(" ", name).strip()
    if not name:
        return f"<{inside}>"
    phrase = _phrase(name, used)
    column = len(phrase) - phrase.rfind("\n") if "\n" in phrase else used + len(phrase)
    return f"{phrase} <{inside}>" if column + len(inside) + 3 <= LINE else f"{phrase}\r\n <{inside}>"


def _phrase(name: str, used: int) -> str:
    """A display name: atoms, else a quoted string, else encoded words (RFC 5322 3.2.5, RFC 2047 5)."""
    phrase = name
    if not _ATOMS.fullmatch(name):
        phrase = '"{}"'.format(name.replace("\\", "\\\\").replace('"', '\\"'))
    if not name.isascii() or "=?" in name or used + len(phrase) > LINE:
        return _encoded_words(name, used)
    return phrase


def _text(value: str, used: int) -> str:
    """An unstructured body, as it is where ASCII allows it; else encoded words (RFC 5322 2.2.1, RFC 2047 5)."""
    value = (value if value.isprintable() else _CONTROLS.sub(" ", value)).strip()
    if value.isascii() and "=?" not in value:
        if used + len(value) <= LINE:
            return value
        words = value.split(" ")
        if all(0 < len(word) <= LONGEST_WORD for word in words):
            return _fold(words, used)
    return _encoded_words(value, used)


def _fold(words: list[str], used: int) -> str:
    folded, column = words[0], used + len(words[0])
    for word in words[1:]:
        if column + 1 + len(word) > LINE:
            folded, column = f"{folded}\r\n {word}", 1 + len(word)
        else:
            folded, column = f"{folded} {word}", column + 1 + len(word)
    return folded


def _encoded_words(value: str, used: int) -> str:
    """RFC 2047 in base64, at most 75 characters each, never split inside a character."""
    raw = value.encode()
    words: list[str] = []
    start, room = 0, LINE - used
    while start < len(raw):
        end = start + (room - len("=?utf-8?b??=")) // 4 * 3
        while end < len(raw) and raw[end] & 0xC0 == 0x80:  # the middle of a character
            end -= 1
        words.append(f"=?utf-8?b?{b64encode(raw[start:end]).decode()}?=")
        start, room = end, LINE - 1
    return "\r\n ".join(words)
