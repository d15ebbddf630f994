"""The ledger on a real database: the projection that SQL keeps is the one that the pure rule folds."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from notifier.domain.consent import ConsentEvent, fold, state_at
from notifier.store import consent, recipients
from notifier.store.consent import NewEvent
from notifier.store.database import rows
from tests.world import World

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


async def ledger(world, person) -> list[ConsentEvent]:
    async with world.database.connection() as c:
        lines = await consent.ledger_of(c, person)
    fields = ("number", "scope", "channel", "granted", "occurred_at", "expires_at")
    return [ConsentEvent(**{field: line[field] for field in fields}) for line in lines]


async def projection(world, person) -> list[ConsentEvent]:
    async with world.database.connection() as c:
        events = (await consent.events_of(c, [person]))[person]
    return sorted(events, key=lambda event: event.number)


def random_events(person, chance: random.Random, count: int) -> list[NewEvent]:
    now = datetime.now(UTC)
    made = []
    for _ in range(count):
        granted = chance.random() < 0.6
        expires = now + timedelta(days=chance.randrange(-5, 5)) if granted and chance.random() < 0.5 else None
        occurred = None if chance.random() < 0.3 else now - timedelta(days=chance.randrange(0, 4))
        scope = chance.choice(["all", "marketing", "topic:a"])
        channel = chance.choice(["any", "email"])
        made.append(NewEvent(person, scope, channel, granted, "import", occurred, expires))
    return made


@pytest.mark.parametrize("seed", range(12))
async def test_the_projection_is_the_fold_of_the_ledger_and_can_be_rebuilt(world, seed):
    chance = random.Random(seed)
    people = await world.people(3)
    for _ in range(6):
        events = [event for person in people for event in random_events(person, chance, chance.randrange(0, 6))]
        chance.shuffle(events)

        async def write(c, events=events):
            await recipients.lock(c, people)
            return await consent.record(c, events)

        await world.database.transact(write)
    kept = [await projection(world, person) for person in people]
    assert kept == [list(fold(await ledger(world, person))) for person in people]
    await world.execute("UPDATE consents SET granted = NOT granted")
    await world.database.transact(lambda c: consent.rebuild(c, people))
    assert [await projection(world, person) for person in people] == kept


@pytest.mark.parametrize("seed", range(12, 20))
async def test_the_past_is_the_fold_of_what_had_occurred_and_had_been_written_down(world, seed):
    chance = random.Random(seed)
    [person] = await world.people(1)
    moments = []
    for _ in range(4):
        events = random_events(person, chance, 4)
        await world.database.transact(lambda c, events=events: consent.record(c, events))
        moments.append(datetime.now(UTC))
    async with world.database.connection() as c:
        lines = await consent.ledger_of(c, person)
        for at in [*moments, *(moments[0] - timedelta(days=days) for days in range(4))]:
            for known in (None, *moments):
                numbers = {line["number"] for line in lines if known is None or line["recorded_at"] <= known}
                events = [event for event in await ledger(world, person) if event.number in numbers]
                assert await consent.state_at(c, person, at, known) == state_at(events, at)


async def test_only_those_whose_projection_was_tampered_with_are_wrong(world):
    people = await world.people(4)
    await world.withdraw(people, "topic:a")
    async with world.database.connection() as c:
        assert await consent.wrong_projections(c, people) == []
        await world.execute("UPDATE consents SET expires_at = now() WHERE recipient_id = %s", people[1])
        await world.execute("DELETE FROM consents WHERE recipient_id = %s", people[2])
        assert await consent.wrong_projections(c, people) == people[1:3]


async def test_numbers_come_back_in_the_order_of_the_events(world):
    [person] = await world.people(1)
    events = [NewEvent(person, "marketing", "any", granted, "api") for granted in (True, False, True)]
    numbers = await world.database.transact(lambda c: consent.record(c, events))
    assert numbers == sorted(numbers)
    assert [event.granted for event in await ledger(world, person)] == [True, False, True]


async def test_what_is_said_to_happen_in_the_future_happens_now(world):
    [person] = await world.people(1)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await world.database.transact(
        lambda c: consent.record(c, [NewEvent(person, "all", "any", granted=True, source="api", occurred_at=tomorrow)])
    )
    assert (await ledger(world, person))[0].occurred_at < tomorrow


async def test_a_no_said_now_comes_after_all_that_is_known_even_when_the_clock_has_stepped_back(world):
    [person] = await world.people(1)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    await world.execute(
        "INSERT INTO consent_events (recipient_id, scope, channel, granted, occurred_at, recorded_at, source)"
        " VALUES (%s, 'topic:a', 'any', true, %s, %s, 'api')", person, ahead, ahead,
    )  # fmt: skip
    await world.database.transact(lambda c: consent.rebuild(c, [person]))
    await world.withdraw([person], "topic:a")
    yes, no = await ledger(world, person)
    assert no.occurred_at >= yes.occurred_at


async def test_recording_nothing_writes_nothing(world):
    assert await world.database.transact(lambda c: consent.record(c, [])) == []
    async with world.database.connection() as c:
        assert await rows(c, "SELECT 1 FROM consent_events") == []
