"""I2: no marketing attempt is inserted after an opt-out that covers it, whatever races whatever.

Nor does a text go out that was in hand when somebody answered STOP. The guard is a lock and two statements; each is
taken away here, and the harm it prevents is seen.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import httpx
import pytest

from notifier.domain.messages import Lane
from notifier.store import consent, recipients
from notifier_channels.contract import Channel
from tests.chaos.fleet import UNDER_WAY, Fleet, crew_around
from tests.chaos.vendors import CONNECTIONS, Vendors, audience, front_door, vendors
from tests.servers.twilio import SENDER
from tests.world import MARKETING, TRANSACTIONAL, Scripted, World, claim

pytestmark = pytest.mark.anyio

# An attempt whose number is above that of a withdrawal that covers it.
LATE = """
SELECT count(*) FROM attempts a
JOIN messages m ON m.id = a.message_id
JOIN consent_events e ON e.recipient_id = m.recipient_id AND NOT e.granted
WHERE a.number > e.number AND e.scope IN ('all', 'marketing', 'topic:' || m.topic) AND e.channel IN ('any', m.channel)
"""

WITHHELD = "SELECT count(*) FROM attempts WHERE state = 'not_taken' AND code = 'withheld'"

# Somebody who has a text that the gate has let through, and has not said stop.
IN_HAND = """
SELECT (SELECT a.address FROM messages m JOIN addresses a ON a.id = m.address_id
        WHERE m.state = 'sending' AND a.address <> ALL(%s::text[]) ORDER BY random() LIMIT 1) AS address
"""

TEXTED, STOPS = 120, 40


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


async def race(world, provider, client, clicks) -> None:
    """Three workers with small batches against one one-click POST after another, four at a time."""
    waiting = list(clicks)
    random.shuffle(waiting)

    async def click() -> None:
        while waiting:
            answer = await client.post(waiting.pop(), data={"List-Unsubscribe": "One-Click"})
            assert answer.status_code == 200

    async def work() -> None:
        async with world.worker(provider, Lane.MARKETING, batch_size=10) as deliver:
            await deliver(())

    await asyncio.gather(work(), work(), work(), *(click() for _ in range(4)))


async def test_no_attempt_is_numbered_after_an_opt_out_that_covers_it(world, redis_url):
    people = await world.people(500)
    waves = [await world.queue(people, MARKETING) for _ in range(4)]
    clicks = [
        world.links.unsubscribe_url(person, MARKETING, Channel.EMAIL, message)
        for person, message in zip(people, waves[0], strict=True)
    ]
    provider = Scripted()
    async with front_door(world, redis_url) as client:
        await race(world, provider, client, clicks)
    assert await world.one(LATE) == 0
    assert await world.one("SELECT count(*) FROM consent_events WHERE source = 'one_click'") == 500
    sent = len(provider.sent)
    refused = await world.one("SELECT count(*) FROM messages WHERE state IN ('suppressed', 'cancelled')")
    assert sent + refused == 2000
    assert sent, "every click came before every batch: nothing was raced"
    assert refused, "every batch came before every click: nothing was raced"


# STOP by text message -------------------------------------------------------------------------------------------------


@dataclass
class Stops:
    """People answer STOP, one after the other, while a text to each is in a worker's hands at the sender's pace."""

    crew: Fleet
    far: Vendors
    before: dict[str, int] = field(default_factory=dict)  #: texts to the phone when STOP had been answered

    async def type(self, people: int, texts: int) -> None:
        """So many people, spread over so many texts."""
        for n in range(people):
            await self.crew.until_accepted(texts * n // people)
            phone = await self._whose_text_is_in_hand()
            if phone is None:
                return
            typed = await self.far.twilio.phones.type_on_phone(phone, "Stop!", SENDER)
            assert typed.status == "received", typed
            self.before[phone] = self.taken()[phone]

    async def _whose_text_is_in_hand(self) -> str | None:
        """None when all have gone."""
        while await self.crew.world.one(f"SELECT count(*) FROM messages WHERE {UNDER_WAY}"):
            if found := await self.crew.world.one(IN_HAND, list(self.before)):
                return found
            await asyncio.sleep(0.01)
        return None

    def taken(self) -> Counter[str]:
        return Counter(text.phone for text in self.far.twilio.texts if text.callback_url)

    def late(self) -> dict[str, int]:
        """Texts to a phone that were taken after its STOP had been answered."""
        taken = self.taken()
        return {phone: taken[phone] - before for phone, before in self.before.items() if taken[phone] > before}


async def test_who_answers_stop_gets_no_text_but_the_one_that_is_on_the_wire(world, redis_url, tmp_path):
    """Real workers, each with some seconds of the sender's rate in hand: the witness holds back what was decided."""
    people = await world.people(TEXTED)
    addresses = await audience(world, people, Channel.SMS)
    for key in (MARKETING, MARKETING, TRANSACTIONAL):
        await world.queue(people, key, by=Channel.SMS, to=addresses)

    def is_report(url: httpx.URL) -> bool:
        return "/status/" in url.path  # nobody waits for these here

    async with front_door(world, redis_url, is_report) as client, vendors(world, tmp_path, client) as far:
        paced = far.settings | {"NOTIFIER_TWILIO_SEGMENTS_PER_SECOND": "60"}
        async with crew_around(world, redis_url, far.accepted, paced) as crew:
            stops = Stops(crew, far)
            await stops.type(STOPS, texts=TEXTED)
            await crew.until_settled()
    late = stops.late()
    print(f"late {len(late)}, withheld {await world.one(WITHHELD)}")
    assert set(late.values()) <= {1}
    assert len(late) <= CONNECTIONS, "a no is heard at once: only what the lines held may slip through"
    assert await world.one(LATE) == 0
    assert await world.one("SELECT count(*) FROM consent_events WHERE source = 'sms_keyword'") == len(stops.before)
    assert await world.one(WITHHELD), "nobody said stop while a text to them was in hand: nothing was raced"
    refused = await world.one("SELECT count(*) FROM messages WHERE state IN ('suppressed', 'cancelled')")
    assert far.accepted().total() + refused == 3 * TEXTED


# The guard, and the harm that it prevents -----------------------------------------------------------------------------


async def gate_while_somebody_says_no(world, monkeypatch) -> None:
    """The gate reads consent and is held there; a no is said meanwhile; then the gate goes on."""
    people = await world.people(1)
    await world.queue(people, MARKETING)
    read, events_of = asyncio.Event(), consent.events_of

    async def slow_read(c, chosen):
        found = await events_of(c, chosen)
        read.set()
        said.done() or await asyncio.wait([said], timeout=0.3)  # with the guard, the no waits for us
        return found

    async with world.worker(Scripted(), Lane.MARKETING) as deliver:
        batch = await claim(deliver)
        said = asyncio.create_task(say_no_once(world, people, read), name="no")
        monkeypatch.setattr(consent, "events_of", slow_read)
        await deliver._gate(batch)
        await said


async def say_no_once(world, people, read) -> None:
    await read.wait()
    await world.withdraw(people)


async def test_a_no_that_comes_while_the_gate_decides_is_numbered_after_the_attempt(world, monkeypatch):
    await gate_while_somebody_says_no(world, monkeypatch)
    assert await world.one("SELECT count(*) FROM attempts") == 1
    assert await world.one(LATE) == 0


async def test_without_the_lock_the_same_race_sends_after_a_no(world, monkeypatch):
    lock = recipients.lock

    async def no_lock_for_the_gate(c, ids):
        if asyncio.current_task().get_name() == "no":
            await lock(c, ids)

    monkeypatch.setattr(recipients, "lock", no_lock_for_the_gate)
    await gate_while_somebody_says_no(world, monkeypatch)
    assert await world.one(LATE) == 1


async def test_lock_and_read_in_one_statement_reads_the_consent_of_before_the_wait(world):
    """Why the gate takes two: the snapshot of a statement is older than the lock that it waits for."""
    [person] = await world.people(1)
    together = (
        "WITH locked AS MATERIALIZED (SELECT id FROM recipients WHERE id = %s FOR NO KEY UPDATE)"
        " SELECT count(c.number) FROM locked LEFT JOIN consents c ON c.recipient_id = locked.id"
    )
    apart = "SELECT count(*) FROM consents WHERE recipient_id = %s"

    async def gate() -> tuple[int, int]:
        async with world.database.connection() as c, c.transaction():
            first = await (await c.execute(together, (person,))).fetchone()
            second = await (await c.execute(apart, (person,))).fetchone()
            return first[0], second[0]

    async with world.database.connection() as c, c.transaction():
        await recipients.lock(c, [person])
        gating = asyncio.create_task(gate())
        await until_somebody_waits(world)
        await consent.record(c, [consent.NewEvent(person, "marketing", "any", granted=False, source="api")])
    assert await gating == (0, 1)


async def until_somebody_waits(world) -> None:
    while not await world.one("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        await asyncio.sleep(0)
