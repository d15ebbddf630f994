"""What an outcome does beyond its message: dead devices go, a STOP at the provider reaches the ledger."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from notifier.dispatch.consequences import Consequences
from notifier.dispatch.devices import Devices, Registration
from notifier.dispatch.replies import Replies, Reply
from notifier.dispatch.sweep import Sweep
from notifier.domain.recipients import Hasher
from notifier.journal import boot_id
from notifier_channels.addresses import Platform
from notifier_channels.contract import Ambiguous, BadAddress, Channel, OptedOut, Receipt
from notifier_channels.sms.keywords import Keyword
from tests.contract.test_deliver import Bell
from tests.world import KEYS, MANDATORY, TRANSACTIONAL, Scripted, World, claim

pytestmark = pytest.mark.anyio

STOPPED = OptedOut("21610", "the person has answered STOP")
LEDGER = """
SELECT array_agg(said ORDER BY said)
FROM (SELECT recipient_id || ' ' || scope || '/' || channel || ' ' || source AS said FROM consent_events) AS lines
"""
BLOCKS = "SELECT array_agg(channel || ' ' || reason) FROM suppressions WHERE lifted_at IS NULL"


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


def sweep(world: World) -> Sweep:
    return Sweep(world.database, Bell(), world.consequences, boot_id(), timedelta(seconds=60))


async def test_a_stop_at_the_provider_is_written_for_every_holder_of_the_number(world):
    ann, bob = people = await world.people(2)
    [number] = await world.phones([ann])
    await share(world, number, bob)
    [first] = await world.queue([ann], by=Channel.SMS, to=[number])
    [waiting] = await world.queue([ann], by=Channel.SMS, to=[number], due=3600)
    [mail] = await world.queue([ann], due=3600)
    async with world.worker({Channel.SMS: Scripted(lambda *_: STOPPED)}) as deliver:
        await deliver(())
    assert await world.states([first]) == [("suppressed", "opted_out_at_provider:21610")]
    assert await world.attempts(first) == [(1, "refused")]
    assert await world.one(LEDGER) == sorted(f"{person} all/sms provider" for person in people)
    assert await world.one(BLOCKS) == ["sms stop"]
    states = dict(zip((waiting, mail), await world.states([waiting, mail]), strict=True))
    assert states == {waiting: ("cancelled", "withdrawn:all/sms"), mail: ("queued", None)}


async def test_a_stop_that_is_written_down_after_the_start_is_over(world):
    """The answer is older than the START, when the database was away or a dead worker's journal is read."""
    people = await world.people(1)
    numbers = await world.phones(people)
    [message] = await world.queue(people, by=Channel.SMS, to=numbers)
    async with world.worker({Channel.SMS: Scripted()}) as deliver:
        permitted = await deliver._gate(await claim(deliver))
        phone = permitted[0].address
        replies = Replies(world.database, world.hasher, world.templates.topics, "Acme", "acme.test", "en")
        for said in (Keyword.STOP, Keyword.START):
            await replies(Reply(f"SM-{said}", phone, said, str(said), is_answered=True, provider="twilio"))
        await deliver._settle(permitted, {message: STOPPED}, {})
    assert await world.states([message]) == [("suppressed", "opted_out_at_provider:21610")]
    assert await world.one("SELECT array_agg(granted ORDER BY number) FROM consent_events") == [False, True]
    assert await world.one(BLOCKS) is None


async def share(world: World, number, person) -> None:
    """Another person with the same number."""
    await world.execute(
        "INSERT INTO addresses (id, recipient_id, channel, address, address_hash, hash_key)"
        " SELECT gen_random_uuid(), %s, channel, address, address_hash, hash_key FROM addresses WHERE id = %s",
        person,
        number,
    )


async def test_a_password_reset_is_not_sent_to_a_number_that_has_stopped(world):
    """The suppression of a STOP stands above a mandatory topic; the mail goes."""
    people = await world.people(1)
    numbers = await world.phones(people)
    await world.queue(people, by=Channel.SMS, to=numbers)
    async with world.worker({Channel.SMS: Scripted(lambda *_: STOPPED), Channel.EMAIL: Scripted()}) as deliver:
        await deliver(())
        ids = await world.queue(people, MANDATORY, by=Channel.SMS, to=numbers) + await world.queue(people, MANDATORY)
        await deliver(())
    assert await world.states(ids) == [("suppressed", "suppressed_address:stop"), ("accepted", None)]


async def test_a_dead_device_is_removed_and_the_others_of_the_person_stay(world):
    people = await world.people(1)
    devices = await world.devices(people, each=2)
    ids = await world.queue(people * 2, by=Channel.PUSH, to=devices)
    outcomes = {ids[0]: BadAddress("UNREGISTERED"), ids[1]: Receipt("m1")}
    async with world.worker({Channel.PUSH: Scripted(lambda message, _: outcomes[message.id])}) as deliver:
        await deliver(())
    assert await world.states(ids) == [("failed", "bad_address:UNREGISTERED"), ("accepted", None)]
    assert await world.one(BLOCKS) == ["push dead_device"]
    assert await world.one("SELECT array_agg(id) FROM addresses WHERE channel = 'push' AND removed_at IS NULL") == [
        devices[1]
    ]


@pytest.mark.parametrize("is_moved", [False, True])
async def test_a_device_that_registers_before_a_late_no_is_written_down_stays(world, is_moved):
    """The answer is older than the registration, when the database was away or a dead worker's journal is read."""
    people = await world.people(2)
    [device] = await world.devices(people[:1])
    [message] = await world.queue(people[:1], by=Channel.PUSH, to=[device])
    async with world.worker({Channel.PUSH: Scripted()}) as deliver:
        permitted = await deliver._gate(await claim(deliver))
        hasher = Hasher({"k2": b"k" * 32, **KEYS})  # rotated meanwhile: who takes the device over has it under k2
        said = Registration(permitted[0].address, Platform.WEB)
        kept = (await Devices(world.database, hasher).register(str(people[is_moved]), said)).device.id
        changed = replace(deliver, consequences=Consequences(hasher, world.templates.topics))
        await changed._settle(permitted, {message: BadAddress("UNREGISTERED")}, {})
    assert await world.states([message]) == [("failed", "bad_address:UNREGISTERED")]
    assert await world.one("SELECT array_agg(address_id) FROM devices") == [kept]
    assert await world.one(BLOCKS) is None


async def test_what_waits_for_a_dead_device_is_refused_and_says_why(world):
    people = await world.people(1)
    [device] = await world.devices(people)
    await world.queue(people, by=Channel.PUSH, to=[device])
    [later] = await world.queue(people, by=Channel.PUSH, to=[device], due=0.001)
    answers = iter([BadAddress("UNREGISTERED")])
    async with world.worker({Channel.PUSH: Scripted(lambda *_: next(answers))}, batch_size=1) as deliver:
        await deliver(())
    assert await world.states([later]) == [("suppressed", "address_removed")]


@pytest.mark.parametrize(
    ("outcome", "by", "block"),
    [
        (BadAddress("550 5.1.1"), Channel.EMAIL, "email hard_bounce"),
        (BadAddress("21211"), Channel.SMS, "sms hard_bounce"),
        (STOPPED, Channel.SMS, "sms stop"),
        (BadAddress("UNREGISTERED"), Channel.PUSH, "push dead_device"),
    ],
)
async def test_an_answer_that_only_the_journal_of_a_dead_worker_knows_has_the_same_consequences(
    world, outcome, by, block
):
    people = await world.people(1)
    to = {Channel.EMAIL: people, Channel.SMS: None, Channel.PUSH: None}[by] or (
        await (world.phones if by is Channel.SMS else world.devices)(people)
    )
    [message] = await world.queue(people, by=by, to=to)

    def answer(outgoing, witness):
        assert witness.about_to_commit(outgoing.id)
        witness.answered(outgoing.id, outcome)
        return outcome

    async with world.worker({by: Scripted(answer)}) as deliver:
        permitted = await deliver._gate(await claim(deliver))
        outgoing, _ = deliver.compose(permitted)
        await deliver._send(by, permitted, outgoing)
        deliver.journal.close()  # killed before it could settle
    await sweep(world)()
    assert (await world.states([message]))[0][0] in ("failed", "suppressed")
    assert await world.one(BLOCKS) == [block]
    assert (await world.one(LEDGER) is not None) == (outcome is STOPPED)
    assert await world.one("SELECT removed_at IS NOT NULL FROM addresses WHERE id = %s", to[0]) == (by is Channel.PUSH)


async def test_doubt_about_a_text_message_waits_for_somebody_to_ask_even_when_it_is_marketing(world):
    people = await world.people(1)
    ids = await world.queue(people, TRANSACTIONAL, by=Channel.SMS, to=await world.phones(people))
    await world.execute("UPDATE messages SET category = 'marketing', topic = 'orders'")
    async with world.worker({Channel.SMS: Scripted(lambda *_: Ambiguous("timeout"))}) as deliver:
        await deliver(())
    assert (await world.states(ids))[0][0] == "unknown"
    assert await world.one("SELECT due_at IS NOT NULL FROM messages")


async def test_a_dead_provider_of_one_channel_leaves_hands_for_the_others(world):
    """I10 between channels: a text message that hangs must not hold up a mail."""
    people = await world.people(4)
    numbers = await world.phones(people)
    texts = await world.queue(people, by=Channel.SMS, to=numbers)
    released = asyncio.Event()

    class Hanging(Scripted):
        async def send(self, batch, witness):  # noqa: ARG002
            await released.wait()
            for message in batch:
                yield message.id, Receipt("late")

    providers = {Channel.SMS: Hanging(name="twilio"), Channel.EMAIL: Scripted()}
    async with world.worker(providers, batch_size=1) as deliver:
        busy = [asyncio.create_task(deliver(())) for _ in range(4)]
        while await world.one("SELECT count(*) FROM messages WHERE state = 'sending'") < 3:
            await asyncio.sleep(0.01)
        mails = await world.queue(people)
        await deliver(mails)
        assert {state for state, _ in await world.states(mails)} == {"accepted"}
        released.set()
        await asyncio.gather(*busy)
    assert {state for state, _ in await world.states(texts)} == {"accepted"}
