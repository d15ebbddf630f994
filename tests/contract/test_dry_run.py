"""A dry-run says what sending then does: the same counts by the same reasons. It writes nothing, and locks nobody."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from notifier.dispatch.dry_run import OBSOLETE, DryRun
from notifier.dispatch.ingredients import Personal
from notifier.dispatch.judging import Judge
from notifier.dispatch.reckoning import Reckoning
from notifier.dispatch.shelf import Shelf
from notifier.dispatch.timing import Timing
from notifier.domain.caps import Cap
from notifier.domain.messages import Lane
from notifier.domain.plans import hash_of
from notifier.domain.routing import Mode, Route
from notifier.scheduler import _schedule
from notifier.store import recipients
from notifier.store.database import rows
from notifier_channels.contract import Channel
from tests.contract.test_timing import closed_now
from tests.servers.api import settings_for
from tests.world import MANDATORY, MARKETING, Scripted, World, new_id, small_templates

pytestmark = pytest.mark.anyio

EMAIL, SMS, PUSH = Channel.EMAIL, Channel.SMS, Channel.PUSH
HOUR = timedelta(hours=1)
HERE = datetime.now(UTC).hour
#: Zones where marketing waits and where it does not, by `closed_now`: noon and two hours on, far from any midnight.
CLOSED, OPEN = f"Etc/GMT{HERE - 12:+d}", f"Etc/GMT{HERE - 14:+d}"


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


def dry_run(world: World, timing: Timing | None = None, price: str | None = None, **changes: Any) -> DryRun:
    judge = Judge(world.templates, Shelf(world.templates), timing or Timing(), world.hasher)
    reckoning = Reckoning(judge, Personal(world.links, "en", "UTC"), price)
    settings = {"channels": frozenset({EMAIL}), "default_timezone": "UTC", **changes}
    return DryRun(database=world.database, reckoning=reckoning, **settings)


async def ask(world: World, campaign: UUID) -> UUID:
    """Ask for a dry-run of the campaign."""
    plan = new_id()
    await world.execute(
        "INSERT INTO campaign_plans (id, campaign_id, revision, template_version)"
        " SELECT %s, id, revision, template_version FROM campaigns WHERE id = %s", plan, campaign,
    )  # fmt: skip
    return plan


async def draft(world: World, people: Sequence[UUID], key: str = MARKETING, **more: Any) -> UUID:
    """A campaign of which nothing is sent yet."""
    return await world.campaign(people, key, state="draft", **more)


async def reckon(world: World, campaign: UUID, timing: Timing | None = None, **changes: Any) -> dict[str, Any]:
    """The plan of a draft, which is then sent."""
    plan = await ask(world, campaign)
    await dry_run(world, timing, **changes)()
    for state in ("scheduled", "sending"):
        await world.execute("UPDATE campaigns SET state = %s WHERE id = %s", state, campaign)
    row = await row_of(world, plan)
    assert row["problem"] is None
    assert row["hash"] == hash_of(row["plan"])
    return row["plan"]


async def row_of(world: World, plan: UUID) -> dict[str, Any]:
    async with world.database.connection() as c:
        [row] = await rows(c, "SELECT * FROM campaign_plans WHERE id = %s", (plan,))
    return row


async def deliver(world: World, channels: Sequence[Channel] = (EMAIL,), **changes: Any) -> None:
    providers = {channel: Scripted(name=f"scripted-{channel}") for channel in channels}
    async with world.worker(providers, Lane.MARKETING, **changes) as work:
        await work()


def counts(tallies: Mapping[str, Any]) -> Counter[str]:
    return Counter({reason: tally["count"] for reason, tally in tallies.items()})


async def outcome(world: World, campaign: UUID, channel: Channel) -> dict[str, Any]:
    """What became of the campaign's messages, in the words of a plan."""
    query = "SELECT state, reason FROM messages WHERE campaign_id = %s AND channel = %s"
    async with world.database.connection() as c:
        found = Counter((row["state"], row["reason"]) for row in await rows(c, query, (campaign, channel)))
    missing = "SELECT sum(unreachable)::int FROM campaign_batches WHERE campaign_id = %s AND channel = %s"
    return {
        "permitted": sum(count for (state, _), count in found.items() if state in ("accepted", "failed")),
        "deferred": Counter({why: count for (state, why), count in found.items() if state == "queued"}),
        "refused": Counter({why: count for (state, why), count in found.items() if state in ("suppressed", "expired")}),
        "unreachable": await world.one(missing, campaign, channel),
    }


def foreseen(plan: Mapping[str, Any], channel: Channel) -> dict[str, Any]:
    on = plan["channels"][channel]
    return {
        "permitted": on["permitted"],
        "deferred": counts(on["deferred"]),
        "refused": counts(on["refused"]),
        "unreachable": on["unreachable"]["count"],
    }


# What it promises -----------------------------------------------------------------------------------------------------


async def people_of_all_kinds(world: World, dice: random.Random) -> list[UUID]:
    """People to whom anything may have happened, and several things to one of them."""
    people = await world.people(80)

    def some(share: float) -> list[UUID]:
        return [person for person in people if dice.random() < share]

    await world.queue(some(0.2), MARKETING)  # counts against the cap
    await deliver(world)
    await world.execute("UPDATE recipients SET timezone = %s", OPEN)
    await world.execute("UPDATE recipients SET timezone = %s WHERE id = ANY(%s)", CLOSED, some(0.2))
    for holder in some(0.1):
        await world.execute(
            "UPDATE addresses SET (address, address_hash) ="
            " (SELECT address, address_hash FROM addresses WHERE id = %s) WHERE id = ANY(%s)",
            holder, dice.sample(people, 2),
        )  # fmt: skip
    await world.execute(
        "UPDATE recipients SET snoozed_until = clock_timestamp() + interval '20 minutes' WHERE id = ANY(%s)", some(0.15)
    )
    await world.execute("UPDATE addresses SET removed_at = clock_timestamp() WHERE id = ANY(%s)", some(0.1))
    for reason, blocks in {"hard_bounce": "all", "complaint": "marketing"}.items():
        await world.execute(
            "INSERT INTO suppressions (channel, address_hash, hash_key, reason, blocks)"
            " SELECT DISTINCT ON (address_hash) channel, address_hash, hash_key, %s, %s FROM addresses"
            " WHERE id = ANY(%s)", reason, blocks, some(0.05),
        )  # fmt: skip
    await world.withdraw(some(0.1))
    await world.withdraw(some(0.05), "topic:product-news", "email")
    await world.execute("UPDATE recipients SET attributes = %s", Jsonb({"number": "4711"}))
    await world.execute("UPDATE recipients SET attributes = '{}' WHERE id = ANY(%s)", dice.sample(people, 3))
    return people


@pytest.mark.parametrize("seed", range(4))
async def test_what_it_counts_is_what_sending_then_does(world, seed, monkeypatch):
    monkeypatch.setattr("notifier.dispatch.dry_run.BATCH", 9)
    people = await people_of_all_kinds(world, random.Random(seed))
    timing = replace(closed_now(CLOSED), caps=(Cap.read("1/24h"),))
    campaign = await draft(world, people, size=7, data={}, expires=40 * HOUR)
    plan = await reckon(world, campaign, timing)
    await deliver(world, timing=timing)
    said = foreseen(plan, EMAIL)
    assert said == await outcome(world, campaign, EMAIL)
    failed = "SELECT count(*) FROM messages WHERE state = 'failed' AND reason = 'template'"
    assert sum(counts(plan["misfits"]).values()) >= await world.one(failed)  # those who wait fail later
    everybody = said["permitted"] + said["deferred"].total() + said["refused"].total() + said["unreachable"]
    assert everybody == plan["audience"] == len(people)
    assert sum(on.get("email", 0) for on in plan["timeline"].values()) == said["permitted"] + said["deferred"].total()
    assert {reason.partition(":")[0] for reason in (*said["deferred"], *said["refused"])} >= {
        "quiet_hours", "frequency_cap", "snoozed", "withdrawn", "suppressed_address", "duplicate_address",
    }  # fmt: skip


def use_route(world: World, route: Route) -> None:
    found = small_templates().find(MARKETING)
    assert found is not None
    template = replace(found, own_route=route)
    world.templates = replace(world.templates, _current={MARKETING: template}, _versions={template.hash: template})


@pytest.mark.parametrize(
    "route",
    [Route(), Route(Mode.FIRST, (PUSH, SMS, EMAIL)), Route(Mode.THEN, (PUSH, EMAIL, SMS), HOUR)],
    ids=lambda route: str(route.mode),
)
async def test_on_several_channels_a_later_one_is_for_those_whom_none_before_it_reaches(world, route):
    use_route(world, route)
    people = await world.people(12)
    await world.devices(people[:4], each=2)
    await world.phones(people[2:8])
    await world.grant(people[:3], "topic:product-news", "push")
    await world.grant(people[2:6], "topic:product-news", "sms")
    await world.withdraw(people[10:])
    await world.withdraw(people[5:6], "topic:product-news", "email")
    steps = route.steps(Channel)
    first, *others = sorted(Channel, key=lambda channel: (steps[channel], channel))
    campaign = await draft(world, people, by=first, expires=40 * HOUR)
    plan = await reckon(world, campaign, channels=frozenset(Channel))
    await deliver(world, list(Channel))
    for channel in others:
        await world.execute(
            "INSERT INTO campaign_batches (campaign_id, channel, step, recipients, starts_at, due_at)"
            " SELECT campaign_id, %s, %s, recipients, starts_at - interval '1 day', due_at FROM (SELECT campaign_id,"
            " recipients, starts_at, clock_timestamp() AS due_at FROM campaign_batches LIMIT 1) AS first",
            channel, steps[channel],
        )  # fmt: skip
        await deliver(world, list(Channel))
        await world.execute("UPDATE messages SET due_at = clock_timestamp() WHERE state = 'queued'")
        await deliver(world, list(Channel))
    said = {channel: foreseen(plan, channel) for channel in Channel}
    assert said == {channel: await outcome(world, campaign, channel) for channel in Channel}
    assert plan["channels"]["sms"]["segments"]["sampled"] == said[SMS]["permitted"]


@pytest.mark.parametrize(("mode", "refused"), [(Mode.THEN, {}), (Mode.FIRST, {"reached_otherwise:push": 2})], ids=str)
async def test_what_still_waits_when_the_next_channels_turn_comes_by_the_clock_has_reached_nobody(world, mode, refused):
    use_route(world, Route(mode, (PUSH, EMAIL), HOUR / 2 if mode is Mode.THEN else timedelta()))
    people = await world.people(2)
    await world.devices(people)
    await world.grant(people, "topic:product-news", "push")
    campaign = await draft(world, people, by=PUSH, expires=40 * HOUR)
    plan = await reckon(world, campaign, closed_now("UTC", PUSH), channels=frozenset({PUSH, EMAIL}))
    assert counts(plan["channels"]["push"]["deferred"]) == {"quiet_hours:test/UTC": 2}
    assert counts(plan["channels"]["email"]["refused"]) == refused
    assert plan["channels"]["email"]["permitted"] == 2 - sum(refused.values())


async def test_what_goes_on_one_channel_counts_against_the_cap_on_the_next(world):
    people = await world.people(3)
    await world.phones(people)
    await world.grant(people, "topic:product-news", "sms")
    campaign, caps = await draft(world, people, expires=40 * HOUR), Timing(caps=(Cap.read("1/24h"),))
    plan = await reckon(world, campaign, caps, channels=frozenset({EMAIL, SMS}))
    assert plan["channels"]["email"]["permitted"] == 3
    assert counts(plan["channels"]["sms"]["deferred"]) == {"frequency_cap:marketing 1/24h": 3}


async def test_a_notice_goes_to_everybody_who_can_be_reached(world):
    people = await world.people(5)
    await world.withdraw(people)
    await world.execute("UPDATE addresses SET removed_at = clock_timestamp() WHERE id = %s", people[0])
    plan = await reckon(world, await draft(world, people, MANDATORY))
    assert foreseen(plan, EMAIL) == {"permitted": 4, "deferred": Counter(), "refused": Counter(), "unreachable": 1}
    assert plan["unreachable"] == {"count": 1, "sample": [str(people[0])]}
    assert [warning["code"] for warning in plan["warnings"]] == ["unreachable"]


# When -----------------------------------------------------------------------------------------------------------------


async def schedule(world: World, campaign: UUID, document: Mapping[str, Any], **columns: Any) -> None:
    await world.execute("UPDATE campaigns SET schedule = %s WHERE id = %s", Jsonb(dict(document)), campaign)
    for column, value in columns.items():
        await world.execute(f"UPDATE campaigns SET {column} = %s WHERE id = %s", value, campaign)


def by_hour(plan: Mapping[str, Any]) -> dict[str, int]:
    return {at: on["email"] for at, on in plan["timeline"].items()}


async def test_at_a_local_time_each_zone_has_its_own_hour_and_who_has_none_the_installations(world):
    people = await world.people(7)
    for zone, some in {"Asia/Tokyo": people[:2], "America/New_York": people[2:5], "Mars/Base": people[5:6]}.items():
        await world.execute("UPDATE recipients SET timezone = %s WHERE id = ANY(%s)", zone, some)
    day = (datetime.now(UTC) + timedelta(days=5)).replace(month=1, day=15, year=datetime.now(UTC).year + 1)
    campaign = await draft(world, people)
    await schedule(world, campaign, {"at": f"{day:%Y-%m-%d}T09:00", "local": True}, expires_at=None)
    plan = await reckon(world, campaign)
    date = f"{day:%Y-%m-%d}"
    assert by_hour(plan) == {f"{date}T00:00:00Z": 2, f"{date}T09:00:00Z": 2, f"{date}T14:00:00Z": 3}
    warnings = {warning["code"]: warning["text"] for warning in plan["warnings"]}
    assert warnings["unknown_zone"].startswith("2 in no known time zone")
    assert counts(plan["channels"]["email"]["rendering"]["failed"]).total() == 1  # nor can its time be shown
    assert "not_rendered" in warnings


async def test_on_whose_clock_the_time_has_passed_gets_it_at_once(world):
    people = await world.people(3)
    await world.execute("UPDATE recipients SET timezone = 'UTC'")
    await world.execute("UPDATE recipients SET timezone = %s WHERE id = %s", "Pacific/Kiritimati", people[0])
    campaign = await draft(world, people)
    soon = datetime.now(UTC) + timedelta(minutes=30)
    await schedule(world, campaign, {"at": f"{soon:%Y-%m-%dT%H:%M}", "local": True})
    plan = await reckon(world, campaign)
    assert [warning["code"] for warning in plan["warnings"]] == ["local_time_past"]
    assert sum(by_hour(plan).values()) == 3


async def test_what_is_spread_over_a_while_is_asked_about_at_each_persons_turn(world):
    people = await world.people(6)
    campaign = await draft(world, people)
    at = (datetime.now(UTC) + timedelta(days=1)).replace(hour=6, minute=0, second=0, microsecond=0)
    await schedule(world, campaign, {"at": at.isoformat(), "over": "6h"}, expires_at=None)
    assert list(by_hour(await reckon(world, campaign)).values()) == [1] * 6


async def test_whose_turn_comes_after_it_has_expired_is_left_out(world):
    campaign = await draft(world, await world.people(20), rate=10 / 3600)
    plan = await reckon(world, campaign)
    assert plan["left_out"] == {"expired": 10}
    assert plan["channels"]["email"]["permitted"] == 10
    assert [warning["code"] for warning in plan["warnings"]] == ["expires_first"]


async def test_a_recurring_campaign_is_asked_about_at_its_next_time(world):
    campaign = await draft(world, await world.people(2))
    recurring = {"cron": "30 12 * * *", "timezone": "UTC", "expires_after": "6h"}
    await schedule(world, campaign, recurring, expires_at=None)
    plan = await reckon(world, campaign)
    [at] = by_hour(plan)
    assert at.endswith("T12:00:00Z")
    assert plan["expires_at"] == f"{at[:10]}T18:30:00Z"


async def test_what_waits_for_the_morning_stands_in_the_hour_in_which_it_goes(world):
    campaign = await draft(world, await world.people(9), expires=40 * HOUR)
    plan = await reckon(world, campaign, closed_now("UTC"))
    on = plan["channels"]["email"]
    assert counts(on["deferred"]) == {"quiet_hours:test/UTC": 9}
    opens = (datetime.now(UTC) + 2 * HOUR).hour
    assert {at[11:13]: count for at, count in on["deferred_until"].items()} == {f"{opens:02}": 9}
    assert by_hour(plan) == on["deferred_until"]


# What it shows --------------------------------------------------------------------------------------------------------


async def test_texts_are_rendered_to_count_their_segments_and_what_they_cost(world):
    people = await world.people(30)
    await world.phones(people)
    await world.grant(people, "topic:product-news", "sms")
    campaign = await draft(world, people)
    both = frozenset({EMAIL, SMS})
    plan = await reckon(world, campaign, price="0.05 EUR", channels=both, segments_per_second=0.001)
    segments = plan["channels"]["sms"]["segments"]
    assert (segments["sampled"], segments["expected"]) == (30, 30 * segments["least"])
    assert segments["cost"] == {"amount": f"{0.05 * segments['expected']:.2f}", "currency": "EUR"}
    assert [warning["code"] for warning in plan["warnings"]] == ["slow_texts"]
    assert "segments" not in plan["channels"]["email"]


async def test_whose_attributes_do_not_fit_are_named_by_the_products_ids_and_nothing_of_theirs_is(world):
    people = await world.people(12)
    await world.execute("UPDATE recipients SET attributes = %s", Jsonb({"number": "4711"}))
    await world.execute("UPDATE recipients SET attributes = %s WHERE id = %s", Jsonb({"number": ["secret"]}), people[0])
    await world.execute("UPDATE recipients SET attributes = '{}' WHERE id = ANY(%s)", people[1:9])
    await world.execute("UPDATE recipients SET external_id = NULL WHERE id = %s", people[1])
    row = await reckon(world, await draft(world, people, data={}))
    assert row["misfits"] == {
        "/number is missing; this template needs it": {"count": 8, "sample": [str(one) for one in people[2:7]]},
        "/number must be of type string": {"count": 1, "sample": [str(people[0])]},
    }
    assert "stop by itself" in row["warnings"][0]["text"]
    assert "secret" not in str(row)
    assert "example.test" not in str(row)


# In the background ----------------------------------------------------------------------------------------------------


async def test_it_waits_for_nobody_who_has_locked_people(world):
    people = await world.people(3)
    campaign = await draft(world, people)
    async with world.database.connection() as c, c.transaction():
        await recipients.lock(c, people)
        plan = await reckon(world, campaign)
    assert plan["channels"]["email"]["permitted"] == 3


async def test_its_connection_can_neither_write_nor_lock(world, monkeypatch):
    people = await world.people(1)
    await ask(world, await draft(world, people))
    monkeypatch.setattr("notifier.store.audiences.count", lambda c, _: recipients.lock(c, people))
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        await dry_run(world)()


def meanwhile(world: World, statement: str) -> Callable[[], bool]:
    """Something else that happens while a batch is counted."""

    def happens() -> bool:
        with psycopg.connect(world.database.url, autocommit=True) as c:
            c.execute(statement)
        return False

    return happens


@pytest.mark.parametrize(
    "statement",
    ["UPDATE campaigns SET revision = revision + 1", "UPDATE campaigns SET state = 'cancelled', ended_at = now()"],
)
async def test_a_campaign_that_is_another_meanwhile_gets_no_plan(world, statement):
    plan = await ask(world, await draft(world, await world.people(2)))
    await dry_run(world)(meanwhile(world, statement))
    row = await row_of(world, plan)
    assert (row["plan"], row["hash"], row["problem"]) == (None, None, OBSOLETE)


async def test_one_that_is_edited_before_is_not_even_begun(world):
    plan = await ask(world, await draft(world, await world.people(2)))
    await world.execute("UPDATE campaigns SET revision = revision + 1")
    await dry_run(world)()
    row = await row_of(world, plan)
    assert (row["progress"], row["problem"]) == ({}, OBSOLETE)


async def test_told_to_stop_it_leaves_the_dry_run_to_the_next_process_which_begins_anew(world):
    plan = await ask(world, await draft(world, await world.people(2)))
    await dry_run(world)(lambda: True)
    row = await row_of(world, plan)
    assert (row["plan"], row["problem"], row["progress"]) == (None, None, {"looked_at": 0, "of": 2})
    await dry_run(world)()
    assert (await row_of(world, plan))["plan"]["audience"] == 2


async def test_the_one_that_was_asked_for_first_is_reckoned_first(world):
    campaign = await draft(world, await world.people(2))
    first, second = await ask(world, campaign), await ask(world, campaign)
    await dry_run(world)()
    assert [(await row_of(world, plan))["plan"] is None for plan in (first, second)] == [False, True]


async def test_one_that_cannot_be_reckoned_says_so_and_holds_up_no_other(world, monkeypatch):
    campaign = await draft(world, await world.people(2))
    first, second = await ask(world, campaign), await ask(world, campaign)
    run = dry_run(world)
    with monkeypatch.context() as broken:
        broken.setattr("notifier.dispatch.reckoning.data_for", lambda *_: 1 / 0)
        await run()
    await run()
    assert (await row_of(world, first))["problem"] == "could not be reckoned (ZeroDivisionError); the log says where"
    assert (await row_of(world, second))["plan"] is not None


async def test_without_a_provider_for_any_of_its_channels_there_is_no_plan(world):
    plan = await ask(world, await draft(world, await world.people(2)))
    await dry_run(world, channels=frozenset())()
    assert (await row_of(world, plan))["problem"] == "product-news: none of its channels has a provider; set one up"


async def test_the_scheduler_reckons_what_is_asked_for(world, database_url, redis_url, quick_templates):
    plan = await ask(world, await draft(world, await world.people(3)))
    scheduler = asyncio.create_task(_schedule(settings_for(database_url, redis_url)))
    try:
        while (row := await row_of(world, plan))["hash"] is None:
            assert not scheduler.done()
            assert row["problem"] is None
            await asyncio.sleep(0.05)
    finally:
        scheduler.cancel()
        await asyncio.gather(scheduler, return_exceptions=True)
    assert row["plan"]["channels"]["email"]["permitted"] == 3
