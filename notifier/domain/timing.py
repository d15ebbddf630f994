"""When a marketing message may go out: quiet hours by policy packs, caps and the snooze; the last word of `decide`.

A pack says at what hours, on the person's own clock. Where the person may be in several zones, it must be allowed in
each. What is held back goes out spread over a while, not all at the stroke of the hour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from itertools import pairwise
from typing import TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from notifier_channels.contract import Channel

DAY = timedelta(days=1)
HORIZON = 9 * DAY  #: a week, and what a change of clocks may add: what is not open by then never is
SPREAD = timedelta(minutes=30)  #: over which what was held back goes out
_TICK = timedelta(microseconds=1)


class Why(StrEnum):
    """What holds a message back. The same words as in `consent.Rule`."""

    SNOOZED = "snoozed"
    FREQUENCY_CAP = "frequency_cap"
    QUIET_HOURS = "quiet_hours"


@dataclass(frozen=True, slots=True)
class Window:
    """When it may go out on one day: minutes of the clock on the wall, the first included, the last not."""

    opens: int
    closes: int


Week: TypeAlias = tuple[Window | None, ...]  #: Monday first


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

    def _look(self, at: datetime) -> Spell | None:
        weeks = [pack.week for pack in self.packs]
        start, end = at.astimezone(UTC), at.astimezone(UTC) + HORIZON
        spans = [(start, end)]
        for zone in self.zones:
            spans = list(_common(spans, list(_spans(zone, _narrowest(weeks), start, end))))
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
    """What holds a message back the longest, and until when; `within`: now and its expiry.

    Whatever the reason, the instant is one at which it may go: a snooze that ends at night ends in the morning.
    """
    at, expires = within
    last = max((one for one in causes if one.until and one.until > at), key=lambda one: one.until or at, default=None)
    free = last.until if last and last.until else at
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
    share = int.from_bytes(blake2b(message.bytes, digest_size=6).digest()) / 2**48
    return opens + share * min(spread, (closes - opens) / 2)


def is_open(week: Week, local: datetime) -> bool:
    """Whether it may go out when the clock on the wall says this."""
    window = week[local.weekday()]
    return window is not None and window.opens <= local.hour * 60 + local.minute < window.closes


def _narrowest(weeks: Sequence[Week]) -> Week:
    """What all of them allow."""
    return tuple(_both([week[day] for week in weeks]) for day in range(7))


def _both(windows: Sequence[Window | None]) -> Window | None:
    opens = max((window.opens if window else 1440 for window in windows), default=0)
    closes = min((window.closes if window else 0 for window in windows), default=1440)
    return Window(opens, closes) if opens < closes else None


def _common(
    one: Sequence[tuple[datetime, datetime]], other: Sequence[tuple[datetime, datetime]]
) -> Iterator[tuple[datetime, datetime]]:
    for opens, closes in one:
        for start, end in other:
            if max(opens, start) < min(closes, end):
                yield max(opens, start), min(closes, end)


def _spans(zone: ZoneInfo, week: Week, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """When the clocks of this zone show an hour that is open. Those that touch are one."""
    current: tuple[datetime, datetime] | None = None
    for opens, closes in _daily(zone, week, start, end):
        if current and opens == current[1]:
            current = current[0], closes
            continue
        if current:
            yield current
        current = opens, closes
    if current:
        yield current


def _daily(zone: ZoneInfo, week: Week, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    for (since, offset), (until, _) in pairwise([*_offsets(zone, start, end), (end, timedelta())]):
        day = datetime.combine((since + offset).date(), datetime.min.time(), UTC)
        while day - offset < until:
            if window := week[day.weekday()]:
                opens = max(since, day - offset + timedelta(minutes=window.opens))
                closes = min(until, day - offset + timedelta(minutes=window.closes))
                if opens < closes:
                    yield opens, closes
            day += DAY


def _offsets(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[tuple[datetime, timedelta]]:
    """The distance of this zone from UTC, and since when: first at the start, then at each change of its clocks."""
    offset = _offset(zone, start)
    yield start, offset
    while start < end:
        following = min(start + DAY, end)
        if _offset(zone, following) != offset:
            following = _change(zone, start, following)
            offset = _offset(zone, following)
            yield following, offset
        start = following


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The second at which the clocks change between the two."""
    low, high = int(before.timestamp()), int(after.timestamp()) + 1
    offset = _offset(zone, before)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, datetime.fromtimestamp(middle, UTC)) == offset:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)


def _offset(zone: ZoneInfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()
