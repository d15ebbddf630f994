"""Which worker processes are alive: each holds a session advisory lock under its own number for as long as it lives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from notifier.domain.messages import Lane
from notifier.store.database import Connection, rows

LOCK_CLASS = 7_305_111  #: the first half of the advisory lock's key; the second is the worker's number


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process, as the database knows it."""

    id: int
    lane: Lane
    boot_id: str  #: of its machine, since this start
    journal: Path
    lost_at: datetime | None


async def register(c: Connection, lane: Lane, boot_id: str, journals: Path) -> Worker:
    """Enter a new worker and hold its lock on this connection, which must stay open and in no pool.

    The row becomes visible together with the lock, so nobody takes a worker that is being born for a dead one.
    """
    async with c.transaction():
        found = await rows(c, "SELECT nextval(pg_get_serial_sequence('workers', 'id'))::int AS id")
        worker = Worker(found[0]["id"], lane, boot_id, journals / f"worker-{found[0]['id']}.journal", None)
        await c.execute("SELECT pg_advisory_lock(%s, %s)", (LOCK_CLASS, worker.id))
        await c.execute(
            "INSERT INTO workers (id, lane, boot_id, journal) OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s)",
            (worker.id, lane, boot_id, str(worker.journal)),
        )
    return worker


async def dead(c: Connection) -> list[int]:
    """The numbers of workers that nobody's lock vouches for.

    A worker that was ended comes back when something is in its hands: the server may commit a claim after its client
    has died, and a worker that has lost its lock claims until it notices.
    """
    found = await rows(
        c,
        "SELECT id FROM workers"
        " WHERE (ended_at IS NULL OR id IN (SELECT worker_id FROM messages WHERE worker_id IS NOT NULL"
        "   UNION ALL SELECT worker_id FROM campaign_batches WHERE worker_id IS NOT NULL))"
        "  AND id NOT IN (SELECT objid::int FROM pg_locks"
        "   WHERE locktype = 'advisory' AND classid = %s AND database = (SELECT oid FROM pg_database"
        "    WHERE datname = current_database()))"
        " ORDER BY id",
        (LOCK_CLASS,),
    )
    return [row["id"] for row in found]


async def take_dead(c: Connection, worker: int) -> Worker | None:
    """Hold a dead worker's lock until this transaction ends; None when it lives, or somebody else is recovering it."""
    held = await rows(c, "SELECT 1 FROM workers WHERE id = %s FOR NO KEY UPDATE SKIP LOCKED", (worker,))
    if not held:
        return None
    found = await rows(
        c,
        "SELECT id, lane, boot_id, journal, lost_at FROM workers WHERE id = %s AND pg_try_advisory_xact_lock(%s, id)",
        (worker, LOCK_CLASS),
    )
    return next((Worker(lane=Lane(row.pop("lane")), journal=Path(row.pop("journal")), **row) for row in found), None)


async def mark_lost(c: Connection, worker: int) -> tuple[datetime, datetime]:
    """Note when the worker's lock was first found free; returns that instant and the present one."""
    found = await rows(
        c,
        "UPDATE workers SET lost_at = COALESCE(lost_at, clock_timestamp()) WHERE id = %s"
        " RETURNING lost_at, clock_timestamp() AS now",
        (worker,),
    )
    return found[0]["lost_at"], found[0]["now"]


async def end(c: Connection, worker: int) -> None:
    """Nothing is left in this worker's hands."""
    await c.execute("UPDATE workers SET ended_at = clock_timestamp() WHERE id = %s", (worker,))
