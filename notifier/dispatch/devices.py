"""Where push goes: an app says which device it is on and whose, again and again; each device has one owner at a time.

An app registers at every start, so all of it may be repeated. What waits for a device that has another owner by then,
or none, is refused at its gate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from uuid import UUID

import psycopg

from notifier.domain.consent import SuppressionReason
from notifier.domain.devices import MOST
from notifier.domain.events import Removal
from notifier.domain.messages import Ids
from notifier.domain.recipients import Hasher
from notifier.errors import NotFound
from notifier.store import devices, recipients, suppressions
from notifier.store.database import Connection, Database
from notifier.store.devices import HeldDevice, NewDevice
from notifier_channels.addresses import Device, Platform
from notifier_channels.contract import Channel


@dataclass(frozen=True, slots=True)
class Registration:
    """What an app says of the device it runs on."""

    device: Device
    platform: Platform
    name: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Registered:
    """The device as it is kept, and whether this person did not have it before."""

    device: HeldDevice
    is_new: bool


@dataclass(frozen=True, slots=True)
class Devices:
    """Keeps the devices of recipients."""

    database: Database
    hasher: Hasher
    _ids: Ids = field(default_factory=Ids)

    async def register(self, owner: str, said: Registration) -> Registered:
        """Keep a device of the recipient with this id: new, refreshed, or taken over from somebody else.

        Raises:
            NotFound: there is no such recipient.

        """
        return await self.database.transact(lambda c: self._register(c, owner, said))

    async def of(self, owner: str) -> list[HeldDevice]:
        """The devices of the recipient with this id; raises NotFound as `register`."""
        async with self.database.connection() as c:
            return await devices.of_recipient(c, await _person(c, owner))

    async def remove(self, owner: str, id_: UUID) -> None:
        """Take a device away from its owner. Asked again, nothing changes.

        Raises:
            NotFound: there is no such recipient, or it never was a device of theirs.

        """
        await self.database.transact(lambda c: self._remove(c, owner, id_))

    async def _register(self, c: Connection, owner: str, said: Registration) -> Registered:
        person = await _person(c, owner)
        held = await self._lock_holders(c, person, said.device)
        own = [id_ for id_, holder in held.items() if holder == person]
        await devices.remove(c, [id_ for id_ in held if id_ not in own[:1]], Removal.MOVED)
        if own:
            await devices.refresh(c, own[0], said.platform, said.name)
        else:
            own = [await self._add(c, person, said)]
        await devices.remove(c, await devices.surplus(c, person, MOST), Removal.TOO_MANY)
        asked = {(Channel.PUSH, digest) for digest in self.hasher.all(said.device)}
        await suppressions.lift(c, asked, SuppressionReason.DEAD_DEVICE, why="registered again")
        kept = await devices.find(c, own[0])
        if kept is None:
            raise AssertionError("the device that was refreshed last is never the one too many")
        return Registered(kept, is_new=own[0] not in held)

    async def _lock_holders(self, c: Connection, person: UUID, device: Device) -> dict[UUID, UUID]:
        """Lock this person and whoever holds the device now; the address rows by which it is held, with the holders."""
        before = await self._holders(c, device)
        await recipients.lock(c, [person, *before.values()])
        held = await self._holders(c, device)
        if not {person, *before.values()} >= set(held.values()):
            raise psycopg.errors.SerializationFailure("the device has moved meanwhile")
        return held

    async def _holders(self, c: Connection, device: Device) -> dict[UUID, UUID]:
        found = await recipients.holders(c, Channel.PUSH, self.hasher.all(device))
        return {address.id: address.recipient_id for address in found}

    async def _add(self, c: Connection, person: UUID, said: Registration) -> UUID:
        id_ = self._ids.new(time.time_ns() // 1_000_000)
        hashed = self.hasher.current(said.device)
        if not await devices.add(c, NewDevice(id_, person, said.device, hashed, said.platform, said.name)):
            raise psycopg.errors.SerializationFailure("somebody else was first to register this device")
        return id_

    async def _remove(self, c: Connection, owner: str, id_: UUID) -> None:
        person = await _person(c, owner)
        await recipients.lock(c, [person])
        if not await devices.was_held(c, person, id_):
            raise NotFound("This recipient has no such device; GET lists all that there are.")
        await devices.remove(c, [id_], Removal.ASKED)


async def _person(c: Connection, owner: str) -> UUID:
    found = (await recipients.by_external_ids(c, [owner])).get(owner)
    if found is None:
        raise NotFound("There is no recipient with this id; PUT /v1/recipients/{id} first.")
    return found.id
