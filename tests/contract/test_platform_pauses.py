"""A wrong key for APNs or web push at Firebase, from the queue through Google's SDK to the stand-in and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from notifier.dispatch.deliver import Deliver
from notifier_channels.addresses import Platform
from notifier_channels.contract import Channel, Misconfigured, Receipt
from notifier_channels.push.fcm import FcmProvider
from tests.servers.fcm import Far, Fault, error
from tests.world import Scripted, World

pytestmark = pytest.mark.anyio

ANDROID, IOS, WEB = Platform.ANDROID, Platform.IOS, Platform.WEB
CODE = "THIRD_PARTY_AUTH_ERROR"
ON_HOLD = ("queued", f"misconfigured:{CODE}")
ACCEPTED = ("accepted", None)


@dataclass
class Place:
    """Somebody with devices, a worker that sends through FCM, and keys that can be wrong there."""

    world: World
    far: Far
    deliver: Deliver
    person: UUID

    async def queue(self, platform: Platform, count: int = 1, **options) -> list[UUID]:
        """A message to each of so many new devices."""
        devices = await self.world.devices([self.person], count, platform)
        return await self.world.queue([self.person] * count, by=Channel.PUSH, to=devices, **options)

    async def break_key(self, *platforms: Platform) -> None:
        """Every device that these platforms have by now is refused."""
        rows = await self.world.one(
            "SELECT array_agg(address) FROM addresses JOIN devices ON address_id = id WHERE platform = ANY(%s)",
            list(platforms),
        )
        values = [row.partition(":")[2] for row in rows]
        self.far.faults = tuple(Fault(value, 401, error(401, "UNAUTHENTICATED", CODE)) for value in values)

    async def later(self) -> None:
        """What waits is due, and what is paused may be tried."""
        await self.world.execute("UPDATE messages SET due_at = now() WHERE state = 'queued'")
        await self.world.execute("UPDATE provider_pauses SET paused_until = now()")
        await self.deliver(())

    async def pauses(self) -> object:
        return await self.world.one("SELECT coalesce(array_agg(provider ORDER BY provider), '{}') FROM provider_pauses")

    async def attempts(self, ids: Sequence[UUID]) -> int:
        found = await self.world.one("SELECT count(*) FROM attempts WHERE message_id = ANY(%s)", list(ids))
        assert isinstance(found, int)
        return found


@asynccontextmanager
async def place_of(world: World, account) -> AsyncIterator[Place]:
    [person] = await world.people(1)
    async with Far(account).open() as far:
        provider = FcmProvider.from_file(account, at_once=1, api_url=far.url)
        async with world.worker({Channel.PUSH: provider}) as deliver:  # type: ignore[dict-item]  # a real one, not scripted
            yield Place(world, far, deliver, person)
        await provider.close()


@pytest.fixture
async def place(database, tmp_path) -> AsyncIterator[Place]:
    async with place_of(World(database, tmp_path / "journals"), tmp_path / "account.json") as place:
        yield place


async def test_a_wrong_apns_key_holds_iphones_alone_and_the_first_that_is_taken_frees_them(place):
    iphones, androids, browsers = [await place.queue(platform, 6) for platform in (IOS, ANDROID, WEB)]
    await place.break_key(IOS)
    with capture_logs() as lines:
        await place.deliver(())
    assert await place.world.states(androids + browsers) == [ACCEPTED] * 12
    assert await place.pauses() == ["fcm/ios"]
    paused = [line for line in lines if line["event"] == "provider.paused"]
    assert [(line["log_level"], line["provider"], line["code"]) for line in paused] == [("error", "fcm/ios", CODE)]
    assert await place.world.one("SELECT sum(tries) FROM messages WHERE state = 'queued'") == 2  # before it was plain

    asked, tried = len(place.far.requests), await place.attempts(iphones)
    others = await place.queue(ANDROID, 3)
    held = await place.queue(IOS, 3)
    await place.deliver(())
    assert await place.world.states(others) == [ACCEPTED] * 3
    assert await place.world.states(held) == [ON_HOLD] * 3
    assert await place.attempts(held) == 0
    assert len(place.far.requests) == asked + 3

    await place.later()
    assert await place.attempts(iphones + held) == tried + 1  # the one that tried it
    assert await place.pauses() == ["fcm/ios"]
    assert await place.world.one("SELECT sum(tries) FROM messages") == 2

    place.far.faults = ()
    await place.later()
    assert await place.pauses() == []
    await place.later()
    assert await place.world.states(iphones + held) == [ACCEPTED] * 9
    assert await place.world.one("SELECT count(*) FROM addresses WHERE removed_at IS NOT NULL") == 0


async def test_two_wrong_keys_are_two_pauses_and_end_one_by_one(place):
    await place.queue(IOS, 3)
    await place.queue(WEB, 3)
    await place.break_key(IOS, WEB)
    await place.deliver(())
    assert await place.pauses() == ["fcm/ios", "fcm/web"]
    await place.break_key(WEB)
    await place.later()
    assert await place.pauses() == ["fcm/web"]
    await place.later()
    accepted = "SELECT array_agg(DISTINCT platform) FROM messages JOIN devices USING (address_id) WHERE state = %s"
    assert await place.world.one(accepted, "accepted") == ["ios"]


async def test_what_waits_for_a_key_still_expires(place):
    await place.queue(IOS, 3)
    await place.break_key(IOS)
    await place.deliver(())
    [late] = await place.queue(IOS, expires=timedelta(hours=1))
    await place.deliver(())
    assert await place.world.states([late]) == [ON_HOLD]
    assert await place.world.one("SELECT due_at <= expires_at FROM messages WHERE id = %s", late)
    await place.world.execute("UPDATE messages SET expires_at = now(), due_at = now() WHERE id = %s", late)
    await place.deliver(())
    assert await place.world.states([late]) == [("expired", "expired")]


async def test_a_no_reaches_what_waits_for_a_key(place):
    await place.queue(IOS, 3)
    await place.break_key(IOS)
    await place.deliver(())
    [held] = await place.queue(IOS)
    await place.deliver(())
    await place.world.withdraw_and_cancel([place.person], "all", "any")
    assert await place.world.states([held]) == [("cancelled", "withdrawn:all/any")]


async def test_a_device_whose_platform_is_not_known_is_not_held_and_tried_again_by_itself(place):
    await place.queue(IOS, 3)
    [unknown] = await place.queue(IOS, due=3600)
    await place.break_key(IOS)
    await place.deliver(())
    find = "SELECT address_id FROM messages WHERE id = %s"
    await place.world.execute(f"DELETE FROM devices WHERE address_id = ({find})", unknown)
    await place.world.execute("UPDATE messages SET due_at = now() WHERE id = %s", unknown)
    await place.deliver(())
    assert await place.world.states([unknown]) == [("queued", f"unavailable:{CODE}")]
    assert await place.attempts([unknown]) == 1


async def test_one_message_alone_tries_again_whichever_worker_comes_first(database, tmp_path):
    world = World(database, tmp_path / "journals")
    people = await world.people(4)
    devices = await world.devices(people, platform=IOS)
    provider = Scripted(lambda *_: Misconfigured(CODE, platform=IOS))
    async with world.worker({Channel.PUSH: provider}) as one, world.worker({Channel.PUSH: provider}) as other:
        await world.queue(people, by=Channel.PUSH, to=devices)
        await one(())
        assert len(provider.sent) == 4
        assert {outgoing.platform for outgoing in provider.sent} == {IOS}
        await world.execute("UPDATE messages SET due_at = now() WHERE state = 'queued'")
        await world.execute("UPDATE provider_pauses SET paused_until = now()")
        await one(())
        await other(())
        assert len(provider.sent) == 5
        provider.script = lambda *_: Receipt("r")
        for _ in range(2):
            await world.execute("UPDATE messages SET due_at = now() WHERE state = 'queued'")
            await world.execute("UPDATE provider_pauses SET paused_until = now()")
            await other(())
    assert await world.one("SELECT count(*) FROM messages WHERE state = 'accepted'") == 4
    assert await world.one("SELECT count(*) FROM provider_pauses") == 0
