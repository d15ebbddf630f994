"""Whatever Twilio and FCM do on the wire, a message arrives, once, or its rows say why not; and each fault is seen.

The whole service, but for its processes: real providers with a short patience, and the sandbox's stand-ins behind a
door that refuses, resets, hangs, stumbles and lies. Faults are dealt from a shuffled deck, so that each kind has its
turns. What was sent is counted from what the stand-ins took.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import httpx
import pytest

from notifier.dispatch.deliver import Deliver
from notifier.dispatch.reconcile import Reconcile
from notifier.dispatch.sweep import Sweep
from notifier.domain.messages import Lane
from notifier.journal import boot_id
from notifier.store.database import rows
from notifier_channels.contract import Channel
from notifier_channels.push.fcm import FcmProvider
from tests.chaos.fleet import LONGEST, UNDER_WAY
from tests.chaos.test_kill import check_nothing_lost_or_doubled, fates
from tests.chaos.vendors import Vendors, audience, by_tag, message_of, queue_both, vendors
from tests.contract.test_deliver import Bell
from tests.servers import fcm
from tests.servers.door import Fate, Request
from tests.servers.twilio import FreePace, provider_at
from tests.world import MARKETING, TRANSACTIONAL, World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300), pytest.mark.xdist_group("chaos")]

PEOPLE = 140  #: of each category
EACH = 4  #: faults of each kind
PATIENCE = 1.0  #: seconds for an answer
AT_ONCE = 10  #: pushes in one call
RETRY_AFTER = (("Retry-After", "1"),)
IN_DOUBT, NOT_TAKEN = "unknown", "not_taken"


@pytest.fixture
def world(database, tmp_path) -> World:
    return World(database, tmp_path / "journals")


class Seen(NamedTuple):
    """How an attempt shows what befell it."""

    state: str
    code: str


LOST: Mapping[Fate, Seen] = {
    Fate("reset before it was taken", "reset"): Seen(IN_DOUBT, "closed"),
    Fate("reset after it was taken", "reset", taken=True): Seen(IN_DOUBT, "closed"),
    Fate("half an answer", "cut", taken=True): Seen(IN_DOUBT, "closed"),
    Fate("too slow, not taken", "hang"): Seen(IN_DOUBT, "timeout"),
    Fate("too slow, taken", "hang", taken=True): Seen(IN_DOUBT, "timeout"),
}


def said(name: str, status: int, seen: str, code: str, body: bytes = b"", **more) -> dict[Fate, Seen]:
    return {Fate(name, status=status, body=body, **more): Seen(seen, code)}


def twilios(code: int, status: int) -> bytes:
    return json.dumps({"code": code, "message": "No.", "status": status}).encode()


BY_TWILIO: Mapping[Fate, Seen] = (
    LOST
    | said("429 with a time", 429, NOT_TAKEN, "20429", twilios(20429, 429), headers=RETRY_AFTER)
    | said("429 without", 429, NOT_TAKEN, "http 429")
    | said("500 with Twilio's error, taken", 500, IN_DOUBT, "20500", twilios(20500, 500), taken=True)
    | said("500 from something between", 500, IN_DOUBT, "http 500", b"<h1>Oops</h1>")
    | said("503 from something between, taken", 503, IN_DOUBT, "http 503", b"busy", taken=True)
    | said("an answer that is no JSON", 201, IN_DOUBT, "protocol", b"{", taken=True)
)
BY_FCM: Mapping[Fate, Seen] = (
    LOST
    | said(
        "429 with a time", 429, NOT_TAKEN, "QUOTA_EXCEEDED",
        fcm.error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"), headers=RETRY_AFTER,
    )
    | said("429 without", 429, NOT_TAKEN, "429")
    | said("500 with FCM's error", 500, NOT_TAKEN, "INTERNAL", fcm.error(500, "INTERNAL", "INTERNAL"))
    | said("503 with FCM's error", 503, NOT_TAKEN, "UNAVAILABLE", fcm.error(503, "UNAVAILABLE", "UNAVAILABLE"))
    | said("500 from something between, taken", 500, IN_DOUBT, "500", b"<h1>Oops</h1>", taken=True)
    | said("503 from something between", 503, IN_DOUBT, "503", b"busy")
    | said("an answer that is no JSON", 200, IN_DOUBT, "200", b"{", taken=True)
)  # fmt: skip


@dataclass
class Deck:
    """Deals a fate to each request that sends a message, and remembers to whom."""

    world: World
    seen: Mapping[Fate, Seen]
    chance: random.Random
    cards: list[Fate | None] = field(default_factory=list)
    dealt: list[tuple[UUID, Fate]] = field(default_factory=list)

    def shuffle(self, each: int, good: int) -> None:
        self.cards = [fate for fate in self.seen for _ in range(each)] + [None] * good
        self.chance.shuffle(self.cards)

    def __call__(self, request: Request) -> Fate | None:
        message = self._message(request)
        if message is None or not self.cards or (fate := self.cards.pop()) is None:
            return None
        self.dealt.append((message, fate))
        return fate

    def _message(self, request: Request) -> UUID | None:
        if request.method != "POST" or request.path.endswith("/token"):
            return None
        if request.path.endswith("messages:send"):
            return by_tag(json.loads(request.body)["message"]["android"]["notification"]["tag"])
        form = httpx.QueryParams(request.body.decode())
        return message_of(self.world.links, form["StatusCallback"])


@dataclass
class Service:
    """A worker of each lane and the scheduler's work, in this process."""

    world: World
    far: Vendors
    lanes: tuple[Deliver, ...]
    reconcile: Reconcile

    async def until_nothing_waits(self) -> None:
        """Send until no message is queued; whatever waits for longer than the wire's own seconds is due at once."""
        while await self.world.one(f"SELECT count(*) FROM messages WHERE {UNDER_WAY}"):
            await self.world.execute(
                "UPDATE messages SET due_at = now() WHERE state = 'queued' AND due_at > now() + interval '2 seconds'"
            )
            await self.world.execute("UPDATE provider_pauses SET paused_until = now()")
            await asyncio.gather(*(deliver(()) for deliver in self.lanes))
            await asyncio.sleep(0.05)

    async def until_nothing_is_in_doubt(self) -> None:
        """Ask about doubt and repeat it, until nobody looks at any more."""
        sweep = Sweep(self.world.database, Bell(), self.world.consequences, boot_id(), timedelta(seconds=60))
        while await self.world.one("SELECT count(*) FROM messages WHERE due_at IS NOT NULL"):
            await self.world.execute("UPDATE messages SET due_at = now() WHERE state = 'unknown' AND due_at > now()")
            await self.reconcile()
            await sweep(asked=self.reconcile.providers)
            await self.until_nothing_waits()


@asynccontextmanager
async def service(world: World, far: Vendors):
    def texting():
        return provider_at(f"{far.door.url}/twilio", timeout=PATIENCE, pace=FreePace())

    def pushing():
        return FcmProvider.from_file(far.account, at_once=AT_ONCE, api_url=f"{far.door.url}/fcm", timeout=PATIENCE)

    asked = texting()
    lanes = [{Channel.SMS: texting(), Channel.PUSH: pushing()} for _ in Lane]
    try:
        async with (
            world.worker(lanes[0], Lane.TRANSACTIONAL, batch_size=50) as transactional,
            world.worker(lanes[1], Lane.MARKETING, batch_size=50) as marketing,
        ):
            reconcile = Reconcile(world.database, {Channel.SMS: asked}, world.hasher)
            async with asyncio.timeout(LONGEST):
                yield Service(world, far, (transactional, marketing), reconcile)
    finally:
        for provider in (asked, *(one for lane in lanes for one in lane.values())):
            await provider.close()


async def codes(world: World) -> dict[UUID, list[Seen]]:
    async with world.database.connection() as c:
        found = await rows(c, "SELECT message_id, state, code FROM attempts")
    seen: dict[UUID, list[Seen]] = {row["message_id"]: [] for row in found}
    for row in found:
        seen[row["message_id"]].append(Seen(row["state"], row["code"]))
    return seen


def check_each_is_seen(deck: Deck, seen: Mapping[UUID, list[Seen]]) -> None:
    """Every fault stands on an attempt of its message, as often as it befell it."""
    expected = Counter((message, deck.seen[fate]) for message, fate in deck.dealt)
    there = Counter((message, one) for message, ones in seen.items() for one in ones)
    missing = {(one, tuple(seen[one[0]])) for one in expected - there}
    assert not missing, f"not to be seen: {missing}"


async def run_through(world: World, far: Vendors, deck: Deck) -> None:
    """Everything is sent through all faults; then doubt is settled through some more."""
    async with service(world, far) as running:
        far.door.fate = deck
        deck.shuffle(EACH, good=2 * PEOPLE)
        await running.until_nothing_waits()
        assert len({fate for _, fate in deck.dealt}) == len(deck.seen), "some kind of fault was never dealt"
        check_each_is_seen(deck, await codes(world))
        deck.shuffle(1, good=len(deck.seen))
        await running.until_nothing_is_in_doubt()


def a_deck(world: World, seen: Mapping[Fate, Seen]) -> Deck:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    return Deck(world, seen, random.Random(seed))


async def test_texts_arrive_once_through_every_fault_of_the_wire(world, tmp_path):
    """Each number has one text, so that asking Twilio settles every doubt: not one is doubled."""
    deck = a_deck(world, BY_TWILIO)
    for name, key in (("ann", TRANSACTIONAL), ("ben", MARKETING)):
        people = await world.people(PEOPLE, prefix=name)
        await world.queue(people, key, by=Channel.SMS, to=await audience(world, people, Channel.SMS))
    async with httpx.AsyncClient() as nobody, vendors(world, tmp_path, nobody) as far:
        await run_through(world, far, deck)
        ended, accepted = await fates(world), far.accepted()
    check_nothing_lost_or_doubled(ended, accepted)
    assert len(ended) == 2 * PEOPLE
    assert set(accepted.values()) == {1}
    for id_, (category, state, attempts) in ended.items():
        assert state == ("accepted" if accepted[id_] else "unknown"), f"{id_} ended as {state}: {attempts}"
        assert state == "accepted" or category == "marketing" or "superseded" in attempts


async def test_pushes_arrive_and_show_once_through_every_fault_of_the_wire(world, tmp_path):
    deck = a_deck(world, BY_FCM)
    await queue_both(world, await world.people(PEOPLE), Channel.PUSH)
    async with httpx.AsyncClient() as nobody, vendors(world, tmp_path, nobody) as far:
        await run_through(world, far, deck)
        ended, accepted = await fates(world), far.accepted()
        for device in {push.device for push in far.pushes}:
            shown = [push.title for push in far.pushes.screen(device)]
            assert len(shown) == len(set(shown)), f"{device} shows {shown}"
    check_nothing_lost_or_doubled(ended, accepted)
    assert len(ended) == 2 * PEOPLE
    for category, state, attempts in ended.values():
        assert state == "accepted" or category == "marketing" or "superseded" in attempts


@pytest.mark.parametrize("channel", [Channel.SMS, Channel.PUSH])
async def test_a_far_end_that_cannot_be_reached_costs_nothing_but_time(world, tmp_path, channel):
    await queue_both(world, await world.people(20), channel)
    async with httpx.AsyncClient() as nobody, vendors(world, tmp_path, nobody) as far, service(world, far) as running:
        if channel is Channel.PUSH:  # its token is fetched from there, too
            await running.lanes[0].providers[channel]._wire.token.ready()  # one has it, the other has not
        await far.door.lock()
        await asyncio.gather(*(deliver(()) for deliver in running.lanes))
        refused = {one for ones in (await codes(world)).values() for one in ones}
        assert refused == {Seen(NOT_TAKEN, "connect")} | ({Seen(NOT_TAKEN, "token")} & refused)
        assert await world.one("SELECT count(*) FROM provider_pauses") >= 1
        await far.door.unlock()
        await running.until_nothing_waits()
        assert {state for _, state, _ in (await fates(world)).values()} == {"accepted"}
        assert set(far.accepted().values()) == {1}
