"""Asks the provider about attempts that stayed in doubt, before a message is repeated or left unknown for good.

Runs in the scheduler, a minute after the attempt: by then a provider that reports has mostly settled it by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog

from notifier.dispatch.settling import settled, write
from notifier.domain.messages import AttemptState, Category, State
from notifier.domain.retry import Settlement
from notifier.store import messages, orphans
from notifier.store.addresses import restore
from notifier.store.database import Connection, Database, Row
from notifier_channels.contract import Channel, Doubt, LooksUp, MessageId, Receipt

log = structlog.get_logger(__name__)

AT_ONCE = 100
ASK_AGAIN = timedelta(seconds=30)
TAKEN = Settlement(State.ACCEPTED, AttemptState.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Knows whom to ask."""

    database: Database
    providers: Mapping[Channel, LooksUp]

    async def __call__(self) -> None:
        """Ask about everything that is due, a bounded number at a time."""
        for channel, provider in self.providers.items():
            async with self.database.connection() as c:
                found = await orphans.doubtful(c, channel, AT_ONCE)
            doubts = [doubt for row in found if (doubt := _doubt(channel, row))]
            if doubts:
                await self._ask(provider, doubts)

    async def _ask(self, provider: LooksUp, doubts: Sequence[Doubt]) -> None:
        ids = [doubt.message for doubt in doubts]
        try:
            proven = await provider.look_up(doubts)
        except ConnectionError as error:  # no connection to the database is held meanwhile
            log.warning("doubt.not_asked", error=type(error).__name__)
            await self.database.transact(lambda c: orphans.ask_later(c, ids, ASK_AGAIN))
        else:
            await self.database.transact(lambda c: self._settle(c, ids, proven))

    async def _settle(self, c: Connection, ids: Sequence[UUID], proven: Mapping[MessageId, Receipt]) -> None:
        rows = await orphans.lock_doubtful(c, ids)
        await write(c, [settled(row, TAKEN, proven[row["id"]]) for row in rows if row["id"] in proven])
        await messages.wake_followers(c, [row["id"] for row in rows if row["is_followed"] and row["id"] in proven])
        rest = [row for row in rows if row["id"] not in proven]
        await orphans.repeat(c, [row["id"] for row in rest if _may_repeat(row)])
        await orphans.leave_in_doubt(c, [row["id"] for row in rest if not _may_repeat(row)])


def _may_repeat(row: Row) -> bool:
    return row["category"] == Category.TRANSACTIONAL and not row["repeated"]


def _doubt(channel: Channel, row: Row) -> Doubt | None:
    to = restore(channel, row["address"])
    return Doubt(row["id"], row["n"], to, row["started_at"], row["settled_at"], frozenset(row["taken"])) if to else None
