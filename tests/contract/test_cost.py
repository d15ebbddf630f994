"""What a look at the queue costs does not grow with what waits for later, or in the other lane."""

from __future__ import annotations

import psycopg
import pytest

from notifier.domain.events import EventType, Position
from notifier.domain.messages import Lane
from notifier.store import consent, messages, orphans, outbox, replays
from notifier.store.consent import NewEvent
from notifier.store.database import Database
from notifier_channels.contract import Channel
from tests.world import MARKETING, Scripted, World

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


async def test_to_replay_a_message_all_others_of_its_person_are_not_read(world):
    """A monitor's account has a million of them."""
    person = (await world.people(1)) * 200
    [failed, *_] = await world.queue(person, MARKETING)
    await world.execute("ANALYZE messages")
    assert await rows_read(world, lambda c: replays.standing(c, [failed])) <= 2


async def test_to_tell_of_a_no_the_adopted_of_others_are_not_read(world):
    people = await world.people(200)
    await world.execute(
        "UPDATE recipients SET external_id = NULL, merged_into = %s WHERE id = ANY(%s)", people[0], people[100:]
    )
    said = [NewEvent(person, "marketing", "any", granted=False, source="api") for person in people[1:6]]
    read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'recipients'"
    async with world.database.connection() as c, c.transaction():
        await c.execute("SET LOCAL enable_seqscan = off")
        [before] = await (await c.execute(read)).fetchone()  # what this session read earlier is counted, too
        await consent.record(c, said)
        [after] = await (await c.execute(read)).fetchone()
    assert after - before <= 4 * len(said)  # the foreign keys of what was written


# Events ---------------------------------------------------------------------------------------------------------------

OUTBOX = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'outbox'"
EVENTS = (
    "INSERT INTO outbox (type, recipient_id) SELECT 'message.failed', gen_random_uuid() FROM generate_series(1, %s)"
)
TYPES = frozenset(EventType)


async def test_who_reads_on_reads_only_what_is_new(world):
    await world.execute(EVENTS, 500)
    async with world.database.connection() as c:
        caught_up = await outbox.read(c, Position(), TYPES, 500)
    await world.execute(EVENTS, 3)
    await world.execute("ANALYZE outbox")
    async with world.database.connection() as c, c.transaction():
        await c.execute("SET LOCAL enable_seqscan = off")
        [before] = await (await c.execute(OUTBOX)).fetchone()  # what this session read earlier is counted, too
        page = await outbox.read(c, caught_up.cursor, TYPES, 500)
        [after] = await (await c.execute(OUTBOX)).fetchone()
    assert len(page.events) == after - before == 3


@pytest.mark.parametrize("writes", [True, False])
async def test_a_batch_of_fifty_takes_as_many_statements_as_one_of_one_with_events_or_without(
    database_url, tmp_path, monkeypatch, writes
):
    monkeypatch.setattr("notifier.store.database.TRUSTED", float("inf"))  # how fast this machine is does not count
    database = Database(database_url, writes_events=writes)
    await database.open()
    try:
        world = World(database, tmp_path / "journals")
        counts = []
        for size in (1, 50):
            await world.queue(await world.people(size, prefix=f"of-{size}"), MARKETING)
            async with world.worker(Scripted(), Lane.MARKETING) as work:
                with monkeypatch.context() as patch:
                    counts.append(counted(patch))
                    await work()
        assert counts[0] == counts[1]
        assert await world.one("SELECT count(*) FROM outbox") == (51 if writes else 0)
    finally:
        await database.close()


def counted(patch) -> list[int]:
    """How many statements are sent from now on."""
    seen = [0]
    execute = psycopg.AsyncCursor.execute

    async def count(self, *arguments, **options):
        seen[0] += 1
        return await execute(self, *arguments, **options)

    patch.setattr(psycopg.AsyncCursor, "execute", count)
    return seen
