"""A mail that goes to many, with gaps: what is the same for all is written down once, and each mail fills the gaps.

Every gap begins a line of the quoted-printable body and a soft line break ends it, so what stands around it is encoded
before its value is known, whatever the value is: no line grows too long, and no blank comes to stand at a line's end.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from hashlib import sha256

from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import EmailContent, Letterhead, ListHeaders, Outgoing, WrittenEmail
from notifier_channels.email import mime

SOFT_BREAK = b"=\r\n"
ROOM = mime.LINE - 1  #: of a line, before the soft break's `=`
_VARIES = ("at", "to", "subject", "message_id", "ways_out")
_DOT = re.compile(rb"\n\.")  # begins a line; bytes.replace takes thrice as long to find it
_STAND_IN = "_\n"  # becomes the soft break's `=`: the encoder leaves room for it, and blanks before it alone


class Form:
    """What the mails of one campaign, template and language have in common."""

    def __init__(
        self,
        content: EmailContent,
        text: Sequence[str],
        html: Sequence[str] | None,
        places: Sequence[int],
        *,
        subject_varies: bool,
    ) -> None:
        """`text` and `html` are what stands around the gaps, in turn; the last of each ends in a line feed.

        `places` says for each gap, the text's before the HTML's, which of a mail's values it gets.
        Of the content's own bodies, subject (if it varies) and ways out nothing is used.
        """
        self._letterhead = _letterhead(content, subject_varies=subject_varies)
        before, between, after = mime.frame(_unique(text, html), has_html=html is not None)
        pieces = _written(before, text)
        if html is not None:
            pieces[-1] += between
            pieces[-1:] = _written(pieces[-1], html)
        pieces[-1] += after
        stuffed = [piece.replace(b"\r\n.", b"\r\n..") for piece in pieces]
        self._stuffed = sum(map(len, stuffed)) - sum(map(len, pieces))
        stuffed[-1] += b".\r\n"
        self._pieces = [piece for static in stuffed for piece in (static, b"")][:-1]
        self._places = places

    def fill(self, subject: str, subscription: ListHeaders | None, values: Sequence[str | bytes]) -> WrittenEmail:
        """One mail. What is bytes is quoted-printable already."""
        known: dict[str, tuple[bytes, int]] = {}  # most stand in the text and in the HTML
        fillings: list[tuple[bytes, int]] = []
        stuffed = 0
        for value in values:
            if isinstance(value, bytes):
                filling = _stuffed(value)
            elif value in known:
                filling = known[value]
            else:
                filling = known[value] = _filling(value)
            fillings.append(filling)
            stuffed += filling[1]
        shown = [filling[0] for filling in fillings]
        pieces = self._pieces.copy()
        pieces[1::2] = [shown[number] for number in self._places]
        if stuffed:
            stuffed = sum([fillings[number][1] for number in self._places])
        return WrittenEmail(self._letterhead, subject, subscription, pieces, self._stuffed + stuffed)


def head(outgoing: Outgoing[WrittenEmail], to: EmailAddress, domain: str) -> bytes:
    """The head of one mail, as `mime.encode` would write it."""
    content = outgoing.content
    letterhead, subscription = content.letterhead, content.subscription
    written = letterhead.head % {
        "at": mime.date(outgoing.first_attempted_at),
        "to": to,
        "subject": mime.written_subject(content.subject) if letterhead.subject is None else "",
        "message_id": f"{outgoing.id.hex}@{domain}",
        "ways_out": "" if subscription is None else mime.ways_out(subscription),
    }
    if outgoing.reference_header is not None:
        written = f"{written}\r\n{outgoing.reference_header}"
    return written.encode()


def _letterhead(content: EmailContent, *, subject_varies: bool) -> Letterhead:
    marks = {name: f"\0{name}\0" for name in _VARIES}  # no other NUL can stand in a head
    if not subject_varies:
        marks["subject"] = mime.written_subject(content.subject)
    written = mime.written_head(content, **marks).replace("%", "%%")
    for name in _VARIES:
        written = written.replace(f"\0{name}\0", f"%({name})s")
    return Letterhead(content.sender, content.reply_to, None if subject_varies else content.subject, written)


def _unique(text: Sequence[str], html: Sequence[str] | None) -> str:
    """For the boundary: the same whenever the same form is made, so that a second attempt looks like the first."""
    return sha256("\0".join([*text, *(html or ())]).encode("utf-8", "replace")).hexdigest()[:32]


def _written(before: bytes, statics: Sequence[str]) -> list[bytes]:
    """Each piece ends where a line begins: there its gap is filled in. What follows a gap begins by ending its line."""
    pieces = [encoded_static(text) for text in statics[:-1]]
    pieces.append(mime.quoted_printable(statics[-1]))
    return [before + pieces[0], *(SOFT_BREAK + piece for piece in pieces[1:])]


def _filling(value: str) -> tuple[bytes, int]:
    """A value as it begins a line and ends before a soft break, and how many dots were stuffed."""
    if value.isalnum() and value.isascii() and len(value) <= ROOM:  # most values are a word or a number
        return value.encode(), 0
    if value.isascii() and value.isprintable() and "=" not in value:  # it stands in quoted-printable as it is
        raw = value.encode()
        if len(raw) <= ROOM and not raw.startswith(b"."):
            return raw, 0
        raw = SOFT_BREAK.join([raw[start : start + ROOM] for start in range(0, len(raw), ROOM)])
    else:
        raw = _unended(value)
    return _stuffed(raw)


def _stuffed(raw: bytes) -> tuple[bytes, int]:
    safe, dots = _DOT.subn(b"\n..", raw)
    return (b"." + safe, dots + 1) if safe.startswith(b".") else (safe, dots)


def encoded_static(text: str) -> bytes:
    """What stands between gaps. It begins a line and ends where one begins."""
    if not text or text.endswith(("\n", "\r")):
        return mime.quoted_printable(text) if text else b""
    return _unended(text) + SOFT_BREAK


def encoded_value(text: str) -> bytes:
    """What begins a line and ends before a line break, which need not be a soft one."""
    raw = _unended(text)
    if raw.endswith((b" ", b"\t")):  # neither may end a line as it is
        return b"%b%b=%02X" % (raw[:-1], SOFT_BREAK, raw[-1])
    return raw


def _unended(text: str) -> bytes:
    """Most are short and one line, of which `quoted_printable` asks too much."""
    raw = binascii.b2a_qp(text.encode("utf-8", "replace"))
    if len(raw) <= ROOM and b"\n" not in raw and b"\r" not in raw:
        return raw
    return mime.quoted_printable(text + _STAND_IN)[: -len(SOFT_BREAK)]
