"""What a look at the queue costs does not grow with what waits for later, or in the other lane."""

from __future__ import annotations

import pytest

from notifier.domain.messages import Lane
from notifier.store import messages, orphans
from notifier_channels.contract import Channel
from tests.world import MARKETING, World

pytestmark = pytest.mark.anyio

CLAIM = {"lane": Lane.MARKETING, "worker": 1, "channel": Channel.EMAIL, "rung": (), "limit": 100}
LOOKS = {
    "claim": lambda c: messages.claim(c, **CLAIM),
    "count": lambda c: orphans.count_due(c, Lane.MARKETING, 100),
    "repeat": lambda c: orphans.repeat_unknown(c, list(Channel), 100),
}
READ = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'messages'"


async def rows_read(world, look) -> int:
    async with world.database.connection() as c, c.transaction():
        await c.execute("SET LOCAL enable_seqscan = off")  # so few rows are read faster from end to end
        await look(c)
        return (await (await c.execute(READ)).fetchone())[0]


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


@pytest.mark.parametrize("look", ["claim", "count"])
async def test_what_is_due_later_is_not_read(world, look):
    await world.queue(await world.people(200), MARKETING, due=60)
    assert await rows_read(world, LOOKS[look]) == 0


async def test_a_backlog_of_marketing_is_not_read_to_find_doubt(world):
    await world.queue(await world.people(200), MARKETING)
    assert await rows_read(world, LOOKS["repeat"]) == 0


async def test_what_is_due_is_read_and_nothing_else(world):
    people = await world.people(200)
    await world.queue(people[:5], MARKETING)
    await world.queue(people, MARKETING, due=60)
    assert await rows_read(world, LOOKS["count"]) == 5
