"""How long a password reset takes from the caller's request to the SMTP server's 250, on an idle installation.

`python3 run.py bench latency --messages 200` prints one JSON object: milliseconds to the 202 and to the 250, and beside
them the least that the same machine needs for the parts that cannot be left out: one durable commit and one SMTP
transaction over a kept connection, done by a script in the same run.
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
from notifier.store import keys
from tests.world import World

PAUSE = 0.03  #: seconds between requests: idle, not loaded
BODY = {
    "template": "password-reset",
    "recipient": {"email": "person@example.test"},
    "data": {"reset_url": "https://example.test/reset", "valid_minutes": 30},
}


async def measure(count: int) -> dict[str, Any]:
    with stage() as ground:
        async with sink(ground.state.parent, logged=True) as far, ground.world() as world:
            port = 18025
            environment = ground.environment(far.port)
            commands = [["worker", "--lane", "transactional"], ["scheduler"], ["api", "--port", str(port)]]
            async with children(commands, environment):
                secret = await api_key(world)
                await until_ready(port, world)
                assert far.log is not None
                answered, accepted = await send(count, port, secret, far.log)
            least = await asyncio.to_thread(commit_and_send, ground, far.port, count)
    return {
        "machine": machine(),
        "messages": count,
        "request_to_202_ms": spread(answered),
        "request_to_250_ms": spread(accepted),
        "commit_and_smtp_alone_ms": spread(least),
        "ratio_p50_to_least": round(statistics.median(accepted) / statistics.median(least), 1),
    }


async def send(count: int, port: int, secret: str, log: Path) -> tuple[list[float], list[float]]:
    """One request at a time; the log's clock and ours are the machine's one monotonic clock."""
    began: dict[str, int] = {}
    answered = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for number in range(count + 10):
            start = time.monotonic_ns()
            headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": f"latency-{number}"}
            answer = await client.post("/v1/notifications", json=BODY, headers=headers)
            answer.raise_for_status()
            if number >= 10:  # the first ones warm caches and connections
                answered.append((time.monotonic_ns() - start) / 1e6)
                began[answer.json()["messages"][0]["id"].replace("-", "")] = start
            await asyncio.sleep(PAUSE)
    while len(lines := log.read_text().splitlines()) < count + 10:
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
    print(json.dumps(asyncio.run(measure(parser.parse_args().messages)), indent=2))
