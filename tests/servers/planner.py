"""A planner in a process of its own, to be killed: it looks without a pause, and takes the part of the workers, too.

    python tests/servers/planner.py DATABASE_URL

Prints a line for each look, and ends when no campaign is being sent any more.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "channels")]

from notifier.dispatch.plan import Plan  # noqa: E402
from notifier.dispatch.shelf import Shelf  # noqa: E402
from notifier.jobs import Jobs  # noqa: E402
from notifier.store.database import Database, rows  # noqa: E402
from notifier_channels.contract import Channel  # noqa: E402
from tests.world import small_templates  # noqa: E402

LEFT = "SELECT 1 FROM campaigns WHERE state IN ('scheduled', 'sending')"
DECIDE = """
UPDATE campaign_batches SET due_at = NULL, decided_at = clock_timestamp(), unreachable = 0 WHERE due_at IS NOT NULL
"""


async def main(url: str) -> None:
    database, jobs, templates = Database(url), Jobs("redis://127.0.0.1:9"), small_templates()
    await database.open()
    plan = Plan(database, jobs, templates, Shelf(templates), frozenset({Channel.EMAIL}), "UTC")
    left = True
    while left:
        await plan()
        async with database.connection() as c:
            await c.execute(DECIDE)
            left = bool(await rows(c, LEFT))
        print("looked", flush=True)
    await database.close()
    jobs.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
