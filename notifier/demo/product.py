"""The product's side of the scenario: it knows people, hands over notifications and asks what became of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from notifier.client import AsyncNotifier, Notification
from notifier.demo.cast import Person
from notifier.domain.access import ApiKey, Scope
from notifier.store import keys
from notifier.store.database import Database

ONGOING = {"queued", "claimed", "sending", "unknown", "accepted"}
LAST_OF_PUSH = "accepted"  #: FCM reports no delivery
STILL_TO_COME = {"complaint": "complained"}  #: a mood's report that follows after the delivery
PATIENCE = 90.0  #: seconds
PAUSE = 0.25
AT_ONCE = 8


@dataclass(slots=True)
class Wave:
    """One template to many: who got which message, and how each stands."""

    name: str
    category: str
    people: dict[str, Person] = field(default_factory=dict)  #: by message
    channels: dict[str, str] = field(default_factory=dict)  #: by message
    states: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    handed_over_at: datetime | None = None

    def asleep(self) -> list[str]:
        """Messages that wait for the morning where their person lives."""
        return self._queued("quiet_hours")

    def off(self) -> list[str]:
        """Messages that came back from a phone that is off, and wait to be sent once more."""
        return self._queued("came_back")

    def count(self) -> Counter[tuple[str, str]]:
        """How many stand how, and why."""
        return Counter((state, reason or "") for state, reason in self.states.values())

    def ongoing(self) -> list[str]:
        """Messages of which there is more to hear."""
        return [id_ for id_, person in self.people.items() if self._may_change(id_, person)]

    def message_to(self, person: str, channel: str = "email") -> str:
        """The message to a person on a channel."""
        return next(id_ for id_ in self.on(channel) if self.people[id_].id == person)

    def on(self, channel: str) -> list[str]:
        """The messages on a channel."""
        return [id_ for id_, one in self.channels.items() if one == channel]

    def _may_change(self, id_: str, person: Person) -> bool:
        state, _ = self.states.get(id_, ("queued", None))
        if id_ in self.asleep() + self.off():
            return False
        match self.channels[id_]:
            case "email":
                return state in ONGOING or (state == "delivered" and person.simulator in STILL_TO_COME)
            case "push":
                return state in ONGOING and state != LAST_OF_PUSH
            case _:
                return state in ONGOING

    def _queued(self, why: str) -> list[str]:
        return [id_ for id_, (now, reason) in self.states.items() if now == "queued" and (reason or "").startswith(why)]


async def hand_over(
    client: AsyncNotifier,
    wave: Wave,
    template: str,
    items: Sequence[tuple[Person, Mapping[str, Any]]],
    *,
    channels: Sequence[str] | None = None,
    send_at: datetime | None = None,
) -> None:
    """Give a wave to Notifier in one batch: all of it or nothing. Without channels it goes to all of the template's."""
    wanted = [
        Notification(template=template, to={"id": person.id}, data=dict(data), channels=channels, send_at=send_at)
        for person, data in items
    ]
    wave.handed_over_at = datetime.now(UTC)
    accepted = await client.send_batch(wanted)
    for (person, _), one in zip(items, accepted, strict=True):
        wave.people |= {str(message.id): person for message in one.messages}
        wave.channels |= {str(message.id): str(message.channel) for message in one.messages}


async def register_devices(client: AsyncNotifier, people: Iterable[Person]) -> int:
    """Do what the app does at its start on each device; how many there are."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def register(person: Person, fid: str) -> None:
        async with gate:
            await client.register_device(person.id, platform="android", fid=fid, name=f"{person.name}'s device")

    devices = [(person, fid) for person in people for fid in person.devices]
    await asyncio.gather(*(register(person, fid) for person, fid in devices))
    return len(devices)


async def until_settled(client: AsyncNotifier, *waves: Wave) -> None:
    """Wait until nothing is under way any more, or for a minute and a half."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while any(wave.ongoing() for wave in waves) and asyncio.get_running_loop().time() < deadline:
        for wave in waves:
            await _look(client, wave)
        await asyncio.sleep(PAUSE)


async def _look(client: AsyncNotifier, wave: Wave) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(id_: str) -> None:
        async with gate:
            message = await client.message(id_)
        wave.states[id_] = (message.state, message.reason)

    await asyncio.gather(*(ask(id_) for id_ in wave.ongoing()))


async def caller(stack: AsyncExitStack, database: Database, api: str, scopes: Iterable[Scope]) -> AsyncNotifier:
    """A client with a key of its own, as `notifier keys create` makes it; nobody holds the key after the scenario."""
    key = ApiKey.new()
    async with database.connection() as c:
        await keys.create(c, key.id, "demo", key.secret_hash, [str(scope) for scope in scopes])
    stack.push_async_callback(_end_key, database, key)
    return await stack.enter_async_context(AsyncNotifier(api, str(key)))


async def _end_key(database: Database, key: ApiKey) -> None:
    async with database.connection() as c:
        await keys.revoke(c, key.id)
