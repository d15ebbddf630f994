"""When a marketing message may go out: quiet hours by policy packs, caps and the snooze; the last word of `decide`.

A pack says at what hours, on the person's own clock. Where the person may be in several zones, it must be allowed in
each. What is held back goes out spread over a while, not all at the stroke of the hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from uuid import UUID
from zlib import crc32
from zoneinfo import ZoneInfo

from notifier.domain.clocks import Week, common, is_open, narrowest, open_spans
from notifier_channels.contract import Channel

HORIZON = timedelta(days=9)  #: a week, and what a change of clocks may add: what is not open by then never is
SPREAD = timedelta(minutes=30)  #: over which what was held back goes out
_TICK = timedelta(microseconds=1)


class Why(StrEnum):
    """What holds a message back. The same words as in `consent.Rule`."""

    SNOOZED = "snoozed"
    FREQUENCY_CAP = "frequency_cap"
    QUIET_HOURS = "quiet_hours"


@dataclass(frozen=True, slots=True)
class Place:
    """What a number says of where its owner is."""

    number: str = ""
    country: str | None = None
    has_area: bool = False  #: False: of the country as a whole, as mobile numbers in most and toll-free ones everywhere
    zones: tuple[str, ...] = ()


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Pack:
    """Hours that a law, a custom or the operator sets for marketing."""

    key: str
    title: str
    channels: frozenset[Channel]
    week: Week
    countries: frozenset[str]  #: none: everywhere
    prefixes: tuple[str, ...]  #: none: the whole of the countries
    source: str
    read: date

    def covers(self, channel: Channel, place: Place) -> bool:
        """Whether it has a say. A number without an area may be anybody's in its country: every pack there has."""
        if channel not in self.channels:
            return False
        if self.countries and place.country not in self.countries:
            return False
        return (
            not self.prefixes or place.number.startswith(self.prefixes) or (bool(place.number) and not place.has_area)
        )


@dataclass(frozen=True, slots=True)
class Spell:
    """A time within which sending may begin, without a break."""

    opens: datetime
    closes: datetime
    closed_by: str  #: what kept it closed until then: `<pack>/<zone>`


class Hours:
    """When one may write to somebody: what these packs allow, in every one of these zones."""

    def __init__(self, packs: Sequence[Pack], zones: Sequence[str], lasts: timedelta = timedelta()) -> None:
        """`lasts`: how long sending may take, so that nothing leaves after closing."""
        self.packs = tuple(packs)
        self.zones = tuple(ZoneInfo(key) for key in zones)
        self._lasts = lasts
        self._asked: datetime | None = None
        self._found: Spell | None = None

    def spell(self, at: datetime) -> Spell | None:
        """The first spell that is not over at this instant; its `opens` is no later when one may write now.

        None: never, as when it is night in one of the zones whenever it is day in another.
        """
        known = self._found
        if known and self._asked is not None and self._asked <= at < known.closes:
            return known  # a herd asks for the same hours at nearly the same instant
        self._asked, self._found = at, self._look(at)
        return self._found

    def is_open(self, at: datetime) -> bool:
        """Whether one may write at this instant."""
        if not self.packs:
            return True
        spell = self.spell(at)
        return spell is not None and spell.opens <= at

    def _look(self, at: datetime) -> Spell | None:
        week = narrowest([pack.week for pack in self.packs])
        start, end = at.astimezone(UTC), at.astimezone(UTC) + HORIZON
        spans = [(start, end)]
        for zone in self.zones:
            spans = list(common(spans, list(open_spans(zone, week, start, end))))
        for opens, ends in spans:
            if (closes := ends - self._lasts) > opens:
                return Spell(opens, closes, "" if opens == start else self._closed_by(opens - _TICK))
        return None

    def _closed_by(self, at: datetime) -> str:
        """The most special pack that is closed at this instant, and the zone that it is closed in."""
        for pack in reversed(self.packs):
            for zone in self.zones:
                if not is_open(pack.week, at.astimezone(zone)):
                    return f"{pack.key}/{zone.key}"
        raise AssertionError("a spell begins where one of them opens")


@dataclass(frozen=True, slots=True)
class Held:
    """Not now."""

    why: Why
    detail: str
    until: datetime | None  #: None: never within its time


def hold(
    message: UUID, within: tuple[datetime, datetime], causes: Sequence[Held], hours: Hours | None, spread: timedelta
) -> Held | None:
    """What holds a message back the longest, and until when; `within`: now and its expiry. Causes end after now.

    Whatever the reason, the instant is one at which it may go: a snooze that ends at night ends in the morning.
    """
    at, expires = within
    last, free = None, at
    if causes:
        last = max(causes, key=lambda one: one.until or at)
        free = last.until or at
    spell = hours.spell(free) if hours and hours.packs else Spell(free, expires, "")
    if spell is None:
        return Held(Why.QUIET_HOURS, "never", None)
    if spell.opens > free:
        last, free = Held(Why.QUIET_HOURS, spell.closed_by, None), spell.opens
    if last is None:
        return None
    if free >= expires:
        return Held(last.why, last.detail, None)
    is_alone = last.why is Why.SNOOZED  # each person chose an end of their own
    until = free if is_alone else spread_out(message, free, min(spell.closes, expires), spread)
    return Held(last.why, last.detail, until)


def spread_out(message: UUID, opens: datetime, closes: datetime, spread: timedelta) -> datetime:
    """This message's instant within the spread after opening, the same each time it is asked, and before closing."""
    seconds = min(spread.total_seconds(), (closes - opens).total_seconds() / 2)
    return opens + timedelta(seconds=seconds * crc32(message.bytes) / 2**32)
