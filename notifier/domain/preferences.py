"""What a person sees and changes of their own consent: the ledger as switches, and a form as the changes it asks for.

Pure, so that the page and the API offer the same. A form says what it showed and what was ticked; only the difference
is a wish, so that a form that was left open for a day undoes nothing. Of the wishes only news is a change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from notifier.domain.consent import ALL, ANY, MARKETING, ConsentEvent, SuppressionReason, Topic, judge
from notifier.domain.messages import Category
from notifier.domain.withdrawals import is_refused
from notifier_channels.contract import Channel


class Pause(StrEnum):
    """How long a person wants to be left in peace by marketing; `end`: no longer."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    END = "end"


_LENGTHS = {Pause.DAY: timedelta(days=1), Pause.WEEK: timedelta(days=7), Pause.MONTH: timedelta(days=30)}


@dataclass(frozen=True, slots=True)
class Switch:
    """One thing that may be refused: a topic on a channel, all marketing, or everything that is not mandatory."""

    scope: str  #: of the ledger
    channel: str  #: or `any`, where `topic` is None
    on: bool  #: what the consent rule says now
    topic: Topic | None = None
    is_reachable: bool = True  #: the person has an address there; without one it is not shown

    @property
    def key(self) -> str:
        """Its name in forms and in the API: `topic:orders/email`, `marketing/any`."""
        return f"{self.scope}/{self.channel}"

    @property
    def is_marketing(self) -> bool:
        """Whether it is about marketing alone."""
        return self.scope == MARKETING or (self.topic is not None and self.topic.category is Category.MARKETING)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a person is reached, as far as whoever holds a link may see it."""

    channel: Channel
    text: str = field(repr=False)  #: masked, or a device's name
    blocks: frozenset[SuppressionReason] = frozenset()  #: why nothing, or no marketing, goes there


@dataclass(frozen=True, slots=True)
class Profile:
    """What a person chose beside their consent."""

    locale: str | None = None
    timezone: str | None = None
    snoozed_until: datetime | None = None  #: None, or past: not at all


@dataclass(frozen=True, slots=True)
class Preferences:
    """All that can be shown of one person's choices."""

    switches: Mapping[
        str, Switch
    ]  #: by key: each topic that can be refused on each of its channels, then the wide ones
    locked: Sequence[Topic]  #: mandatory topics that reach this person
    places: Sequence[Place]
    profile: Profile

    @property
    def topics(self) -> list[tuple[Topic, list[Switch]]]:
        """The topics to show, each with the channels on which the person can be reached."""
        shown: dict[str, tuple[Topic, list[Switch]]] = {}
        for switch in self.switches.values():
            if switch.topic is not None and switch.is_reachable:
                shown.setdefault(switch.topic.key, (switch.topic, []))[1].append(switch)
        return list(shown.values())

    @property
    def wide(self) -> list[Switch]:
        """All marketing, and everything that is not mandatory."""
        return [switch for switch in self.switches.values() if switch.topic is None]


@dataclass(frozen=True, slots=True)
class Changes:
    """What is news in a person's wishes."""

    off: Sequence[Switch] = ()  #: each one a withdrawal of its (scope, channel)
    on: Sequence[Switch] = ()  #: each one a grant of its (scope, channel)
    held_back: Sequence[Switch] = ()  #: asked for, but whoever asks may only reduce


def view(
    topics: Iterable[Topic], events: Sequence[ConsentEvent], places: Sequence[Place], profile: Profile, at: datetime
) -> Preferences:
    """What to show of a person: `events` is the ledger or its projection, `at` the database's clock."""
    held = {place.channel for place in places}
    known = list(topics)
    live = [event for event in events if event.expires_at is None or event.expires_at > at]
    switches = [
        Switch(topic.scope, channel, judge(topic, channel, live, at)[0], topic, channel in held)
        for topic in known
        if not topic.mandatory
        for channel in sorted(topic.defaults)
    ]
    switches += [Switch(scope, ANY, not is_refused(live, scope, ANY)) for scope in (MARKETING, ALL)]
    return Preferences(
        switches={switch.key: switch for switch in switches},
        locked=[topic for topic in known if topic.mandatory and held & topic.defaults.keys()],
        places=places,
        profile=profile,
    )


def wishes(shown: Mapping[str, bool], ticked: Collection[str]) -> dict[str, bool]:
    """By key, what was changed in a form: what it showed against what is ticked. What it did not show is no wish."""
    return {key: key in ticked for key, was_on in shown.items() if (key in ticked) is not was_on}


def changes(now: Preferences, wished: Mapping[str, bool], *, may_grant: bool) -> Changes:
    """What is news among the wishes. Unknown keys are left out.

    A no counts on every channel of a topic; a yes only where the person can be reached, and only when `may_grant`.
    """
    news = [(now.switches[key], on) for key, on in wished.items() if key in now.switches]
    news = [(switch, on) for switch, on in news if switch.on is not on]
    wanted = [switch for switch, on in news if on and switch.is_reachable]
    return Changes(
        off=[switch for switch, on in news if not on],
        on=wanted if may_grant else (),
        held_back=() if may_grant else wanted,
    )


def snoozed(pause: Pause, at: datetime) -> datetime | None:
    """Until when, counted from `at`; None ends it."""
    return at + _LENGTHS[pause] if pause in _LENGTHS else None


def is_sooner(new: datetime | None, old: datetime | None, at: datetime) -> bool:
    """Whether marketing would come earlier than before: that is an opt-in, too."""
    if old is None or old <= at:
        return False
    return new is None or new < old
