"""The heart of a dry-run: what would become of a batch of people, on every channel, asked of the gate's own judge.

For a message on a later step of the route, what goes on an earlier one is taken to arrive.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from uuid import UUID

from notifier.dispatch.ingredients import Personal, campaign_data
from notifier.dispatch.judging import Judge, Known, as_message
from notifier.domain.campaigns import data_for
from notifier.domain.consent import Deferral, Refusal, Verdict
from notifier.domain.messages import Ids, State
from notifier.domain.plans import NAMED, Findings, Sample, Segments, Tally
from notifier.domain.routing import Earlier, Mode, Turn
from notifier.errors import TemplateError
from notifier.rendering import Preview, PreviewedSms, Template, preview
from notifier.store import batches, recipients
from notifier.store.batches import PlannedBatch
from notifier.store.database import Connection, Row
from notifier.store.plans import Asked
from notifier_channels.contract import Channel

RENDERED = {Channel.EMAIL: 20, Channel.SMS: 200, Channel.PUSH: 20}  #: of those who would get it, drawn by lot


@dataclass(slots=True)
class Run:
    """One dry-run under way."""

    asked: Asked
    template: Template
    steps: Mapping[Channel, int]
    found: Findings
    samples: Mapping[Channel, Sample[Row]] = field(init=False)
    taken: set[bytes] = field(default_factory=set)  #: shared addresses at which somebody gets it

    def __post_init__(self) -> None:
        """Memory stays flat: of all the rows that are read, only these are kept."""
        self.samples = {channel: Sample(RENDERED[channel]) for channel in self.steps}

    def by_step(self) -> Iterator[tuple[int, list[Channel]]]:
        """The channels of each step, in order."""
        ordered = sorted(self.steps, key=lambda channel: (self.steps[channel], channel))
        for step, channels in groupby(ordered, key=self.steps.__getitem__):
            yield step, list(channels)

    def batch(self, channel: Channel, turns: Mapping[UUID, datetime]) -> PlannedBatch:
        """These people on one channel, as the planner puts them together."""
        return PlannedBatch(
            campaign_id=self.asked.campaign_id,
            n=0,
            channel=channel,
            step=self.steps[channel],
            recipients=list(turns),
            starts_at=min(turns.values()),
            is_paced=False,
            rate=self.asked.rate,
            template_version=self.asked.template_version,
            topic=self.template.topic.key,
            category=self.template.topic.category,
        )


@dataclass(frozen=True, slots=True)
class Reckoning:
    """Counts what would happen."""

    judge: Judge
    personal: Personal
    segment_price: str | None = None  #: such as `0.0079 USD`
    _ids: Ids = field(default_factory=Ids)

    async def count(self, c: Connection, run: Run, turns: Mapping[UUID, datetime]) -> None:
        """Decide about these people, each at their turn, on every channel."""
        decided: defaultdict[UUID, list[tuple[Channel, Verdict]]] = defaultdict(list)
        going: dict[UUID, list[Row]] = {}
        for step, channels in run.by_step():
            facts = [row for channel in channels for row in await self._facts(c, run, channel, turns)]
            shared = {row["address_hash"] for row in facts if row["is_shared"]}
            waiting = _turns(run, step, facts, turns, decided) if step else {}
            taken = {(run.asked.campaign_id, digest) for digest in shared & run.taken}
            known = Known(turns=waiting, taken=taken, at=min(turns.values()))
            for row, verdict in await self.judge(c, facts, known):
                run.found.note(row["channel"], row["external_id"], verdict, row["now"])
                decided[row["recipient_id"]].append((row["channel"], verdict))
                if not isinstance(verdict, Refusal):
                    going.setdefault(row["recipient_id"], []).append(row)
                    run.taken |= {row["address_hash"]} & shared
        await _note_missing(c, run.found.unreachable, [person for person in turns if person not in decided])
        self._sort_out(run, going)

    async def _facts(self, c: Connection, run: Run, channel: Channel, turns: Mapping[UUID, datetime]) -> list[Row]:
        """What is known of their addresses on a channel, as of messages at the instant when each is looked at."""
        batch, route, expires_at = run.batch(channel, turns), run.template.route, run.found.expires_at
        found = await batches.facts_of(c, channel, turns)
        facts = [as_message(row, self._new_id(), batch, expires_at) for row in found]
        for row in facts:
            row["now"] = min(route.looks_at(batch.step, turns[row["recipient_id"]]), expires_at)
        there = {row["recipient_id"] for row in facts}
        missing = [person for person in turns if person not in there]
        await _note_missing(c, run.found.channels[channel].unreachable, missing)
        return facts

    def _sort_out(self, run: Run, going: Mapping[UUID, Sequence[Row]]) -> None:
        """Whose attributes do not fit is counted; of the others some are kept, to be rendered."""
        for rows in going.values():
            if misfit := _misfit(run, rows[0]):
                run.found.misfits[misfit].add(rows[0]["external_id"])
                continue
            for row in rows:
                run.samples[row["channel"]].offer(row)

    async def render(self, run: Run) -> None:
        """Render what was kept: whether it can be, and what the texts among it take."""
        for channel, sample in run.samples.items():
            on, segments = run.found.channels[channel], []
            for row in sample.kept:
                on.rendered += 1
                try:
                    data = campaign_data(run.template, row, run.asked.data)
                    ingredients = self.personal(run.template, row["id"], row, data)
                    seen = preview(Preview(), run.template, channel, ingredients)
                except TemplateError as error:
                    on.not_rendered[str(error)].add(row["external_id"])
                except Exception as error:  # noqa: BLE001  # whatever data provoked, its neighbours go on
                    on.not_rendered[type(error).__name__].add(row["external_id"])
                else:
                    segments += [seen.segments.segments] if isinstance(seen, PreviewedSms) else []
                await asyncio.sleep(0)  # the scheduler has other work
            if channel is Channel.SMS:
                on.segments = Segments(tuple(segments), self.segment_price)

    def _new_id(self) -> UUID:
        return self._ids.new(time.time_ns() // 1_000_000)


def _turns(
    run: Run,
    step: int,
    facts: Sequence[Row],
    turns: Mapping[UUID, datetime],
    decided: Mapping[UUID, Sequence[tuple[Channel, Verdict]]],
) -> dict[UUID, Turn]:
    """Of messages of a later step, how those before them will stand."""
    mode, found = run.template.route.mode, {}
    for row in facts:
        before = [_expected(mode, *one, row["now"]) for one in decided.get(row["recipient_id"], ())]
        turn_at = run.template.route.turn_at(step, turns[row["recipient_id"]])
        found[row["id"]] = Turn(mode, turn_at, before)
    return found


def _expected(mode: Mode, channel: Channel, verdict: Verdict, at: datetime) -> Earlier:
    """What goes arrives. Where the next channel's turn comes by the clock, what still waits then has not."""
    match verdict:
        case Refusal():
            return Earlier(channel, State.SUPPRESSED)
        case Deferral(until=until) if mode is Mode.THEN and until > at:
            return Earlier(channel, State.QUEUED)
        case _:
            return Earlier(channel, State.DELIVERED)


def _misfit(run: Run, row: Row) -> str | None:
    """The first thing that is wrong with a person's data; nothing of theirs stands in it."""
    data = data_for(run.template.schema.properties, row["attributes"], run.asked.data)
    problems = run.template.problems(data)
    return f"{problems[0].pointer} {problems[0].detail}" if problems else None


async def _note_missing(c: Connection, tally: Tally, people: Sequence[UUID]) -> None:
    """Count people; the first of them are looked up, to be named."""
    wanted = NAMED - len(tally.sample)
    named = await recipients.by_ids(c, people[:wanted]) if people and wanted else {}
    for person in named.values():
        tally.add(person.external_id)
    tally.count += len(people) - len(named)
