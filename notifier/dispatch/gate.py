"""The gate: consent and timing, read under the locks of a batch's people, decide each message, and intent is committed.

The only place where an attempt is born (I2).
A batch comes in one of two ways: as messages that waited in the queue, or as a slice of a campaign's audience, whose
messages are born here.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from notifier.dispatch.judging import Judge, Known, as_message
from notifier.dispatch.pausing import hold
from notifier.dispatch.witness import Attempt
from notifier.domain.campaigns import CampaignState
from notifier.domain.consent import Deferral, Permit, Refusal, Rule, Verdict
from notifier.domain.messages import Ids, State
from notifier.domain.routing import LOOK_AGAIN, Earlier, Turn
from notifier.errors import TemplateError
from notifier.store import batches, messages, recipients
from notifier.store.addresses import restore
from notifier.store.batches import Born, Campaign, PlannedBatch, Times
from notifier.store.database import Connection, Row
from notifier.store.messages import Claimed, Intent, Ruling
from notifier_channels.contract import Address, Channel


class Permitted(NamedTuple):
    """A message whose intent is committed."""

    permit: Permit
    attempt: Attempt
    first_attempted_at: datetime
    address: Address
    facts: Row
    campaign: Campaign | None = None
    batch: PlannedBatch | None = None  #: that it was born in


@dataclass(frozen=True, slots=True)
class Gate:
    """Decides for one worker."""

    worker: int
    judge: Judge
    providers: Mapping[Channel, str]  #: their names
    _ids: Ids = field(default_factory=Ids)

    # What waited in the queue -----------------------------------------------------------------------------------------

    async def queued(self, c: Connection, batch: Sequence[Claimed]) -> list[Permitted]:
        """Decide about messages that this worker has claimed."""
        # Locking and reading are two statements: in one, the snapshot would predate the wait for an opt-out (I2).
        locked = {claimed.recipient_id for claimed in batch}
        await recipients.lock(c, list(locked))
        held = await messages.lock_claimed(c, self.worker, [claimed.id for claimed in batch])
        facts = await messages.facts_of(c, held)
        moved = [row["id"] for row in facts if row["recipient_id"] not in locked]  # adopted since the claim
        await messages.release(c, self.worker, moved, State.CLAIMED)
        facts = [row for row in facts if row["recipient_id"] in locked]
        of = {row["campaign_id"] for row in facts if row["campaign_id"]}
        campaigns = await batches.campaigns(c, of) if of else {}
        await _expire_with(c, facts, campaigns)
        on_hold = await hold(c, facts, self.providers)
        facts = [row for row in facts if row["id"] not in on_hold]
        await self.judge.shelf.fetch(c, {row["template_version"] for row in facts})
        turns = await self._turns(c, [row for row in facts if row["step"]])
        decided = await self.judge(c, facts, Known(campaigns, turns, await _taken(c, facts)))
        await messages.rule(c, self.worker, [*on_hold.values(), *(_ruling(verdict) for _, verdict in decided)])
        ended = [row["id"] for row, verdict in decided if row["is_followed"] and isinstance(verdict, Refusal)]
        await messages.wake_followers(c, ended)
        permits = [row["id"] for row, verdict in decided if isinstance(verdict, Permit)]
        intents = await messages.intend(c, self.worker, permits, self.providers)
        return self._permitted(decided, intents, campaigns)

    # What a campaign planned ------------------------------------------------------------------------------------------

    async def planned(self, c: Connection, batch: PlannedBatch) -> list[Permitted]:
        """Decide about a slice of an audience: its messages are inserted as they are decided."""
        if not await batches.hold(c, self.worker, batch):
            return []
        people = {*(await recipients.lock_survivors(c, batch.recipients)).values()}
        campaigns = await batches.campaigns(c, [batch.campaign_id])
        campaign = campaigns[batch.campaign_id]
        if await self._laid_aside(c, batch, people, campaign.state):
            return []
        await self.judge.shelf.fetch(c, [batch.template_version])
        times = self._times_of(batch, campaign)
        found = await batches.facts_of(c, batch.channel, people)
        facts = [as_message(row, self._new_id(), batch, times.expires_at) for row in found]
        permitted = await self._bear(c, batch, times, facts, campaigns)
        if not permitted:
            await batches.done(c, batch)
        return permitted

    async def _laid_aside(
        self, c: Connection, batch: PlannedBatch, people: Collection[UUID], state: CampaignState
    ) -> bool:
        """True when nothing of it is decided now: its campaign was stopped, or an earlier channel is behind."""
        if state in (CampaignState.CANCELLED, CampaignState.FINISHED):
            await batches.leave_out(c, batch, str(state))
        elif state is CampaignState.PAUSED:
            await batches.give_back(c, self.worker, batch, is_paced=batch.is_paced)
        elif batch.step and await batches.awaits(c, batch, {*batch.recipients, *people}):
            await batches.give_back(c, self.worker, batch, LOOK_AGAIN.total_seconds(), is_paced=batch.is_paced)
        else:
            return False
        return True

    async def _bear(
        self,
        c: Connection,
        batch: PlannedBatch,
        times: Times,
        facts: Sequence[Row],
        campaigns: Mapping[UUID, Campaign],
    ) -> list[Permitted]:
        provider = self.providers[batch.channel]
        if batch.step:  # the gate is asked again when its turn comes
            await batches.bear(c, self.worker, batch, times, [_later(row) for row in facts], provider)
            return []
        on_hold = await hold(c, facts, self.providers)
        held = [_born(row, on_hold[row["id"]]) for row in facts if row["id"] in on_hold]
        facts = [row for row in facts if row["id"] not in on_hold]
        decided = await self.judge(c, facts, Known(campaigns, taken=await _taken(c, facts)))
        born = [_born(row, _ruling(verdict)) for row, verdict in decided]
        intents = await batches.bear(c, self.worker, batch, times, [*born, *held], provider)
        return self._permitted(decided, intents, campaigns, batch)

    def _new_id(self) -> UUID:
        return self._ids.new(time.time_ns() // 1_000_000)

    def _times_of(self, batch: PlannedBatch, campaign: Campaign) -> Times:
        if campaign.expires_at is None:
            raise AssertionError("what is scheduled has an end")
        try:
            template = self.judge.shelf[batch.template_version]
        except TemplateError:  # nothing of it will be rendered
            return Times(campaign.expires_at, batch.starts_at if batch.step else None)
        steps = template.steps(self.providers)
        turn_at = template.route.turn_at(batch.step, batch.starts_at) if batch.step else None
        return Times(campaign.expires_at, turn_at, is_followed=batch.step < max(steps.values(), default=0))

    async def _turns(self, c: Connection, later: Sequence[Row]) -> dict[UUID, Turn]:
        """Of messages that wait for others of their notification or campaign, how those stand."""
        if not later:
            return {}
        earlier: dict[UUID, list[Earlier]] = {row["id"]: [] for row in later}
        for row in await messages.earlier_of(c, list(earlier)):
            found = Earlier(Channel(row["channel"]), State(row["state"]), row["reason"], row["due_at"])
            earlier[row["id"]].append(found)
        return {row["id"]: Turn(self.judge.mode(row), row["turn_at"], earlier[row["id"]]) for row in later}

    # Permitted --------------------------------------------------------------------------------------------------------

    def _permitted(
        self,
        decided: Sequence[tuple[Row, Verdict]],
        intents: Sequence[Intent],
        campaigns: Mapping[UUID, Campaign],
        batch: PlannedBatch | None = None,
    ) -> list[Permitted]:
        """Those that may go and whose attempt was inserted, in the order of their ids."""
        attempts = {intent.message_id: intent for intent in intents}
        return [
            Permitted(
                verdict,
                Attempt(intent.n, intent.number, row["recipient_id"], self.judge.topic(row), Channel(row["channel"])),
                intent.first_attempted_at,
                _address(row),
                row,
                campaigns.get(row["campaign_id"]),
                batch,
            )
            for row, verdict in decided
            if isinstance(verdict, Permit) and (intent := attempts.get(row["id"]))
        ]


async def _expire_with(c: Connection, facts: Sequence[Row], campaigns: Mapping[UUID, Campaign]) -> None:
    """Whoever changes a campaign's expiry changes that of what waits: what was in hand then hears of it here."""
    other: dict[UUID, datetime] = {}
    for row in facts:
        campaign = campaigns.get(row["campaign_id"])
        if campaign and campaign.expires_at not in (None, row["expires_at"]) and not row["is_test"]:
            row["expires_at"] = other[row["id"]] = campaign.expires_at
    if other:
        await messages.expire_at(c, other)


async def _taken(c: Connection, facts: Sequence[Row]) -> set[tuple[UUID, bytes]]:
    """The shared addresses of these messages at which their campaigns have gone to somebody already."""
    shared: defaultdict[tuple[UUID, Channel], set[bytes]] = defaultdict(set)
    for row in facts:
        if row["is_shared"]:
            shared[row["campaign_id"], Channel(row["channel"])].add(row["address_hash"])
    found = [await batches.lock_shared(c, *of, shared[of]) for of in sorted(shared)]
    return set().union(*found)


def _ruling(verdict: Verdict) -> Ruling:
    note = verdict.decision.written
    match verdict:
        case Permit():
            return Ruling(verdict.message, State.SENDING, note)
        case Deferral(until=until, decision=decision):
            return Ruling(verdict.message, State.QUEUED, note, decision.reason, until)
        case Refusal(decision=decision):
            state = State.EXPIRED if decision.rule is Rule.EXPIRED else State.SUPPRESSED
            return Ruling(verdict.message, state, note, decision.reason)


def _born(row: Row, ruling: Ruling) -> Born:
    who = row["recipient_id"], row["address_id"]
    return Born(row["id"], *who, ruling.state, ruling.decision, ruling.reason, ruling.due_at)


def _later(row: Row) -> Born:
    """Of a later step: it waits for its turn, and is decided then."""
    return Born(row["id"], row["recipient_id"], row["address_id"], State.QUEUED, None, None, row["now"])


def _address(row: Row) -> Address:
    address = restore(Channel(row["channel"]), row["address"])
    if address is None:
        raise AssertionError("without an address the gate permits nothing")
    return address
