"""How often somebody is written to: caps of a topic or of all marketing, in any stretch of time or by the calendar.

What was sent is counted in PostgreSQL while the person is locked; whether that is too often is judged here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from notifier.domain.timing import Held, Why
from notifier_channels.contract import Channel

_CAP = re.compile(r"(?:(email|sms|push) )?([1-9][0-9]{0,2})/(?:([1-9][0-9]{0,2})([mhd])|(day|week|month))")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
LONGEST = timedelta(days=62)


class Period(StrEnum):
    """A stretch of the calendar, on the person's own clock."""

    DAY = "day"
    WEEK = "week"  #: begins on Monday
    MONTH = "month"


_LONGEST = {Period.DAY: timedelta(days=2), Period.WEEK: timedelta(days=8), Period.MONTH: timedelta(days=32)}


@dataclass(frozen=True, slots=True)
class Sent:
    """A marketing message that was sent, or may have been, or is about to be."""

    at: datetime
    topic: str
    channel: Channel
    number: int | None = None  #: of its attempt; none as long as it is in the same batch


@dataclass(frozen=True, slots=True)
class Cap:
    """No more than so many in a stretch of time."""

    limit: int
    window: timedelta | Period
    channel: Channel | None = None  #: on this one alone; None: on all together
    topic: str | None = None  #: of this one alone; None: all marketing together

    @classmethod
    def read(cls, text: str, topic: str | None = None) -> Cap:
        """`1/24h`, `3/7d` (in any so long), `1/day`, `2/week`, `4/month` (by the calendar), `sms 1/day`.

        Raises:
            ValueError: says how it is written.

        """
        match = _CAP.fullmatch(text)
        if match is None:
            raise ValueError(f'a cap is written like "1/24h", "3/7d", "1/day" or "sms 2/week", not {text!r}')
        channel, limit, count, unit, period = match.groups()
        window = Period(period) if period else timedelta(**{_UNITS[unit]: int(count)})
        if isinstance(window, timedelta) and window > LONGEST:
            raise ValueError(f"{text!r} looks back further than {LONGEST.days} days")
        return cls(int(limit), window, Channel(channel) if channel else None, topic)

    @property
    def looks_back(self) -> timedelta:
        """The age at which nothing counts any more."""
        return _LONGEST[self.window] if isinstance(self.window, Period) else self.window

    def __str__(self) -> str:
        """As it is written, with what it is of: `newsletter 1/24h`, `marketing sms 3/24h`."""
        named = f"{self.channel} " if self.channel else ""
        return f"{self.topic or 'marketing'} {named}{self.limit}/{_written(self.window)}"

    def counts(self, sent: Sent) -> bool:
        """Whether this one uses it up."""
        return (self.topic is None or self.topic == sent.topic) and self.channel in (None, sent.channel)

    def leaves(self, sent_at: datetime, zones: Sequence[ZoneInfo]) -> datetime:
        """When something sent at this instant no longer counts: in every zone that the person may be in."""
        if isinstance(self.window, timedelta):
            return sent_at + self.window
        return max(_end(self.window, sent_at.astimezone(zone)) for zone in zones or (ZoneInfo("UTC"),))


@dataclass(frozen=True, slots=True)
class Reached:
    """A cap that is used up."""

    held: Held
    numbers: tuple[int, ...]  #: of the attempts that count


def reached(
    caps: Iterable[Cap], sent: Sequence[Sent], channel: Channel, at: datetime, zones: Sequence[ZoneInfo]
) -> Reached | None:
    """The cap that holds a message on this channel back the longest."""
    found: Reached | None = None
    for cap in caps:
        if cap.channel not in (None, channel):
            continue
        counted = [one for one in sent if cap.counts(one)] if len(sent) >= cap.limit else []
        if len(counted) < cap.limit:
            continue
        counted = sorted(counted, key=lambda one: one.at)[-cap.limit :]
        if (until := cap.leaves(counted[0].at, zones)) <= at:
            continue
        if found is None or found.held.until is None or until > found.held.until:
            numbers = tuple(one.number for one in counted if one.number is not None)
            found = Reached(Held(Why.FREQUENCY_CAP, str(cap), until), numbers)
    return found


def _end(period: Period, local: datetime) -> datetime:
    """The instant at which this stretch of the calendar ends there."""
    day = local.date()
    match period:
        case Period.DAY:
            following = day + timedelta(days=1)
        case Period.WEEK:
            following = day + timedelta(days=7 - day.weekday())
        case Period.MONTH:
            following = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    midnight = datetime.combine(following, datetime.min.time(), local.tzinfo)
    # Where clocks skip midnight, the day begins later; where they repeat it, it ends with the first.
    return midnight.astimezone(UTC)


def _written(window: timedelta | Period) -> str:
    if isinstance(window, Period):
        return str(window)
    minutes = int(window.total_seconds()) // 60
    for unit, size in (("d", 24 * 60), ("h", 60)):
        if minutes % size == 0 and (unit != "d" or minutes > size):
            return f"{minutes // size}{unit}"
    return f"{minutes}m"
