"""Clocks on walls: when they show an hour at which something is open, over every way in which they are changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TypeAlias
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Window:
    """When it may go out on one day: minutes of the clock on the wall, the first included, the last not."""

    opens: int
    closes: int


Week: TypeAlias = tuple[Window | None, ...]  #: Monday first


def is_open(week: Week, local: datetime) -> bool:
    """Whether it may go out when the clock on the wall says this."""
    window = week[local.weekday()]
    return window is not None and window.opens <= local.hour * 60 + local.minute < window.closes


def narrowest(weeks: Sequence[Week]) -> Week:
    """What all of them allow."""
    return tuple(_both([week[day] for week in weeks]) for day in range(7))


def _both(windows: Sequence[Window | None]) -> Window | None:
    opens = max((window.opens if window else 1440 for window in windows), default=0)
    closes = min((window.closes if window else 0 for window in windows), default=1440)
    return Window(opens, closes) if opens < closes else None


def common(
    one: Sequence[tuple[datetime, datetime]], other: Sequence[tuple[datetime, datetime]]
) -> Iterator[tuple[datetime, datetime]]:
    """The spans that lie in both."""
    for opens, closes in one:
        for start, end in other:
            if max(opens, start) < min(closes, end):
                yield max(opens, start), min(closes, end)


def open_spans(zone: ZoneInfo, week: Week, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
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
            following = change(zone, start, following)
            offset = _offset(zone, following)
            yield following, offset
        start = following


def change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
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
