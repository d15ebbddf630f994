"""A campaign's backlog, and whatever became of its provider, delays no password reset (I10).

Real processes. That the transactional messages came first is seen from what is left: when the last one is accepted, the
backlog is still there.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from notifier.domain.campaigns import BATCH, BATCHES_AHEAD
from notifier.domain.messages import Lane
from notifier.store import workers
from notifier.store.database import rows
from tests.chaos.fleet import LANES, UNDER_WAY, fleet
from tests.chaos.storm import schedule
from tests.servers.dead_relays import a_relay_that_hangs, a_relay_that_refuses
from tests.sessions import session_niceness
from tests.world import MANDATORY, MARKETING, World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300), pytest.mark.xdist_group("chaos")]

BACKLOG = 4000
AUDIENCE = 15_000  #: more than may be planned ahead
RESETS = 40

_REACH = f"""
SELECT (SELECT state FROM campaigns WHERE id = %(id)s) AS state,
       (SELECT sum(planned) FROM campaign_walks WHERE campaign_id = %(id)s) AS planned,
       ARRAY(SELECT recipient_id FROM messages WHERE campaign_id = %(id)s AND {UNDER_WAY}) AS born,
       ARRAY(SELECT unnest(recipients) FROM campaign_batches
             WHERE campaign_id = %(id)s AND decided_at IS NULL) AS waiting
"""


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


async def backlog(world: World) -> int:
    return await world.one(f"SELECT count(*) FROM messages WHERE lane = 'marketing' AND {UNDER_WAY}")


@pytest.mark.parametrize(
    ("marketings_relay", "settings", "least_left"),
    [
        (a_relay_that_hangs, {}, BACKLOG),
        (a_relay_that_refuses, {}, BACKLOG),
        (None, {"NOTIFIER_SMTP_RATE": "50"}, BACKLOG // 2),
    ],
    ids=["its relay hangs", "its relay refuses", "both lanes share a narrow rate"],
)
async def test_a_campaigns_backlog_does_not_delay_a_password_reset(
    world, redis_url, tmp_path, marketings_relay, settings, least_left
):
    people = await world.people(BACKLOG)
    await world.queue(people, MARKETING)
    with marketings_relay() if marketings_relay else nullcontext() as url:
        own = {"NOTIFIER_SMTP_MARKETING_URL": url} if url else {}
        async with fleet(world, redis_url, tmp_path, **own, **settings) as crew:
            await crew.until_begun(len(LANES))
            begun = "SELECT count(*) FROM attempts a JOIN messages m ON m.id = a.message_id WHERE m.lane = 'marketing'"
            while not await world.one(begun):
                await asyncio.sleep(0.05)
            resets = await world.queue(people[:RESETS], MANDATORY)
            while {state for state, _ in await world.states(resets)} != {"accepted"}:
                await asyncio.sleep(0.05)
            assert await backlog(world) >= least_left
        assert {id_: times for id_, times in crew.accepted().items() if id_ in resets} == dict.fromkeys(resets, 1)


async def reach(world: World, campaign: UUID) -> dict[str, Any]:
    """How far the campaign is planned, and who of it is still to be reached, as a message or in a batch."""
    async with world.database.connection() as c:
        return (await rows(c, _REACH, {"id": campaign}))[0]


@pytest.mark.parametrize(
    ("marketings_relay", "standstill"),
    [
        (a_relay_that_hangs, "SELECT min(started_at) FROM attempts WHERE provider = 'smtp-marketing'"),
        (a_relay_that_refuses, "SELECT min(since) FROM provider_pauses WHERE provider = 'smtp-marketing'"),
    ],
    ids=["its relay hangs", "its relay refuses"],
)
async def test_a_campaign_with_a_dead_relay_is_planned_no_further_than_ahead_and_delays_no_password_reset(
    world, redis_url, tmp_path, marketings_relay, standstill
):
    assert AUDIENCE > BATCHES_AHEAD * BATCH
    people = await world.people(AUDIENCE)
    with marketings_relay() as url:
        async with fleet(world, redis_url, tmp_path, NOTIFIER_SMTP_MARKETING_URL=url) as crew:
            await crew.until_begun(len(LANES))
            campaign = await schedule(world)
            while not await world.one(standstill):
                await asyncio.sleep(0.05)
            resets = await world.queue(people[-RESETS:], MANDATORY)
            while {state for state, _ in await world.states(resets)} != {"accepted"}:
                await asyncio.sleep(0.05)
            assert await world.one(standstill), "what the other lane sent has ended marketing's pause"
            left = await reach(world, campaign)
        assert crew.accepted() == dict.fromkeys(resets, 1)
    assert left["state"] == "sending"
    assert left["born"]
    assert left["planned"] < AUDIENCE
    assert sorted([*left["born"], *left["waiting"]]) == sorted(people)[: left["planned"]], "lost, or there twice"


def niceness(process: int) -> set[int]:
    """Of each thread: Linux keeps one for each."""
    return {os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in Path(f"/proc/{process}/task").iterdir()}


async def server_niceness(world: World) -> dict[Lane, set[int]]:
    """Of PostgreSQL's processes: each worker's lock says which connection is its own."""
    async with world.database.connection() as c:
        found = await rows(
            c,
            "SELECT w.lane, l.pid FROM workers w JOIN pg_locks l ON l.locktype = 'advisory' AND l.objid = w.id"
            " AND l.classid = %s WHERE w.ended_at IS NULL",
            (workers.LOCK_CLASS,),
        )
    nice: dict[Lane, set[int | None]] = {lane: set() for lane in Lane}
    for row in found:
        nice[Lane(row["lane"])] |= {os.getpriority(os.PRIO_PROCESS, row["pid"]), session_niceness(row["pid"])}
    return {lane: {number for number in numbers if number is not None} for lane, numbers in nice.items()}


@pytest.mark.parametrize(("set_to", "steps"), [("", 10), ("0", 0)])
async def test_marketing_workers_step_back_for_everybody_else(world, redis_url, tmp_path, set_to, steps):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    async with fleet(world, redis_url, tmp_path, NOTIFIER_MARKETING_NICE=set_to) as crew:
        await crew.until_begun(len(LANES))
        seen = {name: niceness(crew.processes[name].pid) for name in crew.workers}
        servers = await server_niceness(world)
    for name, nice in seen.items():
        assert nice == {min(own + steps, 19) if "marketing" in name else own}, name
    assert servers == {Lane.TRANSACTIONAL: {own}, Lane.MARKETING: {min(own + steps, 19)}}
