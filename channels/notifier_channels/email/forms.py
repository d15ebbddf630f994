"""A mail that goes to many, with gaps: what is the same for all is written down once, and each mail fills the gaps.

Every gap begins a line of the quoted-printable body and a soft line break ends it, so what stands around it is encoded
before its value is known, whatever the value is: no line grows too long, and no blank comes to stand at a line's end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import EmailContent, Letterhead, ListHeaders, Outgoing, WrittenEmail
from notifier_channels.email import mime

SOFT_BREAK = b"=\r\n"
ROOM = mime.LINE - 1  #: of a line, before the soft break's `=`
_VARIES = ("at", "to", "subject", "message_id", "ways_out")
_PLAIN = re.compile(r"[ -<>-~]*")  # stands in quoted-printable as it is
_STAND_IN = "_\n"  # becomes the soft break's `=`: the encoder leaves room for it, and blanks before it alone


class Form:
    """What the mails of one campaign, template and language have in common."""

    def __init__(
        self, content: EmailContent, text: Sequence[str], html: Sequence[str] | None, *, subject_varies: bool
    ) -> None:
        """`text` and `html` are what stands around the gaps, in turn; the last of each ends in a line feed.

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

    def fill(self, subject: str, subscription: ListHeaders | None, gaps: Sequence[str]) -> WrittenEmail:
        """One mail: the values of the text's gaps, then those of the HTML's."""
        pieces, stuffed = self._pieces.copy(), self._stuffed
        known: dict[str, tuple[bytes, int]] = {}  # most stand in the text and in the HTML
        encoded: list[bytes] = []
        for value in gaps:
            if (found := known.get(value)) is None:
                found = known[value] = _filling(value)
            encoded.append(found[0])
            stuffed += found[1]
        pieces[1::2] = encoded
        return WrittenEmail(self._letterhead, subject, subscription, pieces, stuffed)


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
    pieces = [_encoded(static) for static in statics[:-1]]
    pieces.append(mime.quoted_printable(statics[-1]))
    return [before + pieces[0], *(SOFT_BREAK + piece for piece in pieces[1:])]


def _filling(value: str) -> tuple[bytes, int]:
    """A value as it begins a line and ends before a soft break, and how many dots were stuffed."""
    if not _PLAIN.fullmatch(value):
        raw = mime.quoted_printable(f"{value}{_STAND_IN}")[: -len(SOFT_BREAK)]
    elif len(value) > ROOM:
        raw = SOFT_BREAK.join([value[start : start + ROOM].encode() for start in range(0, len(value), ROOM)])
    elif value.startswith("."):
        raw = value.encode()
    else:
        return value.encode(), 0
    safe = (b"." if raw.startswith(b".") else b"") + raw.replace(b"\r\n.", b"\r\n..")
    return safe, len(safe) - len(raw)


def _encoded(static: str) -> bytes:
    if not static or static.endswith(("\n", "\r")):
        return mime.quoted_printable(static) if static else b""
    return mime.quoted_printable(static + _STAND_IN)[: -len(SOFT_BREAK)] + SOFT_BREAK
