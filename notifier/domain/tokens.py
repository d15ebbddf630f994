"""Links that act without a login: signed, versioned, free of addresses, valid as long as their purpose wants.

Two forms. A link token travels in a URL: `v1.<key id>.<payload>.<mac>`, each part readable in a log without naming
anybody. A mail token is the local part of an address: it survives servers that change its case (base32, RFC 4648) and
fits into the 64 octets of RFC 5321 4.5.3.1.1. Every MAC is taken over all that stands before it and over what the token
is for, so no part of one token is of use in another.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import TypeAlias
from uuid import UUID

from notifier.errors import NotConfigured
from notifier_channels.contract import Channel

UNDO_FOR = timedelta(hours=1)
MANAGE_FOR = timedelta(days=30)
CONFIRM_FOR = timedelta(days=7)
FRESH_LINK = "manage-link"  #: the template, and the system topic, of the one mail that carries a fresh link
FRESH_FOR = timedelta(hours=1)  #: a link that was asked for and is older may have been passed on, and only reduces

VERSION = "v1"
MAC_BYTES = 24  #: 192 bits, and 32 base64 characters without a spare bit
MAIL_MAC_BYTES = 16  #: 128 bits: what 64 characters of base32 leave room for
LONGEST = 4096  #: an undo token names a ledger line for each holder of the address; a URL token is about 130

_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")
_CHANNELS = {channel: bytes([letter]) for channel, letter in zip(Channel, b"esp", strict=True)}
_CHANNEL_OF = {code: channel for channel, code in _CHANNELS.items()}
_OPT_OUT, _UNDO, _REPORT = b"o", b"u", b"r"
_MANAGE, _FRESH = b"m", b"f"
_CONFIRM, _HASH_BYTES = b"c", 16
_HOOKS = {Channel.SMS: "hooks/twilio/status"}  #: where providers report that are told so with each message
_MAIL_OPT_OUT, _RETURN_PATH = "u", "b"
_LINK, _MAIL = b"notifier link\0", b"notifier mail\0"  # what a MAC is for, before all that it is taken over
_BLOCK = 64  # bytes that SHA-256 works on at once
_URLSAFE = bytes.maketrans(b"+/", b"-_")

# Twilio's connection overrides: by default it comes again once, and only when it could not connect. Here five times,
# after any failure, within its 15 seconds. The fragment is neither sent nor signed (Twilio's page, November 2026).
COME_AGAIN = "rc=5&rp=all"


@dataclass(frozen=True, slots=True)
class OptOutLink:
    """Stands in every marketing mail, for ever: it can only reduce what this recipient is sent."""

    recipient: UUID
    message: UUID
    channel: Channel
    topic: str

    @property
    def trace(self) -> dict[str, str]:
        """What the ledger keeps of the link: what was said through this very one is known by it."""
        return {"message": str(self.message), "topic": self.topic}


@dataclass(frozen=True, slots=True)
class ManageLink:
    """Opens a recipient's own settings for 30 days."""

    recipient: UUID
    expires_at: datetime
    message: UUID | None = None  #: in whose foot it stands
    was_asked_for: bool = False  #: mailed by itself; what stands in other mails is passed on with them

    def is_fresh(self, now: datetime) -> bool:
        """Whether its holder may also opt in and see everything."""
        return self.was_asked_for and now < self.expires_at - MANAGE_FOR + FRESH_FOR

    @property
    def trace(self) -> dict[str, str]:
        """As above: a person has many of these, and of what one of them said another one must not offer the undo."""
        own = {"message": str(self.message)} if self.message else {"link_expires_at": self.expires_at.isoformat()}
        return {"link": "manage", **own}


@dataclass(frozen=True, slots=True)
class UndoLink:
    """Takes back exactly these ledger lines, for an hour. Only the page that confirms a refusal carries one."""

    recipient: UUID
    numbers: tuple[int, ...]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ConfirmLink:
    """Asks whether it was really them: grants one topic on one channel to whom one address belongs, once."""

    confirmation: UUID  #: the row that remembers whether it was used
    recipient: UUID
    channel: Channel
    address_hash: bytes = field(repr=False)  #: its first 16 bytes
    topic: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class MailOptOut:
    """What the address in a mailto: List-Unsubscribe says. The topic as a hash: its key may be long."""

    recipient: UUID
    topic_hash: bytes

    def topic_among(self, keys: Iterable[str]) -> str | None:
        """The topic's key, unless the topic has vanished."""
        return next((key for key in keys if _topic_hash(key) == self.topic_hash), None)


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """What comes back with a report: in the envelope sender of a bounce (VERP), or in a callback's URL."""

    message: UUID
    attempt: int


PageLink: TypeAlias = OptOutLink | ManageLink


class Links:
    """Makes and reads tokens. The newest key signs; every key that is still configured verifies."""

    def __init__(
        self,
        keys: Mapping[str, bytes],
        public_url: str,
        inbound_domain: str | None,
        reference_header: str | None = None,
    ) -> None:
        if not keys or any(not _KEY_ID.fullmatch(key_id) for key_id in keys):
            raise NotConfigured("NOTIFIER_LINK_KEYS: a key's id is 1 to 16 letters, digits, `-` or `_`.")
        self._keys = dict(keys)
        newest = next(iter(self._keys))
        self._opening = f"{VERSION}.{newest}.".encode()
        self._link_signer = _Signer(self._keys[newest], _LINK)
        self._mail_signer = _Signer(self._keys[newest], _MAIL)
        self._public_url = public_url.rstrip("/")
        self._inbound_domain = inbound_domain
        self._reference_header = reference_header

    def unsubscribe_url(self, recipient: UUID, topic_key: str, channel: Channel, message: UUID) -> str:
        """The https URL of List-Unsubscribe and of the link in the body."""
        payload = _OPT_OUT + recipient.bytes + message.bytes + _CHANNELS[channel] + topic_key.encode()
        return f"{self._public_url}/u/{self._sign(payload)}"

    def preferences_url(self, recipient: UUID, message: UUID, now: datetime) -> str:
        """What a message's foot leads to: where a recipient sees and reduces what they get; good for 30 days."""
        payload = _MANAGE + recipient.bytes + _seconds(now + MANAGE_FOR) + message.bytes
        return f"{self._public_url}/u/{self._sign(payload)}"

    def fresh_url(self, recipient: UUID, now: datetime) -> str:
        """The same for somebody who asked for it: for an hour it also opts in and shows everything."""
        return f"{self._public_url}/u/{self._sign(_FRESH + recipient.bytes + _seconds(now + MANAGE_FOR))}"

    def undo_token(self, recipient: UUID, numbers: Iterable[int], now: datetime) -> str:
        """What the confirmation page's undo button posts."""
        lines = list(numbers)
        return self._sign(_UNDO + recipient.bytes + _seconds(now + UNDO_FOR) + struct.pack(f">{len(lines)}Q", *lines))

    def read_page(self, token: str, now: datetime) -> PageLink | None:
        """What a token in `/u/<token>` says; None for whatever is forged, damaged, expired or for another purpose."""
        payload = self._verified(token)
        if payload is None:
            return None
        if payload[:1] == _OPT_OUT and len(payload) > 34 and payload[33:34] in _CHANNEL_OF:
            channel = _CHANNEL_OF[payload[33:34]]
            return OptOutLink(UUID(bytes=payload[1:17]), UUID(bytes=payload[17:33]), channel, payload[34:].decode())
        link = _manage_link(payload)
        return link if link and now < link.expires_at else None

    def read_undo(self, token: str, now: datetime) -> UndoLink | None:
        """What an undo button posted; None for anything else."""
        payload = self._verified(token)
        if payload is None or payload[:1] != _UNDO or len(payload) % 8 != 1:
            return None
        numbers = struct.unpack(f">{(len(payload) - 25) // 8}Q", payload[25:])
        link = UndoLink(UUID(bytes=payload[1:17]), numbers, _moment(payload[17:25]))
        return link if now < link.expires_at else None

    def confirm_url(self, link: ConfirmLink) -> str:
        """What a mail that asks for a confirmation leads to; good until the link expires."""
        payload = _CONFIRM + link.confirmation.bytes + link.recipient.bytes + _CHANNELS[link.channel]
        payload += link.address_hash[:_HASH_BYTES] + _seconds(link.expires_at) + link.topic.encode()
        return f"{self._public_url}/c/{self._sign(payload)}"

    def read_confirm(self, token: str, now: datetime) -> ConfirmLink | None:
        """What a token in `/c/<token>` says; None for anything else, and for what has expired."""
        payload = self._verified(token)
        if payload is None or payload[:1] != _CONFIRM or len(payload) <= 58 or payload[33:34] not in _CHANNEL_OF:
            return None
        channel, expires_at = _CHANNEL_OF[payload[33:34]], _moment(payload[50:58])
        who = UUID(bytes=payload[1:17]), UUID(bytes=payload[17:33])
        link = ConfirmLink(*who, channel, payload[34:50], payload[58:].decode(), expires_at)
        return link if now < link.expires_at else None

    def unsubscribe_mailto(self, recipient: UUID, topic_key: str) -> str | None:
        """The address of List-Unsubscribe's mailto; None when no mail comes back to us."""
        if self._inbound_domain is None:
            return None
        return self._mail_address(_MAIL_OPT_OUT, recipient.bytes + _topic_hash(topic_key))

    def return_path(self, message: UUID, attempt: int) -> str | None:
        """The envelope sender of one attempt; None when no mail comes back to us."""
        if self._inbound_domain is None:
            return None
        return self._mail_address(_RETURN_PATH, message.bytes + struct.pack(">H", attempt))

    def reference_header(self, message: UUID, attempt: int) -> str | None:
        """The same in the header that a provider repeats in its reports; None where none is wanted."""
        if self._reference_header is None:
            return None
        token = self._mail_token(_RETURN_PATH, message.bytes + struct.pack(">H", attempt))
        return self._reference_header.replace("{reference}", token)

    def report_url(self, channel: Channel, message: UUID, attempt: int) -> str | None:
        """Where the channel's provider reports on one attempt; None where providers are not told."""
        if (hook := _HOOKS.get(channel)) is None:
            return None
        token = self._sign(_REPORT + message.bytes + struct.pack(">H", attempt))
        return f"{self._public_url}/{hook}/{token}#{COME_AGAIN}"

    def read_report(self, token: str) -> ReturnPath | None:
        """What a callback's URL says; None for anything else."""
        payload = self._verified(token)
        if payload is None or payload[:1] != _REPORT or len(payload) != 19:
            return None
        return ReturnPath(UUID(bytes=payload[1:17]), int.from_bytes(payload[17:], "big"))

    def read_mail(self, local_part: str) -> MailOptOut | ReturnPath | None:
        """What the local part of one of our own addresses says, in whatever case it came back."""
        kind, _, text = local_part.lower().partition("-")
        body = self._verified_mail(kind, text) if local_part.isascii() else None
        if body is None:
            return None
        if kind == _MAIL_OPT_OUT and len(body) == 22:
            return MailOptOut(UUID(bytes=body[:16]), body[16:])
        if kind == _RETURN_PATH and len(body) == 18:
            return ReturnPath(UUID(bytes=body[:16]), int.from_bytes(body[16:], "big"))
        return None

    def _sign(self, payload: bytes) -> str:
        signed = self._opening + _to_base64(payload)
        mac = self._link_signer.mac(signed)[:MAC_BYTES]
        return (signed + b"." + _to_base64(mac)).decode()

    def _verified(self, token: str) -> bytes | None:
        """The payload, if one of our keys signed it. Compares text with text, so that a MAC has one spelling only."""
        signed, _, mac = token.rpartition(".")
        parts = signed.split(".")
        if len(token) > LONGEST or not token.isascii() or len(parts) != 3 or parts[0] != VERSION:
            return None
        secret = self._keys.get(parts[1], b"")
        genuine = hmac.compare_digest(_link_mac(secret, signed), mac)
        return _from_base64(parts[2]) if genuine and secret else None

    def _mail_address(self, kind: str, body: bytes) -> str:
        return f"{self._mail_token(kind, body)}@{self._inbound_domain}"

    def _mail_token(self, kind: str, body: bytes) -> str:
        mac = self._mail_signer.mac(_mail_message(kind, body))[:MAIL_MAC_BYTES]
        return f"{kind}-{_to_base32(body + mac)}"

    def _verified_mail(self, kind: str, text: str) -> bytes | None:
        """There is no room for a key's id: every key is tried, whichever fits."""
        signed = _from_base32(text)
        body, mac = signed[:-MAIL_MAC_BYTES], signed[-MAIL_MAC_BYTES:]
        fits = [hmac.compare_digest(_mail_mac(secret, kind, body), mac) for secret in self._keys.values()]
        return body if any(fits) else None


def _manage_link(payload: bytes) -> ManageLink | None:
    """Those of before named no message."""
    if payload[:1] not in (_MANAGE, _FRESH) or len(payload) not in (25, 41):
        return None
    who, expires_at = UUID(bytes=payload[1:17]), _moment(payload[17:25])
    message = UUID(bytes=payload[25:]) if len(payload) == 41 else None
    return ManageLink(who, expires_at, message, was_asked_for=payload[:1] == _FRESH)


class _Signer:
    """HMAC-SHA-256 (RFC 2104) with the key's two blocks hashed beforehand: every message carries two to four MACs.

    This takes a third of the time of `hmac.digest`, which is what verifies them.
    """

    def __init__(self, secret: bytes, purpose: bytes) -> None:
        key = (sha256(secret).digest() if len(secret) > _BLOCK else secret).ljust(_BLOCK, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in key) + purpose)
        self._outer = sha256(bytes(byte ^ 0x5C for byte in key))

    def mac(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


def _link_mac(secret: bytes, signed: str) -> str:
    return _to_base64(hmac.digest(secret, _LINK + signed.encode(), "sha256")[:MAC_BYTES]).decode()


def _mail_mac(secret: bytes, kind: str, body: bytes) -> bytes:
    return hmac.digest(secret, _MAIL + _mail_message(kind, body), "sha256")[:MAIL_MAC_BYTES]


def _mail_message(kind: str, body: bytes) -> bytes:
    return kind.encode() + b"\0" + body


@lru_cache(maxsize=256)
def _topic_hash(key: str) -> bytes:
    return sha256(key.encode()).digest()[:6]


def _seconds(moment: datetime) -> bytes:
    return struct.pack(">Q", int(moment.timestamp()))


def _moment(seconds: bytes) -> datetime:
    return datetime.fromtimestamp(int.from_bytes(seconds, "big"), UTC)


def _to_base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False).translate(_URLSAFE, b"=")


def _from_base64(text: str) -> bytes:
    """Only called on what we have signed, so it is well formed."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _to_base32(data: bytes) -> str:
    return base64.b32encode(data).rstrip(b"=").decode().lower()


def _from_base32(text: str) -> bytes:
    """Bytes, or none at all when the text is not exactly what `_to_base32` writes."""
    try:
        data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        return b""
    return data if _to_base32(data) == text else b""
