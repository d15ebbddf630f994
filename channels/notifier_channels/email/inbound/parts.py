"""A raw mail taken apart without ever failing: whatever comes in, there are headers, fields and readable text, or none.

Python's parser keeps going on damaged mail, but reading a header or a body out of it may raise. Everything of it that
is used elsewhere passes through here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.header import decode_header
from email.message import Message
from html import unescape

MOST_PARTS = 60
LONGEST_HEADER = 4000  #: characters of a header that are decoded
LONGEST_TEXT = 20_000  #: characters of a text that is looked at

_HIDDEN = re.compile(r"<(style|script|head)\b", re.IGNORECASE)
_TAGS = re.compile(r"<[^<>]{0,2000}>")
_FIELD = re.compile(r"^([A-Za-z][A-Za-z0-9-]{0,60}):[ \t]*(.*)$")


def parse(raw: bytes) -> Message:
    """The mail, however damaged. `compat32` does not interpret headers, so it does not fail on them."""
    return message_from_bytes(raw, policy=policy.compat32)


def header(mail: Message, name: str) -> str:
    """A header in one line, decoded (RFC 2047); empty when there is none."""
    value = str(mail.get(name, "") or "")[:LONGEST_HEADER]
    try:
        pieces = decode_header(value)
        text = "".join(
            piece.decode(charset or "utf-8", "replace") if isinstance(piece, bytes) else piece
            for piece, charset in pieces
        )
    except (ValueError, LookupError, TypeError):
        text = value
    return " ".join(text.split())[:1000]


def parts(mail: Message) -> Iterator[Message]:
    """The mail and what is in it, in order; what a forwarded or returned mail contains is left out."""
    waiting, seen = [mail], 0
    while waiting and seen < MOST_PARTS:
        part = waiting.pop(0)
        seen += 1
        yield part
        if kind(part).startswith("multipart/"):
            inside = _inside(part)
            if isinstance(inside, list):
                waiting[:0] = [one for one in inside if isinstance(one, Message)]


def kind(part: Message) -> str:
    """Its type in lower case, e.g. `message/delivery-status`."""
    try:
        return part.get_content_type().lower()
    except (ValueError, TypeError):
        return "application/octet-stream"


def text_of(part: Message) -> str:
    """What a person would read of a part; of HTML the words."""
    text = _decoded(part)[:LONGEST_TEXT]
    if kind(part) == "text/html":
        text = unescape(_TAGS.sub(" ", _shown(text)))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _shown(html: str) -> str:
    """Without styles and scripts, in one pass however they are nested or left open."""
    kept, at, lower = [], 0, html.lower()
    for hidden in _HIDDEN.finditer(html):
        if hidden.start() < at:
            continue
        kept.append(html[at : hidden.start()])
        end = lower.find(f"</{hidden[1].lower()}", hidden.end())
        at = len(html) if end < 0 else end
    return "".join([*kept, html[at:]])


def fields_of(part: Message) -> list[dict[str, str]]:
    """The groups of fields of a report (RFC 3464 2.1, RFC 5965 3), names in lower case; of a repeated one the first.

    Python reads the groups of `message/delivery-status` as mails of their own, and other reports as text.
    """
    groups: list[dict[str, str]] = []
    for group in re.split(r"\n[ \t]*\n", _source(part)):
        found: dict[str, str] = {}
        last = ""
        for line in group.split("\n"):
            if line[:1] in (" ", "\t") and last:
                found[last] = f"{found[last]} {line.strip()}".strip()[:LONGEST_TEXT]
            elif match := _FIELD.match(line.strip()):
                last = match[1].lower()
                if last in found:
                    last = ""
                else:
                    found[last] = match[2].strip()
        if found:
            groups.append(found)
    return groups


def _source(part: Message) -> str:
    inside = _inside(part)
    if isinstance(inside, list):
        encoded = str(part.get("content-transfer-encoding", "")).strip().lower() in ("base64", "quoted-printable")
        if not encoded:
            return "\n\n".join(_written(one) for one in inside[:MOST_PARTS] if isinstance(one, Message))
        text = "\n\n".join(_written(one) for one in inside[:MOST_PARTS] if isinstance(one, Message))
        return _again(text, str(part.get("content-transfer-encoding", "")).strip().lower())
    return _decoded(part)[:LONGEST_TEXT].replace("\r\n", "\n").replace("\r", "\n")


def _inside(part: Message) -> object:
    """The parts of a multipart, or text as it stands; a charset in the form of RFC 2231 breaks Python's own way."""
    try:
        return part.get_payload()
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""


def _written(group: Message) -> str:
    """A group as it stood; Python takes the lines after a damaged one for a body."""
    lines = [f"{name}: {value!s}" for name, value in group.items()]
    inside = _inside(group)
    return "\n".join([*lines, *([inside] if isinstance(inside, str) else [])]).replace("\r\n", "\n")


def _again(text: str, encoding: str) -> str:
    """Fields that were encoded against RFC 2046 5.2.1, which allows it of none."""
    made = parse(f"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: {encoding}\n\n{text}".encode(
        "utf-8", "surrogateescape"
    ))  # fmt: skip
    return _decoded(made)[:LONGEST_TEXT].replace("\r\n", "\n")


def _decoded(part: Message) -> str:
    try:
        data = part.get_payload(decode=True)
        charset = part.get_content_charset() or "utf-8"
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
    if not isinstance(data, bytes):
        return ""
    for name in (charset, "utf-8"):
        try:
            return data.decode(name)
        except (LookupError, ValueError):
            continue
    try:
        return data.decode(charset, "replace")
    except (LookupError, ValueError):
        return data.decode("latin-1")
