"""Asks the provider about attempts that stayed in doubt, before a message is repeated or left unknown for good.

Runs in the scheduler, a minute after the attempt: by then a provider that reports has mostly settled it by itself.
What is found at the provider may be another message to the same address, even somebody else's. So nothing is asked
while another attempt is under way there, and nothing is believed when more became known of the address meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog

from notifier.dispatch.settling import settled, write
from notifier.domain.messages import AttemptState, Category, State
from notifier.domain.recipients import Hasher
from notifier.domain.retry import Settlement
from notifier.store import messages, orphans
from notifier.store.addresses import restore
from notifier.store.database import Connection, Database, Row
from notifier.store.orphans import Beside
from notifier_channels.contract import Channel, Doubt, LooksUp, MessageId, Receipt

log = structlog.get_logger(__name__)

AT_ONCE = 100
ASK_AGAIN = timedelta(seconds=30)
SOON = timedelta(seconds=5)  #: until what is under way beside it has its answer
TAKEN = Settlement(State.ACCEPTED, AttemptState.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about one channel, and what was known when it was asked."""

    channel: Channel
    doubts: Sequence[Doubt]
    hashes: Mapping[MessageId, Sequence[bytes]]  #: under which each one's address may be stored
    beside: Mapping[MessageId, Beside]


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Knows whom to ask."""

    database: Database
    providers: Mapping[Channel, LooksUp]
    hasher: Hasher

    async def __call__(self) -> None:
        """Ask about everything that is due, a bounded number at a time."""
        for channel, provider in self.providers.items():
            async with self.database.connection() as c:
                question = await self._question(c, channel)
            if question.hashes:
                answers = await self._ask(provider, question)  # no connection to the database is held meanwhile
                await self.database.transact(partial(self._settle, question, answers))

    async def _question(self, c: Connection, channel: Channel) -> Question:
        found = await orphans.doubtful(c, channel, AT_ONCE)
        hashes = {row["id"]: self._hashes(channel, row) for row in found}
        beside = await orphans.beside(c, channel, hashes)
        doubts = [doubt for row in found if (doubt := _doubt(channel, row, beside[row["id"]]))]
        return Question(channel, doubts, hashes, beside)

    async def _ask(self, provider: LooksUp, question: Question) -> Mapping[MessageId, Receipt | None]:
        """Nobody can be asked about an address that was erased; a repeat to it ends at the gate, with the reason."""
        doubts = [doubt for doubt in question.doubts if not question.beside[doubt.message].is_under_way]
        answers = await provider.look_up(doubts) if doubts else {}
        if missing := len(doubts) - len(answers):
            log.warning("doubt.not_asked", count=missing)
        gone = question.hashes.keys() - {doubt.message for doubt in question.doubts}
        return {**answers, **dict.fromkeys(gone)}

    async def _settle(self, question: Question, answers: Mapping[MessageId, Receipt | None], c: Connection) -> None:
        rows = await orphans.lock_doubtful(c, list(question.hashes))
        beside = await orphans.beside(c, question.channel, question.hashes)
        moved = {id_ for id_, now in beside.items() if now.is_under_way or now.taken != question.beside[id_].taken}
        known = [row for row in rows if row["id"] in answers and row["id"] not in moved]
        await self._settle_known(c, known, {id_: answers[id_] for id_ in answers if not beside[id_].is_in_doubt})
        await orphans.ask_later(c, [row["id"] for row in rows if row["id"] in moved], SOON)
        unasked = [row["id"] for row in rows if row["id"] not in answers and row["id"] not in moved]
        await orphans.ask_later(c, unasked, ASK_AGAIN)

    async def _settle_known(
        self, c: Connection, rows: Sequence[Row], answers: Mapping[MessageId, Receipt | None]
    ) -> None:
        proven = {row["id"]: receipt for row in rows if (receipt := answers.get(row["id"]))}
        await write(c, [settled(row, TAKEN, proven[row["id"]]) for row in rows if row["id"] in proven])
        await messages.wake_followers(c, [row["id"] for row in rows if row["is_followed"] and row["id"] in proven])
        rest = [row for row in rows if row["id"] not in proven]
        await orphans.repeat(c, [row["id"] for row in rest if _may_repeat(row)])
        await orphans.leave_in_doubt(c, [row["id"] for row in rest if not _may_repeat(row)])

    def _hashes(self, channel: Channel, row: Row) -> list[bytes]:
        address = restore(channel, row["address"])
        return list({row["address_hash"], *(self.hasher.all(address) if address else ())})


def _may_repeat(row: Row) -> bool:
    return row["category"] == Category.TRANSACTIONAL and not row["repeated"]


def _doubt(channel: Channel, row: Row, beside: Beside) -> Doubt | None:
    to = restore(channel, row["address"])
    return Doubt(row["id"], row["n"], to, row["started_at"], row["settled_at"], beside.taken) if to else None
