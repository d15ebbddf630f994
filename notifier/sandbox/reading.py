"""A caught mail as a person reads it, parsed by the standard library. Any bytes may come in; something comes out."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from uuid import UUID

_PARSER = BytesParser(_class=EmailMessage, policy=policy.default)
_MESSAGE_ID = re.compile(r"<([0-9a-f]{32})@[^<>\s]+>")
_INVISIBLE = re.compile("[\u00ad\u034f\u200b-\u200f\u2060\ufeff]")  # they pad preheaders
_ADDRESS = re.compile(r"\s*(?P<name>.*?)\s*<(?P<address>[^<>]*)>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Headers:
    """The head of a mail: every field in its order, and the few that a list of mails shows."""

    fields: tuple[tuple[str, str], ...]
    subject: str
    sender_name: str
    sender_address: str
    message_id: str
    message: UUID | None  #: which of Notifier's messages this is, by the left part of the Message-ID

    def all(self, name: str) -> list[str]:
        """Every value of a field, in the order in which they stand."""
        return [value for known, value in self.fields if known.lower() == name.lower()]

    def first(self, name: str) -> str:
        """The value of a field, or nothing."""
        return next(iter(self.all(name)), "")


@dataclass(frozen=True, slots=True)
class Bodies:
    """What stands below the head."""

    text: str | None
    html: str | None

    @property
    def snippet(self) -> str:
        """The first words, for the list of mails: of the HTML, as mail clients do, which may begin with a preheader."""
        shown = plain(self.html[:100_000]) if self.html is not None else self.text or ""
        return " ".join(_INVISIBLE.sub("", shown[:2_000]).split())[:140]


def read_headers(raw: bytes) -> Headers:
    """Parse the head alone, which is cheap."""
    message = _PARSER.parsebytes(raw, headersonly=True)
    fields = tuple((clean(name), _value(name, value)) for name, value in message.raw_items())
    known = {name.lower(): value for name, value in reversed(fields)}
    name, address = _sender(known.get("from", ""))
    own = _MESSAGE_ID.fullmatch(known.get("message-id", "").strip().lower())
    return Headers(
        fields=fields,
        subject=known.get("subject", ""),
        sender_name=name,
        sender_address=address,
        message_id=known.get("message-id", ""),
        message=UUID(own[1]) if own else None,
    )


def read_bodies(raw: bytes) -> Bodies:
    """Parse the whole mail and pick its two alternatives."""
    message = _PARSER.parsebytes(raw)
    return Bodies(text=_body(message, "plain"), html=_body(message, "html"))


def read_source(raw: bytes) -> str:
    """The mail as it came over the wire."""
    return raw.decode("utf-8", "replace").replace("\r\n", "\n")


def plain(markup: str) -> str:
    """The words of a piece of HTML, good enough to look at and to search."""
    without = re.sub(r"(?is)<(style|script|head|title)\b.*?</\1\s*>|<!--.*?-->", " ", markup)
    return html.unescape(re.sub(r"(?s)<[^>]*>", " ", without))


def clean(text: str) -> str:
    """Replace what UTF-8 cannot carry: the parser hands undecodable bytes on as lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _value(name: str, value: object) -> str:
    try:
        parsed = str(policy.default.header_fetch_parse(name, str(value)))
    except Exception:  # noqa: BLE001 -- the parser raises a dozen kinds of error on malformed fields
        parsed = str(value)
    return clean(" ".join(parsed.split("\n")).replace("\r", " "))


def _sender(value: str) -> tuple[str, str]:
    parts = _ADDRESS.fullmatch(value)
    return (parts["name"].strip('"'), parts["address"]) if parts else ("", value.strip())


def _body(message: EmailMessage, kind: str) -> str | None:
    try:
        part = message.get_body((kind,))
    except Exception:  # noqa: BLE001 -- as above
        return None
    if part is None or not hasattr(part, "get_content"):
        return None
    try:
        return clean(str(part.get_content()))
    except Exception:  # noqa: BLE001 -- as above; an unknown charset is the usual one
        payload = part.get_payload(decode=True)
        return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else None
