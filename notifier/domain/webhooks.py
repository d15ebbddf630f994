"""Webhooks that leave the house: how they are signed (Standard Webhooks 1.0), where they may go, when they go again.

An endpoint's secret is stored nowhere. It is made from a link key, which stands in the settings, and from the
endpoint's id: who has the database alone can sign nothing, and there is nothing to encrypt.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from urllib.parse import urlsplit
from uuid import UUID

SECRET_PREFIX = "whsec_"  # noqa: S105  # what the specification puts before a secret
GIVE_UP_AFTER = timedelta(days=3)
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=5), timedelta(hours=6)
LONGEST_PAUSE = timedelta(minutes=1)  #: of an endpoint that took nothing of a whole batch
LONGEST_URL = 2000
LONGEST_LABEL = 63  #: of a name, between its dots (RFC 1035 2.3.4); no resolver takes a longer one, or an empty one


@dataclass(frozen=True, slots=True)
class Signer:
    """Makes secrets and signs with them. The first key is used for new endpoints, each of them for its own."""

    keys: Mapping[str, bytes]

    @property
    def newest(self) -> str:
        """The id of the key that new endpoints get."""
        return next(iter(self.keys))

    def secret(self, endpoint: UUID, key: str) -> str | None:
        """What the receiver verifies with: `whsec_` and 32 bytes in base64. None: the settings lost that key."""
        if key not in self.keys:
            return None
        made = hmac.new(self.keys[key], b"webhook\0" + endpoint.bytes, sha256).digest()
        return SECRET_PREFIX + base64.b64encode(made).decode()


def signed(secret: str, id_: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers that prove a body: its id, when it was sent, and the signature over both and the body."""
    seconds = str(int(at.timestamp()))
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    made = hmac.new(key, f"{id_}.{seconds}.".encode() + body, sha256).digest()
    return {
        "webhook-id": id_,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{base64.b64encode(made).decode()}",
    }


def wait(tries: int, chance: float) -> timedelta:
    """How long a delivery waits after so many tries: 5 s, then four times as long up to 6 h, a quarter more or less.

    `chance`: 0 to 1, so that what failed together does not come again together.
    """
    longest = min(LONGEST_WAIT, FIRST_WAIT * int(4 ** min(tries - 1, 10)))
    return longest * (0.75 + chance / 2)


def pause(failures: int, chance: float) -> timedelta:
    """How long an endpoint is left alone after so many batches of which it took nothing."""
    return min(LONGEST_PAUSE, timedelta(seconds=2 ** min(failures, 10))) * (0.75 + chance / 2)


# Where it may go ------------------------------------------------------------------------------------------------------


def what_is_wrong(url: str, *, is_production: bool) -> str | None:
    """Why this cannot be an endpoint, as the end of a sentence; None when it can.

    Its address is checked when it is connected to: names may change where they lead.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
        if _DIGITS.fullmatch(parts.hostname or ""):
            ipaddress.IPv4Address(parts.hostname)  # 0177.0.0.1 and 2130706433 are other ways to write 127.0.0.1
    except ValueError:
        return _NO_URL
    if not all(0 < len(label) <= LONGEST_LABEL for label in (parts.hostname or "").removesuffix(".").split(".")):
        return _NO_URL
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        return _NO_URL
    if parts.scheme != "https" and (is_production or parts.scheme != "http"):
        return "must begin with https://"
    if parts.username is not None or parts.fragment:
        return "must not carry a user, a password or a fragment; the signature proves who sends"
    return None


_NO_URL = "is not a URL; write it like https://example.com/hooks/notifier"
_DIGITS = re.compile(r"[0-9.]+")


def may_be_reached(address: str, *, is_production: bool) -> bool:
    """True for an address on the public Internet; this machine's own is for development only.

    An address that wraps another one (IPv4-mapped, 6to4, NAT64) is as good as what is in it; Teredo is none.
    """
    try:
        ip = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return False
    if ip.is_loopback:
        return not is_production
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _UNICAST:
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL)


_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is handed out of IPv6
_SPECIAL = tuple(  # IANA's registries of special purposes, where Python 3.11 knows them in part only
    ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291 2.5.5.1, deprecated


def _unwrapped(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(ip, ipaddress.IPv4Address) or ip == ipaddress.IPv6Address("::1"):
        return ip
    if ip in _NAT64 or ip in _COMPATIBLE:
        return ipaddress.IPv4Address(ip.packed[12:])
    return ip.ipv4_mapped or ip.sixtofour or ip
