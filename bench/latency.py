"""How long a password reset takes from the caller's request to the SMTP server's 250: idle, and under a campaign.

`python3 run.py bench latency --messages 200 --campaign 200000` prints one JSON object: milliseconds to the 202 and to
the 250, and beside them the least that the same machine needs for the parts that cannot be left out: one durable commit
and one SMTP transaction over a kept connection, done by a script in the same run. Then the same while a campaign to so
many people goes out at full speed, through a relay of its own on the same two cores. With `--relay hangs` or `refuses`
that relay is dead: what is planned of the campaign, what waits of it and what memory that takes is told, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import smtplib
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import psycopg

from bench.audience import people as audience
from bench.audience import settle
from bench.campaign import HASHER, start_campaign
from bench.meter import metered
from bench.stage import Stage, children, machine, sink, stage
from notifier.domain.access import ApiKey
from notifier.rendering import Templates
from notifier.store import keys
from notifier.store.database import rows
from tests.servers.dead_relays import a_relay_that_hangs, a_relay_that_refuses
from tests.world import IDENTITY, World

SHIPPED = Path("templates").resolve()
PORT = 18025
NEWS = "product-news"  #: the campaign's template, its topic, and the cohort of its people
BEGUN = "SELECT EXISTS (SELECT 1 FROM attempts a JOIN messages m ON m.id = a.message_id WHERE m.campaign_id = %s)"
UNDER_WAY = {
    "alive": "SELECT count(*) >= 2000 FROM messages WHERE campaign_id = %s",
    "hangs": BEGUN,
    "refuses": BEGUN,
}
REACH = """
SELECT (SELECT state FROM campaigns WHERE id = %(id)s),
    (SELECT coalesce(sum(planned), 0)::int FROM campaign_walks WHERE campaign_id = %(id)s) AS people_planned,
    b.batches_waiting, b.people_waiting, m.messages_born, m.messages_waiting, m.messages_sent
FROM (SELECT count(*) AS batches_waiting, coalesce(sum(cardinality(recipients)), 0)::int AS people_waiting
      FROM campaign_batches WHERE campaign_id = %(id)s AND decided_at IS NULL) AS b,
     (SELECT count(*) AS messages_born, count(*) FILTER (WHERE state = 'queued') AS messages_waiting,
             count(*) FILTER (WHERE state = 'accepted') AS messages_sent
      FROM messages WHERE campaign_id = %(id)s) AS m
"""
PAUSE = 0.03  #: seconds between requests: idle, not loaded
BODY = {
    "template": "password-reset",
    "recipient": {"email": "person@example.test"},
    "data": {"reset_url": "https://example.test/reset", "valid_minutes": 30},
}


async def measure(count: int, people: int, relay: str) -> dict[str, Any]:
    with stage() as ground:
        async with (
            sink(ground.state.parent, logged=True) as far,
            RELAYS[relay](ground.state.parent) as bulk,
            ground.world(Templates.load(SHIPPED, IDENTITY, "en")) as world,
        ):
            environment = ground.environment(far.port) | {"NOTIFIER_SMTP_MARKETING_URL": bulk}
            commands = [["worker", "--lane", "transactional"], ["scheduler"], ["api", "--port", str(PORT)]]
            async with children(commands, environment) as (_, scheduler, _):
                secret = await api_key(world)
                await until_ready(PORT, world)
                assert far.log is not None
                answered, accepted = await send(count, PORT, secret, far.log)
                under_load: dict[str, Any] = {}
                if people:
                    settle(ground.database_url, audience(people, NEWS, NEWS), HASHER, NEWS)
                    async with children([["worker", "--lane", "marketing"]] * 2, environment) as workers:
                        requests = Requests(count, secret, far.log)
                        members = {"marketing_workers": workers, "scheduler": [scheduler]}
                        under_load = await under_a_campaign(world, people, relay, requests, members)
            least = await asyncio.to_thread(commit_and_send, ground, far.port, count)
    found: dict[str, Any] = {
        "machine": machine(),
        "messages": count,
        "request_to_202_ms": spread(answered),
        "request_to_250_ms": spread(accepted),
        "commit_and_smtp_alone_ms": spread(least),
        "ratio_p50_to_least": round(statistics.median(accepted) / statistics.median(least), 1),
    }
    if under_load:
        p99 = found["request_to_250_ms"]["p99"]
        found |= under_load | {"ratio_p99_to_idle": round(under_load["under_campaign_to_250_ms"]["p99"] / p99, 2)}
    return found


@dataclass(frozen=True, slots=True)
class Requests:
    """What is asked for again under the campaign."""

    count: int
    secret: str
    log: Path  #: of the SMTP server that takes the resets


async def under_a_campaign(
    world: World, people: int, relay: str, requests: Requests, members: Mapping[str, list[psutil.Process]]
) -> dict[str, Any]:
    """The same requests, from when the campaign is under way; it must outlast them."""
    template = world.templates.find(NEWS)
    assert template is not None
    data = {name: value for name, value in template.sample.items() if name != "name"}  # which is each person's own
    campaign = await start_campaign(world, NEWS, NEWS, data)
    while not await world.one(UNDER_WAY[relay], campaign):
        await asyncio.sleep(0.05)
    began, before, memory = time.monotonic(), await reach(world, campaign), {n: rss(of) for n, of in members.items()}
    async with metered(members, "marketing_workers") as used:
        answered, accepted = await send(requests.count, PORT, requests.secret, requests.log)
    seconds, after = time.monotonic() - began, await reach(world, campaign)
    if after.pop("state") != "sending":
        raise SystemExit("the campaign was over before the requests were: give it more people")
    if relay != "alive" and after["messages_sent"]:
        raise SystemExit(f"{after['messages_sent']} mails of the campaign were sent through a dead relay")
    await world.execute("UPDATE campaigns SET state = 'paused', pause_reason = 'asked'")
    return {
        "under_campaign_to_202_ms": spread(answered),
        "under_campaign_to_250_ms": spread(accepted),
        "campaign_msgs_per_s": round((after["messages_sent"] - before["messages_sent"]) / seconds),
        "relay": relay,
        "seconds": round(seconds, 1),
        "campaign": {"people": people, **after},
        "rss_mb_at_first": memory,
        "rss_mb_at_last": {name: rss(of) for name, of in members.items()},
        "marketing_worker_rss_mb_max": round(used.rss / 2**20),
    }


async def reach(world: World, campaign: UUID) -> dict[str, Any]:
    """How far the campaign has come, and what of it waits."""
    async with world.database.connection() as c:
        return (await rows(c, REACH, {"id": campaign}))[0]


def rss(processes: list[psutil.Process]) -> int:
    """Megabytes of the largest."""
    largest: int = max(process.memory_info().rss for process in processes)
    return round(largest / 2**20)


async def send(count: int, port: int, secret: str, log: Path) -> tuple[list[float], list[float]]:
    """One request at a time; the log's clock and ours are the machine's one monotonic clock."""
    began: dict[str, int] = {}
    answered = []
    before = len(log.read_text().splitlines())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for number in range(count + 10):
            start = time.monotonic_ns()
            headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": f"latency-{before}-{number}"}
            answer = await client.post("/v1/notifications", json=BODY, headers=headers)
            answer.raise_for_status()
            if number >= 10:  # the first ones warm caches and connections
                answered.append((time.monotonic_ns() - start) / 1e6)
                began[answer.json()["messages"][0]["id"].replace("-", "")] = start
            await asyncio.sleep(PAUSE)
    while len(lines := log.read_text().splitlines()) < before + count + 10:
        await asyncio.sleep(PAUSE)
    taken = {line.split()[0]: int(line.split()[2]) for line in lines}
    return answered, [(taken[id_] - start) / 1e6 for id_, start in began.items()]


# Relays for marketing ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def alive(directory: Path) -> AsyncIterator[str]:
    async with sink(directory) as far:
        yield f"smtp://127.0.0.1:{far.port}?tls=none"


@asynccontextmanager
async def hangs(_directory: Path) -> AsyncIterator[str]:
    with a_relay_that_hangs() as url:
        yield url


@asynccontextmanager
async def refuses(_directory: Path) -> AsyncIterator[str]:
    with a_relay_that_refuses() as url:
        yield url


RELAYS: dict[str, Callable[[Path], AbstractAsyncContextManager[str]]] = {
    "alive": alive,
    "hangs": hangs,
    "refuses": refuses,
}


def commit_and_send(ground: Stage, port: int, count: int) -> list[float]:
    """The least: one row committed, one mail over a connection that is open."""
    spent = []
    with psycopg.connect(ground.database_url, autocommit=True) as c, smtplib.SMTP("127.0.0.1", port) as smtp:
        c.execute("CREATE TABLE least (n int, body text)")
        for number in range(count):
            start = time.monotonic_ns()
            c.execute("INSERT INTO least VALUES (%s, %s)", (number, "x" * 500))
            smtp.sendmail("a@example.test", ["b@example.test"], b"Message-ID: <0@x>\r\n\r\n" + b"x" * 9000)
            spent.append((time.monotonic_ns() - start) / 1e6)
            time.sleep(PAUSE)
    return spent


async def api_key(world: World) -> str:
    """A key as `notifier keys create` makes it."""
    key = ApiKey.new()
    async with world.database.connection() as c:
        await keys.create(c, key.id, "bench", key.secret_hash, ["send:transactional"])
    return str(key)


async def until_ready(port: int, world: World) -> None:
    async with httpx.AsyncClient() as client:
        while True:
            try:
                if (await client.get(f"http://127.0.0.1:{port}/ready")).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
    while not await world.one("SELECT count(*) FROM workers WHERE ended_at IS NULL"):
        await asyncio.sleep(0.05)


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 2),
        "p99": round(ordered[int(len(ordered) * 0.99)], 2),
        "max": round(ordered[-1], 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--campaign", type=int, default=0, help="people of a campaign that goes out meanwhile")
    parser.add_argument("--relay", choices=RELAYS, default="alive", help="what becomes of the campaign's mail server")
    chosen = parser.parse_args()
    if chosen.relay != "alive" and not chosen.campaign:
        parser.error("--relay is the campaign's: say with --campaign how many people it is for")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started ends in order
    print(json.dumps(asyncio.run(measure(chosen.messages, chosen.campaign, chosen.relay)), indent=2))
