"""What a dry-run finds out: counted while an audience is walked, written down as the plan that somebody approves.

Nothing in a plan names an address or a person's data (I5): a few people stand in it by the product's own ids.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from statistics import fmean
from typing import Any, Generic, TypeVar

from notifier.domain.campaigns import goes_wrong
from notifier.domain.consent import Deferral, Permit, Refusal, Verdict
from notifier_channels.contract import Channel

NAMED = 5  #: people who are named for each reason
MANY_UNREACHABLE = 0.1  #: of an audience

T = TypeVar("T")


@dataclass(slots=True)
class Tally:
    """How many there are, and the first of them whom the product has a name for."""

    count: int = 0
    sample: list[str] = field(default_factory=list)  #: the product's ids

    def add(self, external_id: str | None, count: int = 1) -> None:
        """One more, or so many of one person's."""
        self.count += count
        if external_id is not None and len(self.sample) < NAMED and external_id not in self.sample:
            self.sample.append(external_id)

    @property
    def document(self) -> dict[str, Any]:
        """As it stands in the plan."""
        return {"count": self.count, "sample": self.sample}


Tallies = defaultdict[str, Tally]


@dataclass(slots=True)
class Sample(Generic[T]):
    """A few out of many, each with the same chance, without keeping the others (Vitter's algorithm R)."""

    size: int
    kept: list[T] = field(default_factory=list)
    _seen: int = 0
    _dice: random.Random = field(default_factory=lambda: random.Random(0))  # the same people each time

    def offer(self, one: T) -> None:
        """Keep it, or not."""
        self._seen += 1
        if len(self.kept) < self.size:
            self.kept.append(one)
        elif (place := self._dice.randrange(self._seen)) < self.size:
            self.kept[place] = one


@dataclass(slots=True)
class Pace:
    """When the next people's turn is: not before their time, and no faster than the rate."""

    each: timedelta  #: that one person takes of the rate
    free: datetime  #: when whoever came before is done

    @classmethod
    def of(cls, rate: float | None, channels: int, begins: datetime) -> Pace:
        """`rate`: messages a second, None as fast as it goes; `channels`: on how many each person is written to."""
        return cls(timedelta(seconds=channels / rate) if rate else timedelta(), begins)

    def turn(self, due_at: datetime) -> datetime:
        """The next person's, who is due then."""
        at = max(due_at, self.free)
        self.free = at + self.each
        return at


@dataclass(frozen=True, slots=True)
class Segments:
    """What the text messages that were rendered take, and what one segment costs, such as `0.0079 USD`."""

    sampled: tuple[int, ...]
    price: str | None

    def document(self, texts: int) -> dict[str, Any] | None:
        """What so many texts take, if they are like these; None when none was rendered."""
        if not self.sampled:
            return None
        mean = fmean(self.sampled)
        expected = round(mean * texts)
        amount, _, currency = (self.price or "").partition(" ")
        return {
            "sampled": len(self.sampled),
            "least": min(self.sampled),
            "most": max(self.sampled),
            "mean": round(mean, 2),
            "expected": expected,
            "cost": {"amount": f"{Decimal(amount) * expected:.2f}", "currency": currency} if currency else None,
        }


@dataclass(slots=True)
class OnChannel:
    """What becomes of the messages on one channel."""

    step: int  #: of the route: a later one is for those whom no earlier one reaches
    permitted: int = 0
    deferred: Tallies = field(default_factory=lambda: defaultdict(Tally))  #: by reason
    until: Counter[datetime] = field(default_factory=Counter)  #: deferred ones, by the hour in which they go
    refused: Tallies = field(default_factory=lambda: defaultdict(Tally))  #: by reason
    unreachable: Tally = field(default_factory=Tally)  #: people without an address there
    rendered: int = 0  #: of a sample
    not_rendered: Tallies = field(default_factory=lambda: defaultdict(Tally))  #: by what is wrong
    segments: Segments | None = None

    @property
    def messages(self) -> int:
        """How many would go, now or later."""
        return self.permitted + sum(tally.count for tally in self.deferred.values())

    def document(self) -> dict[str, Any]:
        """As it stands in the plan."""
        found: dict[str, Any] = {
            "step": self.step,
            "permitted": self.permitted,
            "deferred": _documents(self.deferred),
            "deferred_until": {written(at): count for at, count in sorted(self.until.items())},
            "refused": _documents(self.refused),
            "unreachable": self.unreachable.document,
            "rendering": {"tried": self.rendered, "failed": _documents(self.not_rendered)},
        }
        return found | ({"segments": self.segments.document(self.messages)} if self.segments else {})


@dataclass(slots=True)
class Findings:
    """All that is counted about one campaign."""

    audience: int  #: people
    now: datetime
    expires_at: datetime
    default_timezone: str
    channels: dict[Channel, OnChannel]
    unreachable: Tally = field(default_factory=Tally)  #: on none of the channels
    too_late: int = 0  #: people whose turn would come after it has expired
    misfits: Tallies = field(default_factory=lambda: defaultdict(Tally))  #: people, by what their attributes lack
    timeline: defaultdict[datetime, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    zoneless: int = 0  #: people without a known zone, where a local time counts
    behind: int = 0  #: people on whose clock the time has passed

    def note(self, channel: Channel, external_id: str | None, verdict: Verdict, at: datetime) -> None:
        """Count a message as it was decided for that instant."""
        on = self.channels[channel]
        match verdict:
            case Permit():
                on.permitted += 1
                self.timeline[hour(at)][channel] += 1
            case Deferral(until=until, decision=decision):
                on.deferred[decision.reason].add(external_id)
                on.until[hour(until)] += 1
                self.timeline[hour(until)][channel] += 1
            case Refusal(decision=decision):
                on.refused[decision.reason].add(external_id)

    @property
    def messages(self) -> int:
        """How many would go, now or later, on all channels."""
        return sum(on.messages for on in self.channels.values())

    @property
    def misfitting(self) -> int:
        """People who would get nothing because their attributes do not fit the template."""
        return sum(tally.count for tally in self.misfits.values())

    def document(self, definition: Mapping[str, Any], segments_per_second: float | None = None) -> dict[str, Any]:
        """The plan."""
        return {
            "definition": dict(definition),
            "reckoned_at": written(self.now),
            "expires_at": written(self.expires_at),
            "audience": self.audience,
            "unreachable": self.unreachable.document,
            "left_out": {"expired": self.too_late} if self.too_late else {},
            "channels": {str(channel): on.document() for channel, on in self.channels.items()},
            "misfits": _documents(self.misfits),
            "timeline": {written(at): dict(sorted(counts.items())) for at, counts in sorted(self.timeline.items())},
            "warnings": [{"code": code, "text": text} for code, text in _warnings(self, segments_per_second).items()],
        }


def hash_of(plan: Mapping[str, Any]) -> str:
    """What an approval names: SHA-256, in hex, of the plan as JSON with sorted keys and without spaces."""
    text = json.dumps(plan, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def hour(at: datetime) -> datetime:
    """The hour in which an instant lies, in UTC."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def written(at: datetime) -> str:
    """An instant as plans have it: in UTC, to the second."""
    return at.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _documents(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    return {reason: tally.document for reason, tally in sorted(tallies.items())}


def _warnings(found: Findings, segments_per_second: float | None) -> dict[str, str]:
    """What somebody should know before they approve, by code."""
    said: dict[str, str] = {}
    if not found.messages:
        said["nobody"] = "Nobody would get it."
    if found.zoneless:
        clock = f"they get it by the clock of {found.default_timezone}"
        said["unknown_zone"] = f"{found.zoneless} in no known time zone: {clock}."
    if found.behind:
        said["local_time_past"] = f"{found.behind} on whose clock the time has passed: they get it at once."
    if found.too_late:
        remedy = "raise the rate, or let it expire later"
        said["expires_first"] = f"It expires before the turn of {found.too_late} has come: {remedy}."
    if found.unreachable.count > found.audience * MANY_UNREACHABLE:
        share = round(100 * found.unreachable.count / found.audience)
        said["unreachable"] = f"{share} % have no address on any of its channels."
    if found.misfitting:
        stops = " It would stop by itself." if goes_wrong(found.misfitting, 0, found.audience) else ""
        said["misfits"] = f"{found.misfitting} would get nothing: their attributes do not fit the template.{stops}"
    if failing := sum(tally.count for on in found.channels.values() for tally in on.not_rendered.values()):
        tried = sum(on.rendered for on in found.channels.values())
        said["not_rendered"] = f"{failing} of {tried} that were rendered to try it failed."
    if segments_per_second and (lasts := _texts_last(found, segments_per_second)):
        said["slow_texts"] = f"At {segments_per_second:g} segments a second its texts take {lasts}."
    return said


def _texts_last(found: Findings, segments_per_second: float) -> str | None:
    """How long the provider takes for the texts, if that is more than an hour."""
    on = found.channels.get(Channel.SMS)
    segments = on.segments.document(on.messages) if on and on.segments else None
    hours = segments["expected"] / segments_per_second / 3600 if segments else 0.0
    return f"{hours:.1f} hours" if hours > 1 else None
