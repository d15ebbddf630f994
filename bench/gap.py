"""The opt-out gap: from the 200 of a one-click POST to the last marketing message of that person that anybody took.

`python3 run.py bench gap --people 3000` prints one JSON object with a part for each channel. A campaign of several
messages to each person runs at full speed; meanwhile people press unsubscribe, four at a time, over the real API.
When each answer came is compared with when the far end took the messages, by its own log and the machine's one clock:
what was taken before the answer is no gap, and after it at most what was on the wire.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from bench.deliver import until
from bench.latency import spread, until_ready
from bench.stage import SECRET, Stage, children, machine, sink, stage
from bench.vendors import Far, environment, service_account, vendor_sink
from notifier.domain.messages import Lane
from notifier.domain.tokens import Links
from notifier.jobs import Jobs
from notifier.store import recipients
from notifier.store.consent import NewEvent, record
from notifier.store.database import rows
from notifier_channels.contract import Channel
from tests.servers.certificates import Certificates
from tests.world import MARKETING, World

PORT = 18026
EACH = 5  #: messages of the campaign to each person
PRESSES = 4  #: people who press at the same time
BODY = b"List-Unsubscribe=One-Click"
WAITING = "SELECT EXISTS (SELECT 1 FROM messages WHERE due_at IS NOT NULL OR worker_id IS NOT NULL)"
LATE = """
SELECT count(*) FROM attempts a JOIN messages m ON m.id = a.message_id
JOIN consent_events e ON e.recipient_id = m.recipient_id AND NOT e.granted AND e.channel IN (m.channel, 'any')
WHERE a.number > e.number
"""


async def measure(count: int, clicks: int, at_once: int) -> dict[str, Any]:
    with stage() as ground:
        directory = ground.state.parent
        certificates = Certificates.make(directory)
        log = directory / "vendors.log"
        async with (
            sink(directory, logged=True) as mail,
            vendor_sink(certificates, log) as (port, secure),
            ground.world() as world,
        ):
            far = Far(port, secure, service_account(directory, port))
            named = environment(ground, far) | {
                "NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{mail.port}?tls=none",
                "NOTIFIER_PUBLIC_URL": f"http://127.0.0.1:{PORT}",
                "NOTIFIER_FCM_AT_ONCE": str(at_once),
                "NOTIFIER_TWILIO_CONNECTIONS": "4",
                "NOTIFIER_MARKETING_CAPS": "none",
            }
            commands = [
                ["worker", "--lane", "marketing"],
                ["worker", "--lane", "marketing"],
                ["api", "--port", str(PORT)],
            ]
            async with children(commands, named):
                await until_ready(PORT, world)
                assert mail.log is not None
                town = Town(ground, world, mail.log, log)
                found = {str(channel): await town.play(channel, count, clicks) for channel in Channel}
            late = await world.one(LATE)
            if late:
                raise SystemExit(f"{late} attempts are numbered after a no that covers them")
    return {"machine": machine(), "people": count, "attempts_numbered_after_a_no": late, **found}


class Town:
    """People who press a button while they are written to."""

    def __init__(self, ground: Stage, world: World, mails: Path, vendors: Path) -> None:
        self.ground, self.world = ground, world
        self.mails, self.vendors = mails, vendors
        self.links = Links({"k1": SECRET.encode()}, f"http://127.0.0.1:{PORT}", None)

    async def play(self, channel: Channel, count: int, clicks: int) -> dict[str, Any]:
        people = await self.world.people(count, prefix=f"{channel}")
        addresses = await self._addresses(channel, people)
        await self._grant(channel, people)
        ids = await self.world.queue(people * EACH, MARKETING, by=channel, to=list(addresses) * EACH)
        await self.world.execute("ANALYZE")
        ringing = asyncio.create_task(self._ring_until_done())
        await until(self.world, "SELECT count(*) > 100 FROM messages WHERE state = 'accepted'")
        said = await self._press(channel, dict(zip(people, ids, strict=False)), clicks)
        await ringing
        gaps = await self._gaps(channel, said)
        return {"clicks": len(said), "with_a_gap": sum(gap > 0 for gap in gaps), "gap_ms": spread(gaps)}

    async def _addresses(self, channel: Channel, people: Sequence[UUID]) -> Sequence[UUID]:
        match channel:
            case Channel.EMAIL:
                return people
            case Channel.SMS:
                return await self.world.phones(people)
            case Channel.PUSH:
                return await self.world.devices(people)

    async def _grant(self, channel: Channel, people: Sequence[UUID]) -> None:
        async def work(c: Any) -> None:
            await recipients.lock(c, people)
            topic = f"topic:{MARKETING}"
            await record(c, [NewEvent(one, topic, str(channel), granted=True, source="import") for one in people])

        await self.world.database.transact(work)

    async def _press(self, channel: Channel, letters: Mapping[UUID, UUID], clicks: int) -> dict[UUID, int]:
        """Each of them once, in random order, a few at a time, while the campaign runs; when the 200 came."""
        said: dict[UUID, int] = {}
        people = iter(random.sample(list(letters), clicks))

        async def press(client: httpx.AsyncClient) -> None:
            for person in people:
                if not await self.world.one(WAITING):
                    return
                url = self.links.unsubscribe_url(person, MARKETING, channel, letters[person])
                answer = await client.post(url, content=BODY)
                said[person] = time.monotonic_ns()
                answer.raise_for_status()

        async with httpx.AsyncClient() as client:
            await asyncio.gather(*(press(client) for _ in range(PRESSES)))
        return said

    async def _gaps(self, channel: Channel, said: Mapping[UUID, int]) -> list[float]:
        last: dict[UUID, int] = {}
        for person, moment in await self._taken(channel):
            last[person] = max(moment, last.get(person, 0))
        return [max(0, last.get(person, 0) - moment) / 1e6 for person, moment in said.items()]

    async def _taken(self, channel: Channel) -> list[tuple[UUID, int]]:
        async with self.world.database.connection() as c:
            if channel is Channel.EMAIL:
                owners = {row["id"].hex: row["person"] for row in await rows(c, OWNERS_OF_MESSAGES)}
                lines = (line.split() for line in self.mails.read_text().splitlines())
                return [(owners[words[0]], int(words[2])) for words in lines if words[0] in owners]
            owners = {row["address"]: row["person"] for row in await rows(c, OWNERS_OF_ADDRESSES, (channel,))}
            lines = (line.split() for line in self.vendors.read_text().splitlines())
            return [(owners[words[0]], int(words[1])) for words in lines if words[0] in owners]

    async def _ring_until_done(self) -> None:
        jobs = Jobs(self.ground.redis_url)
        while await self.world.one(WAITING):
            if jobs.waiting(Lane.MARKETING) == 0:
                for _ in range(2):
                    jobs.ring(Lane.MARKETING, ())
            await asyncio.sleep(0.05)
        jobs.close()


OWNERS_OF_MESSAGES = "SELECT id, recipient_id AS person FROM messages WHERE channel = 'email'"
OWNERS_OF_ADDRESSES = """
SELECT regexp_replace(address, '^fid:', '') AS address, recipient_id AS person FROM addresses WHERE channel = %s
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=3000)
    parser.add_argument("--clicks", type=int, default=500)
    parser.add_argument("--fcm-at-once", type=int, default=25)
    chosen = parser.parse_args()
    print(json.dumps(asyncio.run(measure(chosen.people, chosen.clicks, chosen.fcm_at_once)), indent=2))
