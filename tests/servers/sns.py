"""A stand-in for Amazon SNS: signs as it does, with a certificate of its own that it gives out at Amazon's URL."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ARN = "arn:aws:sns:eu-central-1:123456789012:mail"
CERTIFICATE = f"https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-{'0a' * 16}.pem"
SUBSCRIBE = f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={ARN}&Token=abc123"
ORDER = {  # as Amazon's documentation gives it
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}


def make_certificate() -> tuple[rsa.RSAPrivateKey, bytes]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .sign(key, hashes.SHA256())
    )
    return key, made.public_bytes(serialization.Encoding.PEM)


_MADE = make_certificate()


@dataclass
class Sns:
    """What is asked of it, and what it signs."""

    key: rsa.RSAPrivateKey = _MADE[0]
    certificate: bytes = _MADE[1]
    asked: list[str] = field(default_factory=list)
    is_away: bool = False

    async def get(self, url: str) -> bytes:
        self.asked.append(url)
        if self.is_away:
            raise httpx.ConnectTimeout("away")
        return self.certificate

    def notification(self, message: Any, version: str = "2", **changes: Any) -> bytes:
        fields = {
            "Type": "Notification",
            "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
            "TopicArn": ARN,
            "Message": message if isinstance(message, str) else json.dumps(message),
            "Timestamp": "2026-11-23T10:00:00.000Z",
            "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe",
        }
        return self.sign(fields | changes, version)

    def confirmation(self, url: str = SUBSCRIBE, **changes: Any) -> bytes:
        fields = {
            "Type": "SubscriptionConfirmation",
            "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
            "Token": "abc123",
            "TopicArn": ARN,
            "Message": "You have chosen to subscribe to the topic.",
            "SubscribeURL": url,
            "Timestamp": "2026-11-23T10:00:00.000Z",
        }
        return self.sign(fields | changes, "1")

    def sign(self, fields: dict[str, Any], version: str) -> bytes:
        names = ORDER[fields["Type"]]
        text = "".join(f"{name}\n{fields[name]}\n" for name in names if name in fields)
        hashed = hashes.SHA1() if version == "1" else hashes.SHA256()
        signature = base64.b64encode(self.key.sign(text.encode(), padding.PKCS1v15(), hashed)).decode()
        more = {"SignatureVersion": version, "Signature": signature, "SigningCertURL": CERTIFICATE}
        return json.dumps({**more, **fields}).encode()


def ses(name: str, source: str, form: str = "notificationType", **about: Any) -> dict[str, Any]:
    """An event of SES about a mail whose envelope sender this is."""
    mail = {
        "timestamp": "2026-11-23T09:59:00.000Z",
        "source": source,
        "messageId": "0107018c-ses-000000",
        "destination": ["ann@one.test"],
    }
    details = {"timestamp": "2026-11-23T10:00:00.000Z", **about}
    return {form: name, "mail": mail, name[:1].lower() + name[1:]: details}


def bounce(source: str, status: str, said: str, kind: str = "Permanent", detail: str = "General") -> dict[str, Any]:
    recipient = {"emailAddress": "ann@one.test", "action": "failed", "status": status, "diagnosticCode": said}
    found = {name: value for name, value in recipient.items() if value}
    return ses(
        "Bounce", source, bounceType=kind, bounceSubType=detail, bouncedRecipients=[found], feedbackId="0107-feedback"
    )
