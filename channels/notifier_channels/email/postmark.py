"""What Postmark reports to its webhook: read from JSON. Postmark signs nothing; the URL that it calls holds a password.

It replaces our envelope and Message-ID, and repeats metadata: our signed reference travels in `X-PM-Metadata-notifier`
(`docs/how-to/bounces.md`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from notifier_channels.contract import EventKind, Strike
from notifier_channels.email.inbound import Fault, judge

SOURCE = "postmark"
METADATA = "notifier"

# https://postmarkapp.com/developer/api/bounce-api, "Bounce types"; read in November 2026.
_NOBODY_THERE = frozenset({"HardBounce", "BadEmailAddress"})
_NOTHING = frozenset({"Subscribe", "AutoResponder", "AddressChange", "ChallengeVerification", "OpenRelayTest"})
_UNSUBSCRIBED = frozenset({"Unsubscribe"})
_COMPLAINED = frozenset({"SpamComplaint"})
_STRIKES = {Fault.NO_DOMAIN: Strike.DOMAIN, Fault.UNCLEAR: Strike.SOFT}


@dataclass(frozen=True, slots=True)
class Report:
    """One event of Postmark's."""

    candidate: str  #: may be our signed reference
    kind: EventKind
    id: str
    occurred_at: datetime
    code: str | None
    is_dead: bool
    strike: Strike | None
    reference: str | None  #: Postmark's id of the message


def report(body: bytes) -> Report | None:
    """Read what Postmark posts; None for what says nothing of a message, such as opens and clicks."""
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return None
    fields: Mapping[str, Any] = read if isinstance(read, dict) else {}
    kind = _kind(fields)
    metadata = fields.get("Metadata")
    candidate = metadata.get(METADATA) if isinstance(metadata, dict) else None
    if kind is None or not isinstance(candidate, str):
        return None
    code, is_dead, strike = _verdict(fields) if kind is EventKind.BOUNCED else (None, False, None)
    return Report(
        candidate,
        kind,
        _id(fields),
        _moment(fields) or datetime.now(UTC),
        code,
        is_dead,
        strike,
        _text(fields.get("MessageID"))[:200] or None,
    )


def _kind(fields: Mapping[str, Any]) -> EventKind | None:
    type_ = _text(fields.get("Type"))
    match fields.get("RecordType"):
        case "Delivery":
            return EventKind.DELIVERED
        case "SpamComplaint":
            return EventKind.COMPLAINED
        case "SubscriptionChange":
            left = fields.get("SuppressSending") is True and fields.get("SuppressionReason") == "ManualSuppression"
            return EventKind.UNSUBSCRIBED if left and fields.get("Origin") == "Recipient" else None
        case "Bounce" if type_ in _COMPLAINED:
            return EventKind.COMPLAINED
        case "Bounce" if type_ in _UNSUBSCRIBED:
            return EventKind.UNSUBSCRIBED
        case "Bounce" if type_ not in _NOTHING:
            return EventKind.BOUNCED
        case _:
            return None


def _verdict(fields: Mapping[str, Any]) -> tuple[str | None, bool, Strike | None]:
    """The remote server's reply counts before the class that Postmark made of it."""
    type_, details = _text(fields.get("Type")), _text(fields.get("Details"))
    verdict = judge("", details.partition(";")[2].strip() or details)
    code = verdict.code or type_[:100] or None
    if type_ in _NOBODY_THERE:
        is_dead = verdict.fault is Fault.DEAD or (verdict.fault is Fault.UNCLEAR and fields.get("Inactive") is True)
        return code, is_dead, None if is_dead else _STRIKES.get(verdict.fault)
    return code, False, _STRIKES.get(verdict.fault) if type_ == "DnsError" else None


def _id(fields: Mapping[str, Any]) -> str:
    """Bounces and complaints have an id; of the others there is one of a kind for each message."""
    id_, kind = fields.get("ID"), _text(fields.get("RecordType"))
    if isinstance(id_, int):
        return f"{kind}:{id_}"[:200]
    when = fields.get("DeliveredAt") or fields.get("ChangedAt")
    return f"{kind}:{_text(fields.get('MessageID'))}:{_text(when)}"[:200]


def _moment(fields: Mapping[str, Any]) -> datetime | None:
    for name in ("BouncedAt", "DeliveredAt", "ChangedAt"):
        value = fields.get(name)
        try:
            moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            continue
        if moment is not None:
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _text(value: object) -> str:
    return value[:2000] if isinstance(value, str) else ""
