"""An operator blocks an address, looks up why it is blocked, or lifts what blocks it; each with a reason that stays.

Addresses come in and are hashed at once; none goes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from notifier.dispatch.refusals import lock_holders
from notifier.domain.consent import SuppressionReason
from notifier.domain.messages import Category
from notifier.domain.recipients import Hasher
from notifier.errors import Conflict, NotFound
from notifier.store import recipients, suppressions
from notifier.store.database import Connection, Row
from notifier.store.suppressions import NewSuppression
from notifier_channels.addresses import EmailAddress, PhoneNumber
from notifier_channels.contract import Address, Channel

WIDENED = "widened to everything"

_SHOWN = (
    *("message", "attempt", "code", "source", "report", "reported_at", "provider", "reference", "received_at"),
    *("why", "by"),  # of our own
)

_WHY_NOT = {
    SuppressionReason.STOP: "The owner of the number answered STOP. Carriers and providers keep that themselves and "
    "refuse our messages until START comes from that phone, which lifts this by itself.",
    SuppressionReason.ERASED: "Its owner had their data erased and objected to further messages. Only they may ask to "
    "be written to again.",
}


@dataclass(frozen=True, slots=True)
class Blocked:
    """A suppression, without its address."""

    number: int
    channel: Channel
    reason: SuppressionReason
    blocks: str  #: `all` or `marketing`
    evidence: Mapping[str, Any]
    created_at: datetime
    lifted_at: datetime | None
    lifted_why: str | None

    @classmethod
    def of(cls, row: Row) -> Blocked:
        """A row, with those parts of its evidence that cannot name an address: a person's own words are left out."""
        return cls(
            number=row["number"],
            channel=Channel(row["channel"]),
            reason=SuppressionReason(row["reason"]),
            blocks=row["blocks"],
            evidence={name: row["evidence"][name] for name in _SHOWN if name in row["evidence"]},
            created_at=row["created_at"],
            lifted_at=row["lifted_at"],
            lifted_why=row["lifted_why"],
        )


@dataclass(frozen=True, slots=True)
class Block:
    """Everything here runs in the caller's transaction."""

    hasher: Hasher

    async def look_up(self, c: Connection, channel: Channel, address: Address) -> list[Blocked]:
        """Everything that ever stood against an address, lifted or not, oldest first."""
        return [Blocked.of(row) for row in await suppressions.history(c, channel, self.hasher.all(address))]

    async def add(
        self, c: Connection, channel: Channel, address: Address, *, only: Category | None, why: str, by: str
    ) -> Blocked:
        """Block it, for one category or for all. What blocks less than that is replaced.

        Raises:
            Conflict: an operator has blocked it already, as much or more.

        """
        await lock_holders(c, self.hasher, address, channel)
        for one in await self.look_up(c, channel, address):
            if one.reason is SuppressionReason.MANUAL and one.lifted_at is None:
                if one.blocks == "all" or only is not None:
                    raise Conflict(f"An operator has blocked this address already: number {one.number}.")
                await suppressions.lift_one(c, one.number, WIDENED)
        hashed = self.hasher.current(address)
        new = NewSuppression(channel, hashed, SuppressionReason.MANUAL, {"why": why, "by": by}, only)
        if not (numbers := await suppressions.add(c, [new])):  # nobody holds it, so there was nobody to lock
            raise psycopg.errors.SerializationFailure("another operator was first to block this address")
        return await self._find(c, numbers[0])

    async def lift(
        self, c: Connection, number: int, *, why: str, by: str, despite: SuppressionReason | None = None
    ) -> Blocked:
        """End one. `despite` repeats its reason where lifting it is not ours to decide.

        Raises:
            NotFound: there is none with this number.
            Conflict: it is lifted already, or it must not be lifted without `despite`.

        """
        row = await suppressions.find(c, number)
        if row is None:
            raise NotFound("There is no suppression with this number.")
        held = await recipients.holders(c, Channel(row["channel"]), [row["address_hash"]])
        await recipients.lock_survivors(c, [one.recipient_id for one in held])
        reason = SuppressionReason(row["reason"])
        if reason in _WHY_NOT and despite is not reason:
            raise Conflict(f"{_WHY_NOT[reason]} To lift it all the same, repeat its reason: `despite`: `{reason}`.")
        if not await suppressions.lift_one(c, number, f"{why} ({by})"):
            raise Conflict("It was lifted before; see `lifted_at`.")
        return await self._find(c, number)

    async def _find(self, c: Connection, number: int) -> Blocked:
        row = await suppressions.find(c, number)
        if row is None:
            raise AssertionError("suppressions are never deleted")
        return Blocked.of(row)


async def page_of(
    c: Connection,
    *,
    before: int | None,
    limit: int,
    channel: Channel | None = None,
    reason: SuppressionReason | None = None,
    lifted: bool = False,
) -> Sequence[Blocked]:
    """The newest first: those with a smaller number than `before`."""
    found = await suppressions.page(c, before=before, limit=limit, channel=channel, reason=reason, lifted=lifted)
    return [Blocked.of(row) for row in found]


def parse(channel: Channel, text: str, *, allow_test: bool) -> Address:
    """An address of a channel that people type; raises InvalidAddress."""
    if channel is Channel.SMS:
        return PhoneNumber.parse(text)
    return EmailAddress.parse(text, allow_test_domains=allow_test)
