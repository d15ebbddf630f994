"""The kill test over text messages and pushes: workers die, and nothing is lost or doubled but by the rule for doubt.

Whether a doubtful text was taken is told by Twilio's callback or found out by asking; nobody tells of a push, and its
repeat replaces it on the screen.
"""

from __future__ import annotations

import random
from uuid import UUID

import httpx
import pytest

from notifier.store.database import rows
from notifier_channels.contract import Channel
from tests.chaos.fleet import crew_around
from tests.chaos.test_kill import check_nothing_lost_or_doubled, fates
from tests.chaos.vendors import AT_ONCE, CONNECTIONS, DELAY, front_door, message_of, queue_both, vendors
from tests.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300), pytest.mark.xdist_group("chaos")]

PEOPLE = 500
KILLS = 7
HANDS = 4  #: batches that a worker process has in hand, at most


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


async def kill_at_random(crew, chance: random.Random) -> None:
    """Each time that some more messages have been taken, a worker dies."""
    for _ in range(KILLS):
        done = crew.accepted().total()
        await crew.until_accepted(min(done + chance.randrange(60, 140), 2 * PEOPLE - 200))
        await crew.kill(chance.choice(crew.workers))


def seeded() -> random.Random:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    return random.Random(seed)


def doubts_of(ended) -> int:
    return sum(attempts.count("unknown") + attempts.count("superseded") for _, _, attempts in ended.values())


async def neighbours(world) -> dict[UUID, UUID]:
    """Of each message, the other one to the same person."""
    async with world.database.connection() as c:
        found = await rows(c, "SELECT array_agg(id) AS ids FROM messages GROUP BY recipient_id")
    pairs = [row["ids"] for row in found]
    return dict(pairs) | {second: first for first, second in pairs}


def check_texts(ended, accepted, beside) -> None:
    """What only texts promise: Twilio is asked before anything is repeated or given up.

    It cannot tell two doubts about one number apart.
    """
    for id_, (category, state, attempts) in ended.items():
        *_, of_the_other = ended[beside[id_]]
        was_alone = attempts.count("unknown") + attempts.count("superseded") + of_the_other.count("unknown") < 2
        if was_alone and "superseded" not in of_the_other:
            assert accepted[id_] <= 1, f"{category} text {id_} went out {accepted[id_]} times: {attempts}"
            assert category == "marketing" or state != "unknown", f"{id_} stays in doubt: {attempts}"
            assert not accepted[id_] or state != "unknown", f"{id_} was taken and stays in doubt: {attempts}"


async def test_no_text_is_lost_or_doubled_while_workers_are_killed_at_random(world, redis_url, tmp_path):
    chance, people = seeded(), await world.people(PEOPLE)

    def is_lost(url: httpx.URL) -> bool:
        """Two thirds of the messages are never reported on: Twilio promises no callback."""
        return message_of(world.links, str(url)).int % 3 > 0

    async with (
        front_door(world, redis_url, is_lost) as client,
        vendors(world, tmp_path, client) as far,
        crew_around(world, redis_url, far.accepted, far.settings) as crew,
    ):
        far.door.delay = DELAY
        await queue_both(world, people, Channel.SMS)
        await kill_at_random(crew, chance)
        in_doubt = await world.one("SELECT count(*) FROM attempts WHERE state = 'unknown'")
        await crew.until_settled()
        ended, accepted = await fates(world), far.accepted()
    settled = {id_: (category, _taken(state), attempts) for id_, (category, state, attempts) in ended.items()}
    check_nothing_lost_or_doubled(settled, accepted)
    check_texts(settled, accepted, await neighbours(world))
    print(f"in doubt after the last kill {in_doubt}, at the end {doubts_of(ended)}")
    assert len(ended) == 2 * PEOPLE
    assert doubts_of(ended) <= KILLS * CONNECTIONS


def _taken(state: str) -> str:
    """A delivered text was accepted."""
    return "accepted" if state == "delivered" else state


async def test_no_push_is_lost_or_doubled_while_workers_are_killed_at_random(world, redis_url, tmp_path):
    chance, people = seeded(), await world.people(PEOPLE)
    async with (
        httpx.AsyncClient() as nobody,
        vendors(world, tmp_path, nobody) as far,
        crew_around(world, redis_url, far.accepted, far.settings) as crew,
    ):
        far.door.delay = DELAY
        await queue_both(world, people, Channel.PUSH)
        await kill_at_random(crew, chance)
        await crew.until_settled()
        ended, accepted = await fates(world), far.accepted()
    check_nothing_lost_or_doubled(ended, accepted)
    for category, state, attempts in ended.values():
        assert category == "marketing" or state != "unknown" or "superseded" in attempts
    for device in {push.device for push in far.pushes}:
        shown = [push.title for push in far.pushes.screen(device)]
        assert len(shown) == len(set(shown)), f"{device} shows {shown}"
    print(f"doubts {doubts_of(ended)}, doubled {sum(times - 1 for times in accepted.values())}")
    assert len(ended) == 2 * PEOPLE
    assert doubts_of(ended) <= KILLS * HANDS * AT_ONCE


async def test_a_worker_that_is_told_to_stop_hears_the_answers_that_are_due_and_leaves_no_doubt(
    world, redis_url, tmp_path
):
    texted, pushed = await world.people(80, prefix="text"), await world.people(80, prefix="push")
    async with (
        httpx.AsyncClient() as nobody,
        vendors(world, tmp_path, nobody) as far,
        crew_around(world, redis_url, far.accepted, far.settings) as crew,
    ):
        far.door.delay = 5 * DELAY
        await queue_both(world, texted, Channel.SMS)
        await queue_both(world, pushed, Channel.PUSH)
        await crew.until_accepted(100)
        await crew.until_begun(len(crew.workers))
        for name in crew.workers:
            assert await crew.stop(name) == 0
            assert await world.one("SELECT count(*) FROM attempts WHERE state IN ('unknown', 'superseded')") == 0
            await crew.start(name)
        await crew.until_settled()
        ended = await fates(world)
        assert {state for _, state, _ in ended.values()} == {"accepted"}
        assert set(far.accepted().values()) == {1}
        assert len(far.accepted()) == 4 * 80
