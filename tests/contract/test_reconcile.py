"""Doubt about a text message is taken to the provider before anybody repeats it or gives it up."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from notifier.dispatch.reconcile import Reconcile
from notifier.dispatch.sweep import Sweep
from notifier.journal import boot_id
from notifier_channels.contract import Ambiguous, Channel, Receipt
from tests.contract.test_deliver import Bell
from tests.world import MARKETING, TRANSACTIONAL, Scripted, World

pytestmark = pytest.mark.anyio


@dataclass
class Asked:
    """A provider that knows what it took."""

    took: dict = field(default_factory=dict)
    is_away: bool = False
    doubts: list = field(default_factory=list)

    async def look_up(self, doubts):
        self.doubts += doubts
        if self.is_away:
            raise ConnectionError
        return {one.message: self.took[one.message] for one in doubts if one.message in self.took}

    async def close(self) -> None:
        """Nothing to give back."""


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


async def in_doubt(world: World, key: str, people=()):
    """Messages whose answer was lost, and whose minute is over."""
    ids = await world.queue(people or await world.people(1), key)
    lane = "marketing" if key == MARKETING else "transactional"
    async with world.worker(Scripted(lambda *_: Ambiguous("timeout")), lane) as deliver:
        await deliver(())
    await world.execute("UPDATE messages SET channel = 'sms', due_at = now() WHERE state = 'unknown'")
    await world.execute("UPDATE addresses SET channel = 'sms', address = '+4915112345678'")
    return ids


def sweep(world: World) -> Sweep:
    return Sweep(world.database, Bell(), world.consequences, boot_id(), timedelta(seconds=60))


async def test_what_the_provider_took_is_accepted_with_its_reference_and_not_repeated(world):
    [message] = await in_doubt(world, TRANSACTIONAL)
    asked = Asked({message: Receipt("SM1", "sent")})
    await Reconcile(world.database, {Channel.SMS: asked})()
    assert await world.states([message]) == [("accepted", None)]
    assert await world.one("SELECT reference FROM attempts") == "SM1"
    [doubt] = asked.doubts
    assert (str(doubt.to), doubt.attempt) == ("+4915112345678", 1)
    assert doubt.started_at <= doubt.settled_at


async def test_a_transactional_message_that_the_provider_does_not_know_is_repeated_once(world):
    [message] = await in_doubt(world, TRANSACTIONAL)
    reconcile = Reconcile(world.database, {Channel.SMS: Asked()})
    await reconcile()
    assert (await world.states([message]))[0][0] == "queued"
    assert await world.one("SELECT repeated FROM messages")


async def test_marketing_that_the_provider_does_not_know_stays_unknown_and_is_asked_about_once(world):
    [message] = await in_doubt(world, MARKETING)
    asked = Asked()
    reconcile = Reconcile(world.database, {Channel.SMS: asked})
    await reconcile()
    await reconcile()
    assert (await world.states([message]))[0][0] == "unknown"
    assert len(asked.doubts) == 1


async def test_an_expired_message_that_the_provider_does_not_know_is_not_repeated(world):
    [message] = await in_doubt(world, TRANSACTIONAL)
    await world.execute("UPDATE messages SET expires_at = now()")
    await Reconcile(world.database, {Channel.SMS: Asked()})()
    assert (await world.states([message]))[0][0] == "unknown"


async def test_a_provider_that_cannot_be_asked_is_asked_later_and_nothing_is_repeated_meanwhile(world):
    [message] = await in_doubt(world, TRANSACTIONAL)
    asked = Asked(is_away=True)
    reconcile = Reconcile(world.database, {Channel.SMS: asked})
    await reconcile()
    await reconcile()
    assert len(asked.doubts) == 1
    assert (await world.states([message]))[0][0] == "unknown"
    assert await world.one("SELECT due_at > now() FROM messages")


async def test_the_sweep_leaves_to_others_what_they_ask_about(world):
    [message] = await in_doubt(world, TRANSACTIONAL)
    await sweep(world)(asked=[Channel.SMS])
    assert (await world.states([message]))[0][0] == "unknown"
    await sweep(world)()
    assert (await world.states([message]))[0][0] == "queued"


async def test_the_references_of_other_messages_to_the_person_are_named(world):
    people = await world.people(1)
    await world.queue(people)
    async with world.worker(Scripted(lambda *_: Receipt("SM-other"))) as deliver:
        await deliver(())
    await in_doubt(world, TRANSACTIONAL, people)
    asked = Asked()
    await Reconcile(world.database, {Channel.SMS: asked})()
    assert asked.doubts[0].taken == frozenset({"SM-other"})


async def test_somebody_who_settled_it_meanwhile_was_first(world):
    [message] = await in_doubt(world, TRANSACTIONAL)

    class Late(Asked):
        async def look_up(self, doubts):
            await world.execute("UPDATE attempts SET state = 'accepted'")
            await world.execute("UPDATE messages SET state = 'accepted', due_at = NULL, reason = NULL")
            return await super().look_up(doubts)

    await Reconcile(world.database, {Channel.SMS: Late()})()
    assert await world.states([message]) == [("accepted", None)]
