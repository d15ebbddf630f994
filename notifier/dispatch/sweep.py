"""What the scheduler does every second: puts right what dead workers left, repeats what stayed in doubt, rings again.

Safe to run in several processes at once: every step takes rows under locks and names the state that it expects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
import structlog

from notifier.dispatch.consequences import Consequences
from notifier.dispatch.settling import settled, tried, write
from notifier.domain import retry
from notifier.domain.devices import STALE_AFTER
from notifier.domain.messages import MAX_CLAIMS, Lane, State
from notifier.jobs import RINGS_AT_ONCE, Jobs
from notifier.journal import Testimony, testimony
from notifier.store import (
    batches,
    confirmations,
    devices,
    inbound,
    messages,
    notifications,
    orphans,
    outbox,
    planning,
    recipients,
    webhooks,
    workers,
)
from notifier.store.database import Connection, Database, Row
from notifier.store.messages import Settled
from notifier.store.workers import Worker
from notifier.telemetry import where
from notifier_channels.contract import Channel

log = structlog.get_logger(__name__)

REPEATS_AT_ONCE = 500
FORGOTTEN_AT_ONCE = 5000
BATCH = 500


@dataclass(frozen=True, slots=True)
class Sweep:
    """One look at everything that is late."""

    database: Database
    jobs: Jobs
    consequences: Consequences
    boot_id: str  #: of this machine: only its journals can be read, and only since its last start
    send_timeout: timedelta

    async def __call__(self, asked: Collection[Channel] = ()) -> None:
        """Recover, repeat, ring. `asked`: channels whose doubt somebody asks the provider about (`reconcile`)."""
        await self.recover()
        others = [channel for channel in Channel if channel not in asked]
        await self.database.transact(lambda c: orphans.repeat_unknown(c, others, REPEATS_AT_ONCE))
        await self.ring()

    async def forget(self) -> None:
        """Drop what is kept for a while only. Once an hour is enough."""
        async with self.database.connection() as c:
            await notifications.forget_keys(c)
            await inbound.forget(c)
        while await self.database.transact(_forget_devices) == BATCH:
            pass
        for forget in (outbox.forget, webhooks.forget, confirmations.forget):
            await self._forget_all(forget)

    async def _forget_all(self, forget: Callable[[Connection, int], Awaitable[int]]) -> None:
        """In pieces, so that no statement holds up others for long."""
        while await self.database.transact(lambda c: forget(c, FORGOTTEN_AT_ONCE)) == FORGOTTEN_AT_ONCE:
            pass

    # Ring -------------------------------------------------------------------------------------------------------------

    async def ring(self) -> None:
        """Ring each lane that has something due, as often as there are batches, as long as the rings are answered."""
        for lane in Lane:
            waiting = await asyncio.to_thread(self.jobs.waiting, lane)
            if waiting is None or waiting >= RINGS_AT_ONCE:
                continue  # Redis is away and workers poll, or nobody answers
            async with self.database.connection() as c:
                due = await orphans.count_due(c, lane, BATCH * (RINGS_AT_ONCE - waiting))
            for _ in range(-(-due // BATCH)):
                self.jobs.ring(lane, ())

    # Recover ----------------------------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Settle what workers that are gone had in hand; one that resists does not hold up the others."""
        async with self.database.connection() as c:
            dead = await workers.dead(c)
        for number in dead:
            try:
                await self._recover_one(number)
            except psycopg.Error as error:
                log.error("worker.not_recovered", worker=number, error=type(error).__name__, at=where(error))

    async def _recover_one(self, number: int) -> None:
        worker = await self.database.transact(lambda c: self._take_and_recover(c, number))
        if worker is not None:
            with suppress(OSError):  # it is another machine's, or gone
                worker.journal.unlink()
            log.warning("worker.recovered", worker=worker.id, lane=worker.lane)

    async def _take_and_recover(self, c: Connection, number: int) -> Worker | None:
        worker = await workers.take_dead(c, number)
        if worker is None:
            return None
        with testimony(worker.journal) as said:
            is_done = await self._recover(c, worker, said if worker.boot_id == self.boot_id else None)
        return worker if is_done else None

    async def _recover(self, c: Connection, worker: Worker, said: Testimony | None) -> bool:
        """Put right what this worker left; False when some of it must wait."""
        lost_at, now = await workers.mark_lost(c, worker.id)
        locked = await self.consequences.lock(c, said.last_answers if said else {})
        left = await orphans.orphans_of(c, worker.id)
        await self._requeue_unattempted(c, [row for row in left if row["state"] == State.CLAIMED])
        for campaign in await planning.poisonous(c, worker.id):  # said also of one that is paused already
            log.error("campaign.poison", campaign=str(campaign))
        await batches.requeue(c, worker.id)
        attempted = [row for row in left if row["state"] == State.SENDING]
        if said is not None:
            await self.consequences.follow(c, locked, await self._settle_by_journal(c, attempted, said, now))
        elif now - lost_at > self.send_timeout:  # its last byte has left by now; its late answers stay welcome
            await write(c, [settled(row, retry.in_doubt(tried(row), now)) for row in attempted])
        else:
            return False  # it may be alive and claim, or its machine may come back: it is looked at again
        await batches.let_go(c, worker.id)
        await messages.wake_followers(c, [row["id"] for row in attempted if row["is_followed"]])
        await workers.end(c, worker.id)
        return True

    async def _requeue_unattempted(self, c: Connection, rows: Sequence[Row]) -> None:
        """No intent, no byte: back to the queue at once, or set aside after too many dead workers."""
        poison = [row for row in rows if row["claims"] >= MAX_CLAIMS]
        await orphans.poison(c, [row["id"] for row in poison])
        await messages.wake_followers(c, [row["id"] for row in poison if row["is_followed"]])
        await orphans.requeue(c, {row["id"]: row["claims"] for row in rows if row["claims"] < MAX_CLAIMS})

    async def _settle_by_journal(
        self, c: Connection, rows: Sequence[Row], said: Testimony, now: datetime
    ) -> list[Settled]:
        written = [_by_journal(row, said, now) for row in rows]
        await write(c, written)
        # Only what was being rendered when the process died is suspected; its neighbours are not counted against.
        suspected = {row["id"]: row["claims"] for row in rows if row["id"] == said.in_hand}
        await orphans.keep_claims(c, suspected)
        return written


async def _forget_devices(c: Connection) -> int:
    """Remove a batch of the devices that no app has refreshed for too long; how many were looked at."""
    stale = await devices.stale(c, STALE_AFTER, BATCH)
    if stale:
        await recipients.lock(c, list(stale.values()))
        await devices.remove_stale(c, list(stale), STALE_AFTER)
    return len(stale)


def _by_journal(row: Row, said: Testimony, now: datetime) -> Settled:
    attempt = (row["id"], row["n"])
    if (answer := said.answers.get(attempt)) is not None:
        return settled(row, retry.settle(answer, tried(row), now, 0.5), answer)
    if attempt in said.committed:
        return settled(row, retry.in_doubt(tried(row), now))
    if row["id"] == said.in_hand and row["claims"] >= MAX_CLAIMS:
        return settled(row, retry.poison())
    return settled(row, retry.proven_unsent(now))
