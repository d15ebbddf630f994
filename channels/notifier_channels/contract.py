"""What every channel keeps: it takes addresses and content, and answers for each message with one outcome.

This is where a message leaves the house. Outcomes are values; an exception out of `send` is a bug of ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar
from uuid import UUID

from notifier_channels.addresses import Device, EmailAddress, PhoneNumber, Platform

MessageId: TypeAlias = UUID


class Channel(StrEnum):
    """The ways to reach a person. The value is what stands in the database, in the API and in templates."""

    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"


Address: TypeAlias = EmailAddress | PhoneNumber | Device


# What can be sent -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A display name and an address, as they stand in From and Reply-To."""

    name: str
    address: EmailAddress


class ListHeaders(NamedTuple):
    """What makes a mail one of a list that can be left: RFC 2369, RFC 2919 and RFC 8058. Only marketing carries it."""

    list_id: str  #: stable id below a domain that we own, e.g. `newsletter.example.com`
    list_name: str  #: what a person reads, e.g. `Newsletter`
    unsubscribe_url: str  #: https, carries a signed token and no address
    unsubscribe_mailto: str | None = None  #: an address whose local part is a signed token; None: nobody receives there


@dataclass(frozen=True, slots=True)
class EmailContent:
    """One rendered email, before it is encoded. Only the bodies may hold control characters such as CR and LF."""

    sender: Mailbox
    subject: str
    text: str
    html: str | None = None
    reply_to: Mailbox | None = None
    subscription: ListHeaders | None = None
    feedback_id: str | None = None  #: Gmail's Feedback-ID `a:b:c:sender`; never one value per recipient


@dataclass(frozen=True, slots=True, eq=False)
class Letterhead:
    """What the heads of many emails have in common, written down once by `email.forms`."""

    sender: Mailbox
    reply_to: Mailbox | None
    subject: str | None  #: None: each mail has its own
    head: str  #: with `%(name)s` where a mail puts what is its own


class WrittenEmail(NamedTuple):
    """One email of many that are alike: its body is ready for the wire, and its head but for what is its own."""

    letterhead: Letterhead
    subject: str
    subscription: ListHeaders | None
    body: Sequence[bytes]  #: to be joined: from the end of the last header to the final dot, its dots stuffed; ASCII
    stuffed: int  #: dots that were put in


Email: TypeAlias = EmailContent | WrittenEmail
"""What takes mail takes both."""


@dataclass(frozen=True, slots=True)
class SmsContent:
    """One text message, as it is to be read; how many segments it takes is counted by `sms.segments`."""

    text: str


@dataclass(frozen=True, slots=True)
class PushContent:
    """One notification on a device's lock screen."""

    title: str
    body: str
    link: str | None = None  #: where a tap leads: https or the app's own scheme
    image: str | None = None  #: https
    data: Mapping[str, str] = field(default_factory=dict)  #: for the app; every value is text
    is_urgent: bool = False  #: wakes a sleeping device; transactional messages only


Content: TypeAlias = Email | SmsContent | PushContent

ContentT_co = TypeVar("ContentT_co", covariant=True)


class Outgoing(NamedTuple, Generic[ContentT_co]):
    """One message that may go: intent is committed, content is rendered."""

    id: MessageId
    attempt: int  #: 1 for the first try; stands in references that come back in reports
    to: Address
    content: ContentT_co
    first_attempted_at: datetime  #: the Date header: stays the same on every attempt (RFC 5322 3.6.1)
    expires_at: datetime
    return_path: str | None = None  #: envelope sender that carries a signed reference; None: the sender's address
    callback_url: str | None = None  #: where the provider reports on this attempt; carries a signed reference
    reference_header: str | None = None  #: a whole header that a mail provider repeats in its reports on this attempt
    platform: Platform | None = None  #: of a device; None: it is not known, or this goes to no device


# What can come of it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Receipt:
    """The provider took it."""

    reference: str = ""  #: the provider's own id, e.g. the queue id in SMTP's 250
    code: str = ""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Definitely not taken: refused connection, SMTP 4yz, an error before the accepting byte. Counts as an attempt."""

    code: str
    detail: str = ""  #: for a person to read; never holds an address, a name, a token or message data (I5)
    is_away: bool = False  #: nothing could be reached at all: it would be the same for every other message


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Told to slow down before it was taken. Does not count as an attempt."""

    code: str
    retry_after: timedelta
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """May have been taken: the line was lost after the final dot or the request's last byte."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """This content or this recipient was refused for good. The address itself stays usable."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class BadAddress:
    """Nobody is there: the address must not be used again."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class OptedOut:
    """Refused for good, because the person has said no at the provider: that no is ours to keep, too."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """Our credentials, sender or policy are wrong: nothing is wrong with the message, which stays queued."""

    code: str
    detail: str = ""
    platform: Platform | None = None  #: wrong for devices of this platform only; None: for everything


@dataclass(frozen=True, slots=True)
class Withheld:
    """The witness said no, or its time was over (`EXPIRED`): not one byte that could be accepted has left."""

    code: str = "withheld"
    detail: str = ""


EXPIRED = Withheld("expired")
"""It has expired by this machine's clock, while it waited for its turn."""


Outcome: TypeAlias = (
    Receipt | Unavailable | RateLimited | Ambiguous | Rejected | BadAddress | OptedOut | Misconfigured | Withheld
)


# What is reported later -----------------------------------------------------------------------------------------------


class EventKind(StrEnum):
    """What can be reported of a message after a provider took it."""

    SENT = "sent"  #: the provider has it, and may have handed it on: proof that it was taken
    DELIVERED = "delivered"
    DEFERRED = "deferred"  #: the provider still tries
    BOUNCED = "bounced"  #: it gave up
    COMPLAINED = "complained"  #: the reader called it spam
    UNSUBSCRIBED = "unsubscribed"  #: the reader left the list, or all text messages, at the provider


class Strike(StrEnum):
    """What a bounce that proves nothing holds against the address: enough of them do."""

    DOMAIN = "domain"  #: its domain was not found: DNS breaks and heals
    SOFT = "soft"  #: a permanent failure without a reason
    UNREACHABLE = "unreachable"  #: a phone that is off or away, or a carrier that blocks; it may be for good


class Alarm(StrEnum):
    """What a report says of the sender: it would be the same for other messages, and a person has to look."""

    REFUSED = "refused"  #: the account or the sender may not send
    FILTERED = "filtered"  #: somebody on the way took the text for spam
    TOO_FAST = "too_fast"  #: the carrier's rate or daily cap for this sender is reached


@dataclass(frozen=True, slots=True)
class Again:
    """What did certainly not arrive, for a cause that may pass, may be tried once more."""

    after: timedelta  #: how long the first time waits; each later one waits twice as long as the one before
    most: int  #: how often


@dataclass(frozen=True, slots=True)
class DeliveryEvent:
    """One report, as a provider's webhook was read. It may come twice, late, early, or in any order."""

    message: MessageId
    kind: EventKind
    source: str  #: who reports, e.g. a provider's name
    source_id: str  #: the source's own id of this report: what comes twice is known by it
    occurred_at: datetime
    attempt: int | None = None
    code: str | None = None  #: e.g. `550 5.1.1`
    is_dead: bool | None = None  #: nobody is at the address, or somebody may be; None: let the code say
    reference: str | None = None  #: the provider's id of the message, where the report names it
    strike: Strike | None = None  #: of a bounce that does not prove the address dead, and may be its fault
    alarm: Alarm | None = None  #: of a bounce that is the sender's fault
    again: Again | None = None  #: of a bounce that is final for this attempt, and whose cause may pass


# The seams --------------------------------------------------------------------------------------------------------


class Witness(Protocol):
    """Stands beside the wire and writes down what leaves and what comes back. Its calls are cheap and do not await."""

    @property
    def is_over(self) -> bool:
        """It says no to everything from now on, whoever it is for: the rest of the batch need not be tried."""

    def about_to_commit(self, message: MessageId) -> bool:
        """Called right before the byte or request that could be accepted. False: do not send, answer `Withheld`."""

    def answered(self, message: MessageId, outcome: Outcome) -> None:
        """Called as soon as the answer is read, before the same connection commits the next message.

        `send` yields the outcome as well; but what it yields is read when the loop comes round to it, and a kill in
        between would leave more than one message per connection in doubt.
        """


ContentT_contra = TypeVar("ContentT_contra", contravariant=True)


class Provider(Protocol[ContentT_contra]):
    """One way out: an SMTP relay, Twilio, FCM. Lives as long as its worker process and keeps its connections."""

    @property
    def name(self) -> str:
        """Stands on attempts, in metrics and in pauses, e.g. `smtp`."""

    @property
    def most_at_once(self) -> int:
        """The largest batch that it takes in one go; a slow sender names few, so that none waits in its hands."""

    def send(
        self, batch: Sequence[Outgoing[ContentT_contra]], witness: Witness
    ) -> AsyncIterator[tuple[MessageId, Outcome]]:
        """Try each message once and yield exactly one outcome for each, as they come, in any order.

        When the iterator is closed early, what was not committed to the wire is not sent afterwards.
        """

    async def close(self) -> None:
        """Give the connections back. Nothing is sent after this."""


class Pace(Protocol):
    """How fast one sender may go, whoever sends through it: one of text messages has a rate of segments."""

    @property
    def together(self) -> int:
        """So many units may be asked for in one turn, without a burst that anybody would notice; at least 1."""

    async def turn(self, units: int) -> None:
        """Wait until so many units may go. Called before the witness is asked."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """An attempt of which nobody on our side knows whether the provider took it."""

    message: MessageId
    attempt: int
    to: Address
    started_at: datetime
    settled_at: datetime  #: when the answer was given up
    taken: frozenset[str]  #: the provider's references of our other attempts to this address: it is none of these


class LooksUp(Protocol):
    """A provider that can be asked later what it took."""

    async def look_up(self, doubts: Sequence[Doubt]) -> Mapping[MessageId, Receipt | None]:
        """Those that it could be asked about: the receipt of what it proves to have taken, else None.

        None may have been taken or not. What is missing could not be asked about now.
        """

    async def close(self) -> None:
        """Give the connections back."""
