"""The gate's share of time: whose hours and which caps hold for a batch. Where none does, nothing is asked."""

from __future__ import annotations

import zoneinfo
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.resources import files
from uuid import UUID

from notifier.domain import packs
from notifier.domain.caps import Cap, Sent
from notifier.domain.consent import Topic
from notifier.domain.messages import Category
from notifier.domain.places import place_of
from notifier.domain.timing import NOWHERE, SPREAD, Hours, Pack, Place
from notifier.errors import NotConfigured
from notifier.settings import Settings
from notifier.store import messages
from notifier.store.database import Connection, Row
from notifier_channels.contract import Channel

SHIPPED = "quiet_hours.toml"


@dataclass(frozen=True, slots=True)
class Timing:
    """The packs that are on, the caps of all marketing, and what is remembered of people's hours."""

    packs: tuple[Pack, ...] = ()
    caps: tuple[Cap, ...] = ()
    default_zone: str = "UTC"
    spread: timedelta = SPREAD
    lasts: timedelta = timedelta()  #: how long a batch may be on the wire: nothing is to leave after closing
    _hours: dict[tuple[object, ...], Hours] = field(default_factory=dict, repr=False, compare=False)
    _longest: int = field(init=False, repr=False, compare=False)  #: prefix of a number that a pack looks at

    def __post_init__(self) -> None:
        """People of one zone and one prefix share their hours."""
        longest = max((len(prefix) for pack in self.packs for prefix in pack.prefixes), default=0)
        object.__setattr__(self, "_longest", longest)

    @classmethod
    def from_settings(cls, settings: Settings) -> Timing:
        """As the operator wants it.

        Raises:
            NotConfigured: a pack or a cap cannot be read, or there is no such pack.

        """
        known = packs.read(files("notifier.domain").joinpath(SHIPPED).read_text(encoding="utf-8"), SHIPPED)
        if settings.quiet_hours_file:
            known |= _own(settings)
        return cls(
            packs=packs.chosen(known, settings.quiet_hours),
            caps=_caps(settings.marketing_caps),
            default_zone=settings.default_timezone,
            spread=timedelta(minutes=settings.quiet_hours_spread_minutes),
            lasts=timedelta(seconds=settings.send_timeout_seconds),
        )

    def caps_of(self, topic: Topic, channel: Channel) -> tuple[Cap, ...]:
        """Every cap that holds for a message of this topic on this channel."""
        if topic.category is not Category.MARKETING or not (topic.caps or self.caps):
            return ()
        return tuple(cap for cap in topic.caps + self.caps if cap.channel in (None, channel))

    def hours_of(self, topic: Topic, row: Row) -> Hours | None:
        """When this message's person may be written to: their own zone, else their number's, else the operator's."""
        if topic.category is not Category.MARKETING:
            return None
        channel = Channel(row["channel"])
        place = place_of(row["address"]) if channel is Channel.SMS else NOWHERE
        prefix = place.number[: self._longest]
        key = (row["timezone"], channel, place.country, place.has_area, place.zones, prefix)
        if (hours := self._hours.get(key)) is None:
            on = [pack for pack in self.packs if pack.covers(channel, place)]
            hours = self._hours[key] = Hours(on, self._zones(row["timezone"], place), self.lasts)
        return hours

    async def sent(
        self, c: Connection, asked: Sequence[tuple[UUID, Sequence[Cap]]], at: datetime | None = None
    ) -> defaultdict[UUID, list[Sent]]:
        """What those whose messages have caps were sent, as far back as the caps look from `at`. They are locked.

        The gate adds what it permits, so that two of one batch do not both pass a cap of one.

        Args:
            c: on which they are locked; who only asks needs no lock.
            asked: people, and the caps that hold for what they are to be sent.
            at: an instant; what was sent after it is left out. Default: now.

        """
        looks_back = [cap.looks_back for _, caps in asked for cap in caps]
        sent: defaultdict[UUID, list[Sent]] = defaultdict(list)
        if looks_back:
            capped = {person for person, caps in asked if caps}
            for row in await messages.marketing_sent_to(c, list(capped), max(looks_back), at):
                one = Sent(row["started_at"], row["topic"], Channel(row["channel"]), row["number"])
                sent[row["recipient_id"]].append(one)
        return sent

    def _zones(self, own: str | None, place: Place) -> tuple[str, ...]:
        if own and _exists(own):
            return (own,)
        return tuple(zone for zone in place.zones if _exists(zone)) or (self.default_zone,)


def _own(settings: Settings) -> Mapping[str, Pack]:
    path = settings.quiet_hours_file
    try:
        text = path.read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise NotConfigured(f"NOTIFIER_QUIET_HOURS_FILE: {type(error).__name__}") from None
    return packs.read(text, "NOTIFIER_QUIET_HOURS_FILE")


def _caps(text: str) -> tuple[Cap, ...]:
    if text == packs.NONE:
        return ()
    try:
        return tuple(Cap.read(one.strip()) for one in text.split(","))
    except ValueError as error:
        raise NotConfigured(f"NOTIFIER_MARKETING_CAPS: {error}") from None


def _exists(zone: str) -> bool:
    """False for a name that this machine's tables do not know, or no longer."""
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
