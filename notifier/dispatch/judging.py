"""From rows to verdicts: what is known of each message's person and address becomes `decide`'s question and its facts.

The gate asks under locks, before an attempt; a dry-run asks without any, about an instant to come. Both ask here, so
what a dry-run counts is what the gate will say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from notifier.dispatch.shelf import Shelf
from notifier.dispatch.timing import Timing
from notifier.domain.caps import Sent
from notifier.domain.consent import (
    Deferral,
    Facts,
    Permit,
    Question,
    Topic,
    Verdict,
    decide,
)
from notifier.domain.messages import Category
from notifier.domain.recipients import HashedAddress, Hasher
from notifier.domain.routing import Mode, Turn
from notifier.errors import TemplateError
from notifier.rendering import Templates
from notifier.store import consent, suppressions
from notifier.store.addresses import restore
from notifier.store.batches import Campaign, PlannedBatch
from notifier.store.database import Connection, Row
from notifier_channels.contract import Channel


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a batch's messages beside the person and the address."""

    campaigns: Mapping[UUID, Campaign] = field(default_factory=dict)  #: as they stand now
    turns: Mapping[UUID, Turn] = field(default_factory=dict)  #: of messages of a later step
    taken: Collection[tuple[UUID, bytes]] = ()  #: shared addresses at which a campaign has gone to somebody already
    at: datetime | None = None  #: the instant that is asked about, when it is not now


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides about messages, each at the instant `now` of its row."""

    templates: Templates
    shelf: Shelf
    timing: Timing
    hasher: Hasher

    async def __call__(self, c: Connection, facts: Sequence[Row], known: Known) -> list[tuple[Row, Verdict]]:
        """A verdict for each, in the order of their ids. Their template versions are on the shelf."""
        # Of two for one person, the older one goes first.
        cases = [self._case(row, known) for row in sorted(facts, key=lambda row: row["id"].int)]
        said = await consent.events_of(c, [row["recipient_id"] for row, _, _ in cases])
        standing = await suppressions.in_force(c, {(row["channel"], one) for row, _, hashes in cases for one in hashes})
        capped = [(row["recipient_id"], question.caps) for row, question, _ in cases if question.caps]
        sent = await self.timing.sent(c, capped, known.at)
        doubled = set(known.taken)
        decided: list[tuple[Row, Verdict]] = []
        for row, question, hashes in cases:
            person, is_shared = row["recipient_id"], row["is_shared"]
            found = Facts(
                said.get(person, ()),
                [one for digest in hashes for one in standing.get(digest, ())] if standing else (),
                row["removed_at"] is None,
                row["snoozed_until"],
                self.timing.hours_of(question.topic, row),
                sent[person] if question.caps else (),
                is_shared and (row["campaign_id"], row["address_hash"]) in doubled,
            )
            verdict = decide(question, found, row["now"])
            decided.append((row, verdict))
            if question.caps and isinstance(verdict, Permit):
                sent[person].append(Sent(row["now"], question.topic.key, question.channel))
            # What of a later step is laid aside may yet prove needless.
            if is_shared and isinstance(verdict, Permit if row["step"] else Permit | Deferral):
                doubled.add((row["campaign_id"], row["address_hash"]))
        return decided

    def topic(self, row: Row) -> Topic:
        """As it is declared here; else as it was when the message was accepted, by a newer release or an older one."""
        if (here := self.templates.topics.get(row["topic"])) is not None:
            return here
        try:
            return self.shelf[row["template_version"]].topic
        except TemplateError:  # it will not be rendered either
            return Topic(row["topic"], Category(row["category"]), {})

    def mode(self, row: Row) -> Mode:
        """As it was when the message was accepted: its steps were planned by it."""
        try:
            return self.shelf[row["template_version"]].route.mode
        except TemplateError:  # it will not be rendered
            return Mode.ALL

    def _case(self, row: Row, known: Known) -> tuple[Row, Question, list[bytes]]:
        """What is asked about a message, and under which hashes its address may be suppressed."""
        topic, channel = self.topic(row), Channel(row["channel"])
        campaign = known.campaigns.get(row["campaign_id"]) if row["campaign_id"] else None
        question = Question(
            row["id"],
            topic,
            channel,
            row["expires_at"],
            known.turns.get(row["id"]) if known.turns else None,
            self.timing.caps_of(topic, channel),
            self.timing.spread,
            campaign.state if campaign and not row["is_test"] else None,
        )
        return row, question, self._hashes(row)

    def _hashes(self, row: Row) -> list[bytes]:
        """Under what its address may be suppressed; of an erased one only the hash is left."""
        stored = HashedAddress(row["hash_key"], row["address_hash"])
        return self.hasher.known(stored, lambda: restore(Channel(row["channel"]), row["address"]))


def as_message(row: Row, id_: UUID, batch: PlannedBatch, expires_at: datetime) -> Row:
    """The facts of an address as those of the campaign's message that it is going to be."""
    row.update(
        id=id_,
        campaign_id=batch.campaign_id,
        is_test=False,
        channel=batch.channel,
        category=batch.category,
        topic=batch.topic,
        template_version=batch.template_version,
        expires_at=expires_at,
        step=batch.step,
    )
    return row
