"""Devices: what an app says of itself, beside the address row that messages name. Each has one owner at a time.

A device that nobody holds any more keeps its address row, for the messages that name it, and nothing here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from notifier.domain.events import Removal
from notifier.domain.recipients import HashedAddress
from notifier.store.database import Connection, rows
from notifier_channels.addresses import Device, DeviceKind, Platform


@dataclass(frozen=True, slots=True)
class NewDevice:
    """A device as its app registers it."""

    id: UUID
    recipient_id: UUID
    device: Device
    hashed: HashedAddress
    platform: Platform
    name: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class HeldDevice:
    """A device as its owner may see it: without what it is reached by."""

    id: UUID  #: of its address row
    platform: Platform
    kind: DeviceKind
    name: str | None = field(repr=False)
    registered_at: datetime
    refreshed_at: datetime


async def of_recipient(c: Connection, recipient: UUID) -> list[HeldDevice]:
    """The devices that this person holds now, the first one first."""
    return await _held(c, "a.recipient_id = %s", recipient)


async def ids_of(c: Connection, recipients: Collection[UUID]) -> dict[UUID, list[UUID]]:
    """The address rows of these people's devices; who has none is left out. One statement for all."""
    found = await rows(
        c,
        "SELECT recipient_id, id FROM addresses"
        " WHERE recipient_id = ANY(%s) AND channel = 'push' AND removed_at IS NULL ORDER BY id",
        (list(recipients),),
    )
    held: dict[UUID, list[UUID]] = {}
    for row in found:
        held.setdefault(row["recipient_id"], []).append(row["id"])
    return held


# Registering ----------------------------------------------------------------------------------------------------------


async def add(c: Connection, new: NewDevice) -> bool:
    """Store a device that nobody holds; False when somebody else was first. Its new owner is locked."""
    stored = await rows(
        c,
        "INSERT INTO addresses (id, recipient_id, channel, address, address_hash, hash_key, created_at)"
        " VALUES (%s, %s, 'push', %s, %s, %s, clock_timestamp())"
        " ON CONFLICT (address_hash) WHERE channel = 'push' AND removed_at IS NULL DO NOTHING RETURNING id",
        (new.id, new.recipient_id, str(new.device), new.hashed.digest, new.hashed.key),
    )
    if stored:
        await c.execute(
            "INSERT INTO devices (address_id, kind, platform, name) VALUES (%s, %s, %s, %s)",
            (new.id, new.device.kind, new.platform, new.name),
        )
    return bool(stored)


async def refresh(c: Connection, id_: UUID, platform: Platform, name: str | None) -> None:
    """The app has said that it is still there. Its owner is locked."""
    await c.execute(
        "UPDATE devices SET refreshed_at = clock_timestamp(), platform = %s, name = %s WHERE address_id = %s",
        (platform, name, id_),
    )


async def find(c: Connection, id_: UUID) -> HeldDevice | None:
    """One device that somebody holds now."""
    return next(iter(await _held(c, "a.id = %s", id_)), None)


async def _held(c: Connection, condition: str, parameter: UUID) -> list[HeldDevice]:
    found = await rows(
        c,
        "SELECT a.id, d.platform, d.kind, d.name, a.created_at AS registered_at, d.refreshed_at"
        f" FROM addresses a JOIN devices d ON d.address_id = a.id WHERE a.removed_at IS NULL AND {condition}"
        " ORDER BY a.created_at, a.id",
        (parameter,),
    )
    kinds = [(Platform(row["platform"]), DeviceKind(row["kind"])) for row in found]
    return [
        HeldDevice(**row | {"platform": platform, "kind": kind})
        for row, (platform, kind) in zip(found, kinds, strict=True)
    ]


# Removing -------------------------------------------------------------------------------------------------------------

_REMOVE = """
WITH gone AS (
    UPDATE addresses SET removed_at = clock_timestamp()
    WHERE channel = 'push' AND removed_at IS NULL AND {condition} RETURNING id, recipient_id
), told AS (
    INSERT INTO outbox (type, recipient_id, subject, detail)
    SELECT 'device.removed', recipient_id, id, %s FROM gone WHERE events_are_written()
)
DELETE FROM devices d USING gone WHERE d.address_id = gone.id
"""


async def remove(c: Connection, ids: Sequence[UUID], why: Removal) -> None:
    """Nobody holds these devices any more, and product code is told. Their holders are locked."""
    if ids:
        await c.execute(_REMOVE.format(condition="id = ANY(%s)"), (list(ids), why))


async def remove_dead(c: Connection, hashes: Sequence[bytes]) -> None:
    """Nobody holds these devices any more, and product code is told. Their holders are locked."""
    if hashes:
        await c.execute(_REMOVE.format(condition="address_hash = ANY(%s)"), (list(hashes), Removal.DEAD))


async def heard_of_since(c: Connection, attempts: Collection[tuple[UUID, int, bytes]]) -> frozenset[UUID]:
    """Of these attempts, by message, number and a hash of the device: the messages whose app has registered since then.

    Their holders are locked.
    """
    ids, ns, digests = (list(column) for column in zip(*attempts, strict=True))
    found = await rows(
        c,
        "SELECT t.message_id FROM unnest(%s::uuid[], %s::int[], %s::bytea[]) AS v (id, n, digest)"
        " JOIN attempts t ON (t.message_id, t.n) = (v.id, v.n)"
        " JOIN addresses a ON a.channel = 'push' AND a.address_hash = v.digest AND a.removed_at IS NULL"
        " JOIN devices d ON d.address_id = a.id WHERE d.refreshed_at > t.started_at",
        (ids, ns, digests),
    )
    return frozenset(row["message_id"] for row in found)


async def surplus(c: Connection, recipient: UUID, most: int) -> list[UUID]:
    """What this person holds beyond so many devices: those that were refreshed longest ago."""
    found = await rows(
        c,
        "SELECT a.id FROM addresses a JOIN devices d ON d.address_id = a.id"
        " WHERE a.recipient_id = %s AND a.removed_at IS NULL ORDER BY d.refreshed_at DESC, a.id DESC OFFSET %s",
        (recipient, most),
    )
    return [row["id"] for row in found]


async def was_held(c: Connection, recipient: UUID, id_: UUID) -> bool:
    """True when this is a device that the person holds, or held before."""
    query = "SELECT 1 FROM addresses WHERE id = %s AND recipient_id = %s AND channel = 'push'"
    return bool(await rows(c, query, (id_, recipient)))


async def stale(c: Connection, age: timedelta, limit: int) -> Mapping[UUID, UUID]:
    """Devices whose app has not been heard of for so long, the oldest first, each with its holder."""
    found = await rows(
        c,
        "SELECT d.address_id, a.recipient_id FROM devices d JOIN addresses a ON a.id = d.address_id"
        " WHERE d.refreshed_at < clock_timestamp() - %s ORDER BY d.refreshed_at LIMIT %s",
        (age, limit),
    )
    return {row["address_id"]: row["recipient_id"] for row in found}


async def remove_stale(c: Connection, ids: Sequence[UUID], age: timedelta) -> None:
    """Remove those of these devices that have not been refreshed meanwhile. Their holders are locked."""
    await c.execute(
        "WITH gone AS (DELETE FROM devices WHERE address_id = ANY(%s) AND refreshed_at < clock_timestamp() - %s"
        "              RETURNING address_id),"
        " freed AS (UPDATE addresses a SET removed_at = clock_timestamp() FROM gone"
        "           WHERE a.id = gone.address_id AND a.removed_at IS NULL RETURNING a.id, a.recipient_id)"
        " INSERT INTO outbox (type, recipient_id, subject, detail)"
        " SELECT 'device.removed', recipient_id, id, %s FROM freed WHERE events_are_written()",
        (list(ids), age, Removal.STALE),
    )
