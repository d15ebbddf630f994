"""The planner on a real database: everybody is in one batch, none is forgotten, and nothing is planned far ahead."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from psycopg.types.json import Jsonb

from notifier.dispatch import steering
from notifier.dispatch.plan import Plan
from notifier.dispatch.shelf import Shelf
from notifier.domain.access import OPERATOR
from notifier.domain.campaigns import BATCHES_AHEAD
from notifier.domain.messages import Lane
from notifier.domain.reports import People
from notifier.domain.routing import Mode, Route
from notifier.domain.schedules import Schedule
from notifier.errors import TemplateError
from notifier.jobs import RINGS_AT_ONCE
from notifier.scheduler import _schedule
from notifier.store import planning, reports, templates
from notifier.store.database import Connection, Database, Row, rows
from notifier.store.planning import MOVED, Page, Slice, Walk
from notifier_channels.contract import Channel
from tests.servers.api import settings_for
from tests.world import MARKETING, World, new_id

NOW = {"at": None}
PLANNER = Path(__file__).parent.parent / "servers" / "planner.py"


@dataclass
class Bells:
    """Counts rings instead of ringing."""

    rung: list[Lane] = field(default_factory=list)
    unheard: int | None = 0

    def ring(self, lane: Lane, ids: Sequence[UUID]) -> None:
        assert not ids
        self.rung.append(lane)

    def waiting(self, lane: Lane) -> int | None:
        assert lane is Lane.MARKETING
        return self.unheard


@dataclass
class Town:
    """A world with campaigns, and a planner that is asked to look when a test says so."""

    world: World
    bells: Bells = field(default_factory=Bells)

    def planner(self, *, route: Route | None = None, channels: Sequence[Channel] = (Channel.EMAIL,), **changes: Any):
        """`route` and `channels`: as if the test's template had them."""
        shelf = Shelf(self.world.templates) if route is None and len(channels) == 1 else Pinned(self, route, channels)
        settings = {
            "database": self.world.database, "jobs": self.bells, "templates": self.world.templates, "shelf": shelf,
            "channels": frozenset(channels), "default_zone": "Europe/Vienna",
        }  # fmt: skip
        return Plan(**(settings | changes))

    async def campaign(
        self,
        schedule: dict[str, Any] = NOW,
        *,
        audience: dict[str, Any] | None = None,
        rate: float | None = None,
        expires: datetime | None = None,
        scheduled_at: datetime | None = None,
    ) -> UUID:
        """An approved one, as the use case leaves it."""
        id_, template = new_id(), self.world.templates.find(MARKETING)
        now = datetime.now(UTC)
        async with self.world.database.connection() as c:
            version = await templates.register(c, template)
            await c.execute(
                "INSERT INTO campaigns (id, name, state, template, audience, schedule, rate, expires_at, created_by,"
                " template_version, topic, category, scheduled_by, scheduled_at, plan_hash, data)"
                " VALUES (%s, 'Spring', 'scheduled', %s, %s, %s, %s, %s, 'key:a', %s, %s, %s, 'key:b', %s, 'abc', %s)",
                (
                    id_, template.key, Jsonb(audience or {}), Jsonb(schedule), rate, expires or now + timedelta(days=1),
                    version, template.topic.key, template.topic.category, scheduled_at or now, Jsonb({"a": 1}),
                ),
            )  # fmt: skip
        return id_

    async def series(self, cron: str, scheduled_at: datetime, expires_after: str = "1d") -> UUID:
        id_ = await self.campaign(
            {"cron": cron, "timezone": "UTC", "expires_after": expires_after}, scheduled_at=scheduled_at
        )
        await self.world.execute("UPDATE campaigns SET expires_at = NULL WHERE id = %s", id_)
        return id_

    async def row(self, campaign: UUID) -> Row:
        return (await self.rows("SELECT * FROM campaigns WHERE id = %s", campaign))[0]

    async def rows(self, query: str, *parameters: object) -> list[Row]:
        async with self.world.database.connection() as c:
            return await rows(c, query, parameters)

    async def batches(self, campaign: UUID) -> list[Row]:
        return await self.rows("SELECT * FROM campaign_batches WHERE campaign_id = %s ORDER BY n", campaign)

    async def planned(self, campaign: UUID, channel: Channel = Channel.EMAIL) -> list[UUID]:
        """Everybody who is in a batch of a channel, as often as they are."""
        return [
            person for row in await self.batches(campaign) if row["channel"] == channel for person in row["recipients"]
        ]

    async def decide(self, campaign: UUID, at_most: int = 1_000_000) -> int:
        """What workers do to waiting batches; how many there were."""
        async with self.world.database.connection() as c:
            done = await c.execute(
                "UPDATE campaign_batches SET due_at = NULL, decided_at = clock_timestamp(), unreachable = 0"
                " WHERE (campaign_id, n) IN (SELECT campaign_id, n FROM campaign_batches WHERE campaign_id = %s"
                "  AND due_at IS NOT NULL ORDER BY n LIMIT %s)",
                (campaign, at_most),
            )
        return done.rowcount

    async def move(self, campaign: UUID, to: str) -> None:
        """What the use cases for stopping and going on do."""
        why = "operator" if to == "paused" else None
        over = datetime.now(UTC) if to == "cancelled" else None
        await self.world.execute(
            "UPDATE campaigns SET state = %s, pause_reason = %s, ended_at = %s WHERE id = %s", to, why, over, campaign
        )

    async def people(self, campaign: UUID) -> People:
        """As the report has them."""
        async with self.world.database.connection() as c:
            found = await reports.report(c, campaign)
        assert found is not None
        return found.people

    async def through(self, plan: Plan, campaign: UUID, looks: int = 500) -> None:
        """Plan and decide until it is over."""
        for _ in range(looks):
            await plan()
            await self.decide(campaign)
            if (await self.row(campaign))["state"] == "finished":
                return
        raise AssertionError("it never ended")

    async def message(self, campaign: UUID, person: UUID) -> UUID:
        """One of the campaign that waits in the queue."""
        [id_] = await self.world.queue([person], MARKETING, due=3600)
        await self.world.execute("UPDATE messages SET campaign_id = %s WHERE id = %s", campaign, id_)
        return id_


class Pinned:
    """The test's template with other channels and another route."""

    def __init__(self, town: Town, route: Route | None, channels: Sequence[Channel]) -> None:
        found = town.world.templates.find(MARKETING)
        variants = dict.fromkeys(channels, found.variants[Channel.EMAIL])
        self._template = replace(found, own_route=route, variants=variants)

    async def fetch(self, c: Connection, numbers: Sequence[int]) -> None:
        """It is there."""

    def __getitem__(self, number: int):
        return self._template


@pytest.fixture
async def town(database: Database, tmp_path: Path) -> Town:
    return Town(World(database, tmp_path))


@pytest.fixture
def said():
    """What is said in the log."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def told(said: list[dict[str, Any]], event: str) -> dict[str, Any]:
    [line] = [line for line in said if line["event"] == event]
    return line


# Start ---------------------------------------------------------------------------------------------------------------


async def test_a_campaign_starts_when_its_time_has_come_and_not_before(town: Town) -> None:
    await town.world.people(3)
    later = await town.campaign({"at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()})
    now = await town.campaign()
    await town.planner()()
    assert (await town.row(later))["state"] == "scheduled"
    started = await town.row(now)
    assert (started["state"], started["audience_size"]) == ("sending", 3)
    assert started["starts_at"] == started["scheduled_at"] <= started["started_at"]


@pytest.mark.parametrize("state", ["draft", "cancelled"])
async def test_one_that_was_stopped_meanwhile_does_not_start(town: Town, state: str) -> None:
    campaign = await town.campaign()
    async with town.world.database.connection() as c:
        [seen] = await planning.alive(c)
    await town.move(campaign, state)
    assert not await town.world.database.transact(lambda c: planning.begin(c, seen, []))
    assert (await town.row(campaign))["state"] == state


async def test_one_that_was_edited_and_approved_again_meanwhile_does_not_start_as_it_was(town: Town) -> None:
    campaign = await town.campaign()
    async with town.world.database.connection() as c:
        [seen] = await planning.alive(c)
    await town.world.execute("UPDATE campaigns SET scheduled_at = clock_timestamp() WHERE id = %s", campaign)
    assert not await town.world.database.transact(lambda c: planning.begin(c, seen, []))


async def test_one_without_an_audience_is_finished_at_once(town: Town) -> None:
    campaign = await town.campaign()
    await town.through(town.planner(), campaign, looks=4)
    assert (await town.row(campaign))["audience_size"] == 0


# Everybody, once -----------------------------------------------------------------------------------------------------


async def test_everybody_of_the_audience_is_in_one_batch_and_nobody_else(town: Town) -> None:
    people = await town.world.people(1203)
    for person in people[::3]:
        await town.world.execute("UPDATE recipients SET locale = 'de' WHERE id = %s", person)
    campaign = await town.campaign(audience={"filter": {"locale": "de"}}, rate=37)
    await town.through(town.planner(), campaign)
    assert sorted(await town.planned(campaign)) == sorted(people[::3])
    assert {len(row["recipients"]) for row in await town.batches(campaign)} == {37, 401 % 37}


async def test_after_a_planner_fails_inside_its_transaction_everybody_is_still_planned_once(
    town: Town, monkeypatch: pytest.MonkeyPatch, said: list[dict[str, Any]]
) -> None:
    people = await town.world.people(300)
    campaign = await town.campaign(rate=10)
    insert, calls = planning._insert, Counter[str]()

    async def failing(*arguments: Any) -> None:
        await insert(*arguments)
        calls["all"] += 1
        if calls["all"] % 2:
            raise TemplateError("killed before the commit")

    monkeypatch.setattr(planning, "_insert", failing)
    monkeypatch.setattr("notifier.dispatch.plan.REST", 0.0)
    await town.through(town.planner(), campaign)
    assert sorted(await town.planned(campaign)) == sorted(people)
    assert calls["all"] > 20


async def test_two_planners_at_once_plan_everybody_once(town: Town) -> None:
    people = await town.world.people(900)
    for n, person in enumerate(people):
        zone = ["Europe/Vienna", "Europe/Paris", "Asia/Tokyo", None][n % 4]
        await town.world.execute("UPDATE recipients SET timezone = %s WHERE id = %s", zone, person)
    yesterday = (datetime.now(UTC) - timedelta(days=1)).replace(tzinfo=None, microsecond=0).isoformat()
    campaigns = [await town.campaign(rate=5), await town.campaign({"at": yesterday, "local": True}, rate=5)]
    planners = [town.planner(), town.planner()]

    async def work(plan: Plan) -> None:
        while {(await town.row(campaign))["state"] for campaign in campaigns} != {"finished"}:
            await plan()
            for campaign in campaigns:
                await town.decide(campaign)

    await asyncio.gather(*(work(plan) for plan in planners))
    for campaign in campaigns:
        assert sorted(await town.planned(campaign)) == sorted(people)


async def test_batches_that_are_cut_from_several_walks_at_once_are_numbered_without_a_gap_or_a_clash(
    town: Town,
) -> None:
    people = await town.world.people(8)
    for n, person in enumerate(people):
        await town.world.execute("UPDATE recipients SET timezone = %s WHERE id = %s", f"Etc/GMT+{n}", person)
    campaign = await town.campaign({"at": "2026-01-01T09:00", "local": True})
    assert await town.planner().look()
    async with town.world.database.connection() as c:
        walks = [walk for walk in await planning.open_walks(c, campaign) if walk.zone != MOVED]
    now = datetime.now(UTC)

    async def cut(walk: Walk, person: UUID) -> bool:
        page = Page([person], [Slice(Channel.EMAIL, 0, 0, 1, now, now)], person, is_last=True)
        return await town.world.database.transact(lambda c: planning.cut(c, campaign, walk, page))

    assert await asyncio.gather(*(cut(*pair) for pair in zip(walks, people, strict=True))) == [True] * 8
    assert [row["n"] for row in await town.batches(campaign)] == list(range(1, 9))


async def test_a_planner_that_is_killed_again_and_again_plans_everybody_once(town: Town) -> None:
    people = await town.world.people(15_000)
    campaign = await town.campaign(rate=20)  # 750 batches
    kills, over = 0, False
    while not over:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(PLANNER), town.world.database.url, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        before = len(await town.planned(campaign))
        while not over and len(await town.planned(campaign)) < before + 1000:
            over = not await process.stdout.readline()  # a line for each look; none when it has ended by itself
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        await process.wait()
        over = over or (await town.row(campaign))["state"] == "finished"
    assert kills >= 4
    assert sorted(await town.planned(campaign)) == sorted(people)


# Not far ahead -------------------------------------------------------------------------------------------------------


async def test_no_more_batches_wait_than_a_few_seconds_of_work(town: Town) -> None:
    await town.world.people(600)
    campaign = await town.campaign(rate=10)
    plan = town.planner()
    for _ in range(5):
        await plan()
    assert len(await town.batches(campaign)) == 2  # two seconds of its rate
    await town.decide(campaign, 1)
    await plan()
    assert len(await town.batches(campaign)) == 3


async def test_without_a_rate_so_many_batches_wait_at_most(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.domain.campaigns.BATCH", 10)
    await town.world.people(10 * BATCHES_AHEAD + 5)
    campaign = await town.campaign()
    plan = town.planner()
    for _ in range(3):
        await plan()
    assert len(await town.batches(campaign)) == BATCHES_AHEAD


async def test_a_paused_campaign_is_not_planned_and_goes_on_where_it_was(town: Town) -> None:
    people = await town.world.people(100)
    campaign = await town.campaign(rate=10)
    plan = town.planner()
    for _ in range(3):
        await plan()
        await town.decide(campaign)
    await town.move(campaign, "paused")
    before = await town.planned(campaign)
    for _ in range(3):
        await plan()
        await town.decide(campaign)
    assert await town.planned(campaign) == before
    await town.move(campaign, "sending")
    await town.through(plan, campaign)
    assert sorted(await town.planned(campaign)) == sorted(people)


async def test_a_pause_that_comes_after_the_look_is_seen_before_the_batch(town: Town) -> None:
    people = await town.world.people(10)
    campaign = await town.campaign()
    assert await town.planner().look()
    async with town.world.database.connection() as c:
        [walk] = await planning.open_walks(c, campaign)
    await town.move(campaign, "paused")
    page = Page(people, [], people[-1], is_last=True)
    assert not await town.world.database.transact(lambda c: planning.cut(c, campaign, walk, page))


async def test_a_campaign_that_cannot_be_planned_does_not_hold_up_another(
    town: Town, said: list[dict[str, Any]]
) -> None:
    people = await town.world.people(5)
    broken, sound = await town.campaign(), await town.campaign()
    await town.world.execute("UPDATE campaigns SET audience = '{\"filter\": 1}' WHERE id = %s", broken)
    plan = town.planner()
    await town.through(plan, sound)
    assert sorted(await town.planned(sound)) == sorted(people)
    assert told(said, "campaign.not_planned")["campaign"] == str(broken)  # once: it rests


# Channels ------------------------------------------------------------------------------------------------------------


async def test_there_is_a_batch_for_each_channel_that_has_a_provider(town: Town) -> None:
    people = await town.world.people(30)
    campaign = await town.campaign(rate=20)
    await town.through(town.planner(channels=[Channel.EMAIL, Channel.SMS]), campaign)
    for channel in (Channel.EMAIL, Channel.SMS):
        assert sorted(await town.planned(campaign, channel)) == sorted(people)
    assert await town.planned(campaign, Channel.PUSH) == []
    assert {row["step"] for row in await town.batches(campaign)} == {0}


async def test_a_channel_that_stands_still_does_not_hold_up_the_others(town: Town) -> None:
    people = await town.world.people(50)
    campaign = await town.campaign(rate=1)
    plan = town.planner(channels=[Channel.EMAIL, Channel.SMS])
    for _ in range(60):
        await plan()
        await town.world.execute(
            "UPDATE campaign_batches SET due_at = NULL, decided_at = clock_timestamp() WHERE channel = 'sms'"
            " AND decided_at IS NULL"
        )
    assert sorted(await town.planned(campaign, Channel.SMS)) == sorted(people)


async def test_a_later_step_is_due_when_its_turn_comes(town: Town) -> None:
    await town.world.people(20)
    route = Route(Mode.THEN, (Channel.SMS, Channel.EMAIL), timedelta(minutes=10))
    campaign = await town.campaign(rate=10)
    plan = town.planner(route=route, channels=[Channel.EMAIL, Channel.SMS])
    await plan()
    await plan()
    found = await town.batches(campaign)
    assert [(row["channel"], row["step"]) for row in found] == [("sms", 0), ("email", 1)] * 2
    for row in found:
        assert row["due_at"] - row["starts_at"] == row["step"] * timedelta(minutes=10)


async def test_batches_whose_turn_comes_later_do_not_count_as_waiting(town: Town) -> None:
    people = await town.world.people(50)
    route = Route(Mode.THEN, (Channel.SMS, Channel.EMAIL), timedelta(hours=1))
    campaign = await town.campaign(rate=10)
    plan = town.planner(route=route, channels=[Channel.EMAIL, Channel.SMS])
    for _ in range(8):
        await plan()
        await town.world.execute(
            "UPDATE campaign_batches SET due_at = NULL, decided_at = clock_timestamp() WHERE step = 0"
            " AND decided_at IS NULL"
        )
    assert sorted(await town.planned(campaign)) == sorted(people)
    assert (await town.row(campaign))["state"] == "sending"  # the mails may still be needed


async def test_a_turn_that_would_come_after_the_expiry_comes_at_the_expiry(town: Town) -> None:
    await town.world.people(1)
    soon = datetime.now(UTC) + timedelta(minutes=5)
    route = Route(Mode.THEN, (Channel.SMS, Channel.EMAIL), timedelta(minutes=10))
    campaign = await town.campaign(expires=soon)
    plan = town.planner(route=route, channels=[Channel.EMAIL, Channel.SMS])
    await plan()
    await plan()
    assert [row["due_at"] for row in await town.batches(campaign) if row["step"]] == [soon]


async def test_without_a_provider_for_any_channel_nothing_is_walked_and_somebody_is_told(
    town: Town, said: list[dict[str, Any]]
) -> None:
    await town.world.people(1)
    campaign = await town.campaign()
    plan = town.planner(channels=[], shelf=Shelf(town.world.templates))
    await plan()
    await plan()
    assert "provider" in told(said, "campaign.not_planned")["problem"]
    assert (await town.row(campaign))["state"] == "sending"
    assert await town.batches(campaign) == []


# Local time and spread -----------------------------------------------------------------------------------------------


async def test_each_zone_gets_it_at_the_hour_of_its_own_clock(town: Town, said: list[dict[str, Any]]) -> None:
    people = await town.world.people(12)
    zones = ["Europe/Vienna", "Asia/Tokyo", "America/New_York", None, "Mars/Phobos", ""]
    for n, person in enumerate(people):
        await town.world.execute("UPDATE recipients SET timezone = %s WHERE id = %s", zones[n % 6], person)
    schedule = Schedule.parse({"at": "2026-03-29T02:30", "local": True})
    campaign = await town.campaign(schedule.document)
    await town.planner()()
    found = {row["zone"]: row for row in await town.rows("SELECT * FROM campaign_walks")}
    # Vienna skips half past two; who has no zone, or one that nobody knows, gets it with Vienna, the installation's.
    gap = datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert {zone: (row["due_at"], row["size"]) for zone, row in found.items()} == {
        "Europe/Vienna": (gap, 2),
        "Asia/Tokyo": (datetime(2026, 3, 28, 17, 30, tzinfo=UTC), 2),
        "America/New_York": (datetime(2026, 3, 29, 6, 30, tzinfo=UTC), 2),
        "Mars/Phobos": (gap, 2),
        "": (gap, 4),
        MOVED: (datetime(2026, 3, 29, 6, 30, tzinfo=UTC), 0),
    }
    warned = told(said, "campaign.zones_unknown")
    assert (warned["people"], warned["taken_for"]) == (6, "Europe/Vienna")
    assert (await town.row(campaign))["starts_at"] == datetime(2026, 3, 28, 17, 30, tzinfo=UTC)


async def test_only_the_zones_are_walked_whose_hour_has_come(town: Town) -> None:
    people = await town.world.people(40)
    for n, person in enumerate(people):
        zone = ["Pacific/Kiritimati", "Europe/Vienna", "Etc/GMT+12", None][n % 4]
        await town.world.execute("UPDATE recipients SET timezone = %s WHERE id = %s", zone, person)
    local = (datetime.now(UTC) + timedelta(hours=7)).replace(tzinfo=None, microsecond=0)
    campaign = await town.campaign({"at": local.isoformat(), "local": True})
    plan = town.planner()
    for _ in range(3):
        await plan()
    assert sorted(await town.planned(campaign)) == sorted(people[::4])
    await town.world.execute("UPDATE campaign_walks SET due_at = clock_timestamp() WHERE zone <> 'Etc/GMT+12'")
    # The last walk waits for all others.
    await plan()
    assert sorted(await town.planned(campaign)) == sorted(people[::4] + people[1::4] + people[3::4])
    await town.world.execute("UPDATE campaign_walks SET due_at = clock_timestamp()")
    await town.through(plan, campaign)
    assert sorted(await town.planned(campaign)) == sorted(people)


async def test_who_moves_to_another_zone_meanwhile_is_planned_once_all_the_same(town: Town) -> None:
    people = await town.world.people(30)
    for n, person in enumerate(people):
        zone = ["Pacific/Kiritimati", "Etc/GMT+12"][n % 2]
        await town.world.execute("UPDATE recipients SET timezone = %s WHERE id = %s", zone, person)
    local = (datetime.now(UTC) + timedelta(hours=7)).replace(tzinfo=None, microsecond=0)
    campaign = await town.campaign({"at": local.isoformat(), "local": True}, rate=4)
    plan = town.planner()
    for _ in range(6):
        await plan()
        await town.decide(campaign)
    assert sorted(await town.planned(campaign)) == sorted(people[::2])
    moves = "UPDATE recipients SET timezone = %s, updated_at = clock_timestamp() WHERE id = ANY(%s)"
    await town.world.execute(moves, "Pacific/Kiritimati", people[1:9:2])  # their hour has passed there
    await town.world.execute(moves, "Asia/Tokyo", people[9:13:2])  # nobody lived there
    await town.world.execute(moves, "Etc/GMT+12", people[0:8:2])  # they have it already
    newcomers = await town.world.people(3, prefix="new")  # without a zone
    await town.world.execute("UPDATE campaign_walks SET due_at = clock_timestamp()")
    await town.through(plan, campaign)
    assert sorted(await town.planned(campaign)) == sorted(people + newcomers)
    assert (await town.row(campaign))["audience_size"] == 33


async def test_a_spread_campaign_is_cut_small_and_each_batch_has_its_turn(town: Town) -> None:
    people = await town.world.people(240)
    started = datetime.now(UTC) - timedelta(minutes=30)  # half of it: the service was down
    campaign = await town.campaign({"at": started.isoformat(), "over": "1h"})
    plan = town.planner()
    for _ in range(20):
        await plan()
        await town.decide(campaign)
    assert len(await town.planned(campaign)) in (124, 128)  # four a minute
    assert (await town.row(campaign))["state"] == "sending"
    await town.world.execute("UPDATE campaign_walks SET due_at = due_at - interval '1 hour'")
    await town.through(plan, campaign)
    assert sorted(await town.planned(campaign)) == sorted(people)


# The end -------------------------------------------------------------------------------------------------------------


async def test_it_is_finished_when_no_batch_is_left_and_no_message_on_its_way(town: Town) -> None:
    people = await town.world.people(3)
    campaign = await town.campaign()
    plan = town.planner()
    await plan()
    await plan()
    await plan()
    assert (await town.row(campaign))["state"] == "sending"  # the batch waits
    await town.decide(campaign)
    waiting = await town.message(campaign, people[0])
    await plan()
    assert (await town.row(campaign))["state"] == "sending"  # a message waits for quiet hours to end
    await town.world.execute("INSERT INTO workers (lane, boot_id, journal) VALUES ('marketing', 'b', 'j')")
    await town.world.execute(
        "UPDATE messages SET state = 'claimed', due_at = NULL, worker_id = (SELECT max(id) FROM workers) WHERE id = %s",
        waiting,
    )
    await plan()
    assert (await town.row(campaign))["state"] == "sending"  # it is in hand
    await town.world.execute(
        "UPDATE messages SET state = 'suppressed', reason = 'withdrawn', worker_id = NULL WHERE id = %s", waiting
    )
    await plan()
    over = await town.row(campaign)
    assert (over["state"], over["audience_size"], over["left_out"]) == ("finished", 3, {})
    assert over["ended_at"] is not None


@pytest.mark.parametrize("is_first", [True, False], ids=["made before the other", "made after it"])
async def test_whether_it_is_finished_is_seen_without_reading_what_waits_of_others(town: Town, is_first) -> None:
    campaigns = [await town.campaign(), await town.campaign()]
    sent, other = campaigns if is_first else campaigns[::-1]
    await town.world.execute(
        "INSERT INTO messages (id, campaign_id, recipient_id, address_id, channel, lane, category, topic,"
        " template_version, expires_at, state, due_at) SELECT gen_random_uuid(), campaign, gen_random_uuid(),"
        " gen_random_uuid(), 'email', 'marketing', 'marketing', 'product-news', 1, 'infinity',"
        " CASE WHEN campaign = %s THEN 'queued' ELSE 'accepted' END,"
        " CASE WHEN campaign = %s THEN now() + interval '9 hours' END"
        " FROM unnest(%s::uuid[]) AS campaign, generate_series(1, 5000)",
        other,
        other,
        [sent, other],
    )
    await town.world.execute("UPDATE campaigns SET state = 'sending'")
    await town.world.execute("ANALYZE")
    async with await town.world.database.connect() as c, c.transaction():  # one that has read nothing before
        assert await planning.finish(c, sent)
        read = await rows(
            c, "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'messages'"
        )
    assert read == [{"seq_tup_read": 0, "idx_tup_fetch": 0}]


async def test_a_test_send_does_not_keep_a_campaign_from_its_end(town: Town) -> None:
    people = await town.world.people(1)
    campaign = await town.campaign()
    waiting = await town.message(campaign, people[0])
    await town.world.execute("UPDATE messages SET is_test = true WHERE id = %s", waiting)
    await town.through(town.planner(), campaign)


async def test_whoever_comes_meanwhile_counts_in_the_end(town: Town) -> None:
    await town.world.people(40)
    campaign = await town.campaign(rate=10)
    plan = town.planner()
    await plan()
    await plan()
    assert (await town.row(campaign))["audience_size"] == 40
    await town.world.people(5, prefix="late")
    await town.through(plan, campaign)
    assert (await town.row(campaign))["audience_size"] == 45 == len(await town.planned(campaign))


async def test_who_left_the_audience_before_they_were_walked_is_none_of_a_cancelled_campaign(town: Town) -> None:
    people = await town.world.people(10)
    await town.world.execute("UPDATE recipients SET locale = 'de'")
    campaign, plan = await town.campaign(audience={"filter": {"language": "de"}}), town.planner()
    await plan.look()  # it begins, and ten are counted
    await town.world.execute("UPDATE recipients SET locale = 'fr' WHERE id = ANY(%s)", people[:3])
    await plan.look()
    await town.world.database.transact(lambda c: steering.cancel(c, campaign, OPERATOR))
    found = await town.people(campaign)
    assert (found.audience, found.not_planned, found.left_out) == (7, 0, {"cancelled": 7})


async def test_one_that_expired_while_the_service_was_down_leaves_everybody_out_and_says_so(
    town: Town, said: list[dict[str, Any]]
) -> None:
    await town.world.people(7)
    campaign = await town.campaign(expires=datetime.now(UTC) - timedelta(seconds=1))
    await town.planner()()
    over = await town.row(campaign)
    assert (over["state"], over["audience_size"], over["left_out"]) == ("finished", 7, {"expired": 7})
    assert await town.batches(campaign) == []
    assert told(said, "campaign.expired")["people"] == 7


@pytest.mark.parametrize("state", ["sending", "paused"])
async def test_one_that_expires_on_its_way_leaves_out_whom_it_has_not_got_to(
    town: Town, said: list[dict[str, Any]], state: str
) -> None:
    await town.world.people(100)
    campaign = await town.campaign(rate=10)
    plan = town.planner()
    for _ in range(3):
        await plan()
        await town.decide(campaign, 1)
    await town.world.execute("INSERT INTO workers (lane, boot_id, journal) VALUES ('marketing', 'b', 'j')")
    await town.world.execute(
        "UPDATE campaign_batches SET due_at = NULL, worker_id = (SELECT max(id) FROM workers)"
        " WHERE n = (SELECT min(n) FROM campaign_batches WHERE due_at IS NOT NULL)"
    )
    decided_or_in_hand = sum(len(row["recipients"]) for row in await town.batches(campaign) if row["due_at"] is None)
    await town.move(campaign, state)
    await town.world.execute("UPDATE campaigns SET expires_at = clock_timestamp() WHERE id = %s", campaign)
    await plan()
    await plan()
    row = await town.row(campaign)
    assert (row["state"], row["left_out"]) == (state, {"expired": 100 - decided_or_in_hand})  # one is still in hand
    await town.world.execute(
        "UPDATE campaign_batches SET worker_id = NULL, decided_at = clock_timestamp() WHERE worker_id IS NOT NULL"
    )
    await plan()
    over = await town.row(campaign)
    assert (over["state"], over["audience_size"]) == ("finished", 100)
    assert len(await town.planned(campaign)) + over["left_out"]["expired"] == 100
    assert told(said, "campaign.expired")["began"] is True


@pytest.mark.parametrize("end", ["expired", "cancelled"])
async def test_who_moved_out_of_a_zone_that_was_walked_is_left_out_when_it_ends_before_theirs(
    town: Town, end: str
) -> None:
    people = await town.world.people(6)
    for zone, those in (("Asia/Tokyo", people[:3]), ("America/New_York", people[3:])):
        await town.world.execute("UPDATE recipients SET timezone = %s WHERE id = ANY(%s)", zone, those)
    in_tokyo = datetime.now(UTC) + timedelta(hours=9)
    campaign = await town.campaign({"at": in_tokyo.strftime("%Y-%m-%dT%H:%M:%S"), "local": True})
    plan = town.planner()
    await plan.look()
    await town.world.execute(
        "UPDATE recipients SET timezone = 'America/New_York', updated_at = clock_timestamp() WHERE id = %s", people[0]
    )
    await plan.look()
    assert await town.planned(campaign) == people[1:3]
    if end == "cancelled":
        await town.world.database.transact(lambda c: steering.cancel(c, campaign, OPERATOR))
    else:
        await town.decide(campaign)
        await town.world.execute("UPDATE campaigns SET expires_at = clock_timestamp()")
        await plan.look()
        assert (await town.row(campaign))["state"] == "finished"
    found = await town.people(campaign)
    assert (found.audience, found.not_planned, sum(found.left_out.values())) == (6, 0, 4 if end == "expired" else 6)


async def test_a_batch_that_comes_back_from_a_dead_worker_after_the_expiry_is_left_out_too(town: Town) -> None:
    await town.world.people(10)
    campaign = await town.campaign()
    plan = town.planner()
    await plan()
    await plan()
    await town.world.execute("INSERT INTO workers (lane, boot_id, journal) VALUES ('marketing', 'b', 'j')")
    await town.world.execute("UPDATE campaign_batches SET due_at = NULL, worker_id = (SELECT max(id) FROM workers)")
    await town.world.execute("UPDATE campaigns SET expires_at = clock_timestamp() WHERE id = %s", campaign)
    await plan()
    await town.world.execute("UPDATE campaign_batches SET due_at = clock_timestamp(), worker_id = NULL")
    await plan()
    assert (await town.row(campaign))["state"] == "finished"
    dropped = "SELECT sum(cardinality(recipients)) FROM campaign_batches WHERE left_out = 'expired'"
    assert await town.world.one(dropped) == 10


async def test_a_paused_campaign_that_has_not_expired_stays_paused(town: Town) -> None:
    campaign = await town.campaign()
    plan = town.planner()
    await plan()
    await town.move(campaign, "paused")
    await plan()
    assert not await town.world.database.transact(lambda c: planning.finish(c, campaign))
    assert (await town.row(campaign))["state"] == "paused"


# Rings ---------------------------------------------------------------------------------------------------------------


async def test_the_marketing_lane_is_rung_for_what_is_due(town: Town) -> None:
    await town.world.people(30)
    await town.campaign(rate=10)
    await town.planner()()
    assert town.bells.rung == [Lane.MARKETING] * 2


@pytest.mark.parametrize(
    ("unheard", "rings"), [(0, RINGS_AT_ONCE), (RINGS_AT_ONCE - 1, 1), (RINGS_AT_ONCE, 0), (None, 0)]
)
async def test_rings_that_nobody_hears_are_not_heaped_up(town: Town, unheard: int | None, rings: int) -> None:
    await town.world.people(30)
    await town.campaign(rate=1)
    await town.campaign({"at": None}, rate=10)
    await town.world.execute("UPDATE campaigns SET rate = 1.5")
    town.bells.unheard = unheard
    plan = town.planner()
    for _ in range(11):
        await plan()
        await town.world.execute("UPDATE campaign_batches SET step = 1")  # so that more are cut
    town.bells.rung.clear()
    await plan()
    assert len(town.bells.rung) == rings


async def test_nobody_is_rung_for_a_batch_that_is_left_alone(town: Town) -> None:
    await town.world.people(30)
    await town.campaign(rate=10)
    plan = town.planner()
    await plan()
    await plan()
    await town.world.execute("UPDATE campaign_batches SET claims = 3")
    town.bells.rung.clear()
    await plan()
    assert town.bells.rung == []


async def test_nobody_is_rung_for_a_paused_campaign(town: Town) -> None:
    await town.world.people(30)
    campaign = await town.campaign(rate=10)
    plan = town.planner()
    await plan()
    await plan()
    await town.move(campaign, "paused")
    town.bells.rung.clear()
    await plan()
    assert town.bells.rung == []


# Again and again -----------------------------------------------------------------------------------------------------


def hours_ago(hours: float) -> datetime:
    """By the full hour, and so many before it."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours)


async def occurrences(town: Town, series: UUID) -> list[Row]:
    return await town.rows("SELECT * FROM campaigns WHERE series_id = %s ORDER BY occurs_at", series)


async def test_an_occurrence_is_a_campaign_of_its_own_of_what_was_approved(town: Town) -> None:
    await town.world.people(4)
    series = await town.series("0 * * * *", hours_ago(0.5))
    await town.planner()()
    [made] = await occurrences(town, series)
    parent = await town.row(series)
    same = ("name", "template", "template_version", "data", "audience", "topic", "category", "rate", "plan_hash",
            "scheduled_by", "scheduled_at", "revision", "sender", "is_notice", "created_by")  # fmt: skip
    assert {name: made[name] for name in same} == {name: parent[name] for name in same}
    assert (parent["state"], made["state"]) == ("scheduled", "scheduled")
    assert made["occurs_at"] == hours_ago(0)
    assert made["expires_at"] - made["occurs_at"] == timedelta(days=1)
    assert Schedule.parse(made["schedule"]) == Schedule(at=hours_ago(0))
    await town.through(town.planner(), made["id"])
    assert len(await town.planned(made["id"])) == 4


async def test_after_downtime_only_the_latest_occurrence_is_made_and_the_others_are_told_of(
    town: Town, said: list[dict[str, Any]]
) -> None:
    series = await town.series("0 * * * *", hours_ago(5.5))
    plan = town.planner()
    for _ in range(4):
        await plan()
    [made] = await occurrences(town, series)
    assert made["occurs_at"] == hours_ago(0)
    missed = told(said, "campaign.missed")
    assert (missed["times"], missed["first"], missed["last"]) == (
        5, hours_ago(5).isoformat(), hours_ago(1).isoformat(),
    )  # fmt: skip


async def test_a_latest_occurrence_that_has_expired_ends_without_a_message_and_says_so(town: Town) -> None:
    people = await town.world.people(3)
    # Made yesterday's latest: it may be sent for an hour, and more than that has passed.
    hour = (datetime.now(UTC) - timedelta(hours=3)).hour
    series = await town.series(f"0 {hour} * * *", hours_ago(5), "1h")
    plan = town.planner()
    for _ in range(4):
        await plan()
    [made] = await occurrences(town, series)
    assert (made["state"], made["left_out"]) == ("finished", {"expired": len(people)})


async def test_two_planners_make_an_occurrence_once(town: Town) -> None:
    series = await town.series("0 * * * *", hours_ago(0.5))
    async with town.world.database.connection() as c:
        [seen] = await planning.alive(c)

    async def occur() -> bool:
        at = hours_ago(0)
        return await town.world.database.transact(
            lambda c: planning.occur(c, seen, new_id(), at, {"at": at.isoformat()}, at + timedelta(days=1))
        )

    assert sorted(await asyncio.gather(*(occur() for _ in range(6)))) == [False] * 5 + [True]
    assert len(await occurrences(town, series)) == 1


@pytest.mark.parametrize("state", ["draft", "cancelled"])
async def test_a_series_that_was_stopped_occurs_no_more(town: Town, state: str) -> None:
    series = await town.series("0 * * * *", hours_ago(0.5))
    async with town.world.database.connection() as c:
        [seen] = await planning.alive(c)
    await town.move(series, state)
    await town.planner()()
    at = hours_ago(0)
    assert not await town.world.database.transact(lambda c: planning.occur(c, seen, new_id(), at, {"at": None}, at))
    assert await occurrences(town, series) == []


async def test_a_series_with_an_end_occurs_no_more_after_it(town: Town) -> None:
    series = await town.series("0 * * * *", hours_ago(5.5), "1d")
    await town.world.execute("UPDATE campaigns SET expires_at = %s WHERE id = %s", hours_ago(2.5), series)
    plan = town.planner()
    for _ in range(3):
        await plan()
    [made] = await occurrences(town, series)
    assert (made["occurs_at"], made["expires_at"]) == (hours_ago(3), hours_ago(2.5))
    assert (await town.row(series))["state"] == "finished"


async def test_what_was_approved_again_occurs_from_then_on(town: Town) -> None:
    series = await town.series("0 * * * *", hours_ago(30))
    await town.world.execute("UPDATE campaigns SET scheduled_at = clock_timestamp() WHERE id = %s", series)
    await town.planner()()
    assert await occurrences(town, series) == []


# The process ---------------------------------------------------------------------------------------------------------


async def test_the_scheduler_plans(town: Town, database_url: str, redis_url: str, quick_templates: None) -> None:
    await town.world.people(3)
    campaign = await town.campaign()
    scheduler = asyncio.create_task(_schedule(settings_for(database_url, redis_url)))
    try:
        while not await town.planned(campaign):
            assert not scheduler.done()
            await asyncio.sleep(0.05)
    finally:
        scheduler.cancel()
        await asyncio.gather(scheduler, return_exceptions=True)
    assert (await town.row(campaign))["state"] == "sending"
