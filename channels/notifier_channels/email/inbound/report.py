"""What came back to a return path of ours: a bounce, a complaint, or nothing that matters.

Reports as the standards want them (RFC 3464, RFC 6533, RFC 5965) are read by their fields; of the many that follow
none, the words count. Whom it concerns is not read from the mail: the address that it came to says so, and is signed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message
from enum import StrEnum
from typing import TypeAlias

from notifier_channels.contract import EventKind
from notifier_channels.email.inbound import automatic, notes
from notifier_channels.email.inbound.parts import fields_of, kind, parse, parts, text_of
from notifier_channels.email.inbound.verdict import Fault, judge

MOST_READ = 256 * 1024  #: bytes of a mail that are looked at; what it is stands at its beginning
MOST_REFERENCES = 20


class Why(StrEnum):
    """Why a mail changes nothing."""

    AUTOMATIC = "automatic"  #: an absence notice, a read receipt
    NOT_A_REPORT = "not_a_report"
    NO_COMPLAINT = "no_complaint"  #: a feedback report that is none about spam


@dataclass(frozen=True, slots=True)
class Bounce:
    """What a mail server says of a message that it took: bounced, deferred, delivered, or sent on."""

    kind: EventKind
    fault: Fault | None = None  #: of a bounce
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Complaint:
    """A reader called it spam (ARF)."""

    feedback: str  #: `abuse`, `fraud` or `opt-out`


@dataclass(frozen=True, slots=True)
class Nothing:
    """A mail that changes nothing."""

    why: Why


Report: TypeAlias = Bounce | Complaint | Nothing

_STATUS = frozenset({"message/delivery-status", "message/global-delivery-status"})
_COMPLAINTS = frozenset({"abuse", "fraud", "opt-out", "opt-out-list"})  # RFC 5965 3.1 and 7.3; not `not-spam`
_REFERENCE = re.compile(r"(?<![a-z0-9])b-[a-z2-7]{40,62}(?![a-z0-9])", re.IGNORECASE)
_REPORTED = {
    "delivered": EventKind.DELIVERED,
    "relayed": EventKind.SENT,
    "expanded": EventKind.SENT,
    "delayed": EventKind.DEFERRED,
    "failed": EventKind.BOUNCED,
    "failure": EventKind.BOUNCED,
}
_MILDNESS = (EventKind.DELIVERED, EventKind.SENT, EventKind.DEFERRED, EventKind.BOUNCED)
_FAULTS = (None, Fault.ELSEWHERE, Fault.UNCLEAR, Fault.NO_DOMAIN, Fault.DEAD)


def read_report(raw: bytes) -> Report:
    """Say what it is. Never fails, whatever the bytes."""
    mail = parse(raw[:MOST_READ])
    inside = list(parts(mail))
    for part in inside:
        if kind(part) == "message/feedback-report":
            return _complaint(part)
    if _is_read_receipt(inside):
        return Nothing(Why.AUTOMATIC)
    if reported := _statuses(inside):
        return _mildest([_judged(fields, notes.notice(inside)) for fields in reported])
    if automatic.is_away(mail):
        return Nothing(Why.AUTOMATIC)
    return _from_words(mail, inside)


def references(raw: bytes) -> list[str]:
    """What in a report may be a reference of ours: a feedback loop sends all complaints to one address.

    The returned mail carries it in `Return-Path` or in a header of its own. Its signature is checked by whoever asks.
    """
    text = raw[:MOST_READ].replace(b"=\r\n", b"").replace(b"=\n", b"").decode("latin-1")
    return list(dict.fromkeys(found.lower() for found in _REFERENCE.findall(text)))[:MOST_REFERENCES]


def _complaint(part: Message) -> Report:
    fields = next(iter(fields_of(part)), {})
    feedback = fields.get("feedback-type", "").partition(";")[0].strip().lower()
    return Complaint(feedback) if feedback in _COMPLAINTS else Nothing(Why.NO_COMPLAINT)


def _is_read_receipt(inside: list[Message]) -> bool:
    """RFC 8098. Dovecot reports a full mailbox with one: that says `deleted`, and is read as a note."""
    receipts = [part for part in inside if kind(part) == "message/disposition-notification"]
    said = " ".join(group.get("disposition", "") for part in receipts for group in fields_of(part)).lower()
    return bool(receipts) and "deleted" not in said


def _statuses(inside: list[Message]) -> list[dict[str, str]]:
    """The fields of each recipient; some servers send them as plain text."""
    for part in inside:
        if kind(part) in _STATUS or (kind(part).startswith("text/") and "Final-Recipient:" in text_of(part)):
            groups = [one for one in fields_of(part) if {"action", "status", "final-recipient"} & one.keys()]
            if groups := [one for one in groups if one.get("action") or one.get("status")]:
                return groups
    return []


def _judged(fields: dict[str, str], note: str) -> Bounce:
    status, diagnostic = fields.get("status", ""), fields.get("diagnostic-code", "")
    said = re.match(r"[a-z]*", fields.get("action", "").lower())
    reported = _REPORTED.get(said[0] if said else "") or _by_class(status)
    verdict = judge(status, _without_type(diagnostic), note)
    fault = verdict.fault if reported is EventKind.BOUNCED else None
    return Bounce(reported, fault, verdict.code)


def _by_class(status: str) -> EventKind:
    """For reports without an action that the standard knows. What is not said to have failed has not."""
    return {"2": EventKind.DELIVERED, "5": EventKind.BOUNCED}.get(status.strip()[:1], EventKind.DEFERRED)


def _without_type(diagnostic: str) -> str:
    """`smtp; 550 ...` without the name of the protocol (RFC 3464 2.3.6)."""
    name, separator, text = diagnostic.partition(";")
    return text.strip() if separator and re.fullmatch(r"\s*[\w-]{1,30}\s*", name) else diagnostic


def _mildest(bounces: list[Bounce]) -> Bounce:
    """Our mail had one recipient: several mean that the address stands for several, of whom one may be reached."""
    return min(bounces, key=lambda one: (_MILDNESS.index(one.kind), _FAULTS.index(one.fault)))


def _from_words(mail: Message, inside: list[Message]) -> Report:
    note = notes.notice(inside)
    if not notes.is_bounce(mail, note):
        return Nothing(Why.NOT_A_REPORT)
    if notes.is_warning(mail, note):
        return Bounce(EventKind.DEFERRED)
    verdict = judge("", "", note)
    return Bounce(EventKind.BOUNCED, verdict.fault, verdict.code)
