"""One batch from claim to outcome: claim, expire, gate (consent, timing, intent), render, send, settle.

The file to read first. A ring is only a doorbell: whatever is due in the lane is taken in hand, a batch of one channel
at a time, until nothing is. Rung twice, or not at all, nothing is sent twice or lost: the rows say what is to be done.

An exception out of here is a bug or a database that is gone. The process then ends, and what it had in hand is put
right by `sweep`, from the rows and from the journal.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeAlias, cast
from uuid import UUID

import structlog

from notifier.dispatch.brakes import brake
from notifier.dispatch.composing import Composer
from notifier.dispatch.consequences import Consequences, Locked
from notifier.dispatch.gate import Gate, Permitted
from notifier.dispatch.pausing import Said, pause_or_resume
from notifier.dispatch.settling import settled, tried, write
from notifier.dispatch.turns import Turns
from notifier.dispatch.witness import BatchWitness, Hold
from notifier.domain import retry
from notifier.domain.messages import Lane, State
from notifier.domain.retry import Settlement
from notifier.domain.throttling import asks_to_slow
from notifier.journal import Journal
from notifier.limits import Limits
from notifier.store import batches, events, messages, providers
from notifier.store.batches import Campaign, PlannedBatch
from notifier.store.database import AWAY, Connection, Database, Row
from notifier.store.messages import Claimed, Settled, Taken
from notifier.telemetry import where
from notifier.throttles import ProviderThrottle
from notifier_channels.contract import (
    BadAddress,
    Channel,
    Content,
    Misconfigured,
    OptedOut,
    Outcome,
    Outgoing,
    Provider,
    Receipt,
    Rejected,
    Withheld,
)

log = structlog.get_logger(__name__)

AnyProvider: TypeAlias = Provider[Any]  #: each channel's provider takes content of its own kind

PROBE_BATCH = 1  #: what a paused provider is tried again with
#: What says nothing of the provider, like a message that expired or could not be rendered: the probe goes to the next.
OF_THE_MESSAGE = (Rejected, BadAddress, OptedOut, Withheld)
LOOK_UP = 0.5  #: seconds between looks at whether the process is told to stop
SETTLE_AGAIN = 0.5  #: seconds between tries to write outcomes while the database is away


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one channel that are in hand."""

    channel: Channel
    claimed: Sequence[Claimed] | PlannedBatch
    is_probe: bool = False  #: whether the provider, which is paused, takes anything again

    @property
    def size(self) -> int:
        """How many messages may come of it."""
        return len(self.claimed.recipients if isinstance(self.claimed, PlannedBatch) else self.claimed)


@dataclass(frozen=True, slots=True)
class Deliver:
    """Brings due messages of one lane to an outcome."""

    database: Database
    gate: Gate
    compose: Composer
    providers: Mapping[Channel, AnyProvider]
    throttles: Mapping[Channel, ProviderThrottle]
    turns: Turns
    limits: Limits
    consequences: Consequences
    journal: Journal
    hold: Hold
    lane: Lane
    worker: int
    batch_size: int
    send_timeout: timedelta

    async def __call__(self, rung: Sequence[UUID] = ()) -> None:
        """Bring everything that is due in the lane to an outcome, beginning with what was rung for."""
        turn, busy = 0, True
        while busy and not self.hold.closing:
            async with self.journal.batch():
                with ExitStack() as hand:
                    batch = await self._claim(rung, turn, hand)
                    if batch is not None:
                        await self._bring(batch)
            rung, turn, busy = (), turn + 1, batch is not None

    async def _bring(self, batch: Batch) -> None:
        await self._wait_for_room(batch)
        permitted = await self._gate(batch.claimed)
        outgoing, spoiled = self.compose(permitted)
        outcomes = await self._send(batch.channel, permitted, outgoing)
        await self._settle(permitted, outcomes, spoiled)
        if batch.is_probe and all(isinstance(one, OF_THE_MESSAGE) for one in outcomes.values()):
            async with self.database.connection() as c:
                await providers.give_probe_back(c, self.providers[batch.channel].name)
        others = _not_taken(outcomes)
        told = sum(map(asks_to_slow, others.values()))
        await self.throttles[batch.channel].learn(len(outcomes) - len(others), told)

    async def _wait_for_room(self, batch: Batch) -> None:
        """Throttled marketing waits here, as nothing should between intent and wire; a shutdown cuts it short."""
        opens_at = time.monotonic() + await self.throttles[batch.channel].turn(batch.size)
        while (left := opens_at - time.monotonic()) > 0 and not self.hold.closing:  # noqa: ASYNC110  # by a thread
            await asyncio.sleep(min(left, LOOK_UP))

    # Claim ------------------------------------------------------------------------------------------------------------

    async def _claim(self, rung: Sequence[UUID], turn: int, hand: ExitStack) -> Batch | None:
        """A batch of what is due. Every other turn what campaigns planned comes first: neither waits for the other."""
        async with self.database.connection() as c:
            limits, paused = await self._open_channels(c)
            for channel in self.turns.order(await self._waiting(c, limits)):
                if not self.turns.may_take(channel):
                    continue
                with ExitStack() as tried:
                    tried.enter_context(self.turns.held(channel))
                    claim = self._claim_probe if channel in paused else self._claim_on
                    if batch := await claim(c, channel, rung, limits[channel], turn):
                        hand.push(tried.pop_all())
                        return batch
        return None

    async def _claim_probe(
        self, c: Connection, channel: Channel, rung: Sequence[UUID], limit: int, turn: int
    ) -> Batch | None:
        """When a pause runs out, one process tries that provider with one message."""
        name = self.providers[channel].name
        if not await providers.take_probe(c, name, retry.PROBE_AFTER):
            return None
        if batch := await self._claim_on(c, channel, rung, limit, turn):
            return replace(batch, is_probe=True)
        await providers.give_probe_back(c, name)
        return None

    async def _waiting(self, c: Connection, limits: Mapping[Channel, int]) -> Collection[Channel]:
        """With one channel, the claim itself is the look."""
        if len(limits) <= 1:
            return limits
        waiting = await messages.waiting(c, self.lane, list(limits))
        return waiting | await batches.waiting(c, list(limits)) if self.lane is Lane.MARKETING else waiting

    async def _claim_on(
        self, c: Connection, channel: Channel, rung: Sequence[UUID], limit: int, turn: int
    ) -> Batch | None:
        planned_first = turn % 2 == 1 and not rung
        if planned_first and (planned := await self._claim_planned(c, channel, limit)):
            return Batch(channel, planned)
        if claimed := await self._claim_of(c, channel, rung, limit, suspects_first=turn % 2 == 1):
            return Batch(channel, claimed)
        if not planned_first and (planned := await self._claim_planned(c, channel, limit)):
            return Batch(channel, planned)
        return None

    async def _claim_planned(self, c: Connection, channel: Channel, limit: int) -> PlannedBatch | None:
        """A campaign's batch whose place in the campaign's rate has come; one of a later step only queues."""
        while self.lane is Lane.MARKETING:
            batch = await batches.claim(c, self.worker, channel, limit)
            if batch is None or batch.rate is None or batch.is_paced or batch.step:
                return batch
            name = f"campaign {batch.campaign_id} {batch.rate}"  # another rate does not wait for the places of the last
            wait = await self.limits.place(name, batch.rate, len(batch.recipients))
            if wait <= 0:
                return batch
            await batches.give_back(c, self.worker, batch, wait, is_paced=True)
        return None

    async def _claim_of(
        self, c: Connection, channel: Channel, rung: Sequence[UUID], limit: int, *, suspects_first: bool
    ) -> list[Claimed]:
        if suspects_first and (suspects := await messages.claim_suspect(c, self.lane, self.worker, channel)):
            return suspects
        batch = await messages.claim(c, self.lane, self.worker, channel, rung, limit)
        if batch or suspects_first:
            return batch
        return await messages.claim_suspect(c, self.lane, self.worker, channel)

    async def _open_channels(self, c: Connection) -> tuple[dict[Channel, int], set[Channel]]:
        """The channels that may be claimed for, with the largest batch of each; and those whose pause has run out."""
        pauses = {row["provider"]: row["has_run_out"] for row in await providers.paused(c)}
        sizes: dict[Channel, int] = {}
        for channel, provider in self.providers.items():
            if provider.name not in pauses:
                most = min(self.batch_size, provider.most_at_once)
                sizes[channel] = await self.throttles[channel].most(most)
            elif pauses[provider.name]:
                sizes[channel] = PROBE_BATCH
        return sizes, {channel for channel in sizes if self.providers[channel].name in pauses}

    # Gate -------------------------------------------------------------------------------------------------------------

    async def _gate(self, batch: Sequence[Claimed] | PlannedBatch) -> list[Permitted]:
        """Decide, and commit the intent of what may go."""
        if isinstance(batch, PlannedBatch):
            return await self.database.transact(lambda c: self.gate.planned(c, batch))
        return await self.database.transact(lambda c: self.gate.queued(c, batch)) if batch else []

    # Send -------------------------------------------------------------------------------------------------------------

    async def _send(
        self, channel: Channel, permitted: Sequence[Permitted], batch: Sequence[Outgoing[Content]]
    ) -> dict[UUID, Outcome]:
        """Hand the channel the batch; the witness has the last word, and the only one where the channel has none."""
        if not batch:
            return {}
        provider = self.providers[channel]
        attempts = {one.permit.message: one.attempt for one in permitted}
        timeout = self.send_timeout.total_seconds()
        witness = BatchWitness(self.journal, self.hold, attempts, time.monotonic() + timeout)
        outcomes: dict[UUID, Outcome] = {}
        try:
            async with asyncio.timeout(timeout), aclosing(_closable(provider.send(batch, witness))) as answers:
                async for message, outcome in answers:
                    outcomes[message] = outcome  # noqa: PERF403  # what came before a cut-off must stay
        except TimeoutError:
            log.warning("batch.cut_off", provider=provider.name, left=len(batch) - len(outcomes))
        except (Exception, asyncio.CancelledError) as error:  # a channel that breaks its contract leaves doubt
            if _is_told_to_end():
                raise
            log.error("channel.broken", provider=provider.name, error=type(error).__name__, at=where(error))
        return {one.id: witness.outcome_of(one.id, outcomes.get(one.id)) for one in batch}

    # Settle -----------------------------------------------------------------------------------------------------------

    async def _settle(
        self, permitted: Sequence[Permitted], outcomes: Mapping[UUID, Outcome], spoiled: Mapping[UUID, Settlement]
    ) -> None:
        """Write every outcome, however long the database is away: what is known must not become doubt."""
        while permitted:
            try:
                await self.database.transact(lambda c: self._write(c, permitted, outcomes, spoiled))
            except AWAY as error:
                log.warning("settle.waits", error=type(error).__name__)
                await asyncio.sleep(SETTLE_AGAIN)
            else:
                return

    async def _write(
        self,
        c: Connection,
        permitted: Sequence[Permitted],
        outcomes: Mapping[UUID, Outcome],
        spoiled: Mapping[UUID, Settlement],
    ) -> None:
        not_taken = _not_taken(outcomes)
        locked = await self.consequences.lock(c, not_taken)
        await messages.lock(c, [one.permit.message for one in permitted])
        others = await self._write_taken(c, permitted, outcomes)
        if others:
            await self._write_others(c, others, outcomes, spoiled, locked)
        await pause_or_resume(c, self._said(permitted, outcomes))
        ours = {id_ for id_, outcome in not_taken.items() if isinstance(outcome, Misconfigured)} | spoiled.keys()
        for campaign, of in _by_campaign(permitted):
            await brake(c, campaign, of, ours)
        if (batch := permitted[0].batch) is not None:
            await batches.done(c, batch)

    async def _write_taken(
        self, c: Connection, permitted: Sequence[Permitted], outcomes: Mapping[UUID, Outcome]
    ) -> list[Permitted]:
        """What the provider took, which is nearly all of a batch; the rest is returned."""
        taken: list[Taken] = []
        others: list[Permitted] = []
        for one in permitted:
            outcome = outcomes.get(one.permit.message)
            if isinstance(outcome, Receipt):
                taken.append(Taken(one.permit.message, one.attempt.n, outcome.code, outcome.reference))
            else:
                others.append(one)
        if taken:
            written = await messages.take(c, self.worker, taken)
            await events.apply_pending(c, [one.id for one in written if one.is_reported])
            await messages.wake_followers(c, [one.id for one in written if one.is_followed])
        return others

    async def _write_others(
        self,
        c: Connection,
        others: Sequence[Permitted],
        outcomes: Mapping[UUID, Outcome],
        spoiled: Mapping[UUID, Settlement],
        locked: Locked,
    ) -> None:
        attempts = {one.permit.message: one.attempt.n for one in others}
        rows = await messages.lock_attempted(c, self.worker, attempts)
        news = [_news(row, outcomes.get(row["id"]), spoiled.get(row["id"])) for row in rows]
        written = [one for one in news if one is not None]
        await write(c, written)
        await messages.wake_followers(c, [row["id"] for row in rows if row["is_followed"]])
        await self.consequences.follow(c, locked, written)

    def _said(self, permitted: Sequence[Permitted], outcomes: Mapping[UUID, Outcome]) -> list[Said]:
        """What the provider said of itself, or of one platform: of what it took, once is enough."""
        said: list[Said] = []
        proven: dict[str | None, Said] = {}
        for one in permitted:
            name, platform = self.gate.providers[one.attempt.channel], one.facts["platform"]
            match outcomes.get(one.permit.message):
                case None:
                    continue
                case Receipt() as outcome:
                    if platform not in proven:
                        proven[platform] = Said(name, platform, outcome)
                case outcome:
                    said.append(Said(name, platform, outcome))
        return [*proven.values(), *said]


def _is_told_to_end() -> bool:
    """Whether this task was cancelled; else a cancellation that comes by is that of something within a channel."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _closable(answers: AsyncIterator[tuple[UUID, Outcome]]) -> AsyncGenerator[tuple[UUID, Outcome], None]:
    """The contract promises that it can be closed early; the type of what channels write says only that it iterates."""
    return cast("AsyncGenerator[tuple[UUID, Outcome], None]", answers)


def _not_taken(outcomes: Mapping[UUID, Outcome]) -> dict[UUID, Outcome]:
    """Mostly few: all that has more to say than that a provider has it."""
    return {id_: outcome for id_, outcome in outcomes.items() if not isinstance(outcome, Receipt)}


def _by_campaign(permitted: Sequence[Permitted]) -> Collection[tuple[Campaign, Sequence[UUID]]]:
    """The messages of campaigns, in the order in which they were sent. Tests say nothing of the rest."""
    found: dict[int, tuple[Campaign, list[UUID]]] = {}
    for one in permitted:
        if one.campaign is not None and not one.facts["is_test"]:  # those of one campaign share one object
            found.setdefault(id(one.campaign), (one.campaign, []))[1].append(one.permit.message)
    return found.values()


def _news(row: Row, outcome: Outcome | None, spoiled: Settlement | None) -> Settled | None:
    """What to write; None when a late answer brings nothing new to a message that is in doubt already."""
    if spoiled is not None:
        return settled(row, spoiled)
    outcome = outcome or Withheld()
    settlement = retry.settle(outcome, tried(row), row["now"], random.random())
    return None if row["state"] == State.UNKNOWN == settlement.state else settled(row, settlement, outcome)
