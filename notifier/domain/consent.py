"""Whether a message may go, decided at the last moment: the consent rule of DESIGN.md section 4 as a pure function.

A `Permit` is the only way to rendered content that a channel accepts; only this module makes one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from notifier.domain.campaigns import LOOK_AGAIN, CampaignState
from notifier.domain.caps import Cap, Sent, reached
from notifier.domain.messages import Category
from notifier.domain.routing import EVERY_CHANNEL, Go, Route, Stop, Turn, Wait, stands
from notifier.domain.timing import SPREAD, Held, Hours, Why, hold
from notifier_channels.contract import Channel

ANY = "any"  #: as an event's channel: all channels
ALL = "all"  #: as a scope: every topic that is not mandatory
MARKETING = "marketing"  #: as a scope: every marketing topic


class Default(StrEnum):
    """What a topic's silence means on a channel."""

    OPT_IN = "opt_in"  #: nothing goes without a grant
    OPT_OUT = "opt_out"  #: allowed until withdrawn


@dataclass(frozen=True, slots=True)
class Topic:
    """What can be subscribed to and refused."""

    key: str
    category: Category
    defaults: Mapping[Channel, Default]  #: its keys are the topic's channels
    mandatory: bool = False  #: security, legal, sign-in: the consent rule is skipped
    names: Mapping[str, str] = field(default_factory=dict)  #: by locale
    descriptions: Mapping[str, str] = field(default_factory=dict)  #: by locale
    route: Route = EVERY_CHANNEL  #: of templates that name none of their own
    caps: tuple[Cap, ...] = ()  #: how often it may be sent to somebody; marketing only
    scope: str = field(init=False, repr=False, compare=False)  #: of an event about this topic alone
    scopes_above: frozenset[str] = field(init=False, repr=False, compare=False)  #: whose withdrawal covers this topic

    def __post_init__(self) -> None:
        """Both are asked for at every decision."""
        above = {f"topic:{self.key}", ALL, *([MARKETING] if self.category is Category.MARKETING else [])}
        object.__setattr__(self, "scope", f"topic:{self.key}")
        object.__setattr__(self, "scopes_above", frozenset() if self.mandatory else frozenset(above))


class ConsentEvent(NamedTuple):
    """One line of the ledger, as far as the rule needs it."""

    number: int
    scope: str
    channel: str
    granted: bool
    occurred_at: datetime
    expires_at: datetime | None = None  #: a grant on an implied basis ends by itself


class SuppressionReason(StrEnum):
    """Why an address must not be used."""

    HARD_BOUNCE = "hard_bounce"
    COMPLAINT = "complaint"
    STOP = "stop"
    DEAD_DEVICE = "dead_device"
    ERASED = "erased"
    MANUAL = "manual"

    def blocks(self, category: Category) -> bool:
        """A complaint blocks marketing, everything else blocks every category."""
        return self is not SuppressionReason.COMPLAINT or category is Category.MARKETING


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address that must not be used."""

    number: int
    reason: SuppressionReason
    only: Category | None = None  #: an operator may block less than everything

    def blocks(self, category: Category) -> bool:
        """Whether it stops messages of this category."""
        return self.reason.blocks(category) and self.only in (None, category)


class Question(NamedTuple):
    """What is asked: may this message go?"""

    message: UUID
    topic: Topic
    channel: Channel
    expires_at: datetime
    turn: Turn | None = None  #: of a message that waits for what becomes of another one
    caps: Sequence[Cap] = ()  #: all that hold for it: its topic's and those of all marketing
    spread: timedelta = SPREAD  #: over which what is held back goes out
    campaign: CampaignState | None = None  #: how the campaign stands whose message it is


class Facts(NamedTuple):
    """What is known of the person and the address, read under the recipient's lock."""

    events: Sequence[ConsentEvent] = ()  #: the whole ledger or its projection: both give the same decision
    suppressions: Sequence[Suppression] = ()
    has_address: bool = True  #: False when the person no longer holds the address the message was meant for
    snoozed_until: datetime | None = None
    hours: Hours | None = None  #: when this person may be written to on this channel; None: at any time
    sent: Sequence[Sent] = ()  #: as far back as the caps look
    is_doubled: bool = False  #: somebody else of the same campaign gets it at this address


class Rule(StrEnum):
    """The rule that settled it. `docs/why/consent.md` explains each; `explain` prints it with the numbers."""

    MANDATORY = "mandatory_topic"
    GRANTED = "granted"
    OPT_OUT_DEFAULT = "opt_out_default"
    WITHDRAWN = "withdrawn"
    NO_GRANT = "no_grant"
    SUPPRESSED_ADDRESS = "suppressed_address"
    ADDRESS_REMOVED = "address_removed"
    EXPIRED = "expired"
    QUIET_HOURS = "quiet_hours"
    FREQUENCY_CAP = "frequency_cap"
    SNOOZED = "snoozed"
    REACHED_OTHERWISE = "reached_otherwise"
    WAITS_FOR_CHANNEL = "waits_for_channel"
    CAMPAIGN_PAUSED = "campaign_paused"
    CAMPAIGN_CANCELLED = "campaign_cancelled"
    DUPLICATE_ADDRESS = "duplicate_address"


@dataclass(frozen=True, slots=True)
class Decision:
    """Why, with everything that is needed to explain it later (I6). Stays on the message."""

    rule: Rule
    at: datetime
    numbers: tuple[int, ...] = ()  #: the ledger lines and suppressions it rests on
    detail: str = ""

    @property
    def reason(self) -> str:
        """The short form that stands as the message's reason, e.g. `suppressed_address:hard_bounce`."""
        return f"{self.rule}:{self.detail}" if self.detail else str(self.rule)

    @property
    def note(self) -> dict[str, Any]:
        """The decision as it stays on the message, for `explain`."""
        return {
            "rule": str(self.rule),
            "at": self.at.isoformat(),
            "numbers": list(self.numbers),
            "detail": self.detail,
        }

    @property
    def written(self) -> str:
        """The same as JSON. A batch is written within one transaction, and each message rests on a line of its own."""
        detail = json.dumps(self.detail) if self.detail else '""'
        return f'{{"rule":"{self.rule}","at":"{_written(self.at)}","numbers":{list(self.numbers)},"detail":{detail}}}'


@lru_cache(maxsize=16)
def _written(at: datetime) -> str:
    return at.isoformat()


@dataclass(frozen=True, slots=True)
class Permit:
    """This message may be rendered and sent, now. Made by `decide` alone."""

    message: UUID
    decision: Decision


@dataclass(frozen=True, slots=True)
class Refusal:
    """This message must not be sent, now or later."""

    message: UUID
    decision: Decision


@dataclass(frozen=True, slots=True)
class Deferral:
    """Not now, but at `until` the question may be asked again."""

    message: UUID
    until: datetime
    decision: Decision


Verdict: TypeAlias = Permit | Refusal | Deferral


def decide(question: Question, facts: Facts, at: datetime) -> Verdict:
    """May this message go at this instant? In order: expiry, campaign, address, turn, consent, suppressions, timing.

    `at` is the database's clock, read under the same lock as the facts.
    """
    if question.expires_at <= at:
        return Refusal(question.message, Decision(Rule.EXPIRED, at))
    if question.campaign and (stopped := _stopped(question, question.campaign, at)):
        return stopped
    if not facts.has_address:
        return Refusal(question.message, Decision(Rule.ADDRESS_REMOVED, at))
    if waiting := _waits(question, at):
        return waiting
    allowed, consent = judge(question.topic, question.channel, facts.events, at)
    if not allowed:
        return Refusal(question.message, consent)
    if suppression := _blocking(facts.suppressions, question.topic.category):
        detail = str(suppression.reason)
        decision = Decision(Rule.SUPPRESSED_ADDRESS, at, (suppression.number,), detail)
        return Refusal(question.message, decision)
    if facts.is_doubled:
        return Refusal(question.message, Decision(Rule.DUPLICATE_ADDRESS, at))
    if held := _hold(question, facts, at):
        return held
    return Permit(question.message, consent)


def judge(topic: Topic, channel: Channel, events: Iterable[ConsentEvent], at: datetime) -> tuple[bool, Decision]:
    """The consent rule alone, for one topic on one channel."""
    if topic.mandatory:
        return True, Decision(Rule.MANDATORY, at)
    grants: list[ConsentEvent] = []
    withdrawals: list[ConsentEvent] = []
    for event in events:
        if event.expires_at is None or event.expires_at > at:
            (grants if event.granted else withdrawals).append(event)
    in_force = [
        one
        for one in withdrawals
        if one.scope in topic.scopes_above
        and one.channel in (channel, ANY)
        and not any(_ends(grant, one, topic, channel) for grant in grants)
    ]
    if in_force:
        latest = max(in_force, key=_order)
        return False, Decision(Rule.WITHDRAWN, at, (latest.number,), f"{latest.scope}/{latest.channel}")
    own = [grant for grant in grants if grant.scope == topic.scope and grant.channel in (channel, ANY)]
    if own:
        return True, Decision(Rule.GRANTED, at, (max(own, key=_order).number,))
    if topic.defaults.get(channel) is Default.OPT_OUT:
        return True, Decision(Rule.OPT_OUT_DEFAULT, at)
    return False, Decision(Rule.NO_GRANT, at)


def fold(events: Iterable[ConsentEvent]) -> tuple[ConsentEvent, ...]:
    """The projection: the events that can still matter. `judge` says the same of it as of the whole ledger.

    An event is dropped when a later one of the same scope, channel and kind lasts at least as long.
    """
    kept: list[ConsentEvent] = []
    for event in events:
        if not any(outlasts(other, event) for other in kept):
            kept = [other for other in kept if not outlasts(event, other)]
            kept.append(event)
    return tuple(sorted(kept, key=lambda event: event.number))


def outlasts(later: ConsentEvent, earlier: ConsentEvent) -> bool:
    """True when `earlier` can no longer change any decision because of `later`."""
    return (
        (later.scope, later.channel, later.granted) == (earlier.scope, earlier.channel, earlier.granted)
        and _order(later) >= _order(earlier)
        and (later.expires_at is None or (earlier.expires_at is not None and later.expires_at >= earlier.expires_at))
    )


def state_at(ledger: Iterable[ConsentEvent], moment: datetime) -> tuple[ConsentEvent, ...]:
    """The ledger as it stood at a past instant, by when things occurred."""
    return fold(event for event in ledger if event.occurred_at <= moment)


def _ends(grant: ConsentEvent, withdrawal: ConsentEvent, topic: Topic, channel: Channel) -> bool:
    """A grant ends an earlier withdrawal of its own key; for its topic it overrules others if it names the channel."""
    if grant.occurred_at <= withdrawal.occurred_at:  # at a tie the withdrawal comes last
        return False
    if (grant.scope, grant.channel) == (withdrawal.scope, withdrawal.channel):
        return True
    names_the_channel = grant.channel == channel or grant.channel == withdrawal.channel == ANY
    return grant.scope == topic.scope and names_the_channel


def _blocking(suppressions: Sequence[Suppression], category: Category) -> Suppression | None:
    if not suppressions:
        return None
    blocking = [suppression for suppression in suppressions if suppression.blocks(category)]
    return min(blocking, key=lambda suppression: suppression.number, default=None)


def _stopped(question: Question, campaign: CampaignState, at: datetime) -> Refusal | Deferral | None:
    """Somebody has stopped the campaign, for a while or for good."""
    if campaign is CampaignState.CANCELLED:
        return Refusal(question.message, Decision(Rule.CAMPAIGN_CANCELLED, at))
    if campaign is CampaignState.PAUSED:
        until = min(at + LOOK_AGAIN, question.expires_at)
        return Deferral(question.message, until, Decision(Rule.CAMPAIGN_PAUSED, at))
    return None


def _waits(question: Question, at: datetime) -> Refusal | Deferral | None:
    """Routing: the person was reached on another channel, or may still be."""
    standing = stands(question.turn, at) if question.turn else Go()
    match standing:
        case Go():
            return None
        case Stop(channel=channel):
            return Refusal(question.message, Decision(Rule.REACHED_OTHERWISE, at, detail=str(channel)))
        case Wait(channel=channel, until=until):
            decision = Decision(Rule.WAITS_FOR_CHANNEL, at, detail=str(channel))
            return Deferral(question.message, min(until, question.expires_at), decision)


_RULES = {why: Rule(why) for why in Why}


def _hold(question: Question, facts: Facts, at: datetime) -> Refusal | Deferral | None:
    """Timing: quiet hours, caps and the person's snooze hold marketing back; past the expiry that is a refusal."""
    if question.topic.category is not Category.MARKETING:
        return None
    causes: list[Held] = []
    numbers: tuple[int, ...] = ()
    if facts.snoozed_until and facts.snoozed_until > at:
        causes.append(Held(Why.SNOOZED, "", facts.snoozed_until))
    if facts.sent and question.caps:
        zones = facts.hours.zones if facts.hours else ()
        if cap := reached(question.caps, facts.sent, question.channel, at, zones):
            causes.append(cap.held)
            numbers = cap.numbers
    if not causes and (facts.hours is None or facts.hours.is_open(at)):
        return None
    held = hold(question.message, (at, question.expires_at), causes, facts.hours, question.spread)
    if held is None:
        return None
    rested_on = numbers if held.why is Why.FREQUENCY_CAP else ()
    if held.until is None:
        detail = f"{held.why}:{held.detail}" if held.detail else str(held.why)
        return Refusal(question.message, Decision(Rule.EXPIRED, at, rested_on, detail))
    return Deferral(question.message, held.until, Decision(_RULES[held.why], at, rested_on, held.detail))


def _order(event: ConsentEvent) -> tuple[datetime, int]:
    return event.occurred_at, event.number
