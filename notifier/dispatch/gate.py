"""The gate: consent and timing, read under the locks of a batch's people, decide each message, and intent is committed.

The only place where an attempt is born (I2).
A batch comes in one of two ways: as messages that waited in the queue, or as a slice of a campaign's audience, whose
messages are born here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from notifier.dispatch.pausing import hold
from notifier.dispatch.shelf import Shelf
from notifier.dispatch.timing import Timing
from notifier.dispatch.witness import Attempt
from notifier.domain.campaigns import CampaignState
from notifier.domain.caps import Cap, Sent
from notifier.domain.consent import (
    ConsentEvent,
    Decision,
    Deferral,
    Facts,
    Permit,
    Question,
    Refusal,
    Rule,
    Suppression,
    Topic,
    Verdict,
    decide,
)
from notifier.domain.messages import Category, Ids, State
from notifier.domain.recipients import HashedAddress, Hasher
from notifier.domain.routing import Earlier, Mode, Turn
from notifier.errors import TemplateError
from notifier.rendering import Templates
from notifier.store import batches, consent, messages, recipients, suppressions
from notifier.store.addresses import restore
from notifier.store.batches import Born, Campaign, PlannedBatch, Times
from notifier.store.database import Connection, Row
from notifier.store.messages import Claimed, Intent, Ruling
from notifier_channels.contract import Address, Channel


@dataclass(frozen=True, slots=True)
class Permitted:
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
    templates: Templates
    shelf: Shelf
    timing: Timing
    hasher: Hasher
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
        on_hold = await hold(c, facts, self.providers)
        facts = [row for row in facts if row["id"] not in on_hold]
        of = {row["campaign_id"] for row in facts if row["campaign_id"]}
        campaigns = await batches.campaigns(c, of) if of else {}
        await self.shelf.fetch(c, {row["template_version"] for row in facts})
        verdicts = await self._decide(c, facts, campaigns)
        await messages.rule(c, self.worker, [*on_hold.values(), *map(_ruling, verdicts.values())])
        ended = [row["id"] for row in facts if row["is_followed"] and isinstance(verdicts[row["id"]], Refusal)]
        await messages.wake_followers(c, ended)
        permits = _permits(verdicts)
        intents = await messages.intend(c, self.worker, list(permits), self.providers)
        return self._permitted(facts, permits, intents, campaigns)

    # What a campaign planned ------------------------------------------------------------------------------------------

    async def planned(self, c: Connection, batch: PlannedBatch) -> list[Permitted]:
        """Decide about a slice of an audience: its messages are inserted as they are decided."""
        if not await batches.hold(c, self.worker, batch):
            return []
        await recipients.lock(c, batch.recipients)
        campaigns = await batches.campaigns(c, [batch.campaign_id])
        campaign = campaigns[batch.campaign_id]
        match campaign.state:
            case CampaignState.PAUSED:
                await batches.give_back(c, self.worker, batch, is_paced=batch.is_paced)
                return []
            case CampaignState.CANCELLED | CampaignState.FINISHED as ended:
                await batches.leave_out(c, batch, str(ended))
                return []
        await self.shelf.fetch(c, [batch.template_version])
        times = self._times_of(batch, campaign)
        facts = [self._as_message(row, batch, times) for row in await batches.facts_of(c, batch)]
        permitted = await self._bear(c, batch, times, facts, campaigns)
        await batches.decided(c, batch, len(batch.recipients) - len({row["recipient_id"] for row in facts}))
        if not permitted:
            await batches.done(c, batch)
        return permitted

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
        shared = {row["address_hash"] for row in facts if row["is_shared"]}
        taken = await batches.lock_shared(c, batch.campaign_id, shared) if shared else set()
        verdicts = await self._decide(c, facts, campaigns, taken)
        born = [_born(row, _ruling(verdicts[row["id"]])) for row in facts]
        intents = await batches.bear(c, self.worker, batch, times, [*born, *held], provider)
        return self._permitted(facts, _permits(verdicts), intents, campaigns, batch)

    def _as_message(self, row: Row, batch: PlannedBatch, times: Times) -> Row:
        """The facts of an address as those of the message that it is going to be."""
        row.update(
            id=self._ids.new(time.time_ns() // 1_000_000),
            campaign_id=batch.campaign_id,
            is_test=False,
            channel=batch.channel,
            category=batch.category,
            topic=batch.topic,
            template_version=batch.template_version,
            expires_at=times.expires_at,
            step=0,
        )
        return row

    def _times_of(self, batch: PlannedBatch, campaign: Campaign) -> Times:
        if campaign.expires_at is None:
            raise AssertionError("what is scheduled has an end")
        try:
            template = self.shelf[batch.template_version]
        except TemplateError:  # nothing of it will be rendered
            return Times(campaign.expires_at)
        steps = template.route.steps(template.channels & self.providers.keys())
        turn_at = template.route.turn_at(batch.step, batch.starts_at) if batch.step else None
        return Times(campaign.expires_at, turn_at, is_followed=batch.step < max(steps.values(), default=0))

    # Deciding ---------------------------------------------------------------------------------------------------------

    async def _decide(
        self,
        c: Connection,
        facts: Sequence[Row],
        campaigns: Mapping[UUID, Campaign],
        taken: Collection[bytes] = (),
    ) -> dict[UUID, Verdict]:
        """`taken`: the shared addresses at which the campaign has gone to somebody already."""
        said = await consent.events_of(c, [row["recipient_id"] for row in facts])
        hashes = {row["id"]: self._hashes(row) for row in facts}
        asked = {(Channel(row["channel"]), digest) for row in facts for digest in hashes[row["id"]]}
        standing = await suppressions.in_force(c, asked)
        turns = await self._turns(c, [row for row in facts if row["step"]])
        caps = {row["id"]: self.timing.caps_of(self._topic(row), Channel(row["channel"])) for row in facts}
        sent = await self.timing.sent(c, [(row["recipient_id"], caps[row["id"]]) for row in facts])
        doubled = set(taken)
        verdicts: dict[UUID, Verdict] = {}
        for row in sorted(facts, key=lambda row: row["id"]):  # of two for one person, the older one goes first
            id_, person = row["id"], row["recipient_id"]
            against = [one for digest in hashes[id_] for one in standing.get(digest, ())]
            question = self._question(row, turns.get(id_), caps[id_], campaigns)
            known = self._known(row, said[person], against, sent[person], is_doubled=row["address_hash"] in doubled)
            verdict = verdicts[id_] = decide(question, known, row["now"])
            if caps[id_] and isinstance(verdict, Permit):
                sent[person].append(Sent(row["now"], question.topic.key, question.channel))
            if row.get("is_shared") and not isinstance(verdict, Refusal):
                doubled.add(row["address_hash"])
        return verdicts

    def _question(
        self, row: Row, turn: Turn | None, caps: Sequence[Cap], campaigns: Mapping[UUID, Campaign]
    ) -> Question:
        topic, channel = self._topic(row), Channel(row["channel"])
        campaign = campaigns.get(row["campaign_id"])
        state = campaign.state if campaign and not row["is_test"] else None
        return Question(row["id"], topic, channel, row["expires_at"], turn, caps, self.timing.spread, state)

    def _known(
        self,
        row: Row,
        said: Sequence[ConsentEvent],
        against: Sequence[Suppression],
        sent: Sequence[Sent],
        *,
        is_doubled: bool,
    ) -> Facts:
        hours = self.timing.hours_of(self._topic(row), row)
        has_address = row["removed_at"] is None
        return Facts(said, against, has_address, row["snoozed_until"], hours, sent, is_doubled)

    def _hashes(self, row: Row) -> list[bytes]:
        """Under what its address may be suppressed; of an erased one only the hash is left."""
        stored = HashedAddress(row["hash_key"], row["address_hash"])
        return self.hasher.known(stored, lambda: restore(Channel(row["channel"]), row["address"]))

    async def _turns(self, c: Connection, later: Sequence[Row]) -> dict[UUID, Turn]:
        """Of messages that wait for others of their notification or campaign, how those stand."""
        if not later:
            return {}
        earlier: dict[UUID, list[Earlier]] = {row["id"]: [] for row in later}
        for row in await messages.earlier_of(c, list(earlier)):
            earlier[row["id"]].append(Earlier(Channel(row["channel"]), State(row["state"]), row["reason"]))
        return {row["id"]: Turn(self._mode(row), row["turn_at"], earlier[row["id"]]) for row in later}

    def _mode(self, row: Row) -> Mode:
        """As it was when the message was accepted: its steps were planned by it."""
        try:
            return self.shelf[row["template_version"]].route.mode
        except TemplateError:  # it will not be rendered
            return Mode.ALL

    def _topic(self, row: Row) -> Topic:
        """As it is declared here; else as it was when the message was accepted, by a newer release or an older one."""
        if (here := self.templates.topics.get(row["topic"])) is not None:
            return here
        try:
            return self.shelf[row["template_version"]].topic
        except TemplateError:  # it will not be rendered either
            return Topic(row["topic"], Category(row["category"]), {})

    # Permitted --------------------------------------------------------------------------------------------------------

    def _permitted(
        self,
        facts: Sequence[Row],
        permits: Mapping[UUID, Permit],
        intents: Sequence[Intent],
        campaigns: Mapping[UUID, Campaign],
        batch: PlannedBatch | None = None,
    ) -> list[Permitted]:
        rows = {row["id"]: row for row in facts}
        return [
            Permitted(
                permits[intent.message_id],
                self._attempt(intent, row := rows[intent.message_id]),
                intent.first_attempted_at,
                _address(row),
                row,
                campaigns.get(row["campaign_id"]),
                batch,
            )
            for intent in intents
        ]

    def _attempt(self, intent: Intent, row: Row) -> Attempt:
        return Attempt(intent.n, intent.number, row["recipient_id"], self._topic(row), Channel(row["channel"]))


def _permits(verdicts: Mapping[UUID, Verdict]) -> dict[UUID, Permit]:
    return {id_: verdict for id_, verdict in verdicts.items() if isinstance(verdict, Permit)}


@lru_cache(maxsize=1024)
def _text(decision: Decision) -> str:
    """As it stays on the message. Most messages of a batch rest on the same."""
    return json.dumps(decision.note)


def _ruling(verdict: Verdict) -> Ruling:
    note = _text(verdict.decision)
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
