"""When a campaign goes out: at an instant, at a time on each person's own clock, over a while, or again and again.

As JSON: `{"at": "2026-12-24T09:00:00Z"}` (`null`: at once), `{"at": "2026-12-24T09:00", "local": true}`,
`{"cron": "0 9 * * 1", "timezone": "Europe/Vienna", "expires_after": "1d"}`; and `"over": "2h"` with each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from notifier.domain import clocks, durations
from notifier.errors import InvalidInput, Problem

EARLIEST = timedelta(hours=14)  #: no clock on earth is further ahead of UTC
LATEST = timedelta(hours=12)  #: nor further behind it
LONGEST = timedelta(days=30)  #: that a campaign may be spread over, or one of a series may live

_YEARS = range(2000, 2200)
_NEVER_BEFORE = datetime(2000, 1, 1, tzinfo=UTC)
_CRON_LENGTH = 100

_AT = frozenset({"at", "local", "over"})
_CRON = frozenset({"cron", "timezone", "expires_after", "over"})


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Again and again, as cron says, on the clock of one zone."""

    cron: str  #: five fields, the first a single minute
    timezone: str
    expires_after: timedelta  #: how long each occurrence may be sent

    def after(self, instant: datetime) -> Iterator[datetime]:
        """The instants later than this one, in their order.

        An hour that the clocks skip happens right after it; one that they repeat happens once, the first time.
        """
        last = instant
        for local in CronSim(self.cron, instant.astimezone(ZoneInfo(self.timezone))):
            # In an hour that is repeated, cron's next one may lie before; of those in one gap, all are one.
            if (following := local.astimezone(UTC)) > last:
                last = following
                yield following


@dataclass(frozen=True, slots=True)
class Schedule:
    """One of: at once, at an instant, at a local time, or recurring; and spread over a while, or not."""

    at: datetime | None = None  #: an instant
    local: datetime | None = None  #: on each person's own clock: without a zone
    recurs: Recurrence | None = None
    over: timedelta = timedelta()

    @classmethod
    def parse(cls, document: object, pointer: str = "/schedule") -> Schedule:
        """A schedule as callers give it.

        Raises:
            InvalidInput: lists everything that is wrong with it, below `pointer`.

        """
        if not isinstance(document, Mapping):
            raise InvalidInput([Problem(pointer, 'is an object, such as {"at": "2026-12-24T09:00:00Z"}')])
        reading = _Reading(document, pointer, [])
        schedule = reading.recurring() if "cron" in document else reading.single()
        if reading.problems:
            raise InvalidInput(reading.problems)
        return schedule

    @property
    def document(self) -> dict[str, Any]:
        """As it is stored; `parse` makes the same schedule of it."""
        found: dict[str, Any] = {}
        if self.recurs:
            expires_after = durations.written(self.recurs.expires_after)
            found |= {"cron": self.recurs.cron, "timezone": self.recurs.timezone, "expires_after": expires_after}
        elif self.local:
            found |= {"at": self.local.isoformat(), "local": True}
        else:
            found["at"] = self.at.isoformat().replace("+00:00", "Z") if self.at else None
        return found | ({"over": durations.written(self.over)} if self.over else {})

    def starts_at(self, scheduled_at: datetime) -> datetime:
        """When it may begin at the earliest: at a local time, where the day begins first.

        Of a recurring one: when it occurs first.
        """
        if self.recurs:
            return next(self.recurs.after(scheduled_at))
        if self.local:
            return self.local.replace(tzinfo=UTC) - EARLIEST
        return self.at or scheduled_at

    def ends_at(self, scheduled_at: datetime) -> datetime:
        """When the last one is due at the latest, if nothing slows it down; of a recurring one: of its first time."""
        begins = self.local.replace(tzinfo=UTC) + LATEST if self.local else self.starts_at(scheduled_at)
        return begins + self.over

    def due_in(self, zone: ZoneInfo, scheduled_at: datetime) -> datetime:
        """When it is due for those of a zone."""
        return instant(self.local, zone) if self.local else self.starts_at(scheduled_at)

    def occurrence(self, occurs_at: datetime) -> Schedule:
        """The schedule of one occurrence of a recurring campaign."""
        return Schedule(at=occurs_at, over=self.over)

    def delay(self, before: int, size: int) -> timedelta:
        """How long after the first of so many people the one is due who has `before` people before them."""
        return self.over * min(1.0, before / size) if size else timedelta()


def instant(local: datetime, zone: ZoneInfo) -> datetime:
    """When the clocks of a zone show this: the first time, or, if they skip it, right after what they skip."""
    first = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == local:
        return first
    # PEP 495: of a time that is skipped, fold 0 lies after the change and fold 1 before it.
    return clocks.change(zone, local.replace(tzinfo=zone, fold=1).astimezone(UTC), first)


def known_zone(name: str | None) -> ZoneInfo | None:
    """A zone of this machine's tables; None for no name, and for one that they do not know, or no longer."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class _Reading:
    """Collects what is wrong with a document. What it returns counts only if that is nothing."""

    document: Mapping[Any, Any]
    pointer: str
    problems: list[Problem]

    def single(self) -> Schedule:
        self._nothing_but(_AT, "a schedule has at, local and over; a recurring one has cron, timezone, expires_after")
        local = self.document.get("local", False)
        if not isinstance(local, bool):
            self._wrong("local", "is true or false")
        if local is True:
            return Schedule(local=self._time(is_local=True), over=self._over())
        at = self._time(is_local=False) if self.document.get("at") is not None else None
        return Schedule(at=at, over=self._over())

    def recurring(self) -> Schedule:
        self._nothing_but(_CRON, "a recurring schedule has cron, timezone, expires_after and over")
        zone = self.document.get("timezone")
        if not isinstance(zone, str) or known_zone(zone) is None:
            self._wrong("timezone", 'is the zone whose clock counts, such as "Europe/Vienna"')
            zone = "UTC"
        expires_after = self._length("expires_after", "is how long each occurrence may be sent")
        over = self._over()
        if over and over >= expires_after:
            self._wrong("over", "is shorter than expires_after, or the last people of each occurrence get nothing")
        return Schedule(recurs=Recurrence(self._cron(), zone, expires_after), over=over)

    def _nothing_but(self, known: frozenset[str], remedy: str) -> None:
        for name in sorted(str(name) for name in self.document.keys() - known):
            self._wrong(name, f"is not known here: {remedy}")

    def _time(self, *, is_local: bool) -> datetime:
        given = self.document.get("at")
        like = "2026-12-24T09:00" if is_local else "2026-12-24T09:00:00Z"
        where = " on each person's own clock, without a zone" if is_local else " with its offset from UTC"
        try:
            moment = datetime.fromisoformat(given) if isinstance(given, str) else None
        except ValueError:
            moment = None
        if moment is None or (moment.tzinfo is None) is not is_local or moment.year not in _YEARS:
            self._wrong("at", f'is a time{where}, such as "{like}"')
            return _NEVER_BEFORE
        moment = moment.replace(microsecond=0)
        return moment if is_local else moment.astimezone(UTC)

    def _cron(self) -> str:
        given = self.document.get("cron")
        fields = given.split() if isinstance(given, str) and len(given) <= _CRON_LENGTH else []
        if len(fields) != 5 or not (fields[0].isascii() and fields[0].isdigit()):
            remedy = "minute (a single one: at most once an hour), hour, day, month, weekday"
            self._wrong("cron", f'has five fields, {remedy}, such as "0 9 * * 1"')
            return ""
        try:
            next(CronSim(" ".join(fields), _NEVER_BEFORE))
        except CronSimError as error:
            self._wrong("cron", f'{str(error).lower()}: it is written like "0 9 * * 1", every Monday at nine')
        except StopIteration:
            self._wrong("cron", "names a day that never comes")
        return " ".join(fields)

    def _over(self) -> timedelta:
        if self.document.get("over") is None:
            return timedelta()
        return self._length("over", "is how long it is spread over")

    def _length(self, name: str, meaning: str) -> timedelta:
        length = durations.read(self.document.get(name))
        if length is None or length > LONGEST:
            self._wrong(name, f"{meaning}, at most {durations.written(LONGEST)}: {durations.LIKE}")
            return timedelta()
        return length

    def _wrong(self, name: str, detail: str) -> None:
        escaped = name.replace("~", "~0").replace("/", "~1")
        self.problems.append(Problem(f"{self.pointer}/{escaped}", detail))
