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
from notifier.domain.caps import Cap, Sent
from notifier.domain.consent import (
    ConsentEvent,
    Deferral,
    Facts,
    Permit,
    Question,
    Suppression,
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
        said = await consent.events_of(c, [row["recipient_id"] for row in facts])
        hashes = [self._hashes(row) for row in facts]
        standing = await suppressions.in_force(
            c, {(row["channel"], digest) for row, digests in zip(facts, hashes, strict=True) for digest in digests}
        )
        caps = [self.timing.caps_of(self.topic(row), Channel(row["channel"])) for row in facts]
        capped = [(row["recipient_id"], some) for row, some in zip(facts, caps, strict=True) if some]
        sent = await self.timing.sent(c, capped, known.at)
        doubled = set(known.taken)
        decided: list[tuple[Row, Verdict]] = []
        # Of two for one person, the older one goes first.
        for row, digests, some in sorted(zip(facts, hashes, caps, strict=True), key=lambda one: one[0]["id"].int):
            person = row["recipient_id"]
            found = self._facts(
                row,
                said.get(person, ()),
                [one for digest in digests for one in standing.get(digest, ())] if standing else (),
                sent[person] if some else (),
                is_doubled=(row["campaign_id"], row["address_hash"]) in doubled,
            )
            question = self._question(row, some, known)
            verdict = decide(question, found, row["now"])
            decided.append((row, verdict))
            if some and isinstance(verdict, Permit):
                sent[person].append(Sent(row["now"], question.topic.key, question.channel))
            # What of a later step is laid aside may yet prove needless.
            if row["is_shared"] and isinstance(verdict, Permit if row["step"] else Permit | Deferral):
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

    def _question(self, row: Row, caps: Sequence[Cap], known: Known) -> Question:
        campaign = known.campaigns.get(row["campaign_id"])
        return Question(
            row["id"],
            self.topic(row),
            Channel(row["channel"]),
            row["expires_at"],
            known.turns.get(row["id"]) if known.turns else None,
            caps,
            self.timing.spread,
            campaign.state if campaign and not row["is_test"] else None,
        )

    def _facts(
        self,
        row: Row,
        said: Sequence[ConsentEvent],
        against: Sequence[Suppression],
        sent: Sequence[Sent],
        *,
        is_doubled: bool,
    ) -> Facts:
        hours = self.timing.hours_of(self.topic(row), row)
        has_address = row["removed_at"] is None
        return Facts(said, against, has_address, row["snoozed_until"], hours, sent, is_doubled)

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
