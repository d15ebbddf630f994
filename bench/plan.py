"""How many recipients of a campaign one planner cuts into batches a second, and what memory that takes.

    python3 run.py bench plan [--recipients 1000000] [--json FILE]

Batches are decided as soon as they are there, so that the planner never waits for workers; the time for that is not
counted. `limit`: the same ids read in one statement and written into batches in one, without walk, lock or position.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import structlog
from psycopg.types.json import Jsonb

from bench.stage import TEMPLATES, machine, stage
from notifier.dispatch.plan import Plan
from notifier.dispatch.shelf import Shelf
from notifier.jobs import Jobs
from notifier.rendering import Templates
from notifier.store import templates as versions
from tests.world import IDENTITY, World, new_id

KEY = "newsletter"
PEOPLE = """
INSERT INTO recipients (id, external_id, locale)
SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || '7' || substr(md5(n::text), 1, 19))::uuid, 'p' || n, 'en'
FROM generate_series(1, %s) AS n
"""
DECIDE = """
UPDATE campaign_batches SET due_at = NULL, decided_at = clock_timestamp(), unreachable = 0 WHERE due_at IS NOT NULL
"""
LIMIT = """
CREATE TEMPORARY TABLE cut AS SELECT (n - 1) / 500 AS batch, array_agg(id) AS ids
FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM recipients) AS r GROUP BY 1
"""


async def campaign(world: World, templates: Templates) -> UUID:
    template, id_ = templates.find(KEY), new_id()
    assert template is not None
    async with world.database.connection() as c:
        version = await versions.register(c, template)
        await c.execute(
            "INSERT INTO campaigns (id, name, state, template, audience, schedule, created_by, template_version, topic,"
            " category, scheduled_at, expires_at) VALUES (%s, 'Bench', 'scheduled', %s, '{}', %s, 'operator', %s, %s,"
            " 'marketing', clock_timestamp(), clock_timestamp() + interval '1 day')",
            (id_, KEY, Jsonb({"at": None}), version, template.topic.key),
        )
    return id_


async def planned(world: World, redis_url: str) -> dict[str, float]:
    """Wall and CPU seconds of all looks, and the process's memory at the fifth look and at its highest."""
    templates, jobs, process = Templates.load(TEMPLATES, IDENTITY, "en"), Jobs(redis_url), psutil.Process()
    template = templates.find(KEY)
    assert template is not None
    plan = Plan(world.database, jobs, templates, Shelf(templates), template.channels, "UTC")
    id_ = await campaign(world, templates)
    seconds, cpu, looks, first, highest, is_over = 0.0, 0.0, 0, 0, 0, False
    while not is_over:
        started, used = time.perf_counter(), time.process_time()
        await plan()
        seconds, cpu, looks = seconds + time.perf_counter() - started, cpu + time.process_time() - used, looks + 1
        resident = process.memory_info().rss
        first, highest = first if looks > 5 else resident, max(highest, resident)
        await world.execute(DECIDE)
        is_over = await world.one("SELECT state FROM campaigns WHERE id = %s", id_) == "finished"
    jobs.close()
    people = await world.one("SELECT sum(planned) FROM campaign_walks WHERE campaign_id = %s", id_)
    distinct = "SELECT count(DISTINCT p) FROM campaign_batches, unnest(recipients) AS p WHERE campaign_id = %s"
    assert people == await world.one(f"{distinct} AND channel = 'email'", id_)
    return {"people": float(str(people)), "seconds": seconds, "cpu": cpu, "first": first, "highest": highest}


async def measure(count: int) -> dict[str, Any]:
    with stage() as ground:
        async with ground.world() as world:
            await world.execute(PEOPLE, count)
            await world.execute("VACUUM ANALYZE recipients")
            found = await planned(world, ground.redis_url)
            started = time.perf_counter()
            await world.execute(LIMIT)
            limit = time.perf_counter() - started
    return {
        "recipients": count,
        "planned": int(found["people"]),
        "seconds": round(found["seconds"], 2),
        "recipients_per_s": round(found["people"] / found["seconds"]),
        "planner_cpu_us_per_recipient": round(found["cpu"] / found["people"] * 1e6, 2),
        "planner_rss_mb_at_first": round(found["first"] / 2**20, 1),
        "planner_rss_mb_max": round(found["highest"] / 2**20, 1),
        "limit_recipients_per_s": round(count / limit),
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipients", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    text = json.dumps(asyncio.run(measure(asked.recipients)), indent=2)
    if asked.json:
        asked.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
