"""What Amazon SES reports through SNS: read from JSON, and proven to be Amazon's by its signature.

SNS signs each notification with a certificate that it names by URL: whoever believes any URL believes anybody, so only
those of SNS itself are asked for. SES replaces our Message-ID, and repeats the envelope's sender, the tags and the
headers of the mail: our signed reference stands in each of them that is set up (`docs/how-to/bounces.md`).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from notifier_channels.contract import EventKind, Strike
from notifier_channels.email.inbound import Fault, judge

SOURCE = "ses"
TAG = "notifier"  #: of `X-SES-MESSAGE-TAGS`

_HOST = r"sns\.[a-z]{2}(?:-[a-z]+)+-\d\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE = re.compile(rf"https://{_HOST}/SimpleNotificationService-[0-9a-f]{{16,64}}\.pem")
_SUBSCRIBE = re.compile(rf"https://{_HOST}/\?[\w=&:.%+-]{{1,2000}}")
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_KINDS = {
    "Send": EventKind.SENT,
    "Delivery": EventKind.DELIVERED,
    "DeliveryDelay": EventKind.DEFERRED,
    "Bounce": EventKind.BOUNCED,
    "Reject": EventKind.BOUNCED,
    "Complaint": EventKind.COMPLAINED,
    "Subscription": EventKind.UNSUBSCRIBED,
}
_NOT_A_COMPLAINT = frozenset({"not-spam", "auth-failure", "virus", "other"})  # as in RFC 5965's own reports
_STRIKES = {Fault.NO_DOMAIN: Strike.DOMAIN, Fault.UNCLEAR: Strike.SOFT}


@dataclass(frozen=True, slots=True)
class Envelope:
    """What SNS sent, not yet believed."""

    kind: str  #: `Notification`, `SubscriptionConfirmation` or `UnsubscribeConfirmation`
    id: str
    topic_arn: str
    message: str
    certificate_url: str
    signature: bytes
    signed: bytes  #: what the signature was made of
    algorithm: str  #: `sha1` or `sha256`
    subscribe_url: str | None  #: where a subscription is confirmed, if that is at SNS


@dataclass(frozen=True, slots=True)
class Report:
    """One event of SES. Of the candidates, one may be our signed reference."""

    candidates: tuple[str, ...]
    kind: EventKind
    id: str
    occurred_at: datetime
    code: str | None
    is_dead: bool
    strike: Strike | None
    reference: str | None  #: SES's id of the message


def envelope(body: bytes) -> Envelope | None:
    """Read what SNS posts; None for what it would not have sent."""
    fields = _object(body)
    kind = fields.get("Type", "")
    names = _SIGNED.get(kind) if isinstance(kind, str) else None
    certificate = fields.get("SigningCertURL")
    algorithm = {"1": "sha1", "2": "sha256"}.get(str(fields.get("SignatureVersion")))
    if names is None or algorithm is None or not isinstance(certificate, str):
        return None
    if not _CERTIFICATE.fullmatch(certificate):
        return None
    present = [(name, fields[name]) for name in names if fields.get(name) is not None]
    needed = {name for name in names if name != "Subject"}
    if not all(isinstance(value, str) for _, value in present) or needed - {name for name, _ in present}:
        return None
    signature = _base64(fields.get("Signature"))
    if signature is None:
        return None
    signed = "".join(f"{name}\n{value}\n" for name, value in present).encode("utf-8", "surrogatepass")
    url = fields.get("SubscribeURL")
    subscribe = url if isinstance(url, str) and _SUBSCRIBE.fullmatch(url) else None
    topic, message, id_ = fields["TopicArn"], fields["Message"], fields["MessageId"]
    return Envelope(kind, id_, topic, message, certificate, signature, signed, algorithm, subscribe)


def genuine(envelope: Envelope, certificate: bytes) -> bool:
    """True when the certificate's key made the signature (RSA, PKCS #1 v1.5). Needs the extra `ses`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import SHA1, SHA256
    from cryptography.x509 import load_pem_x509_certificate

    try:
        key = load_pem_x509_certificate(certificate).public_key()
        if not isinstance(key, RSAPublicKey):
            return False
        hashed = SHA256() if envelope.algorithm == "sha256" else SHA1()  # noqa: S303  # SNS's own default
        key.verify(envelope.signature, envelope.signed, PKCS1v15(), hashed)
    except (InvalidSignature, ValueError):
        return False
    return True


def reports(message: str, id_: str) -> list[Report]:
    """The events in a notification's message, of either form: feedback notifications and event publishing."""
    fields = _object(message.encode("utf-8", "replace"))
    name = fields.get("notificationType") or fields.get("eventType")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    mail = _mapping(fields.get("mail"))
    about = _mapping(fields.get(_key(str(name))))
    if kind is None or not _counts(kind, about):
        return []
    code, is_dead, strike = _verdict(about) if name == "Bounce" else (_code(kind, about), False, None)
    feedback = about.get("feedbackId")
    reference = mail.get("messageId")
    return [
        Report(
            tuple(dict.fromkeys(_candidates(mail))),
            kind,
            f"{name}:{feedback if isinstance(feedback, str) else id_}"[:200],
            _moment(about.get("timestamp")) or _moment(mail.get("timestamp")) or datetime.now(UTC),
            code,
            is_dead,
            strike,
            reference[:200] if isinstance(reference, str) else None,
        )
    ]


def _candidates(mail: Mapping[str, Any]) -> Iterator[str]:
    """Where our reference may stand: a tag, a header, the envelope's sender."""
    tags = _mapping(mail.get("tags")).get(TAG)
    yield from (tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()
    for header in _sequence(mail.get("headers")):
        value = _mapping(header).get("value")
        if isinstance(value, str) and (found := re.search(r"\bb-[A-Za-z2-7]{40,62}\b", value)):
            yield found.group()
    source = mail.get("source")
    if isinstance(source, str):
        yield source.partition("@")[0]


def _counts(kind: EventKind, about: Mapping[str, Any]) -> bool:
    if kind is EventKind.COMPLAINED:
        return about.get("complaintFeedbackType") not in _NOT_A_COMPLAINT
    if kind is EventKind.UNSUBSCRIBED:
        return _left(_mapping(about.get("newTopicPreferences")), _mapping(about.get("oldTopicPreferences")))
    return True


def _left(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether somebody left one list or all. Who only comes back to some of what they had left has not."""
    if new.get("unsubscribeAll") is True:
        return True
    refused = _refused(new)
    return bool(refused) and not refused < _refused(old)


def _refused(preferences: Mapping[str, Any]) -> frozenset[str]:
    """The topics of SES that are refused, and `*` for all of them."""
    topics = map(_mapping, _sequence(preferences.get("topicSubscriptionStatus")))
    named = {_text(one.get("topicName")) for one in topics if one.get("subscriptionStatus") == "OptOut"}
    return frozenset(named | ({"*"} if preferences.get("unsubscribeAll") is True else set()))


def _code(kind: EventKind, about: Mapping[str, Any]) -> str | None:
    said = {
        EventKind.COMPLAINED: about.get("complaintFeedbackType"),
        EventKind.DEFERRED: about.get("delayType"),
        EventKind.BOUNCED: about.get("reason"),
    }.get(kind)
    return said[:100] if isinstance(said, str) else None


def _verdict(about: Mapping[str, Any]) -> tuple[str | None, bool, Strike | None]:
    """The remote server's reply counts before the class that SES made of it; our mails have one recipient each."""
    faults: list[Fault] = []
    codes: list[str | None] = []
    for one in map(_mapping, _sequence(about.get("bouncedRecipients"))):
        status, said = _text(one.get("status")), _text(one.get("diagnosticCode"))
        verdict = judge(status, said.partition(";")[2].strip() or said)
        faults.append(verdict.fault if status or said else Fault.UNCLEAR)
        codes.append(verdict.code)
    kind, detail = _text(about.get("bounceType")), _text(about.get("bounceSubType"))
    code = next((code for code in codes if code), f"{kind}/{detail}"[:100])
    if kind != "Permanent" or detail in (
        "Suppressed",
        "OnAccountSuppressionList",
        "MessageTooLarge",
        "ContentRejected",
    ):
        return code, False, None
    if detail == "NoEmail":
        return code, Fault.ELSEWHERE not in faults, None
    fault = faults[0] if len(set(faults)) == 1 else Fault.UNCLEAR
    return code, fault is Fault.DEAD, _STRIKES.get(fault)


def _key(name: str) -> str:
    return name[:1].lower() + name[1:]


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _text(value: object) -> str:
    return value[:2000] if isinstance(value, str) else ""


def _base64(value: object) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else None
    except (binascii.Error, ValueError):
        return None


def _moment(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
