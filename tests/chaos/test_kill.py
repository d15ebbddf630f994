"""Workers die, Redis dies, deploys happen: nothing is lost, and nothing goes out twice but by the rule for doubt.

What was sent is counted from the SMTP server's own log, never from our tables.
"""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

import pytest

from notifier import embedded
from notifier.store.database import rows
from tests.chaos.fleet import fleet, flush
from tests.places import place_for_servers
from tests.world import MARKETING, TRANSACTIONAL, World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300), pytest.mark.xdist_group("chaos")]

PEOPLE = 1500
KILLS = 10
CONNECTIONS = 2  #: per worker process, the default


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


async def fates(world) -> dict[UUID, tuple[str, str, list[str]]]:
    """Category, state and the attempts of every message."""
    async with world.database.connection() as c:
        found = await rows(
            c,
            "SELECT m.id, m.category, m.state, array_agg(a.state ORDER BY a.n) AS attempts"
            " FROM messages m LEFT JOIN attempts a ON a.message_id = m.id GROUP BY m.id",
        )
    return {row["id"]: (row["category"], row["state"], row["attempts"]) for row in found}


def check_nothing_lost_or_doubled(fates, accepted) -> None:
    """The oracle of every test here."""
    for id_, (category, state, attempts) in fates.items():
        times = accepted[id_]
        if state == "accepted":
            assert times >= 1, f"{id_} is lost: {attempts}"
        else:
            assert state == "unknown", f"{id_} ended as {state}: {attempts}"
        repeated = "superseded" in attempts
        assert category == "transactional" or not repeated
        assert times <= 1 + repeated, f"{id_} went out {times} times: {attempts}"


async def test_nothing_is_lost_or_doubled_while_workers_are_killed_at_random(world, redis_url, tmp_path):
    people = await world.people(PEOPLE)
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"seed {seed}")
    async with fleet(world, redis_url, tmp_path) as crew:
        await world.queue(people, TRANSACTIONAL)
        await world.queue(people, MARKETING)
        for _ in range(KILLS):
            done = len(crew.accepted())
            await crew.until_accepted(min(done + chance.randrange(60, 200), 2 * PEOPLE - 200))
            await crew.kill(chance.choice(crew.workers))
        await crew.until_settled()
        ended = await fates(world)
        check_nothing_lost_or_doubled(ended, crew.accepted())
    doubts = sum(attempts.count("unknown") + attempts.count("superseded") for _, _, attempts in ended.values())
    assert len(ended) == 2 * PEOPLE
    assert doubts <= KILLS * CONNECTIONS


async def test_a_worker_that_is_told_to_stop_finishes_what_is_on_the_wire_and_leaves_no_doubt(
    world, redis_url, tmp_path
):
    people = await world.people(300)
    async with fleet(world, redis_url, tmp_path) as crew:
        await world.queue(people, TRANSACTIONAL)
        await world.queue(people, MARKETING)
        for turn in range(3):
            await crew.until_accepted(100 * (turn + 1))
            await crew.until_begun(len(crew.workers) * (turn + 1))
            for name in crew.workers:
                assert await crew.stop(name) == 0
                assert await world.one("SELECT count(*) FROM messages WHERE state = 'unknown'") == 0
                await crew.start(name)
        await crew.until_settled()
        ended = await fates(world)
        assert {state for _, state, _ in ended.values()} == {"accepted"}
        assert set(crew.accepted().values()) == {1}


async def test_redis_flushed_and_stopped_in_the_middle_costs_nothing_but_time(world, tmp_path):
    people = await world.people(400)
    with place_for_servers() as place:
        valkey = embedded.Valkey(place)
        valkey.start()
        try:
            async with fleet(world, valkey.url, tmp_path) as crew:
                await world.queue(people, TRANSACTIONAL)
                await world.queue(people, MARKETING)
                await crew.until_accepted(150)
                await flush(valkey.url)
                await crew.until_accepted(400)
                await asyncio.to_thread(valkey.stop)
                await crew.until_settled()
                await world.queue(people[:20], TRANSACTIONAL)  # nobody can ring for these
                await crew.until_settled()
                assert set(crew.accepted().values()) == {1}
                assert len(crew.accepted()) == 820
        finally:
            valkey.stop()


@pytest.mark.parametrize("harm", ["hang", "crash"])
async def test_a_message_that_brings_its_worker_down_is_set_aside_and_its_neighbours_arrive(
    world, redis_url, tmp_path, harm
):
    ids = await world.queue(await world.people(30))
    poisoned = ids[7]
    await world.execute("UPDATE notifications SET data = %s WHERE id = %s", f'{{"number": "{harm}"}}', poisoned)
    async with fleet(world, redis_url, tmp_path, module="tests.chaos.fragile", NOTIFIER_WATCHDOG_SECONDS="2") as crew:
        reviving = [asyncio.create_task(revive(crew, name)) for name in crew.workers]
        await crew.until_settled()
        for task in reviving:
            task.cancel()
    assert await world.states([poisoned]) == [("failed", "poison")]
    assert len(await world.attempts(poisoned)) == 3
    ended = await fates(world)
    del ended[poisoned]
    check_nothing_lost_or_doubled(ended, crew.accepted())  # a neighbour may have been on another connection's wire


async def revive(crew, name) -> None:
    """Start a member again whenever it ends by itself."""
    while True:
        await crew.processes[name].wait()
        await crew.start(name)
