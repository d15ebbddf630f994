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
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias, cast
from uuid import UUID

import structlog

from notifier.brakes import ProviderBrake
from notifier.dispatch.consequences import Consequences
from notifier.dispatch.settling import settled, tried, write
from notifier.dispatch.shelf import Shelf
from notifier.dispatch.timing import Timing
from notifier.dispatch.turns import Turns
from notifier.dispatch.witness import Attempt, BatchWitness, Hold
from notifier.domain import retry
from notifier.domain.braking import asks_to_slow
from notifier.domain.caps import Cap, Sent
from notifier.domain.consent import (
    ConsentEvent,
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
from notifier.domain.messages import Category, Lane, State
from notifier.domain.recipients import Hasher
from notifier.domain.retry import Settlement
from notifier.domain.routing import Earlier, Mode, Turn
from notifier.domain.tokens import FRESH_LINK, Links
from notifier.errors import TemplateError
from notifier.journal import Journal
from notifier.rendering import Ingredients, Template, Templates, render
from notifier.store import consent, messages, providers, recipients, suppressions
from notifier.store.addresses import restore
from notifier.store.database import AWAY, Connection, Database, Row
from notifier.store.messages import Claimed, Intent, Ruling, Settled
from notifier.store.providers import Pause
from notifier.telemetry import where
from notifier_channels.contract import (
    Address,
    Channel,
    Content,
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

AnyProvider: TypeAlias = Provider[Any]  #: each channel's provider takes content of its own kind

PROBE_BATCH = 1  #: what a paused provider is tried again with
LOOK_UP = 0.5  #: seconds between looks at whether the process is told to stop
SETTLE_AGAIN = 0.5  #: seconds between tries to write outcomes while the database is away


@dataclass(frozen=True, slots=True)
class Permitted:
    """A message whose intent is committed."""

    permit: Permit
    attempt: Attempt
    first_attempted_at: datetime
    address: Address
    facts: Row


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one channel that are in hand."""

    channel: Channel
    claimed: Sequence[Claimed]


@dataclass(frozen=True, slots=True)
class Deliver:
    """Brings due messages of one lane to an outcome."""

    database: Database
    templates: Templates
    shelf: Shelf
    providers: Mapping[Channel, AnyProvider]
    brakes: Mapping[Channel, ProviderBrake]
    turns: Turns
    timing: Timing
    consequences: Consequences
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
                with ExitStack() as hand:
                    batch = await self._claim(rung, turn, hand)
                    if batch is not None:
                        await self._bring(batch)
            rung, turn, busy = (), turn + 1, batch is not None

    async def _bring(self, batch: Batch) -> None:
        await self._wait_for_room(batch)
        permitted = await self._gate(batch.claimed)
        outgoing, spoiled = self._render(permitted)
        outcomes = await self._send(batch.channel, permitted, outgoing)
        await self._settle(permitted, outcomes, spoiled)
        told = sum(asks_to_slow(outcome) for outcome in outcomes.values())
        await self.brakes[batch.channel].learn(sum(isinstance(one, Receipt) for one in outcomes.values()), told)

    async def _wait_for_room(self, batch: Batch) -> None:
        """Where marketing is braked it waits here: between intent and wire nothing should. A shutdown cuts it short."""
        opens_at = time.monotonic() + await self.brakes[batch.channel].turn(len(batch.claimed))
        while (left := opens_at - time.monotonic()) > 0 and not self.hold.closing:  # noqa: ASYNC110  # by a thread
            await asyncio.sleep(min(left, LOOK_UP))

    # Claim ------------------------------------------------------------------------------------------------------------

    async def _claim(self, rung: Sequence[UUID], turn: int, hand: ExitStack) -> Batch | None:
        """A batch of what is due; every other turn a suspect comes first, alone, so that it is not starved."""
        async with self.database.connection() as c:
            limits = await self._open_channels(c)
            several = len(limits) > 1
            for channel in self.turns.order(await messages.waiting(c, self.lane, list(limits)) if several else limits):
                if not self.turns.may_take(channel):
                    continue
                with ExitStack() as tried:
                    tried.enter_context(self.turns.held(channel))
                    if claimed := await self._claim_of(c, channel, rung, limits[channel], suspects_first=turn % 2 == 1):
                        hand.push(tried.pop_all())
                        return Batch(channel, claimed)
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

    async def _open_channels(self, c: Connection) -> dict[Channel, int]:
        """The channels whose provider is not paused, and the largest batch of each.

        When a pause runs out, one process tries that provider with one message.
        """
        paused = {row["provider"] for row in await providers.paused(c)}
        sizes = {
            channel: await self.brakes[channel].most(min(self.batch_size, one.most_at_once))
            for channel, one in self.providers.items()
        }
        for channel, provider in self.providers.items():
            if provider.name in paused and await providers.take_probe(c, provider.name, retry.PROBE_AFTER):
                return {channel: PROBE_BATCH}
        return {channel: size for channel, size in sizes.items() if self.providers[channel].name not in paused}

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
        ended = [row["id"] for row in facts if row["is_followed"] and isinstance(verdicts[row["id"]], Refusal)]
        await messages.wake_followers(c, ended)
        return await self._intend(c, facts, verdicts)

    async def _decide(self, c: Connection, facts: Sequence[Row]) -> dict[UUID, Verdict]:
        said = await consent.events_of(c, [row["recipient_id"] for row in facts])
        hashes = {row["id"]: self._hashes(row) for row in facts}
        asked = {(Channel(row["channel"]), digest) for row in facts for digest in hashes[row["id"]]}
        standing = await suppressions.in_force(c, asked)
        turns = await self._turns(c, [row for row in facts if row["step"]])
        caps = {row["id"]: self.timing.caps_of(self._topic(row), Channel(row["channel"])) for row in facts}
        sent = await self.timing.sent(c, [(row["recipient_id"], caps[row["id"]]) for row in facts])
        verdicts: dict[UUID, Verdict] = {}
        for row in sorted(facts, key=lambda row: row["id"]):  # of two for one person, the older one goes first
            id_, person = row["id"], row["recipient_id"]
            against = [one for digest in hashes[id_] for one in standing.get(digest, ())]
            question = self._question(row, turns.get(id_), caps[id_])
            known = self._known(row, said[person], against, sent[person])
            verdicts[id_] = decide(question, known, row["now"])
            if caps[id_] and isinstance(verdicts[id_], Permit):
                sent[person].append(Sent(row["now"], question.topic.key, question.channel))
        return verdicts

    def _question(self, row: Row, turn: Turn | None, caps: Sequence[Cap]) -> Question:
        topic, channel = self._topic(row), Channel(row["channel"])
        return Question(row["id"], topic, channel, row["expires_at"], turn, caps, self.timing.spread)

    def _known(
        self, row: Row, said: Sequence[ConsentEvent], against: Sequence[Suppression], sent: Sequence[Sent]
    ) -> Facts:
        hours = self.timing.hours_of(self._topic(row), row)
        return Facts(said, against, row["removed_at"] is None, row["snoozed_until"], hours, sent)

    def _hashes(self, row: Row) -> list[bytes]:
        """Under what its address may be suppressed; of an erased one only the hash is left."""
        address = restore(Channel(row["channel"]), row["address"])
        return self.hasher.all(address) if address else [row["address_hash"]]

    async def _turns(self, c: Connection, later: Sequence[Row]) -> dict[UUID, Turn]:
        """Of messages that wait for others of their notification, how those stand."""
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

    def _render(self, permitted: Sequence[Permitted]) -> tuple[list[Outgoing[Content]], dict[UUID, Settlement]]:
        """Content for each; one that cannot be rendered fails alone."""
        outgoing: list[Outgoing[Content]] = []
        spoiled: dict[UUID, Settlement] = {}
        for one in permitted:
            self.journal.rendering(one.permit.message)
            try:
                outgoing.append(self._outgoing(one))
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

    def _outgoing(self, one: Permitted) -> Outgoing[Content]:
        facts, message, channel = one.facts, one.permit.message, one.attempt.channel
        template = self.shelf[facts["template_version"]]
        locale = facts["locale"] or self.default_locale
        ingredients = Ingredients(
            locale=locale,
            timezone=facts["timezone"] or self.default_timezone,
            data=facts["data"] or {},
            unsubscribe=self._list_headers(template, locale, one),
            preferences_url=self._preferences_url(template, one),
        )
        return Outgoing(
            id=message,
            attempt=one.attempt.n,
            to=one.address,
            content=render(one.permit, template, channel, ingredients),
            first_attempted_at=one.first_attempted_at,
            expires_at=facts["expires_at"],
            return_path=self.links.return_path(message, one.attempt.n) if channel is Channel.EMAIL else None,
            callback_url=self.links.report_url(channel, message, one.attempt.n),
            reference_header=self.links.reference_header(message, one.attempt.n) if channel is Channel.EMAIL else None,
        )

    def _preferences_url(self, template: Template, one: Permitted) -> str:
        """Only the mail that somebody asked for carries a fresh link: any other is passed on as it is."""
        person, now = one.facts["recipient_id"], one.facts["now"]
        if template.key == FRESH_LINK:
            return self.links.fresh_url(person, now)
        return self.links.preferences_url(person, one.permit.message, now)

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
        self, channel: Channel, permitted: Sequence[Permitted], batch: Sequence[Outgoing[Content]]
    ) -> dict[UUID, Outcome]:
        """Hand the channel the batch; whatever it leaves without an outcome gets one from the witness."""
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
        attempts = {one.permit.message: one.attempt.n for one in permitted}
        locked = await self.consequences.lock(c, outcomes)
        rows = await messages.lock_attempted(c, self.worker, attempts)
        news = [_news(row, outcomes.get(row["id"]), spoiled.get(row["id"])) for row in rows]
        written = [one for one in news if one is not None]
        await write(c, written)
        await messages.wake_followers(c, [row["id"] for row in rows if row["is_followed"]])
        await self.consequences.follow(c, locked, written)
        await self._pause_or_resume(c, rows, outcomes)

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
    address = restore(Channel(row["channel"]), row["address"])
    if address is None:
        raise AssertionError("without an address the gate permits nothing")
    return address
