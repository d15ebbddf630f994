"""Where messages went: what a refusal or a bounce that comes back needs to find everybody whom it concerns."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from uuid import UUID

from notifier.domain.recipients import HashedAddress
from notifier.store.database import Connection, rows
from notifier_channels.addresses import Device, EmailAddress, PhoneNumber
from notifier_channels.contract import Address, Channel


@dataclass(frozen=True, slots=True)
class Reached:
    """Where one message went. The address is None once it has been erased: its hash is kept."""

    message: UUID
    recipient: UUID
    topic: str
    channel: Channel
    hashed: HashedAddress
    address: Address | None = field(repr=False)


_REACHED = """
SELECT m.id, m.recipient_id, m.topic, m.channel, a.address, a.address_hash, a.hash_key
FROM messages m JOIN addresses a ON a.id = m.address_id
WHERE m.id = ANY(%s)
"""


async def reached_by(c: Connection, messages: Collection[UUID]) -> dict[UUID, Reached]:
    """Where each of these messages went; those that are not, or no longer, stored are left out."""
    found = await rows(c, _REACHED, (list(messages),))
    return {
        row["id"]: Reached(
            message=row["id"],
            recipient=row["recipient_id"],
            topic=row["topic"],
            channel=Channel(row["channel"]),
            hashed=HashedAddress(row["hash_key"], row["address_hash"]),
            address=restore(Channel(row["channel"]), row["address"]),
        )
        for row in found
    }


def restore(channel: Channel, text: str) -> Address | None:
    """The address that stands in a row; None when it was erased."""
    match channel:
        case Channel.EMAIL if "@" in text:
            return EmailAddress.restore(text)
        case Channel.SMS if text:
            return PhoneNumber(text)
        case Channel.PUSH if text:
            return Device.restore(text)
        case _:
            return None
