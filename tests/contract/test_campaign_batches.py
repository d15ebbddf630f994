"""A campaign's batches from claim to outcome: decided together, born with their intent, sent at most once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from notifier.dispatch import steering
from notifier.dispatch.brakes import _runs
from notifier.dispatch.campaigns import Campaigns
from notifier.dispatch.deliver import Batch
from notifier.dispatch.sweep import Sweep
from notifier.domain.access import OPERATOR
from notifier.domain.campaigns import goes_wrong
from notifier.domain.messages import Lane
from notifier.domain.who import Given, GivenAddress
from notifier.journal import boot_id
from notifier.limits import Limits
from notifier.rendering import Templates
from notifier.store import batches, who
from notifier.store.database import rows
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Ambiguous, Channel, Mailbox, Misconfigured, Receipt, Unavailable
from tests.contract.test_deliver import Bell, until_somebody_waits
from tests.world import IDENTITY, MANDATORY, MARKETING, TEMPLATES, Scripted, World, claim, new_id, take

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


async def work(world: World, provider: Scripted, **changes: object) -> None:
    async with world.worker(provider, Lane.MARKETING, **changes) as deliver:
        await deliver(())


async def sweep(world: World) -> None:
    await Sweep(world.database, Bell(), world.consequences, boot_id(), timedelta(seconds=30)).recover()


async def test_each_person_gets_one_message_and_who_said_no_gets_none_with_the_reason(world):
    people = await world.people(20)
    await world.withdraw(people[:5])
    campaign = await world.campaign(people, size=7)
    provider = Scripted()
    await work(world, provider)
    states = await world.of_campaign(campaign)
    assert {states[person] for person in people[5:]} == {("accepted", None)}
    assert {states[person] for person in people[:5]} == {("suppressed", "withdrawn:marketing/any")}
    assert len(provider.sent) == 15
    decided = (
        "SELECT count(*) FROM campaign_batches WHERE decided_at IS NOT NULL AND worker_id IS NULL AND unreachable = 0"
    )
    assert await world.one(decided) == 3


async def test_a_batch_that_is_planned_twice_is_sent_once(world):
    people = await world.people(10)
    campaign = await world.campaign(people)
    await world.execute(
        "INSERT INTO campaign_batches (campaign_id, channel, recipients, starts_at, due_at)"
        " SELECT campaign_id, channel, recipients, starts_at, due_at FROM campaign_batches"
    )
    provider = Scripted()
    await work(world, provider)
    assert len(provider.sent) == len(await world.of_campaign(campaign)) == 10


async def test_a_paused_campaigns_batch_is_not_taken_and_goes_on_when_it_is_resumed(world):
    people = await world.people(4)
    campaign = await world.campaign(people, size=2)
    await world.execute("UPDATE campaigns SET state = 'paused', pause_reason = 'asked'")
    provider = Scripted()
    await work(world, provider)
    assert provider.sent == []
    await world.execute("UPDATE campaigns SET state = 'sending', pause_reason = NULL")
    await work(world, provider)
    assert set(await world.of_campaign(campaign)) == set(people)


@pytest.mark.parametrize(("state", "left"), [("paused", "batch"), ("cancelled", "counted")])
async def test_a_batch_in_hand_sees_at_the_gate_that_its_campaign_was_stopped(world, state, left):
    campaign = await world.campaign(await world.people(3))
    async with world.worker(Scripted(), Lane.MARKETING) as deliver:
        async with world.database.connection() as c:
            batch = await deliver._claim_planned(c, Channel.EMAIL, 500)
        why, ended = ("asked", None) if state == "paused" else (None, "now")
        await world.execute(
            "UPDATE campaigns SET state = %s, pause_reason = %s, ended_at = %s::timestamptz", state, why, ended
        )
        assert await deliver._gate(batch) == []
    assert await world.of_campaign(campaign) == {}
    waiting = await world.one("SELECT count(*) FROM campaign_batches WHERE due_at IS NOT NULL AND claims = 0")
    dropped = "SELECT sum(cardinality(recipients)) FROM campaign_batches WHERE left_out = 'cancelled'"
    counted = await world.one(dropped)
    assert (waiting, counted) == ((1, None) if left == "batch" else (0, 3))


async def test_a_deferred_message_of_a_paused_campaign_waits_and_one_of_a_cancelled_campaign_is_refused(world):
    people = await world.people(2)
    campaign = await world.campaign(people)
    await world.execute("UPDATE recipients SET snoozed_until = clock_timestamp() + interval '10 minutes'")
    await work(world, Scripted())
    assert set((await world.of_campaign(campaign)).values()) == {("queued", "snoozed")}
    for state, expected in (
        ("paused", ("queued", "campaign_paused")),
        ("cancelled", ("suppressed", "campaign_cancelled")),
    ):
        await world.execute(
            "UPDATE campaigns SET state = %s, pause_reason = CASE WHEN %s = 'paused' THEN 'asked' END,"
            " ended_at = CASE WHEN %s = 'cancelled' THEN clock_timestamp() END", state, state, state,
        )  # fmt: skip
        await world.execute("UPDATE messages SET due_at = clock_timestamp()")
        provider = Scripted()
        await work(world, provider)
        assert set((await world.of_campaign(campaign)).values()) == {expected}
        assert provider.sent == []


async def test_what_a_gate_lays_aside_while_its_campaign_is_resumed_is_due_at_once(world):
    people = await world.people(2)
    campaign = await world.campaign(people)
    await world.execute("UPDATE recipients SET snoozed_until = clock_timestamp() + interval '10 minutes'")
    await work(world, Scripted())
    await world.execute("UPDATE messages SET due_at = clock_timestamp()")
    await world.database.transact(lambda c: steering.pause(c, campaign, OPERATOR))
    async with world.worker(Scripted(), Lane.MARKETING) as deliver:
        batch = await claim(deliver)
        async with world.database.connection() as c, c.transaction():
            await deliver.gate.queued(c, batch)
            resuming = asyncio.create_task(world.database.transact(lambda c: steering.resume(c, campaign, OPERATOR)))
            waiting = asyncio.create_task(until_somebody_waits(world))
            await asyncio.wait([resuming, waiting], return_when="FIRST_COMPLETED")
            waiting.cancel()
        resumed = await resuming
    async with world.database.connection() as c:
        await steering.follow(c, resumed)
    assert set((await world.of_campaign(campaign)).values()) == {("queued", "campaign_paused")}
    assert await world.one("SELECT count(*) FROM messages WHERE due_at <= clock_timestamp()") == 2


@pytest.mark.parametrize("hours", [1, 5], ids=["earlier", "later"])
async def test_what_is_in_hand_while_the_expiry_is_changed_expires_with_its_campaign(world, hours):
    campaign = await world.campaign(await world.people(2), expires=timedelta(hours=3))
    use, busy = Campaigns(world.templates, frozenset({Channel.EMAIL})), Scripted(lambda *_: Unavailable("451", ""))
    said = {"expires_at": datetime.now(UTC) + timedelta(hours=hours)}
    async with world.worker(busy, Lane.MARKETING) as deliver:
        async with world.database.connection() as c:
            batch = await deliver._claim_planned(c, Channel.EMAIL, 500)
        permitted = await deliver._gate(batch)
        await world.database.transact(lambda c: use.edit(c, campaign, said, OPERATOR))
        outgoing, spoiled = deliver.compose(permitted)
        await deliver._settle(permitted, await deliver._send(Channel.EMAIL, permitted, outgoing), spoiled)
    passed = timedelta(hours=(hours + 3) // 2)  # the earlier of the two instants has passed, and the later has not
    await world.execute("UPDATE campaigns SET expires_at = expires_at - %s", passed)
    await world.execute("UPDATE messages SET expires_at = expires_at - %s, due_at = now()", passed)
    provider = Scripted()
    await work(world, provider)
    assert len(provider.sent) == (0 if hours == 1 else 2)
    assert await world.one("SELECT count(*) FROM messages m, campaigns c WHERE m.expires_at = c.expires_at") == 2


async def test_of_two_people_with_one_address_one_gets_it(world):
    people = await world.people(3)
    await world.execute(
        "UPDATE addresses SET (address, address_hash) ="
        " (SELECT address, address_hash FROM addresses WHERE recipient_id = %s) WHERE recipient_id = ANY(%s)",
        people[0], people[:2],
    )  # fmt: skip
    campaign = await world.campaign(people, size=1)  # in different batches
    provider = Scripted()
    await work(world, provider)
    states = await world.of_campaign(campaign)
    assert sorted(map(str, (states[person] for person in people))) == sorted(
        map(str, [("accepted", None), ("accepted", None), ("suppressed", "duplicate_address")])
    )
    assert len({str(one.to) for one in provider.sent}) == len(provider.sent) == 2


async def test_who_else_has_an_address_is_found_without_reading_all_addresses(world):
    people = await world.people(3000)
    await world.execute("UPDATE addresses SET removed_at = now() WHERE recipient_id = %s", people[1])
    campaign = await world.campaign(people)
    await work(world, Scripted())
    await world.execute("ANALYZE")
    digests = await world.one("SELECT array_agg(address_hash) FROM addresses WHERE recipient_id = ANY(%s)", people[:3])
    async with await world.database.connect() as c, c.transaction():  # one that has read nothing before
        taken = await batches.lock_shared(c, campaign, Channel.EMAIL, digests)
        read = await rows(c, "SELECT relname, seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables")
    assert len(taken) == 2
    counted = {row["relname"]: (row["seq_tup_read"], row["idx_tup_fetch"]) for row in read}
    assert (counted["addresses"], counted["messages"]) == ((0, 3), (0, 2))


async def test_the_one_with_the_same_address_gets_it_when_the_first_is_refused(world):
    people = await world.people(2)
    await world.execute(
        "UPDATE addresses SET (address, address_hash) = (SELECT address, address_hash FROM addresses LIMIT 1)"
    )
    await world.withdraw(people[:1])
    campaign = await world.campaign(people)
    await work(world, Scripted())
    states = await world.of_campaign(campaign)
    assert [states[person][0] for person in people] == ["suppressed", "accepted"]


async def test_a_provider_that_takes_few_at_once_gets_a_batch_in_pieces(world):
    people = await world.people(7)
    campaign = await world.campaign(people)
    provider = Scripted(most_at_once=3)
    await work(world, provider)
    assert set(await world.of_campaign(campaign)) == set(people)
    assert await world.one("SELECT array_agg(cardinality(recipients) ORDER BY n) FROM campaign_batches") == [3, 3, 1]


async def test_who_has_no_address_on_the_channel_is_counted(world):
    people = await world.people(3)
    await world.execute("UPDATE addresses SET removed_at = now() WHERE recipient_id = %s", people[0])
    campaign = await world.campaign(people)
    await work(world, Scripted())
    assert set(await world.of_campaign(campaign)) == set(people[1:])
    assert await world.one("SELECT unreachable FROM campaign_batches") == 1


async def test_a_batch_of_a_worker_that_died_before_its_intent_is_taken_again(world):
    people = await world.people(5)
    campaign = await world.campaign(people)
    async with world.worker(Scripted(), Lane.MARKETING) as dead:
        async with world.database.connection() as c:
            assert await dead._claim_planned(c, Channel.EMAIL, 500) is not None
        dead.journal.close()
    await sweep(world)
    provider = Scripted()
    await work(world, provider)
    assert len(provider.sent) == 5
    assert set((await world.of_campaign(campaign)).values()) == {("accepted", None)}


@pytest.mark.parametrize("way", ["its worker died", "its turn in the rate is later"])
async def test_a_batch_that_comes_back_from_a_hand_when_its_campaign_is_cancelled_is_left_out(world, way):
    campaign = await world.campaign(await world.people(3))
    async with world.worker(Scripted(), Lane.MARKETING) as worker:
        async with world.database.connection() as c:
            batch = await worker._claim_planned(c, Channel.EMAIL, 500)
        await world.database.transact(lambda c: steering.cancel(c, campaign, OPERATOR))
        if way != "its worker died":
            async with world.database.connection() as c:
                await batches.give_back(c, worker.worker, batch, 60, is_paced=True)
        worker.journal.close()
    await sweep(world)
    counted = (
        "SELECT sum(cardinality(recipients)) FROM campaign_batches WHERE left_out = 'cancelled' AND due_at IS NULL"
    )
    assert await world.one(counted) == 3
    assert await world.one("SELECT count(*) FROM campaign_batches WHERE worker_id IS NOT NULL") == 0


async def test_a_batch_that_is_given_back_while_its_campaign_is_being_cancelled_is_left_out(world):
    campaign = await world.campaign(await world.people(3))
    async with world.worker(Scripted(), Lane.MARKETING) as worker:
        async with world.database.connection() as c:
            batch = await worker._claim_planned(c, Channel.EMAIL, 500)

        async def give_back() -> None:
            async with world.database.connection() as c:
                await batches.give_back(c, worker.worker, batch, 60, is_paced=True)

        async with world.database.connection() as c, c.transaction():
            await steering.cancel(c, campaign, OPERATOR)
            giving = asyncio.create_task(give_back())
            waiting = asyncio.create_task(until_somebody_waits(world))
            await asyncio.wait([giving, waiting], return_when="FIRST_COMPLETED")
            waiting.cancel()
        await giving
    assert await world.one("SELECT left_out FROM campaign_batches") == "cancelled"


@pytest.mark.parametrize("first", ["the claim", "the cancel"])
async def test_what_a_claim_leaves_of_a_batch_while_its_campaign_is_being_cancelled_is_left_out(
    world, monkeypatch, first
):
    campaign, split = await world.campaign(await world.people(5)), batches._split

    async def cancel(*_: object) -> None:
        await world.database.transact(lambda c: steering.cancel(c, campaign, OPERATOR))

    async def cancel_and_split(*given: object):
        await cancel()
        return await split(*given)

    if first == "the cancel":
        monkeypatch.setattr(batches, "_split", cancel_and_split)
    async with world.worker(Scripted(), Lane.MARKETING) as worker:
        async with world.database.connection() as c:
            if first == "the cancel":
                batch = await batches.claim(c, worker.worker, Channel.EMAIL, 2)
            else:
                async with c.transaction():
                    batch = await batches.claim(c, worker.worker, Channel.EMAIL, 2)
                    cancelling = asyncio.create_task(cancel())
                    waiting = asyncio.create_task(until_somebody_waits(world))
                    await asyncio.wait([cancelling, waiting], return_when="FIRST_COMPLETED")
                    waiting.cancel()
                await cancelling
        assert await worker._gate(batch) == []
    counted = "SELECT array_agg(cardinality(recipients) || left_out ORDER BY n) FROM campaign_batches"
    assert await world.one(counted) == ["2cancelled", "3cancelled"]


async def test_a_batch_that_the_server_hands_to_a_worker_after_its_death_is_taken_again(world):
    """What a killed client had sent may be carried out once it has been recovered."""
    people = await world.people(5)
    campaign = await world.campaign(people)
    async with world.worker(Scripted(), Lane.MARKETING) as dead:
        dead.journal.close()
    await sweep(world)
    assert await world.one("SELECT count(*) FROM workers WHERE ended_at IS NULL") == 0
    async with world.database.connection() as c:
        assert await dead._claim_planned(c, Channel.EMAIL, 500) is not None
    await sweep(world)
    provider = Scripted()
    await work(world, provider)
    assert len(provider.sent) == 5
    assert set((await world.of_campaign(campaign)).values()) == {("accepted", None)}


async def test_what_a_worker_decides_after_its_death_was_noted_is_left_in_doubt(world):
    """It had lost its lock, and its journal is gone."""
    people = await world.people(2)
    campaign = await world.campaign(people)
    async with world.worker(Scripted(), Lane.MARKETING) as dead:
        dead.journal.close()
    await sweep(world)
    async with world.database.connection() as c:
        batch = await dead._claim_planned(c, Channel.EMAIL, 500)
    assert len(await dead._gate(batch)) == 2
    await sweep(world)
    assert set((await world.of_campaign(campaign)).values()) == {("sending", None)}  # it may be sending yet
    await world.execute("UPDATE workers SET lost_at = lost_at - interval '1 minute'")
    await sweep(world)
    assert set((await world.of_campaign(campaign)).values()) == {("unknown", "in_doubt:worker_died")}
    assert await world.one("SELECT worker_id FROM campaign_batches") is None


async def test_a_batch_of_a_worker_that_died_after_its_intent_is_settled_by_the_journal(world):
    people = await world.people(4)
    campaign = await world.campaign(people)
    async with world.worker(Scripted(), Lane.MARKETING) as dead:
        async with world.database.connection() as c:
            batch = await dead._claim_planned(c, Channel.EMAIL, 500)
        permitted = await dead._gate(batch)
        sent, doubtful, *_ = [one.permit.message for one in permitted]
        dead.journal.before(sent, 1)
        dead.journal.after(sent, 1, Receipt("ref", "250"))
        dead.journal.before(doubtful, 1)
        dead.journal.rendering(permitted[3].permit.message)
        dead.journal.close()
    await sweep(world)
    states = await world.states([one.permit.message for one in permitted])
    assert states == [
        ("accepted", None),
        ("unknown", "in_doubt:worker_died"),
        ("queued", "worker_died"),
        ("queued", "worker_died"),
    ]
    assert await world.one("SELECT array_agg(claims ORDER BY id) FROM messages WHERE state = 'queued'") == [0, 1]
    assert await world.one("SELECT worker_id FROM campaign_batches") is None
    provider = Scripted()
    await work(world, provider)
    assert len(provider.sent) == 2
    assert len(await world.of_campaign(campaign)) == 4


async def write_to_ann_at(world: World, local: str) -> None:
    """Product code says that this is her address now."""
    email = EmailAddress.parse(f"{local}@example.test", allow_test_domains=True)
    given = Given("ann", {Channel.EMAIL: GivenAddress.of(email, world.hasher)})
    await world.database.transact(lambda c: who.settle(c, [given], new_id, replace=True))


async def adopt(world: World, nameless: UUID, number: int) -> None:
    """Somebody who is known by name turns out to hold the address of this nameless one, of this number."""
    await world.execute("INSERT INTO recipients (id, external_id) VALUES (%s, 'ann') ON CONFLICT DO NOTHING", new_id())
    await write_to_ann_at(world, f"person-{number}")
    assert await world.one("SELECT merged_into IS NOT NULL FROM recipients WHERE id = %s", nameless)


async def test_who_is_adopted_before_their_batch_is_decided_gets_it_under_their_name(world):
    people = await world.people(3)
    await world.execute("UPDATE recipients SET external_id = NULL WHERE id = %s", people[0])
    campaign = await world.campaign(people)
    await adopt(world, people[0], 0)
    provider = Scripted()
    await work(world, provider)
    adopter = await world.one("SELECT id FROM recipients WHERE external_id = 'ann'")
    assert set(await world.of_campaign(campaign)) == {adopter, *people[1:]}
    assert len(provider.sent) == 3
    assert await world.one("SELECT unreachable FROM campaign_batches") == 0


async def test_who_said_no_under_their_name_gets_nothing_that_was_planned_for_the_nameless_one(world):
    [nameless, adopter] = await world.people(2)
    await world.execute("UPDATE recipients SET external_id = NULL WHERE id = %s", nameless)
    await world.execute("UPDATE recipients SET external_id = 'ann' WHERE id = %s", adopter)
    await world.withdraw([adopter])
    campaign = await world.campaign([nameless])
    await adopt(world, nameless, 0)
    await work(world, Scripted())
    assert await world.of_campaign(campaign) == {adopter: ("suppressed", "withdrawn:marketing/any")}


@pytest.mark.parametrize("size", [500, 1], ids=["in one batch", "in two batches"])
async def test_two_of_the_audience_who_have_become_one_get_it_once_and_the_report_adds_up(world, size):
    people = await world.people(3)
    await world.execute("UPDATE recipients SET external_id = NULL WHERE id = %s", people[0])
    await world.execute("UPDATE recipients SET external_id = 'ann' WHERE id = %s", people[1])
    campaign = await world.campaign(people, size=size)
    await adopt(world, people[0], 0)
    provider = Scripted()
    await work(world, provider)
    assert sorted(str(one.to) for one in provider.sent) == ["person-0@example.test", "person-2@example.test"]
    assert set(await world.of_campaign(campaign)) == set(people[1:])
    assert await world.one("SELECT sum(unreachable) FROM campaign_batches") == 1


@pytest.mark.parametrize(("before", "after"), [("ann", "nameless"), ("nameless", "ann")])
async def test_who_has_got_it_at_one_address_does_not_get_it_again_at_another_after_an_adoption(world, before, after):
    people = dict(zip(("nameless", "ann"), await world.people(2), strict=True))
    await world.execute("UPDATE recipients SET external_id = NULL WHERE id = %s", people["nameless"])
    await world.execute("UPDATE recipients SET external_id = 'ann' WHERE id = %s", people["ann"])
    campaign = await world.campaign([people[before]])
    provider = Scripted()
    await work(world, provider)
    await adopt(world, people["nameless"], 0)
    if before == "nameless":
        await write_to_ann_at(world, "elsewhere")
    await world.execute(
        "INSERT INTO campaign_batches (campaign_id, channel, recipients, starts_at, due_at)"
        " VALUES (%s, 'email', %s, now(), now())", campaign, [people[after]],
    )  # fmt: skip
    await work(world, provider)
    assert len(provider.sent) == 1
    assert await world.of_campaign(campaign) == {people["ann"]: ("accepted", None)}
    assert await world.one("SELECT array_agg(unreachable ORDER BY n) FROM campaign_batches") == [0, 1]


async def test_what_a_dead_worker_had_in_hand_is_found_though_its_person_was_adopted(world):
    people = await world.people(3)
    await world.execute("UPDATE recipients SET external_id = NULL WHERE id = %s", people[0])
    await world.campaign(people)
    async with world.worker(Scripted(), Lane.MARKETING) as dead:
        async with world.database.connection() as c:
            batch = await dead._claim_planned(c, Channel.EMAIL, 500)
        assert len(await dead._gate(batch)) == 3
        await adopt(world, people[0], 0)
        dead.journal.close()
    await sweep(world)
    assert await world.one("SELECT array_agg(state) FROM messages") == ["queued"] * 3
    assert await world.one("SELECT array_agg(state) FROM attempts") == ["not_taken"] * 3
    assert await world.one("SELECT count(*) FROM campaign_batches WHERE worker_id IS NOT NULL") == 0


async def test_a_worker_that_dies_says_nothing_of_what_its_people_get_through_another(world):
    """One in its batch adopts somebody whose message another worker has at the provider."""
    nameless, adopter, third = await world.people(3)
    await world.execute("UPDATE recipients SET external_id = NULL WHERE id = %s", nameless)
    await world.execute("UPDATE recipients SET external_id = 'ann' WHERE id = %s", adopter)
    await world.execute("UPDATE addresses SET removed_at = now() WHERE recipient_id = %s", adopter)
    campaign = await world.campaign([nameless])
    await world.execute(
        "INSERT INTO campaign_batches (campaign_id, channel, recipients, starts_at, due_at)"
        " VALUES (%s, 'email', %s, now(), now())", campaign, [adopter, third],
    )  # fmt: skip
    provider = Scripted()
    async with world.worker(provider, Lane.MARKETING) as alive:
        async with world.database.connection() as c:
            batch = await alive._claim_planned(c, Channel.EMAIL, 500)
        permitted = await alive._gate(batch)
        async with world.worker(Scripted(), Lane.MARKETING) as dead:
            async with world.database.connection() as c:
                batch = await dead._claim_planned(c, Channel.EMAIL, 500)
            assert len(await dead._gate(batch)) == 1
            await adopt(world, nameless, 0)
            dead.journal.close()
        await sweep(world)
        assert await world.of_campaign(campaign) == {adopter: ("sending", None), third: ("queued", "worker_died")}
        outgoing, spoiled = alive.compose(permitted)
        await alive._settle(permitted, await alive._send(Channel.EMAIL, permitted, outgoing), spoiled)
        await alive(())
    assert sorted(str(one.to) for one in provider.sent) == ["person-0@example.test", "person-2@example.test"]


async def test_settling_a_batch_leaves_the_indexes_alone(world):
    """What makes a campaign fast: its messages and attempts are updated in place, on their own page."""
    await world.campaign(await world.people(50))
    await work(world, Scripted())
    share = "SELECT n_tup_hot_upd::float / n_tup_upd FROM pg_stat_user_tables WHERE relname = %s"
    await world.execute("SELECT pg_stat_force_next_flush()")
    async with asyncio.timeout(10):
        while await world.one("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'attempts'") != 50:
            await asyncio.sleep(0.05)
    assert await world.one(share, "attempts") > 0.8  # a few find no room on their page
    assert await world.one(share, "messages") > 0.8


async def test_a_worker_that_lost_its_batch_while_it_waited_for_the_gate_decides_nothing(world):
    campaign = await world.campaign(await world.people(3))
    async with world.worker(Scripted(), Lane.MARKETING) as late:
        async with world.database.connection() as c:
            batch = await late._claim_planned(c, Channel.EMAIL, 500)
        await world.execute("UPDATE campaign_batches SET worker_id = NULL, due_at = clock_timestamp()")
        assert await late._gate(batch) == []
    assert await world.of_campaign(campaign) == {}


async def test_a_batch_that_brought_down_its_workers_again_and_again_is_left_alone(world):
    await world.campaign(await world.people(1))
    await world.execute("UPDATE campaign_batches SET claims = 3")
    provider = Scripted()
    await work(world, provider)
    assert provider.sent == []


async def test_what_the_campaigns_data_does_not_give_comes_from_the_persons_attributes(world):
    people = await world.people(2)
    await world.execute(
        """UPDATE recipients SET attributes = '{"number": "own", "other": 1}' WHERE id = %s""", people[0]
    )
    campaign = await world.campaign(people, data={})
    provider = Scripted()
    await work(world, provider)
    states = await world.of_campaign(campaign)
    assert states[people[0]] == ("accepted", None)
    assert states[people[1]] == ("failed", "render:template")  # it has none
    assert [one.content.subject for one in provider.sent] == ["Number own"]


async def test_the_campaigns_data_stands_above_the_persons(world):
    [person] = await world.people(1)
    await world.execute("""UPDATE recipients SET attributes = '{"number": "own"}'""")
    await world.campaign([person], data={"number": "ours"})
    provider = Scripted()
    await work(world, provider)
    assert [one.content.subject for one in provider.sent] == ["Number ours"]


async def test_a_campaign_goes_out_in_the_name_of_its_sender(world):
    other = Mailbox("Acme News", EmailAddress("news", "acme.test"))
    world.templates = Templates.load(TEMPLATES, replace(IDENTITY, senders={"news": other}), "en")
    people = await world.people(2)
    await world.campaign(people)
    await world.execute("UPDATE campaigns SET sender = 'news'")
    provider = Scripted()
    await work(world, provider)
    assert {one.content.letterhead.sender for one in provider.sent} == {other}


async def test_a_campaign_whose_sender_is_gone_fails_by_our_own_fault(world):
    campaign = await world.campaign(await world.people(6))
    await world.execute("UPDATE campaigns SET sender = 'news'")
    await work(world, Scripted())
    assert set((await world.of_campaign(campaign)).values()) == {("failed", "render:template")}
    assert await world.one("SELECT pause_reason FROM campaigns") == "fails"


async def test_a_notice_reaches_who_said_no_in_the_lane_of_campaigns_and_is_never_repeated_from_doubt(world):
    [person] = await world.people(1)
    await world.withdraw([person], "all")
    campaign = await world.campaign([person], MANDATORY)
    await work(world, Scripted(lambda *_: Ambiguous("lost")))
    assert await world.of_campaign(campaign) == {person: ("unknown", "in_doubt:lost")}
    assert await world.one("SELECT lane || ' ' || category FROM messages") == "marketing transactional"
    assert await world.one("SELECT due_at IS NULL FROM messages") is True


async def test_a_campaigns_rate_holds_back_the_next_batch_and_other_campaigns_go_on(world):
    people = await world.people(6)
    await world.campaign(people[:4], size=2, rate=0.01)
    swift = await world.campaign(people[4:])
    provider = Scripted()
    await work(world, provider)
    assert len(provider.sent) == 4  # the first batch of the slow one has its place at once
    assert len(await world.of_campaign(swift)) == 2
    assert await world.one("SELECT count(*) FROM campaign_batches WHERE due_at > clock_timestamp() AND is_paced") == 1


async def test_a_batch_of_a_later_step_takes_no_place_in_the_campaigns_rate(world):
    people = await world.people(6)
    campaign = await world.campaign(people, size=2, rate=0.01, step=1)
    await work(world, Scripted())
    assert len(await world.of_campaign(campaign)) == 6


@pytest.mark.parametrize("is_away", [False, True], ids=["with Redis", "without Redis"])
async def test_another_rate_holds_for_the_batch_that_waits_for_its_place(world, redis_url, is_away):
    people = await world.people(4)
    campaign = await world.campaign(people, size=2, rate=0.01)
    provider, limits = Scripted(), Limits("redis://127.0.0.1:1" if is_away else redis_url)
    async with world.worker(provider, Lane.MARKETING, limits=limits) as deliver:
        await deliver(())
        assert len(provider.sent) == 2
        use = Campaigns(world.templates, frozenset({Channel.EMAIL}))
        await world.database.transact(lambda c: use.edit(c, campaign, {"rate": 1000.0}, OPERATOR))
        await deliver(())
    await limits.close()
    assert len(provider.sent) == 4


async def test_messages_that_wait_in_the_queue_and_campaigns_take_turns(world):
    people = await world.people(8)
    await world.campaign(people, size=1)
    single = await world.queue(people[:4], MARKETING)
    order: list[bool] = []

    def note(message, witness):
        order.append(message.id in single)
        return take(message, witness)

    await work(world, Scripted(note), batch_size=1)
    assert order[:8].count(True) == 4
    assert len(order) == 12


def routed(folder: Path, route: str) -> Templates:
    """The templates, of which one goes by email and text message, as `route` says."""
    shutil.copytree(TEMPLATES, folder)
    with (folder / "password-reset/template.toml").open("a") as file:
        file.write(f'route = {{ {route}, order = ["email", "sms"] }}\n')
    (folder / "password-reset/en/sms.j2").write_text("Reset it.\n")
    return Templates.load(folder, IDENTITY, "en")


async def on_two_channels(world: World, people: Sequence[UUID]) -> UUID:
    """A campaign whose batches on both channels are due."""
    await world.phones(people)
    campaign = await world.campaign(people, "password-reset")
    await world.execute(
        "INSERT INTO campaign_batches (campaign_id, channel, step, recipients, starts_at, due_at)"
        " SELECT campaign_id, 'sms', 1, recipients, starts_at, due_at FROM campaign_batches"
    )
    return campaign


async def all_is_due(world: World) -> None:
    await world.execute("UPDATE campaign_batches SET due_at = clock_timestamp() WHERE due_at IS NOT NULL")
    await world.execute("UPDATE messages SET due_at = clock_timestamp() WHERE state = 'queued'")


async def of_channels(world: World) -> object:
    return await world.one(
        "SELECT array_agg(DISTINCT channel || ' ' || state || ' ' || coalesce(reason, '')) FROM messages"
    )


@pytest.mark.parametrize("route", ['mode = "first"', 'mode = "then", after = "1m"'])
async def test_the_second_channel_of_a_campaign_waits_until_the_first_is_decided(database, tmp_path, route):
    world = World(database, tmp_path / "journals", templates=routed(tmp_path / "templates", route))
    await on_two_channels(world, await world.people(3))
    await world.execute("UPDATE campaign_batches SET starts_at = clock_timestamp() - interval '2 hours'")
    mail, text = Scripted(), Scripted()
    async with world.worker({Channel.EMAIL: mail, Channel.SMS: text}, Lane.MARKETING) as deliver:
        async with world.database.connection() as c:
            mails = await deliver._claim_planned(c, Channel.EMAIL, 500)
        await deliver(())  # whoever has the mails in hand waits for room at their provider
        assert (mail.sent, text.sent) == ([], [])
        await deliver._bring(Batch(Channel.EMAIL, mails))
        await all_is_due(world)
        await deliver(())
    assert (len(mail.sent), len(text.sent)) == (3, 0)
    assert await of_channels(world) == ["email accepted ", "sms suppressed reached_otherwise:email"]


async def test_a_later_channel_whose_template_no_longer_compiles_fails_by_our_own_fault_and_takes_no_worker_down(
    database, tmp_path
):
    """As after an upgrade, while batches wait for their turn."""
    world = World(database, tmp_path / "journals", templates=routed(tmp_path / "templates", 'mode = "first"'))
    people = await world.people(3)
    await on_two_channels(world, people)
    await world.execute("UPDATE addresses SET removed_at = now() WHERE channel = 'email'")
    await world.execute(
        "UPDATE template_versions SET sources = sources || jsonb_build_object('password-reset/en/sms.j2', '{{ ')"
    )
    mail, text = Scripted(), Scripted()
    async with world.worker({Channel.EMAIL: mail, Channel.SMS: text}, Lane.MARKETING) as deliver:
        for _ in range(3):
            await deliver(())
            await all_is_due(world)
    assert text.sent == []
    assert await of_channels(world) == ["sms failed render:template"]


async def test_while_the_first_channels_provider_is_paused_nobody_is_written_to_on_the_second(database, tmp_path):
    world = World(database, tmp_path / "journals", templates=routed(tmp_path / "templates", 'mode = "first"'))
    people = await world.people(3)
    await on_two_channels(world, people)
    await world.execute(
        "UPDATE addresses SET removed_at = now() WHERE recipient_id = %s AND channel = 'email'", people[0]
    )
    await world.execute(
        "INSERT INTO provider_pauses (provider, code, detail, paused_until)"
        " VALUES ('mail', '421', '', now() + interval '1 hour')"
    )
    mail, text = Scripted(), Scripted()
    mail.name, text.name = "mail", "text"
    async with world.worker({Channel.EMAIL: mail, Channel.SMS: text}, Lane.MARKETING) as deliver:
        await deliver(())
        assert (mail.sent, text.sent) == ([], [])
        await world.execute("DELETE FROM provider_pauses")
        await all_is_due(world)
        await deliver(())
        await all_is_due(world)
        await deliver(())
    assert (len(mail.sent), len(text.sent)) == (2, 1)


@pytest.mark.parametrize("size", [500, 1], ids=["in one batch", "in two batches"])
async def test_of_two_people_with_one_number_one_gets_it_on_a_later_channel_too(world, size):
    people = await world.people(3)
    phones = await world.phones(people)
    await world.execute(
        "UPDATE addresses a SET (address, address_hash) = (o.address, o.address_hash) FROM addresses o"
        " WHERE a.id = %s AND o.id = %s", phones[1], phones[0],
    )  # fmt: skip
    await world.grant(people, f"topic:{MARKETING}", "sms")
    campaign = await world.campaign(people, by=Channel.SMS, step=1)
    text = Scripted()
    async with world.worker({Channel.SMS: text}, Lane.MARKETING, batch_size=size) as deliver:
        await deliver(())
    fates = sorted(map(str, (await world.of_campaign(campaign)).values()))
    assert fates == ["('accepted', None)", "('accepted', None)", "('suppressed', 'duplicate_address')"]
    assert len(text.sent) == 2


# Stopping by itself ---------------------------------------------------------------------------------------------------


async def test_a_campaign_that_cannot_be_rendered_is_paused_before_all_of_it_has_failed(world):
    people = await world.people(60)
    campaign = await world.campaign(people, size=7, data={})  # `number` is missing for everybody
    await work(world, Scripted())
    failed = await world.of_campaign(campaign)
    assert set(failed.values()) == {("failed", "render:template")}
    assert len(failed) == 7
    assert await world.one("SELECT state || ' ' || pause_reason FROM campaigns") == "paused fails"


async def test_a_campaign_goes_on_while_few_fail_and_never_twenty_in_a_row(world):
    people = await world.people(30)
    await world.execute("""UPDATE recipients SET attributes = '{"number": "1"}'""")
    await world.execute("UPDATE recipients SET attributes = '{}' WHERE id = ANY(%s)", people[::10])
    campaign = await world.campaign(people, size=4, data={})
    await work(world, Scripted())
    states = [state for state, _ in (await world.of_campaign(campaign)).values()]
    assert (states.count("failed"), states.count("accepted")) == (3, 27)
    assert await world.one("SELECT state || ' ' || spoiled || ' ' || spoiled_in_row FROM campaigns") == "sending 3 0"


async def test_a_campaign_is_paused_when_the_provider_refuses_our_own_setup(world):
    people = await world.people(40)
    campaign = await world.campaign(people)
    await work(world, Scripted(lambda *_: Misconfigured("550 5.7.1", "sender not allowed")))
    assert {state for state, _ in (await world.of_campaign(campaign)).values()} == {"queued"}
    assert await world.one("SELECT pause_reason FROM campaigns") == "fails"


async def bring_down_three(world: World) -> None:
    for _ in range(3):
        async with world.worker(Scripted(), Lane.MARKETING) as dead:
            async with world.database.connection() as c:
                assert await dead._claim_planned(c, Channel.EMAIL, 500) is not None
            dead.journal.close()
        await sweep(world)


async def test_a_batch_that_brought_down_three_workers_pauses_its_campaign_until_it_is_resumed(world):
    campaign = await world.campaign(await world.people(1))
    await bring_down_three(world)
    assert await world.one("SELECT pause_reason FROM campaigns") == "poison"
    await world.database.transact(lambda c: steering.resume(c, campaign, OPERATOR))
    provider = Scripted()
    await work(world, provider)
    assert len(provider.sent) == 1


async def test_a_batch_that_becomes_poison_while_its_campaign_is_paused_is_told_of(world):
    campaign = await world.campaign(await world.people(1))
    await world.execute("UPDATE campaign_batches SET claims = 2")
    with structlog.testing.capture_logs() as said:
        async with world.worker(Scripted(), Lane.MARKETING) as dead:
            async with world.database.connection() as c:
                assert await dead._claim_planned(c, Channel.EMAIL, 500) is not None
            await world.database.transact(lambda c: steering.pause(c, campaign, OPERATOR))
            dead.journal.close()
        await sweep(world)
    assert await world.one("SELECT pause_reason FROM campaigns") == "asked"
    [told] = [one for one in said if one["event"] == "campaign.poison"]
    assert (told["campaign"], told["log_level"]) == (str(campaign), "error")


@pytest.mark.parametrize(
    ("failed", "in_row", "decided", "stops"),
    [(20, 20, 100_000, True), (19, 19, 100_000, False), (4, 4, 4, False), (5, 1, 500, False), (6, 1, 500, True)],
)
def test_more_than_one_in_a_hundred_or_twenty_in_a_row_stop_a_campaign(failed, in_row, decided, stops):
    assert goes_wrong(failed, in_row, decided) is stops


@given(st.lists(st.lists(st.booleans(), max_size=30), max_size=8))
def test_runs_of_failures_are_counted_over_batches_as_over_the_whole(batches):
    """What is kept between batches says the same as all messages in one list."""
    in_row, longest = 0, 0
    for failed in batches:
        count, run, trailing = _runs(failed)
        in_row = in_row + count if trailing is None else trailing
        longest = max(longest, run, in_row)
    whole = [one for failed in batches for one in failed]
    at_end = len(whole) - max((n + 1 for n, one in enumerate(whole) if not one), default=0)
    assert in_row == at_end
    assert longest <= max((len(run) for run in "".join(".#"[one] for one in whole).split(".")), default=0)
