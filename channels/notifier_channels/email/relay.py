"""Where mail goes: a relay's address, how its line is secured, and how long each answer may take; read from one URL."""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_HOST_NAME = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f:.]+\]")


class InvalidRelayUrl(ValueError):
    """The URL names no relay. The message says what to mend and never repeats the URL, which may hold a password."""


class Tls(StrEnum):
    """How the line is secured. There is no `opportunistic`: what may fall back to clear text protects nothing."""

    STARTTLS = "starttls"  #: begins in the clear and goes no further without TLS
    IMPLICIT = "implicit"  #: TLS from the first byte (RFC 8314)
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. RFC 5321 4.5.3.2 grants minutes; a relay of one's own answers sooner, and other messages wait."""

    connect: float = 10.0
    tls: float = 10.0
    greeting: float = 30.0
    command: float = 30.0
    final_dot: float = 60.0  #: the longer, the fewer messages end in doubt
    idle: float = 30.0  #: an unused connection is not used again after this
    close: float = 2.0  #: when `send` is closed early: to hear the answers to final dots already written


@dataclass(frozen=True, slots=True)
class Relay:
    """One SMTP server that takes our mail."""

    host: str
    port: int
    tls: Tls
    credentials: tuple[str, str] | None = field(repr=False)
    hello: str  #: our name in EHLO
    context: ssl.SSLContext = field(repr=False)
    messages_per_connection: int = 100
    timeouts: Timeouts = Timeouts()

    @classmethod
    def from_url(cls, url: str, *, hello: str, timeouts: Timeouts | None = None) -> Relay:
        """Read `smtp://user:password@host:587?tls=starttls&cafile=ca.pem&limit=100&ehlo=mail.example.com`.

        `smtps://` means implicit TLS. For `smtp://` STARTTLS is required, unless the host is this machine.

        Raises:
            InvalidRelayUrl: says what is wrong.

        """
        parts, port = _split(url)
        options = _options(parts.query)
        host = parts.hostname or ""
        is_local = _is_loopback(host)
        tls = _tls(parts.scheme, options.get("tls"), is_local=is_local)
        credentials = None
        if parts.username is not None:
            credentials = (unquote(parts.username), unquote(parts.password or ""))
            if tls is Tls.NONE and not is_local:
                raise InvalidRelayUrl("A password is never sent in the clear: use tls=starttls or smtps://.")
        name = options.get("ehlo", hello)
        if not _HOST_NAME.fullmatch(name):
            raise InvalidRelayUrl("`ehlo` must be a host name, such as mail.example.com.")
        return cls(
            host=host,
            port=port or (465 if tls is Tls.IMPLICIT else 587),
            tls=tls,
            credentials=credentials,
            hello=name,
            context=_context(options.get("cafile")),
            messages_per_connection=_limit(options.get("limit", "100")),
            timeouts=timeouts or Timeouts(),
        )


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidRelayUrl("The relay's URL cannot be read; write smtp://host:port.") from None
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
        raise InvalidRelayUrl("The relay's URL must begin with smtp:// or smtps:// and name a host.")
    if parts.path not in {"", "/"} or parts.fragment:
        raise InvalidRelayUrl(
            "After the relay's host only ?options may follow; in a password write # and / as %23, %2F."
        )
    return parts, port


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = options.keys() - {"tls", "cafile", "limit", "ehlo"}
    if unknown:
        raise InvalidRelayUrl("The relay's URL knows only the options tls, cafile, limit and ehlo.")
    return options


def _tls(scheme: str, wanted: str | None, *, is_local: bool) -> Tls:
    if scheme == "smtps":
        if wanted not in {None, Tls.IMPLICIT}:
            raise InvalidRelayUrl("smtps:// is implicit TLS; for anything else write smtp://.")
        return Tls.IMPLICIT
    if wanted is None:
        return Tls.NONE if is_local else Tls.STARTTLS
    try:
        return Tls(wanted)
    except ValueError:
        raise InvalidRelayUrl("`tls` must be starttls, implicit or none.") from None


def _context(cafile: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=cafile)
    except (OSError, ssl.SSLError):
        readable = cafile is not None and Path(cafile).is_file()
        raise InvalidRelayUrl(f"`cafile` {'holds no certificate' if readable else 'cannot be read'}.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InvalidRelayUrl("`limit` must be a number of messages per connection, 1 or more.")
    return int(text)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
