"""One mail ready for the wire: its envelope, and its bytes with nothing in them that could end it early."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Email, EmailContent, Misconfigured, Outcome, Outgoing, Rejected, WrittenEmail
from notifier_channels.email import forms, mime

FINAL_DOT = b".\r\n"
LONGEST_PATH = 254  #: RFC 5321 4.5.3.1.3, without the angle brackets

_PATH = re.compile(
    r"""[^\x00-\x20"(),:;<>@\[\\\]\x7f-\xa0\u2028\u2029\ud800-\udfff]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"""
)
_NAMES = re.compile(r"[^\W_]{3,}")


@dataclass(frozen=True, slots=True)
class Features:
    """What a server said about itself in its answer to EHLO."""

    pipelining: bool = False
    eight_bit: bool = False
    smtputf8: bool = False
    starttls: bool = False
    knows_size: bool = False
    largest: int = 0  #: of a mail, in bytes; 0: it names no limit
    mechanisms: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Features:
        """Read the lines of the answer; the first is the server's name (RFC 5321 4.1.1.1)."""
        found: dict[str, str] = {}
        mechanisms: set[str] = set()
        for line in text.upper().split("\n")[1:]:
            keyword, _, parameters = line.strip().replace("AUTH=", "AUTH ", 1).partition(" ")
            found[keyword] = parameters
            if keyword == "AUTH":
                mechanisms.update(parameters.split())
        size = found.get("SIZE", "")
        return cls(
            pipelining="PIPELINING" in found,
            eight_bit="8BITMIME" in found,
            smtputf8="SMTPUTF8" in found,
            starttls="STARTTLS" in found,
            knows_size="SIZE" in found,
            largest=int(size) if size.isascii() and size.isdigit() and len(size) <= 20 else 0,
            mechanisms=frozenset(mechanisms),
        )


@dataclass(slots=True, eq=False)
class Mail:
    """A message with its envelope: one sender, one recipient."""

    id: UUID
    sender: str
    recipient: str
    data: bytes  #: dot-stuffed, with the final dot
    size: int  #: as SIZE counts it: before dot-stuffing, without the final dot (RFC 1870 3)
    needs_smtputf8: bool
    was_given_back: bool = False  #: its connection was lost before its envelope was answered

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text that we keep may repeat (I5): of `ann.smith@` also `smith` alone."""
        local, _, domain = self.recipient.rpartition("@")
        return (local, *_NAMES.findall(local), domain, self.sender.rpartition("@")[0])

    def refusal(self, features: Features) -> Outcome | None:
        """Why this server cannot take it, known before a byte is sent."""
        if self.needs_smtputf8 and not features.smtputf8:
            return Rejected("550 5.6.7", "the relay does not offer SMTPUTF8, which an address outside ASCII needs")
        if 0 < features.largest < self.size:
            return Rejected("552 5.3.4", f"{self.size} bytes, and the relay takes {features.largest}")
        return None

    def mail_command(self, features: Features) -> bytes:
        """MAIL with the parameters that this server knows."""
        size = f" SIZE={self.size}" if features.knows_size else ""
        utf8 = ""
        if self.needs_smtputf8:
            utf8 = " SMTPUTF8 BODY=8BITMIME" if features.eight_bit else " SMTPUTF8"
        return f"MAIL FROM:<{self.sender}>{size}{utf8}\r\n".encode()

    def rcpt_command(self) -> bytes:
        """RCPT for the one recipient of this transaction."""
        return f"RCPT TO:<{self.recipient}>\r\n".encode()


def write(outgoing: Outgoing[Email], domain: str) -> Mail | Outcome:
    """Make the mail, or say at once why it cannot be one."""
    to, content = outgoing.to, outgoing.content
    if not isinstance(to, EmailAddress):
        raise TypeError("a mail goes to an EmailAddress")
    recipient = str(to)
    origin = content.letterhead if isinstance(content, WrittenEmail) else content
    sender = outgoing.return_path or str(origin.sender.address)
    if not _is_path(recipient):
        return Rejected("501 5.1.3", "the address could be misread in a command")
    mailboxes = [origin.sender] if origin.reply_to is None else [origin.sender, origin.reply_to]
    if not all(map(_is_path, (sender, *(str(mailbox.address) for mailbox in mailboxes)))):
        return Misconfigured("501 5.1.7", "the sender, return path or reply address could be misread in a command")
    data, size, is_ascii = _bytes(outgoing, to, domain)
    return Mail(outgoing.id, sender, recipient, data, size, needs_smtputf8=not (is_ascii and sender.isascii()))


def _bytes(outgoing: Outgoing[Email], to: EmailAddress, domain: str) -> tuple[bytes, int, bool]:
    """What goes over the wire, its size as SIZE counts it, and whether it is ASCII."""
    match outgoing.content:
        case WrittenEmail(body=body, stuffed=stuffed):
            head = forms.head(cast("Outgoing[WrittenEmail]", outgoing), to, domain)
            data = b"".join((head, *body))
            return data, len(data) - stuffed - len(FINAL_DOT), head.isascii()
        case EmailContent():
            data = mime.encode(cast("Outgoing[EmailContent]", outgoing), to, domain)
            return finish(data), len(data), data.isascii()


def finish(data: bytes) -> bytes:
    """Stuff the dots and add the final one (RFC 5321 4.5.2). The data ends in CRLF and holds no bare CR or LF."""
    if b"\r\n." in data:
        data = data.replace(b"\r\n.", b"\r\n..")
    return data + FINAL_DOT


def _is_path(text: str) -> bool:
    return len(text) <= LONGEST_PATH and _PATH.fullmatch(text) is not None
