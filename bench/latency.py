"""How long a password reset takes from the caller's request to the SMTP server's 250: idle, and under a campaign.

`python3 run.py bench latency --messages 200 --campaign 200000` prints one JSON object: milliseconds to the 202 and to
the 250, and beside them the least that the same machine needs for the parts that cannot be left out: one durable commit
and one SMTP transaction over a kept connection, done by a script in the same run. Then the same while a campaign to so
many people goes out at full speed, through a relay of its own on the same two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import smtplib
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg

from bench.stage import Stage, children, machine, sink, stage
from notifier.domain.access import ApiKey
from notifier.rendering import Templates
from notifier.store import keys
from tests.world import IDENTITY, World

SHIPPED = Path("templates").resolve()
SENT = "SELECT count(*) FROM messages WHERE campaign_id = %s AND state = 'accepted'"
PAUSE = 0.03  #: seconds between requests: idle, not loaded
BODY = {
    "template": "password-reset",
    "recipient": {"email": "person@example.test"},
    "data": {"reset_url": "https://example.test/reset", "valid_minutes": 30},
}


async def measure(count: int, people: int) -> dict[str, Any]:
    with stage() as ground:
        async with (
            sink(ground.state.parent, logged=True) as far,
            sink(ground.state.parent) as bulk,
            ground.world(Templates.load(SHIPPED, IDENTITY, "en")) as world,
        ):
            port = 18025
            relays = {"NOTIFIER_SMTP_MARKETING_URL": f"smtp://127.0.0.1:{bulk.port}?tls=none"}
            environment = ground.environment(far.port) | relays
            commands = [["worker", "--lane", "transactional"], ["scheduler"], ["api", "--port", str(port)]]
            async with children(commands, environment):
                secret = await api_key(world)
                await until_ready(port, world)
                assert far.log is not None
                answered, accepted = await send(count, port, secret, far.log)
                under_load: dict[str, Any] = {}
                if people:
                    async with children([["worker", "--lane", "marketing"]] * 2, environment):
                        under_load = await under_a_campaign(world, people, count, port, secret, far.log)
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


async def under_a_campaign(world: World, people: int, count: int, port: int, secret: str, log: Path) -> dict[str, Any]:
    """The same requests, from when the campaign is under way; it must outlast them."""
    campaign = await world.campaign(await world.people(people), "product-news")
    while await world.one("SELECT count(*) < 2000 FROM messages WHERE campaign_id = %s", campaign):
        await asyncio.sleep(0.05)
    began, sent = time.monotonic(), await world.one(SENT, campaign)
    answered, accepted = await send(count, port, secret, log)
    seconds, now_sent = time.monotonic() - began, await world.one(SENT, campaign)
    if not await world.one("SELECT EXISTS (SELECT 1 FROM campaign_batches WHERE due_at IS NOT NULL)"):
        raise SystemExit("the campaign was over before the requests were: give it more people")
    await world.execute("UPDATE campaigns SET state = 'paused', pause_reason = 'asked'")
    assert isinstance(sent, int)
    assert isinstance(now_sent, int)
    return {
        "under_campaign_to_202_ms": spread(answered),
        "under_campaign_to_250_ms": spread(accepted),
        "campaign_msgs_per_s": round((now_sent - sent) / seconds),
    }


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
    chosen = parser.parse_args()
    print(json.dumps(asyncio.run(measure(chosen.messages, chosen.campaign)), indent=2))
