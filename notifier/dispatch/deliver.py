"""One batch from claim to outcome: claim, expire, gate (consent, timing, intent), render, send, settle.

The file to read first. A ring is only a doorbell: whatever is due in the lane is taken in hand, a batch at a time,
until nothing is. Rung twice, or not at all, nothing is sent twice or lost: the rows say what is to be done.

An exception out of here is a bug or a database that is gone. The process then ends, and what it had in hand is put
right by `sweep`, from the rows and from the journal.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

import structlog

from notifier.dispatch.settling import settled, tried, write
from notifier.dispatch.shelf import Shelf
from notifier.dispatch.witness import Attempt, BatchWitness, Hold
from notifier.domain import retry
from notifier.domain.consent import (
    Deferral,
    Facts,
    Permit,
    Question,
    Refusal,
    Rule,
    Suppression,
    SuppressionReason,
    Topic,
    Verdict,
    decide,
)
from notifier.domain.messages import Category, Lane, State
from notifier.domain.recipients import HashedAddress, Hasher
from notifier.domain.retry import Settlement
from notifier.domain.tokens import Links
from notifier.errors import TemplateError
from notifier.journal import Journal
from notifier.rendering import Ingredients, Template, Templates, render
from notifier.store import consent, messages, providers, recipients, suppressions
from notifier.store.database import AWAY, Connection, Database, Row
from notifier.store.messages import Claimed, Intent, Ruling, Settled
from notifier.store.providers import Pause
from notifier.telemetry import where
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import (
    Address,
    BadAddress,
    Channel,
    EmailContent,
    ListHeaders,
    Misconfigured,
    Outcome,
    Outgoing,
    Provider,
    Receipt,
    Unavailable,
    Withheld,
)

log = structlog.get_logger(__name__)

PROBE_BATCH = 1  #: what a paused provider is tried again with
SETTLE_AGAIN = 0.5  #: seconds between tries to write outcomes while the database is away


@dataclass(frozen=True, slots=True)
class Permitted:
    """A message whose intent is committed."""

    permit: Permit
    attempt: Attempt
    first_attempted_at: datetime
    address: Address
    facts: Row

    @property
    def hashed(self) -> HashedAddress:
        """How the address is suppressed, should it turn out dead."""
        return HashedAddress(self.facts["hash_key"], self.facts["address_hash"])


@dataclass(frozen=True, slots=True)
class Deliver:
    """Brings due messages of one lane to an outcome."""

    database: Database
    templates: Templates
    shelf: Shelf
    providers: Mapping[Channel, Provider[EmailContent]]
    hasher: Hasher
    links: Links
    journal: Journal
    hold: Hold
    lane: Lane
    worker: int
    batch_size: int
    send_timeout: timedelta
    default_locale: str
    default_timezone: str

    async def __call__(self, rung: Sequence[UUID] = ()) -> None:
        """Bring everything that is due in the lane to an outcome, beginning with what was rung for."""
        turn, busy = 0, True
        while busy and not self.hold.closing:
            async with self.journal.batch():
                batch = await self._claim(rung, turn)
                permitted = await self._gate(batch)
                outgoing, spoiled = self._render(permitted)
                outcomes = await self._send(permitted, outgoing)
                await self._settle(permitted, outcomes, spoiled)
            rung, turn, busy = (), turn + 1, bool(batch)

    # Claim ------------------------------------------------------------------------------------------------------------

    async def _claim(self, rung: Sequence[UUID], turn: int) -> list[Claimed]:
        """A batch of what is due; every other turn a suspect comes first, alone, so that it is not starved."""
        async with self.database.connection() as c:
            channels, limit = await self._open_channels(c)
            if turn % 2:
                suspects = await messages.claim_suspect(c, self.lane, self.worker, channels)
                return suspects or await messages.claim(c, self.lane, self.worker, channels, rung, limit)
            batch = await messages.claim(c, self.lane, self.worker, channels, rung, limit)
            return batch or await messages.claim_suspect(c, self.lane, self.worker, channels)

    async def _open_channels(self, c: Connection) -> tuple[list[Channel], int]:
        """The channels whose provider is not paused. When a pause runs out, one process tries with one message."""
        paused = {row["provider"] for row in await providers.paused(c)}
        if not paused:
            return list(self.providers), self.batch_size
        for channel, provider in self.providers.items():
            if provider.name in paused and await providers.take_probe(c, provider.name, retry.PROBE_AFTER):
                return [channel], PROBE_BATCH
        return [channel for channel, provider in self.providers.items() if provider.name not in paused], self.batch_size

    # Gate -------------------------------------------------------------------------------------------------------------

    async def _gate(self, batch: Sequence[Claimed]) -> list[Permitted]:
        """Decide, and commit the intent of what may go: the only place where an attempt is born."""
        if not batch:
            return []
        return await self.database.transact(lambda c: self._rule(c, batch))

    async def _rule(self, c: Connection, batch: Sequence[Claimed]) -> list[Permitted]:
        # Locking and reading are two statements: in one, the snapshot would predate the wait for an opt-out (I2).
        locked = {claimed.recipient_id for claimed in batch}
        await recipients.lock(c, list(locked))
        held = await messages.lock_claimed(c, self.worker, [claimed.id for claimed in batch])
        facts = await messages.facts_of(c, held)
        moved = [row["id"] for row in facts if row["recipient_id"] not in locked]  # adopted since the claim
        await messages.release(c, self.worker, moved, State.CLAIMED)
        facts = [row for row in facts if row["recipient_id"] in locked]
        await self.shelf.fetch(c, {row["template_version"] for row in facts})
        verdicts = await self._decide(c, facts)
        await messages.rule(c, self.worker, [_ruling(verdict) for verdict in verdicts.values()])
        return await self._intend(c, facts, verdicts)

    async def _decide(self, c: Connection, facts: Sequence[Row]) -> dict[UUID, Verdict]:
        said = await consent.events_of(c, [row["recipient_id"] for row in facts])
        hashes = {row["id"]: self.hasher.all(_address(row)) for row in facts}
        asked = {(Channel(row["channel"]), digest) for row in facts for digest in hashes[row["id"]]}
        standing = await suppressions.in_force(c, asked)
        verdicts: dict[UUID, Verdict] = {}
        for row in facts:
            against: list[Suppression] = [one for digest in hashes[row["id"]] for one in standing.get(digest, ())]
            known = Facts(said[row["recipient_id"]], against, row["removed_at"] is None, row["snoozed_until"])
            question = Question(row["id"], self._topic(row), Channel(row["channel"]), row["expires_at"])
            verdicts[row["id"]] = decide(question, known, row["now"])
        return verdicts

    async def _intend(self, c: Connection, facts: Sequence[Row], verdicts: Mapping[UUID, Verdict]) -> list[Permitted]:
        permits = {id_: verdict for id_, verdict in verdicts.items() if isinstance(verdict, Permit)}
        names = {channel: provider.name for channel, provider in self.providers.items()}
        intents = await messages.intend(c, self.worker, list(permits), names)
        rows = {row["id"]: row for row in facts}
        return [
            Permitted(
                permits[intent.message_id],
                self._attempt(intent, rows[intent.message_id]),
                intent.first_attempted_at,
                _address(rows[intent.message_id]),
                rows[intent.message_id],
            )
            for intent in intents
        ]

    def _attempt(self, intent: Intent, row: Row) -> Attempt:
        return Attempt(intent.n, intent.number, row["recipient_id"], self._topic(row), Channel(row["channel"]))

    def _topic(self, row: Row) -> Topic:
        """As it is declared here; else as it was when the message was accepted, by a newer release or an older one."""
        if (here := self.templates.topics.get(row["topic"])) is not None:
            return here
        try:
            return self.shelf[row["template_version"]].topic
        except TemplateError:  # it will not be rendered either
            return Topic(row["topic"], Category(row["category"]), {})

    # Render -----------------------------------------------------------------------------------------------------------

    def _render(
        self, permitted: Sequence[Permitted]
    ) -> tuple[dict[Channel, list[Outgoing[EmailContent]]], dict[UUID, Settlement]]:
        """Content for each; one that cannot be rendered fails alone."""
        outgoing: dict[Channel, list[Outgoing[EmailContent]]] = defaultdict(list)
        spoiled: dict[UUID, Settlement] = {}
        for one in permitted:
            self.journal.rendering(one.permit.message)
            try:
                outgoing[Channel(one.facts["channel"])].append(self._outgoing(one))
            except TemplateError as error:
                log.error("message.not_rendered", message=str(one.permit.message), error=str(error))
                spoiled[one.permit.message] = retry.spoiled("template")
            except Exception as error:  # noqa: BLE001  # whatever data provoked, its neighbours go on
                log.error(
                    "message.not_rendered", message=str(one.permit.message), error=type(error).__name__, at=where(error)
                )
                spoiled[one.permit.message] = retry.spoiled(type(error).__name__)
        if permitted:
            self.journal.rendered()
        return outgoing, spoiled

    def _outgoing(self, one: Permitted) -> Outgoing[EmailContent]:
        facts, message = one.facts, one.permit.message
        template = self.shelf[facts["template_version"]]
        locale = facts["locale"] or self.default_locale
        ingredients = Ingredients(
            locale=locale,
            timezone=facts["timezone"] or self.default_timezone,
            data=facts["data"] or {},
            unsubscribe=self._list_headers(template, locale, one),
            preferences_url=self.links.preferences_url(facts["recipient_id"], facts["now"]),
        )
        return Outgoing(
            id=message,
            attempt=one.attempt.n,
            to=one.address,
            content=render(one.permit, template, ingredients),
            first_attempted_at=one.first_attempted_at,
            expires_at=facts["expires_at"],
            return_path=self.links.return_path(message, one.attempt.n),
        )

    def _list_headers(self, template: Template, locale: str, one: Permitted) -> ListHeaders | None:
        if not template.is_marketing:
            return None
        person, key = one.facts["recipient_id"], template.topic.key
        return template.list_headers(
            locale,
            self.links.unsubscribe_url(person, key, Channel(one.facts["channel"]), one.permit.message),
            self.links.unsubscribe_mailto(person, key),
        )

    # Send -------------------------------------------------------------------------------------------------------------

    async def _send(
        self, permitted: Sequence[Permitted], outgoing: Mapping[Channel, Sequence[Outgoing[EmailContent]]]
    ) -> dict[UUID, Outcome]:
        """Hand each channel its part; whatever it leaves without an outcome gets one from the witness."""
        attempts = {one.permit.message: one.attempt for one in permitted}
        parts = [self._send_over(self.providers[channel], part, attempts) for channel, part in outgoing.items()]
        return {id_: outcome for outcomes in await asyncio.gather(*parts) for id_, outcome in outcomes.items()}

    async def _send_over(
        self,
        provider: Provider[EmailContent],
        batch: Sequence[Outgoing[EmailContent]],
        attempts: Mapping[UUID, Attempt],
    ) -> dict[UUID, Outcome]:
        timeout = self.send_timeout.total_seconds()
        witness = BatchWitness(self.journal, self.hold, attempts, time.monotonic() + timeout)
        outcomes: dict[UUID, Outcome] = {}
        try:
            async with asyncio.timeout(timeout), aclosing(_closable(provider.send(batch, witness))) as answers:
                async for message, outcome in answers:
                    outcomes[message] = outcome  # noqa: PERF403  # what came before a cut-off must stay
        except TimeoutError:
            log.warning("batch.cut_off", provider=provider.name, left=len(batch) - len(outcomes))
        except Exception as error:  # noqa: BLE001  # a channel that breaks its contract leaves doubt
            log.error("channel.broken", provider=provider.name, error=type(error).__name__, at=where(error))
        return {one.id: outcomes.get(one.id) or witness.outcome_of(one.id) for one in batch}

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
        people = {one.permit.message: one for one in permitted}
        attempts = {one.permit.message: one.attempt.n for one in permitted}
        await self._lock_people_to_suppress(c, people, outcomes)
        rows = await messages.lock_attempted(c, self.worker, attempts)
        news = [_news(row, outcomes.get(row["id"]), spoiled.get(row["id"])) for row in rows]
        written = [one for one in news if one is not None]
        await write(c, written)
        await self._suppress(c, people, written)
        await self._pause_or_resume(c, rows, outcomes)

    async def _lock_people_to_suppress(
        self, c: Connection, people: Mapping[UUID, Permitted], outcomes: Mapping[UUID, Outcome]
    ) -> None:
        """Lock order: recipients come before messages."""
        dead = [
            people[id_].facts["recipient_id"] for id_, outcome in outcomes.items() if isinstance(outcome, BadAddress)
        ]
        if dead:
            await recipients.lock(c, dead)

    async def _suppress(self, c: Connection, people: Mapping[UUID, Permitted], written: Sequence[Settled]) -> None:
        new = [
            suppressions.NewSuppression(
                Channel(people[one.id].facts["channel"]),
                people[one.id].hashed,
                SuppressionReason(one.settlement.suppress),
                {"message": str(one.id), "attempt": one.n, "code": one.code},
            )
            for one in written
            if one.settlement.suppress
        ]
        if new:
            await suppressions.add(c, new)

    async def _pause_or_resume(self, c: Connection, rows: Sequence[Row], outcomes: Mapping[UUID, Outcome]) -> None:
        """A provider that is misconfigured or away gets no batch for a while, then one message to try it with."""
        said = [(row["provider"], outcomes[row["id"]]) for row in rows if row["id"] in outcomes]
        taken = {provider for provider, outcome in said if isinstance(outcome, Receipt)}
        pauses = {
            provider: Pause(provider, outcome.code, outcome.detail, lasting)
            for provider, outcome in said
            if isinstance(outcome, Misconfigured | Unavailable) and (lasting := retry.pause_for(outcome))
        }
        for pause in pauses.values():
            if pause.provider not in taken:
                log.error("provider.paused", provider=pause.provider, code=pause.code, detail=pause.detail)
                await providers.pause(c, pause)
        if taken and await providers.paused(c):
            await providers.resume(c, list(taken))


def _closable(answers: AsyncIterator[tuple[UUID, Outcome]]) -> AsyncGenerator[tuple[UUID, Outcome], None]:
    """The contract promises that it can be closed early; the type of what channels write says only that it iterates."""
    return cast("AsyncGenerator[tuple[UUID, Outcome], None]", answers)


def _ruling(verdict: Verdict) -> Ruling:
    note = verdict.decision.note
    match verdict:
        case Permit():
            return Ruling(verdict.message, State.SENDING, note)
        case Deferral(until=until, decision=decision):
            return Ruling(verdict.message, State.QUEUED, note, decision.reason, until)
        case Refusal(decision=decision):
            state = State.EXPIRED if decision.rule is Rule.EXPIRED else State.SUPPRESSED
            return Ruling(verdict.message, state, note, decision.reason)


def _news(row: Row, outcome: Outcome | None, spoiled: Settlement | None) -> Settled | None:
    """What to write; None when a late answer brings nothing new to a message that is in doubt already."""
    if spoiled is not None:
        return settled(row, spoiled)
    outcome = outcome or Withheld()
    settlement = retry.settle(outcome, tried(row), row["now"], random.random())
    return None if row["state"] == State.UNKNOWN == settlement.state else settled(row, settlement, outcome)


def _address(row: Row) -> Address:
    return EmailAddress.restore(row["address"])
