"""What became of a campaign, added up: each person of its audience once, and each channel to the last of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from notifier.domain.campaigns import CampaignState
from notifier.domain.messages import AttemptState, State
from notifier_channels.contract import Channel

BEST_FIRST = (
    *(State.COMPLAINED, State.DELIVERED, State.ACCEPTED, State.UNKNOWN, State.SENDING, State.CLAIMED, State.QUEUED),
    *(State.BOUNCED, State.FAILED, State.SUPPRESSED, State.EXPIRED, State.CANCELLED),
)
"""Of a person with several messages, which one counts: how far the campaign got with them."""

TAKEN = frozenset({State.ACCEPTED, State.DELIVERED, State.BOUNCED, State.COMPLAINED})  #: by the provider
ARRIVED = frozenset({State.DELIVERED, State.COMPLAINED})

MOST_PLACES = 50  #: domains and locales that are named; the others are added up
MOST_UNKNOWN = 100  #: messages in doubt that are listed


@dataclass(frozen=True, slots=True)
class Headline:
    """The campaign itself, as far as a report needs it."""

    id: UUID
    name: str
    state: CampaignState
    pause_reason: str | None
    template: str
    topic: str | None
    is_notice: bool
    rate: float | None
    starts_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    now: datetime


@dataclass(frozen=True, slots=True)
class People:
    """The audience, each person in one place: `audience` is the sum of all the others."""

    audience: int
    not_planned: int  #: in no batch yet
    waiting: int  #: in a batch that nobody has decided, and in none that was
    left_out: Mapping[str, int]  #: the campaign ended before their batch, by how it did
    unreachable: int  #: without an address on any of its channels
    states: Mapping[State, int]  #: of the message that got furthest


@dataclass(frozen=True, slots=True)
class Outcome:
    """So many messages stand like this."""

    state: State
    reason: str | None  #: its first word
    messages: int


@dataclass(frozen=True, slots=True)
class ChannelReport:
    """One channel. The audience is the sum of `not_planned`, `waiting`, `left_out`, `unreachable` and `decided`.

    A decided person has one message by email and by SMS, and by push one for each device.
    """

    channel: Channel
    step: int
    not_planned: int
    waiting: int
    left_out: Mapping[str, int]
    unreachable: int
    decided: int
    outcomes: Sequence[Outcome] = ()

    @property
    def done(self) -> int:
        """People about whom nothing is left to be decided here."""
        return self.decided + self.unreachable + sum(self.left_out.values())

    def messages(self, *states: State) -> int:
        """How many are in one of these states."""
        return sum(one.messages for one in self.outcomes if one.state in states)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a campaign has come: what is cheap to know."""

    headline: Headline
    audience: int
    left_out: Mapping[str, int]  #: people who were in no batch when it ended, by how it did
    channels: Sequence[ChannelReport]


@dataclass(frozen=True, slots=True)
class Hour:
    """Attempts that began within an hour (UTC)."""

    hour: datetime
    channel: Channel
    attempts: Mapping[AttemptState, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Messages to one domain, in one language, or to one country's numbers."""

    name: str | None  #: None: all that are not named; '': it is not known
    messages: int
    states: Mapping[State, int]


@dataclass(frozen=True, slots=True)
class Doubt:
    """A message of which nobody knows whether it was sent."""

    message: UUID
    channel: Channel
    reason: str | None
    provider: str
    attempted_at: datetime


@dataclass(frozen=True, slots=True)
class Caused:
    """What came back: messages of which it was said, each counted once for each kind."""

    events: Mapping[str, int]  #: by kind of delivery event
    withdrawals: Mapping[str, int]  #: noes that name a message, by source


@dataclass(frozen=True, slots=True)
class Report:
    """All of it, as it was at one instant."""

    headline: Headline
    people: People
    channels: Sequence[ChannelReport]
    hours: Sequence[Hour]
    domains: Sequence[Place]
    locales: Sequence[Place]
    calling_codes: Sequence[Place]
    caused: Caused
    unknown: Sequence[Doubt]
