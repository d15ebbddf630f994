"""Doubt about a text message is taken to the provider before anybody repeats it or gives it up."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from notifier.dispatch.reconcile import Reconcile
from notifier.dispatch.sweep import Sweep
from notifier.domain.recipients import Hasher
from notifier.journal import boot_id
from notifier_channels.addresses import PhoneNumber
from notifier_channels.contract import Ambiguous, Channel, Receipt
from tests.contract.test_deliver import Bell
from tests.world import KEYS, MARKETING, TRANSACTIONAL, Scripted, World

pytestmark = pytest.mark.anyio

NUMBER = "+4915112345678"


@dataclass
class Asked:
    """A provider that knows what it took."""

    took: dict = field(default_factory=dict)
    is_away: bool = False
    doubts: list = field(default_factory=list)

    async def look_up(self, doubts):
        self.doubts += doubts
        return {} if self.is_away else {one.message: self.took.get(one.message) for one in doubts}

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
    await share(world)
    return ids


async def share(world: World) -> None:
    """Everybody's messages go to one number, as in a family."""
    digest = world.hasher.current(PhoneNumber(NUMBER)).digest
    await world.execute("UPDATE addresses SET channel = 'sms', address = %s, address_hash = %s", NUMBER, digest)
    await world.execute("UPDATE messages SET channel = 'sms'")


async def under_way(world: World, message) -> None:
    """Somebody else's message to that number is on the wire."""
    await world.execute(
        "INSERT INTO attempts (message_id, n, worker_id, provider) SELECT %s, 1, min(id), 'twilio' FROM workers",
        message,
    )


def sweep(world: World) -> Sweep:
    return Sweep(world.database, Bell(), world.consequences, boot_id(), timedelta(seconds=60))


async def test_what_the_provider_took_is_accepted_with_its_reference_and_not_repeated(world):
    [message] = await in_doubt(world, TRANSACTIONAL)
    asked = Asked({message: Receipt("SM1", "sent")})
    await Reconcile(world.database, {Channel.SMS: asked}, world.hasher)()
    assert await world.states([message]) == [("accepted", None)]
    assert await world.one("SELECT reference FROM attempts") == "SM1"
    [doubt] = asked.doubts
    assert (str(doubt.to), doubt.attempt) == ("+4915112345678", 1)
    assert doubt.started_at <= doubt.settled_at


async def test_a_transactional_message_that_the_provider_does_not_know_is_repeated_once(world):
    [message] = await in_doubt(world, TRANSACTIONAL)
    reconcile = Reconcile(world.database, {Channel.SMS: Asked()}, world.hasher)
    await reconcile()
    assert (await world.states([message]))[0][0] == "queued"
    assert await world.one("SELECT repeated FROM messages")


async def test_marketing_that_the_provider_does_not_know_stays_unknown_and_is_asked_about_once(world):
    [message] = await in_doubt(world, MARKETING)
    asked = Asked()
    reconcile = Reconcile(world.database, {Channel.SMS: asked}, world.hasher)
    await reconcile()
    await reconcile()
    assert (await world.states([message]))[0][0] == "unknown"
    assert len(asked.doubts) == 1


async def test_an_expired_message_that_the_provider_does_not_know_is_not_repeated(world):
    [message] = await in_doubt(world, TRANSACTIONAL)
    await world.execute("UPDATE messages SET expires_at = now()")
    await Reconcile(world.database, {Channel.SMS: Asked()}, world.hasher)()
    assert (await world.states([message]))[0][0] == "unknown"


async def test_a_provider_that_cannot_be_asked_is_asked_later_and_nothing_is_repeated_meanwhile(world):
    [message] = await in_doubt(world, TRANSACTIONAL)
    asked = Asked(is_away=True)
    reconcile = Reconcile(world.database, {Channel.SMS: asked}, world.hasher)
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


@pytest.mark.parametrize("rotated", [False, True])
async def test_the_references_of_all_messages_to_the_number_are_named_whosever_they_are(world, rotated):
    ann, bob = await world.people(2)
    await world.queue([bob])
    async with world.worker(Scripted(lambda *_: Receipt("SM-other"))) as deliver:
        await deliver(())
    await in_doubt(world, TRANSACTIONAL, [ann])
    if rotated:
        world.hasher = Hasher({"k2": b"k" * 32, **KEYS})
        digest = world.hasher.current(PhoneNumber(NUMBER)).digest
        await world.execute(
            "UPDATE addresses SET address_hash = %s, hash_key = 'k2' WHERE recipient_id = %s", digest, bob
        )
    await world.execute("UPDATE addresses SET removed_at = now() WHERE recipient_id = %s", bob)
    asked = Asked()
    await Reconcile(world.database, {Channel.SMS: asked}, world.hasher)()
    assert asked.doubts[0].taken == frozenset({"SM-other"})


async def test_somebody_who_settled_it_meanwhile_was_first(world):
    [message] = await in_doubt(world, TRANSACTIONAL)

    class Late(Asked):
        async def look_up(self, doubts):
            await world.execute("UPDATE attempts SET state = 'accepted'")
            await world.execute("UPDATE messages SET state = 'accepted', due_at = NULL, reason = NULL")
            return await super().look_up(doubts)

    await Reconcile(world.database, {Channel.SMS: Late()}, world.hasher)()
    assert await world.states([message]) == [("accepted", None)]


async def test_nothing_is_asked_while_another_message_to_the_number_is_under_way(world):
    ann, bob = await world.people(2)
    [message] = await in_doubt(world, TRANSACTIONAL, [ann])
    [other] = await world.queue([bob])
    await share(world)
    await under_way(world, other)
    asked = Asked({message: Receipt("SM-of-bob")})
    reconcile = Reconcile(world.database, {Channel.SMS: asked}, world.hasher)
    await reconcile()
    assert not asked.doubts
    assert (await world.states([message]))[0][0] == "unknown"
    assert await world.one("SELECT due_at > now() FROM messages WHERE id = %s", message)
    await world.execute("UPDATE attempts SET state = 'not_taken', settled_at = now() WHERE message_id = %s", other)
    await world.execute("UPDATE messages SET due_at = now() WHERE id = %s", message)
    await reconcile()
    assert await world.states([message]) == [("accepted", None)]


@pytest.mark.parametrize("is_answered", [True, False])
async def test_what_left_for_the_number_while_the_provider_was_asked_is_no_proof(world, is_answered):
    ann, bob = await world.people(2)
    [message] = await in_doubt(world, TRANSACTIONAL, [ann])
    [other] = await world.queue([bob])
    await share(world)

    class Meanwhile(Asked):
        async def look_up(self, doubts):
            await under_way(world, other)
            if is_answered:
                await world.execute(
                    "UPDATE attempts SET state = 'accepted', reference = 'SM-of-bob', settled_at = now()"
                    " WHERE message_id = %s",
                    other,
                )
            return await super().look_up(doubts)

    await Reconcile(world.database, {Channel.SMS: Meanwhile({message: Receipt("SM-of-bob")})}, world.hasher)()
    assert (await world.states([message]))[0][0] == "unknown"
    assert await world.one("SELECT due_at > now() FROM messages WHERE id = %s", message)


@pytest.mark.parametrize(("minutes", "state"), [(0, "queued"), (30, "accepted")])
async def test_what_may_be_the_trace_of_another_message_in_doubt_is_no_proof(world, minutes, state):
    ann, bob = await world.people(2)
    await in_doubt(world, MARKETING, [bob])
    await world.execute(
        "UPDATE attempts SET started_at = started_at - %s, settled_at = settled_at - %s",
        *[timedelta(minutes=minutes)] * 2,
    )
    await world.execute("UPDATE messages SET due_at = NULL WHERE state = 'unknown'")
    [message] = await in_doubt_again(world, ann)
    asked = Asked({message: Receipt("SM-of-whom")})
    await Reconcile(world.database, {Channel.SMS: asked}, world.hasher)()
    assert (await world.states([message]))[0][0] == state


async def in_doubt_again(world: World, person):
    """Another one, beside what is in doubt already."""
    await world.execute("UPDATE addresses SET channel = 'email', address = recipient_id || '@example.test'")
    settled = await world.one("SELECT array_agg(id) FROM messages WHERE due_at IS NULL")
    ids = await in_doubt(world, TRANSACTIONAL, [person])
    await world.execute("UPDATE messages SET due_at = NULL WHERE id = ANY(%s)", settled)
    return ids


async def test_what_could_be_asked_is_settled_and_the_rest_is_asked_later(world):
    first, second = await in_doubt(world, TRANSACTIONAL, await world.people(2))
    digest = world.hasher.current(PhoneNumber("+4915112345679")).digest
    await world.execute(
        "UPDATE addresses SET address = '+4915112345679', address_hash = %s"
        " WHERE recipient_id = (SELECT recipient_id FROM messages WHERE id = %s)",
        digest,
        second,
    )

    class Half(Asked):
        async def look_up(self, doubts):
            return {one.message: Receipt("SM1") for one in doubts if one.message == first}

    await Reconcile(world.database, {Channel.SMS: Half()}, world.hasher)()
    assert [state for state, _ in await world.states([first, second])] == ["accepted", "unknown"]
    assert await world.one("SELECT due_at > now() FROM messages WHERE id = %s", second)


async def test_an_erased_address_holds_up_nobody(world):
    [message] = await in_doubt(world, TRANSACTIONAL)
    await world.execute("UPDATE addresses SET address = '', removed_at = now()")
    asked = Asked()
    await Reconcile(world.database, {Channel.SMS: asked}, world.hasher)()
    assert not asked.doubts
    assert (await world.states([message]))[0][0] == "queued"  # its gate will say why it is not sent
