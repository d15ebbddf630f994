"""A campaign in a storm: workers and the planner die, Redis is emptied, people say no, and it is paused and resumed.

The small storm of the suite and the large one of `bench safety` are the same. `tests.chaos.reckoning` says whether
anybody came to harm.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import Any
from uuid import UUID

import httpx
from psycopg.types.json import Jsonb

from notifier.dispatch import steering
from notifier.domain.access import OPERATOR
from notifier.domain.campaigns import CampaignState
from notifier.domain.messages import Lane
from notifier.jobs import Jobs
from notifier.store import templates
from notifier.store.database import rows
from notifier_channels.contract import Channel
from tests.chaos.fleet import LOG, LONGEST, Fleet, fleet, flush
from tests.world import MARKETING, World, new_id

VICTIMS = ("worker --lane marketing/1", "worker --lane marketing/2", "scheduler/0")
PRESSING = 4  #: people who press at the same time
BODY = b"List-Unsubscribe=One-Click"
KILLS_IN_A_PAUSE = 2
FIRST_PAUSE, FLUSH, SECOND_PAUSE = 0.25, 0.45, 0.6  #: when so many of all people have got theirs
LAST_PRESS = 0.75

_SCHEDULE = """
INSERT INTO campaigns (id, name, state, template, data, audience, schedule, rate, created_by, template_version, topic,
                       category, scheduled_at, expires_at)
VALUES (%s, 'Spring', 'scheduled', %s, %s, '{}', '{"at": null}', %s, 'operator', %s, %s, 'marketing', now(),
        now() + interval '1 day')
"""
_IN_HAND = """
SELECT EXISTS (SELECT 1 FROM campaign_batches WHERE campaign_id = %(id)s AND worker_id IS NOT NULL)
    OR EXISTS (SELECT 1 FROM messages WHERE campaign_id = %(id)s AND state IN ('claimed', 'sending'))
"""
_BEGUN_SINCE = """
SELECT coalesce(extract(epoch FROM max(started_at) - %(at)s), 0)::float FROM attempts WHERE started_at > %(at)s
"""
_NEXT = """
SELECT person FROM campaign_batches b, unnest(b.recipients) AS person
WHERE b.campaign_id = %s AND b.decided_at IS NULL AND person = ANY(%s) ORDER BY random() LIMIT 1
"""
_MOVE_TOGETHER = """
UPDATE addresses a SET (address, address_hash) = (h.address, h.address_hash)
FROM unnest(%s::uuid[], %s::uuid[]) AS v (guest, host) JOIN addresses h ON h.recipient_id = v.host
WHERE a.recipient_id = v.guest
"""


@dataclass(frozen=True, slots=True)
class Weather:
    """How hard it blows."""

    people: int
    presses: int  #: one-click POSTs
    rate: float  #: of the campaign, messages a second
    kill_every: float  #: seconds
    kills: int | None = None  #: at most; None: until the campaign has ended
    connections: int = 2  #: to the SMTP server, of each worker process
    longest: float = LONGEST  #: seconds


@dataclass(frozen=True, slots=True)
class Town:
    """Whom the campaign is for, and what is known of them before."""

    everybody: Sequence[UUID]
    homeless: frozenset[UUID]  #: without an address
    sharing: frozenset[UUID]  #: two and two of them have one address
    refusing: frozenset[UUID]  #: said no long ago

    @classmethod
    async def settle(cls, world: World, count: int) -> Town:
        """Of a hundred people, two have no address, four live two and two, and five have said no."""
        people = await world.people(count)
        homeless, guests, refusing = people[0::50], people[1::50], people[3::20]
        hosts = people[2::50][::-1]  # far from their guests, so that they are in different batches
        await world.execute("UPDATE addresses SET removed_at = now() WHERE recipient_id = ANY(%s)", homeless)
        guests = guests[: len(hosts)]
        await world.execute(_MOVE_TOGETHER, guests, hosts)
        await world.withdraw(refusing)
        return cls(people, frozenset(homeless), frozenset([*guests, *hosts]), frozenset(refusing))


@dataclass(frozen=True, slots=True)
class Pause:
    """One time that the campaign stood still."""

    last_begun: float  #: seconds from the pause to the last attempt of what was in hand
    attempts: int  #: that began when everything had come to rest, before it was resumed
    mails: frozenset[UUID]  #: that came in that time


@dataclass(slots=True)
class Storm:
    """What befalls one campaign."""

    crew: Fleet
    town: Town
    weather: Weather
    campaign: UUID
    log: Path  #: of the SMTP server
    api: str  #: its URL
    redis_url: str
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)  #: by what was killed: `worker`, `scheduler`
    pressed: set[UUID] = field(default_factory=set)
    pauses: list[Pause] = field(default_factory=list)
    seconds: float = 0.0  #: that it took
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    async def blow(self) -> None:
        """From the campaign's start to its end."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as together:
            killing = together.create_task(self._kill())
            pressing = together.create_task(self._press())
            await self._until_taken(FIRST_PAUSE)
            await self._stand_still(killing)
            await self._until_taken(FLUSH)
            await flush(self.redis_url)
            await self._until_taken(SECOND_PAUSE)
            await self._stand_still(killing)
            await pressing
            while await self._state() != "finished":
                await asyncio.sleep(0.05)
            self._over.set()
        self.seconds = time.monotonic() - began

    # Kills ------------------------------------------------------------------------------------------------------------

    async def _kill(self) -> None:
        for name in self._victims():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), self.weather.kill_every)
                return
            await self.crew.kill(name)
            self.kills[name.split(" ")[0].split("/")[0]] += 1

    def _victims(self) -> Iterator[str]:
        """Each of them once a round, in an order that nobody knows."""
        while True:
            for name in self.chance.sample(VICTIMS, len(VICTIMS)):
                if self.kills.total() == self.weather.kills:
                    return
                yield name

    # Pauses -----------------------------------------------------------------------------------------------------------

    async def _stand_still(self, killing: asyncio.Task[None]) -> None:
        """Pause, let what was in hand come to rest and some more processes die, and resume."""
        database, paused = self.crew.world.database, CampaignState.PAUSED
        assert (await database.transact(lambda c: steering.pause(c, self.campaign, OPERATOR))).state is paused
        paused_at = await self._one("SELECT clock_timestamp()")
        while await self._one(_IN_HAND, id=self.campaign):
            await asyncio.sleep(0.02)
        last_begun = await self._one(_BEGUN_SINCE, at=paused_at)
        number = await self._one("SELECT max(number) FROM attempts")
        taken, kills = len(self.taken()), self.kills.total()
        jobs = Jobs(self.redis_url)
        while self.kills.total() < kills + KILLS_IN_A_PAUSE and not killing.done():
            jobs.ring(Lane.MARKETING, ())  # as others' messages do: workers look for what they may take
            await asyncio.sleep(0.1)
        jobs.close()
        begun = await self._one("SELECT count(*) FROM attempts WHERE number > %s", number)
        self.pauses.append(Pause(last_begun, begun, frozenset(id_ for id_, _ in self.taken()[taken:])))
        resumed = await database.transact(lambda c: steering.resume(c, self.campaign, OPERATOR))
        async with database.connection() as c:
            await steering.follow(c, resumed)

    # Presses ----------------------------------------------------------------------------------------------------------

    async def _press(self) -> None:
        """People press unsubscribe all along, a few at a time; every other one is somebody whose batch is next."""
        left = set(self.town.everybody) - self.town.refusing
        presses = iter(range(self.weather.presses))

        async def press(client: httpx.AsyncClient) -> None:
            for n in presses:
                await self._until_taken(LAST_PRESS * n / self.weather.presses)
                found = await self._one(_NEXT, self.campaign, list(left)) if n % 2 else None
                person = found or self.chance.choice(sorted(left))
                left.discard(person)
                self.pressed.add(person)
                url = self.crew.world.links.unsubscribe_url(person, MARKETING, Channel.EMAIL, new_id())
                answer = await client.post(self.api + url[url.index("/u/") :], content=BODY)
                answer.raise_for_status()

        async with httpx.AsyncClient(timeout=30) as client, asyncio.TaskGroup() as together:
            for _ in range(PRESSING):
                together.create_task(press(client))

    # How far it has come ----------------------------------------------------------------------------------------------

    def taken(self) -> list[tuple[UUID, str]]:
        """Message and address of every mail that the SMTP server has accepted, in order, by its own log."""
        lines = (line.split() for line in self.log.read_text().splitlines()) if self.log.exists() else ()
        return [(UUID(hex=id_), address) for id_, address, _ in lines]

    async def _until_taken(self, share: float) -> None:
        while not self.log.exists() or self.log.read_bytes().count(b"\n") < share * self.weather.people:
            if await self._state() == "finished":
                return
            await asyncio.sleep(0.05)

    async def _state(self) -> str:
        """Where the campaign stands; raises AssertionError when it, or one of its processes, has stopped by itself."""
        fallen = [name for name, process in self.crew.processes.items() if process.returncode not in {None, -SIGKILL}]
        assert not fallen, f"ended by themselves: {fallen}"
        reason = await self._one("SELECT pause_reason FROM campaigns WHERE id = %s", self.campaign)
        assert reason in {None, "asked"}, f"the campaign was paused by itself: {reason}"
        state: str = await self._one("SELECT state FROM campaigns WHERE id = %s", self.campaign)
        return state

    async def _one(self, query: str, *values: object, **named: object) -> Any:
        """The first column of the first row; None when there is none."""
        async with self.crew.world.database.connection() as c:
            found = await rows(c, query, named or values)
        return next(iter(found[0].values())) if found else None


@asynccontextmanager
async def storm(world: World, redis_url: str, directory: Path, weather: Weather) -> AsyncIterator[Storm]:
    """Two marketing workers, the scheduler and the API, around a campaign that is about to begin."""
    seed = random.randrange(10**6)
    print(f"seed {seed}", file=sys.stderr)
    town, port = await Town.settle(world, weather.people), _free_port()
    members = (*VICTIMS, f"api --port {port}/0")
    settings = {
        "NOTIFIER_MARKETING_CAPS": "none",
        "NOTIFIER_LOG_LEVEL": "error",
        "NOTIFIER_SMTP_CONNECTIONS": str(weather.connections),
    }
    async with fleet(world, redis_url, directory, members=members, longest=weather.longest, **settings) as crew:
        api = f"http://127.0.0.1:{port}"
        await _until_ready(api)
        campaign = await schedule(world, weather.rate)
        yield Storm(crew, town, weather, campaign, directory / LOG, api, redis_url, random.Random(seed))


async def schedule(world: World, rate: float | None = None) -> UUID:
    """A campaign to everybody, from now on; for the planner to start. `rate`: None: as fast as it goes."""
    id_, template = new_id(), world.templates.find(MARKETING)
    assert template is not None
    async with world.database.connection() as c:
        version = await templates.register(c, template)
        sample = Jsonb(dict(template.sample))
        await c.execute(_SCHEDULE, (id_, template.key, sample, rate, version, template.topic.key))
    return id_


async def _until_ready(api: str) -> None:
    async with httpx.AsyncClient() as client:
        while True:
            with suppress(httpx.TransportError):
                if (await client.get(f"{api}/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
