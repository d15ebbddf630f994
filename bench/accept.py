"""How fast notifications are accepted, one at a time and in batches, beside bare INSERTs of the same rows.

    PYTHONPATH=.:channels python bench/accept.py [--seconds 4] [--rounds 3] > accept.json

A real API process (uvicorn, PostgreSQL with fsync, Valkey) is asked over loopback by a lean client in this process. The
limit is what the same PostgreSQL takes of the same rows from psycopg with nothing around it. Rounds are interleaved, so
that a slow moment of the machine meets both.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from notifier import embedded
from notifier.domain.access import ApiKey, Scope
from notifier.domain.messages import Ids
from notifier.store.database import migrate

ROOT = Path(__file__).parents[1]
PEOPLE = 5_000
CALLERS = 16
BATCH = 1000
DATA = {"reset_url": "https://shop.example/r?t=8Zk2mXv7Rt", "valid_minutes": 30}

numbers = itertools.count()
ids = Ids()


def new_id() -> UUID:
    return ids.new(time.time_ns() // 1_000_000)


# The API --------------------------------------------------------------------------------------------------------------


class Connection:
    """HTTP/1.1 as a caller's library speaks it, without the library's cost."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key

    async def open(self) -> Connection:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def post(self, path: str, body: Any, more: str = "", media_type: str = "application/json") -> bytes:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.writer.write(
            f"POST {path} HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer {self.key}\r\nContent-Type: {media_type}\r\n"
            f"{more}Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        head = await self.reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        answer = await self.reader.readexactly(int(found[1]) if found else 0)
        if not head.startswith((b"HTTP/1.1 202", b"HTTP/1.1 200")):
            raise RuntimeError(f"{head.splitlines()[0]!r} {answer[:300]!r}")
        return answer


def item(n: int) -> dict[str, Any]:
    return {"template": "password-reset", "recipient": {"id": f"u{n % PEOPLE}"}, "data": DATA}


async def single(connection: Connection) -> int:
    n = next(numbers)
    await connection.post("/v1/notifications", item(n), f"Idempotency-Key: key-{n}\r\n")
    return 1


async def batch(connection: Connection) -> int:
    many = [item(n) | {"idempotency_key": f"key-{n}"} for n in itertools.islice(numbers, BATCH)]
    await connection.post("/v1/notifications/batch", {"notifications": many})
    return BATCH


# The limit ------------------------------------------------------------------------------------------------------------

BARE = """
WITH k AS (
    INSERT INTO idempotency_keys (key_hash, body_hash, notification_id, answer)
    SELECT * FROM unnest(%(key)s::bytea[], %(body)s::bytea[], %(notification)s::uuid[], %(answer)s::jsonb[])
), n AS (
    INSERT INTO notifications (id, recipient_id, template_version, data, message_ids)
    SELECT n, r, %(version)s, d, ARRAY[m]
    FROM unnest(%(notification)s::uuid[], %(recipient)s::uuid[], %(data)s::jsonb[], %(message)s::uuid[])
         AS v (n, r, d, m)
)
INSERT INTO messages (id, notification_id, recipient_id, address_id, channel, lane, category, topic, template_version,
                      due_at, expires_at)
SELECT m, n, r, a, 'email', 'transactional', 'transactional', 'security', %(version)s, now(), now() + interval '1 hour'
FROM unnest(%(message)s::uuid[], %(notification)s::uuid[], %(recipient)s::uuid[], %(address)s::uuid[]) AS v (m, n, r, a)
"""


def bare(people: list[tuple[UUID, UUID]], version: int, size: int) -> Callable[[Any], Awaitable[int]]:
    async def insert(connection: psycopg.AsyncConnection[Any]) -> int:
        chosen = [people[n % len(people)] for n in itertools.islice(numbers, size)]
        notifications, messages = [new_id() for _ in chosen], [new_id() for _ in chosen]
        hashes = [sha256(one.bytes).digest() for one in notifications]
        answers = [
            Jsonb(
                {"id": str(n), "created_at": "2026-01-01T00:00:00Z", "messages": [{"id": str(m), "channel": "email"}]}
            )
            for n, m in zip(notifications, messages, strict=True)
        ]
        values = {
            "key": hashes,
            "body": hashes,
            "notification": notifications,
            "answer": answers,
            "recipient": [person for person, _ in chosen],
            "address": [address for _, address in chosen],
            "message": messages,
            "data": [Jsonb(DATA)] * size,
            "version": version,
        }
        await connection.execute(BARE, values)
        return size

    return insert


# Measuring ------------------------------------------------------------------------------------------------------------


async def rate(work: Callable[[Any], Awaitable[int]], connections: list[Any], seconds: float) -> dict[str, float]:
    done, took = 0, []
    end = time.perf_counter() + seconds

    async def caller(connection: Any) -> None:
        nonlocal done
        while (start := time.perf_counter()) < end:
            accepted = await work(connection)
            done += accepted
            took.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*map(caller, connections))
    per_second = done / (time.perf_counter() - start)
    return {"per_second": per_second, "p50_ms": statistics.median(took) * 1000, "p99_ms": _p99(took) * 1000}


def _p99(took: list[float]) -> float:
    return sorted(took)[int(len(took) * 0.99)]


async def measure(url: str, port: int, key: str, seconds: float, rounds: int) -> dict[str, Any]:
    callers = [await Connection(port, key).open() for _ in range(CALLERS)]
    people = "\n".join(json.dumps({"id": f"u{n}", "email": f"u{n}@example.com"}) for n in range(PEOPLE)).encode()
    started = time.perf_counter()
    await callers[0].post("/v1/recipients/import", people, media_type="application/x-ndjson")
    imported = PEOPLE / (time.perf_counter() - started)
    await single(callers[0])
    wires = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(8)]
    known = await (await wires[0].execute("SELECT recipient_id, id FROM addresses")).fetchall()
    version = (await (await wires[0].execute("SELECT id FROM template_versions")).fetchall())[0][0]
    contests: dict[str, tuple[Callable[[Any], Awaitable[int]], list[Any]]] = {
        "single": (single, callers),
        "single_one_caller": (single, callers[:1]),
        "single_limit": (bare(known, version, 1), wires),
        "single_one_caller_limit": (bare(known, version, 1), wires[:1]),
        "batch": (batch, callers[:2]),
        "batch_limit": (bare(known, version, BATCH), wires[:2]),
    }
    results: dict[str, list[dict[str, float]]] = {name: [] for name in contests}
    for _ in range(rounds):
        for name, (work, connections) in contests.items():
            results[name].append(await rate(work, connections, seconds))
    for wire in wires:
        await wire.close()
    summary = {name: summarised(found) for name, found in results.items()}
    return {"import_per_second": round(imported), **summary}


def summarised(found: list[dict[str, float]]) -> dict[str, Any]:
    rates = sorted(one["per_second"] for one in found)
    best = {name: round(statistics.median(one[name] for one in found), 2) for name in ("p50_ms", "p99_ms")}
    return {"per_second": round(statistics.median(rates)), "range": [round(rates[0]), round(rates[-1])], **best}


def machine(url: str) -> dict[str, Any]:
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_setting('server_version'), current_setting('fsync')").fetchone()
    version, fsync = row or ("", "")
    return {
        "cpu": cpu.partition(": ")[2],
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "postgresql": version,
        "fsync": fsync,
        "load_before": os.getloadavg()[0],
    }


@contextmanager
def api(environment: dict[str, str]) -> Iterator[int]:
    command = [sys.executable, "-m", "notifier.cli", "api", "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.search(r":(\d+)/", process.stdout.readline())
        if not found:
            raise RuntimeError("the API did not start")
        yield int(found[1])
        process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nb-") as name:
        state = Path(name)
        state.chmod(0o711)
        with embedded.Postgres(state) as postgres, embedded.Valkey(state) as valkey:
            migrate(postgres.url)
            key = ApiKey.new()
            with psycopg.connect(postgres.url, autocommit=True) as connection:
                connection.execute(
                    "INSERT INTO api_keys (id, name, secret_hash, scopes) VALUES (%s, 'bench', %s, %s)",
                    (key.id, key.secret_hash, [str(scope) for scope in Scope]),
                )
            environment = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{ROOT}:{ROOT / 'channels'}",
                "DATABASE_URL": postgres.url,
                "REDIS_URL": valkey.url,
                "NOTIFIER_LINK_KEYS": "l:" + "l" * 32,
                "NOTIFIER_HASH_KEYS": "h:" + "h" * 32,
            }
            facts = machine(postgres.url)
            with api(environment) as port:
                results = asyncio.run(measure(postgres.url, port, str(key), chosen.seconds, chosen.rounds))
    print(json.dumps({"machine": facts, "callers": CALLERS, "batch": BATCH, "results": results}, indent=2))


if __name__ == "__main__":
    main()
