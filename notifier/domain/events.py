"""What product code is told of: the types of events, how one looks, and the order in which they are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self


class EventType(StrEnum):
    """Everything that product code can hear of. `docs/reference/events.md` shows one of each."""

    PREFERENCE_UPDATED = "preference.updated"  #: a line of the ledger, whichever way it came in
    MESSAGE_ACCEPTED = "message.accepted"
    MESSAGE_DELIVERED = "message.delivered"
    MESSAGE_DEFERRED = "message.deferred"  #: it had been accepted, came back, and waits to be sent once more
    MESSAGE_BOUNCED = "message.bounced"
    MESSAGE_COMPLAINED = "message.complained"
    MESSAGE_FAILED = "message.failed"
    MESSAGE_SUPPRESSED = "message.suppressed"
    MESSAGE_EXPIRED = "message.expired"
    MESSAGE_CANCELLED = "message.cancelled"
    MESSAGE_UNKNOWN = "message.unknown"
    DEVICE_REMOVED = "device.removed"


class Removal(StrEnum):
    """Why nobody holds a device any more."""

    ASKED = "asked"  #: product code took it away, as at logout
    MOVED = "moved"  #: somebody else has registered it
    TOO_MANY = "too_many"  #: its owner has newer ones
    DEAD = "dead"  #: the provider says that the app is gone
    STALE = "stale"  #: the app has not been heard of for too long


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the order of events. The text of an event's own place is its id, and a cursor."""

    xid: int = 0  #: PostgreSQL's transaction id, 64 bits
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what an earlier answer called an id or a cursor; None when it is neither."""
        found = _POSITION.fullmatch(text)
        place = cls(int(found[1]), int(found[2])) if found else None
        return place if place and place.xid < 1 << 64 and place.number < 1 << 63 else None

    def __str__(self) -> str:
        return f"evt_{self.xid}_{self.number}"


_POSITION = re.compile(r"evt_([0-9]{1,20})_([0-9]{1,19})")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, as it is told: ids and codes, never an address or a message's data (I5)."""

    at: Position
    type: EventType
    told_at: datetime
    data: Mapping[str, Any]

    @property
    def body(self) -> dict[str, Any]:
        """As it stands in an answer and in a webhook."""
        return {
            "id": str(self.at),
            "type": str(self.type),
            "timestamp": stamp(self.told_at),
            "sequence": self.at.number,
            "data": dict(self.data),
        }


def told(row: Mapping[str, Any]) -> Event:
    """The event that stands in a line of the outbox."""
    type_ = EventType(row["type"])
    match type_:
        case EventType.PREFERENCE_UPDATED:
            data = {
                "recipient": row["recipient"],
                "scope": row["topic"],
                "channel": row["channel"],
                "granted": row["granted"],
                "source": row["detail"],
                "number": row["ledger_number"],
                "occurred_at": stamp(row["occurred_at"]),
            }
        case EventType.DEVICE_REMOVED:
            data = {"device": str(row["subject"]), "recipient": row["recipient"], "reason": row["detail"]}
        case _:
            data = {
                "message": str(row["subject"]),
                "notification": str(row["notification_id"]) if row["notification_id"] else None,
                "recipient": row["recipient"],
                "channel": row["channel"],
                "topic": row["topic"],
                "reason": row["detail"],
            }
    return Event(Position(int(row["xid"]), row["number"]), type_, row["told_at"], data)


EVERY = "*"


def chosen(names: Iterable[str]) -> tuple[frozenset[EventType], list[str]]:
    """The types that these names mean, and the names that mean none. `message.*` means each that begins so, `*` all.

    No name at all means every type, too.
    """
    types: set[EventType] = set()
    unknown: list[str] = []
    given = [name.strip() for name in names]
    for name in given:
        prefix = name.removesuffix("*") if name == EVERY or name.endswith(".*") else None
        meant = {one for one in EventType if one == name or (prefix is not None and one.startswith(prefix))}
        types |= meant
        unknown += [] if meant else [name]
    return frozenset(types if given else EventType), unknown


def stamp(moment: datetime) -> str:
    """An instant as it stands in an event (RFC 3339)."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
