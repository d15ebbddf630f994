"""What Twilio's webhooks say: proven genuine on the raw request, then read into words of ours. All pure.

Source: Twilio's pages on the security of webhooks and on status callbacks, read in November 2026.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, parse_qsl, urlsplit
from xml.sax.saxutils import escape

from notifier_channels.contract import DeliveryEvent, EventKind, MessageId
from notifier_channels.sms import codes

SOURCE = "twilio"
OLDEST_REPORT = timedelta(days=2)  #: RawDlrDoneDate names no zone: it is believed when it is near

KINDS = {
    "accepted": EventKind.SENT,
    "scheduled": EventKind.SENT,
    "queued": EventKind.SENT,
    "sending": EventKind.SENT,
    "sent": EventKind.SENT,
    "delivered": EventKind.DELIVERED,
    "read": EventKind.DELIVERED,
    "undelivered": EventKind.BOUNCED,
    "failed": EventKind.BOUNCED,
    "canceled": EventKind.BOUNCED,
}
GIVEN_UP = frozenset({"undelivered", "failed"})  #: final, by Twilio's page: it did not arrive, and will not


class Form(dict[str, list[str]]):
    """A webhook's fields, empty ones too: they are signed like the others."""

    def getlist(self, name: str) -> list[str]:
        """All values of one field; the SDK's validator asks so."""
        return self[name]

    def first(self, name: str) -> str:
        """The field, or nothing."""
        return self.get(name, [""])[0]


@dataclass(frozen=True, slots=True)
class Inbound:
    """One message that a person has sent to us."""

    sid: str
    from_number: str = field(repr=False)  #: E.164
    to: str  #: the sender of ours that was answered
    body: str = field(repr=False)
    opt_out_type: str | None  #: Twilio's own reading, with Advanced Opt-Out only


_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def genuine(tokens: Sequence[str], url: str, content_type: str, body: bytes, signature: str) -> bool:
    """Was it signed with one of our tokens? `url` is the public one with its query, not what a proxy made of it.

    Forms are signed field by field, other bodies by the hash of them that stands in the signed URL.
    """
    from twilio.request_validator import RequestValidator

    params: Form | str | None = _fields(body) if _is_form(content_type, body) else _text(body)
    if params is None or (isinstance(params, str) and "bodySHA256" not in parse_qs(urlsplit(url).query)):
        return False
    return any(RequestValidator(token).validate(url, params, signature) for token in tokens if token)


def form_of(content_type: str, body: bytes) -> Form:
    """The fields of a form or of a JSON object; none when it is neither."""
    if _is_form(content_type, body):
        return _fields(body) or Form()
    try:
        fields = json.loads(body)
    except ValueError:
        return Form()
    if not isinstance(fields, dict):
        return Form()
    return Form({name: ["" if value is None else str(value)] for name, value in fields.items()})


def status(form: Form, reference: tuple[MessageId, int], received_at: datetime) -> list[DeliveryEvent]:
    """What a status callback reports on the attempt that its URL names; nothing for a status that is not known."""
    sid, word = form.first("MessageSid") or form.first("SmsSid"), form.first("MessageStatus")
    kind = KINDS.get(word)
    if kind is None or not sid:
        return []
    message, attempt = reference
    code = _number(form.first("ErrorCode")) if kind is EventKind.BOUNCED else None
    occurred_at = _occurred_at(form.first("RawDlrDoneDate"), received_at)
    reason = (str(code) if code else word) if kind is EventKind.BOUNCED else None
    bounce = DeliveryEvent(
        *(message, kind, SOURCE, f"{sid}:{word}", occurred_at, attempt, reason, codes.is_dead(code), sid),
        *(codes.strike(code), codes.alarm(code), codes.again(code) if word in GIVEN_UP else None),
    )
    events = [bounce]
    if codes.opted_out(code):
        source_id = f"{sid}:{word}:opted_out"
        events.append(
            DeliveryEvent(message, EventKind.UNSUBSCRIBED, SOURCE, source_id, occurred_at, attempt, str(code))
        )
    return events


def inbound(form: Form) -> Inbound | None:
    """What a person has written to us; None when it is no message."""
    sid, sender = form.first("MessageSid"), form.first("From")
    if not sid or not sender:
        return None
    return Inbound(sid, sender, form.first("To"), form.first("Body"), form.first("OptOutType") or None)


def twiml(text: str | None) -> bytes:
    """The answer to an inbound message: one message back, or none."""
    message = "" if text is None else f"<Message>{escape(_printable(text))}</Message>"
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{message}</Response>'.encode()


def _is_form(content_type: str, body: bytes) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/x-www-form-urlencoded" or (not kind and not body)


def _fields(body: bytes) -> Form | None:
    text = _text(body)
    if text is None:
        return None
    form = Form()
    for name, value in parse_qsl(text, keep_blank_values=True):
        form.setdefault(name, []).append(value)
    return form


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _occurred_at(raw: str, received_at: datetime) -> datetime:
    try:
        done = datetime.strptime(raw, "%y%m%d%H%M").replace(tzinfo=UTC)
    except ValueError:
        return received_at
    return done if received_at - OLDEST_REPORT <= done <= received_at else received_at


def _printable(text: str) -> str:
    """XML 1.0 has no place for control characters but tab and line breaks, nor for halves of a pair."""
    return _NOT_XML.sub("", text)
