"""What the catcher took, in memory: the newest mails, at most so many and so large in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from notifier.sandbox import one_click
from notifier.sandbox.reading import Bodies, Headers, read_bodies, read_headers
from notifier.sandbox.simulators import EVERYBODY_ELSE, Kind, Simulator

MOST_MAILS = 5_000
MOST_BYTES = 256 * 1024 * 1024


@dataclass(slots=True)
class Told:
    """How far a report to Notifier has come."""

    kind: Kind
    at: datetime
    status: str = "waiting"


@dataclass(slots=True)
class Mail:
    """One mail as it was taken. It changes only in what the reader did with it and what Notifier was told."""

    id: int
    received_at: datetime
    sender: str  #: of the envelope
    recipients: tuple[str, ...]  #: of the envelope
    raw: bytes
    simulator: Simulator = EVERYBODY_ELSE
    is_read: bool = False
    left: one_click.Answer | None = None  #: what came of the unsubscribe button
    told: list[Told] = field(default_factory=list)
    _headers: Headers | None = None
    _snippet: str | None = None

    @property
    def headers(self) -> Headers:
        """Parsed when somebody looks for the first time."""
        if self._headers is None:
            self._headers = read_headers(self.raw)
        return self._headers

    @property
    def bodies(self) -> Bodies:
        """Parsed anew each time: they are large, and rarely looked at twice."""
        return read_bodies(self.raw)

    @property
    def snippet(self) -> str:
        """The first words, parsed when the mail is listed for the first time."""
        if self._snippet is None:
            self._snippet = self.bodies.snippet
        return self._snippet

    @property
    def offer(self) -> one_click.Offer | None:
        """What the mail says about leaving its list."""
        return one_click.examine(self.headers)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which mails somebody asks for. Empty parts match everything; text is compared without regard to case."""

    to: str = ""
    subject: str = ""
    anywhere: str = ""  #: in the recipients or in the subject
    after: int = 0
    before: int | None = None

    def matches(self, mail: Mail) -> bool:
        """Cheap questions first: the head of a mail is parsed only when nothing else decides."""
        if mail.id <= self.after or (self.before is not None and mail.id >= self.before):
            return False
        to = " ".join(mail.recipients).lower()
        if self.to.lower() not in to:
            return False
        if self.subject and self.subject.lower() not in mail.headers.subject.lower():
            return False
        wanted = self.anywhere.lower()
        return wanted in to or wanted in mail.headers.subject.lower()


class Inbox:
    """The mails, newest last. Belongs to one event loop."""

    def __init__(self, *, most_mails: int = MOST_MAILS, most_bytes: int = MOST_BYTES) -> None:
        self._most_mails = most_mails
        self._most_bytes = most_bytes
        self._mails: dict[int, Mail] = {}
        self.bytes = 0
        self.taken = 0  #: ever
        self.refused: Counter[str] = Counter()  #: by simulator

    def __len__(self) -> int:
        return len(self._mails)

    def __iter__(self) -> Iterator[Mail]:
        """Newest first, over a copy: mails may come in meanwhile."""
        return reversed(list(self._mails.values()))

    @property
    def unread(self) -> int:
        """How many nobody has opened."""
        return sum(not mail.is_read for mail in self)

    def take(
        self, at: datetime, sender: str, recipients: Sequence[str], raw: bytes, simulator: Simulator = EVERYBODY_ELSE
    ) -> Mail:
        """Keep a mail; the oldest ones make room."""
        self.taken += 1
        mail = Mail(self.taken, at, sender, tuple(recipients), raw, simulator)
        self._mails[mail.id] = mail
        self.bytes += len(raw)
        while len(self._mails) > 1 and (len(self._mails) > self._most_mails or self.bytes > self._most_bytes):
            self.bytes -= len(self._mails.pop(next(iter(self._mails))).raw)
        return mail

    def get(self, mail: int) -> Mail | None:
        """One mail, if it is still here."""
        return self._mails.get(mail)

    def clear(self) -> int:
        """Throw all away and say how many there were. Numbers are not used again."""
        count = len(self._mails)
        self._mails.clear()
        self.bytes = 0
        return count
