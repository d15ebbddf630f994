"""Who is reached and where: people, the addresses they hold now, and the lock that a gate and an opt-out share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from notifier.store.database import Connection, Row, rows, tuples
from notifier_channels.contract import Channel


@dataclass(frozen=True, slots=True)
class Recipient:
    """A person, by the product's own id, or without one when only an address is known."""

    id: UUID
    external_id: str | None
    locale: str | None
    timezone: str | None
    attributes: Mapping[str, Any]
    snoozed_until: datetime | None
    merged_into: UUID | None  #: a nameless one, adopted by a named one; messages and ledger live on there
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class HeldAddress:
    """Where a recipient is reached now."""

    id: UUID
    recipient_id: UUID
    channel: Channel
    address: str
    address_hash: bytes

    def __repr__(self) -> str:
        return f"HeldAddress({self.id}, {self.channel})"


_RECIPIENT = "id, external_id, locale, timezone, attributes, snoozed_until, merged_into, created_at, updated_at"
_ADDRESS = "id, recipient_id, channel, address, address_hash"


async def lock(c: Connection, ids: Sequence[UUID]) -> None:
    """Lock these recipients in id order until the transaction ends. What is read in a *later* statement is current."""
    await c.execute("SELECT 1 FROM recipients WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", (list(ids),))


_ADOPTED = "FROM recipients WHERE id = ANY(%(ids)s) AND merged_into IS NOT NULL"
_LOCK_WITH_ADOPTERS = f"""
SELECT id FROM recipients WHERE id = ANY(%(ids)s::uuid[] || ARRAY(SELECT merged_into {_ADOPTED}))
ORDER BY id FOR NO KEY UPDATE
"""


async def lock_survivors(c: Connection, ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Lock these recipients, or those who adopted them, and say which is which. Unknown ids are left out.

    An old link names the nameless recipient that it was made for: what it says goes to the one who adopted them.
    """
    locked = {id_: id_ for (id_,) in await tuples(c, _LOCK_WITH_ADOPTERS, {"ids": list(ids)})}
    adopters: dict[UUID, UUID] = dict(await tuples(c, f"SELECT id, merged_into {_ADOPTED}", {"ids": list(ids)}))
    if adopted_meanwhile := {*adopters.values()} - locked.keys():
        await lock(c, [*adopted_meanwhile])
    return {id_: adopters.get(id_, id_) for id_ in ids if id_ in locked} if adopters else locked


async def by_ids(c: Connection, ids: Sequence[UUID]) -> dict[UUID, Recipient]:
    """These recipients; unknown ids are left out."""
    query = f"SELECT {_RECIPIENT} FROM recipients WHERE id = ANY(%s)"
    async with c.cursor(row_factory=class_row(Recipient)) as cursor:
        await cursor.execute(query, (list(ids),))
        return {recipient.id: recipient for recipient in await cursor.fetchall()}


async def by_external_ids(c: Connection, external_ids: Sequence[str]) -> dict[str, Recipient]:
    """These recipients by the product's own ids; unknown ids are left out."""
    query = f"SELECT {_RECIPIENT} FROM recipients WHERE external_id = ANY(%s)"
    async with c.cursor(row_factory=class_row(Recipient)) as cursor:
        await cursor.execute(query, (list(external_ids),))
        return {str(recipient.external_id): recipient for recipient in await cursor.fetchall()}


async def addresses_of(c: Connection, ids: Sequence[UUID]) -> list[HeldAddress]:
    """Every address that these recipients hold now."""
    return await _held(c, "recipient_id = ANY(%s)", (list(ids),))


async def held_at(c: Connection, recipient: UUID, channel: Channel, at: datetime) -> list[Row]:
    """Every address on a channel that this recipient held at an instant, the first one first."""
    return await rows(
        c,
        "SELECT id, address, address_hash FROM addresses WHERE recipient_id = %s AND channel = %s"
        " AND created_at <= %s AND (removed_at IS NULL OR removed_at > %s) ORDER BY created_at, id",
        (recipient, channel, at, at),
    )


async def holders(c: Connection, channel: Channel, hashes: Sequence[bytes]) -> list[HeldAddress]:
    """Who holds an address with one of these hashes now. Ask with all of `Hasher.all`: keys are rotated."""
    return await _held(c, "channel = %s AND address_hash = ANY(%s)", (channel, list(hashes)))


async def _held(c: Connection, condition: str, parameters: tuple[Any, ...]) -> list[HeldAddress]:
    query = f"SELECT {_ADDRESS} FROM addresses WHERE removed_at IS NULL AND {condition} ORDER BY id"
    return [HeldAddress(**{**row, "channel": Channel(row["channel"])}) for row in await rows(c, query, parameters)]
