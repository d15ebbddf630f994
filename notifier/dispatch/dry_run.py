"""Before anything is sent: a campaign's audience is walked as the planner will, and asked about as the gate will.

The scheduler does it in the background, in batches that write and lock nothing. What comes out is the plan that
somebody approves by scheduling the campaign. A scheduler that dies begins the open one anew.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog

from notifier.dispatch.reckoning import Reckoning, Run
from notifier.domain import plans
from notifier.domain.audience import Audience
from notifier.domain.campaigns import BATCH
from notifier.domain.plans import Findings, OnChannel, Pace
from notifier.domain.schedules import Schedule, known_zone
from notifier.errors import NotConfigured, NotifierError
from notifier.rendering import Template
from notifier.store import audiences
from notifier.store import plans as stored
from notifier.store.database import AWAY, Connection, Database
from notifier.store.plans import Asked
from notifier.telemetry import where
from notifier_channels.contract import Channel

log = structlog.get_logger(__name__)

TELL_EVERY = 1.0  #: seconds between two looks at whether it is still wanted

OBSOLETE = "the campaign was edited, or is over, since this was asked for; ask for another dry-run"


class Obsolete(NotifierError):
    """Nobody waits for this plan any more."""


@dataclass(frozen=True, slots=True)
class Walk:
    """People whose turn begins at the same instant."""

    zone: str | None  #: None: everybody
    due_at: datetime
    size: int


@dataclass(frozen=True, slots=True)
class DryRun:
    """Reckons the dry-runs that are asked for, one after the other."""

    database: Database
    reckoning: Reckoning
    channels: frozenset[Channel]  #: those with a provider
    default_timezone: str
    segments_per_second: float | None = None  #: that the provider of texts takes

    async def __call__(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Reckon the one that has waited longest. `is_over`: asked after each batch; then it stays as it is."""
        async with self.database.connection() as c:
            asked = await stored.oldest(c)
        if asked is None:
            return
        try:
            if (plan := await self._plan(asked, is_over)) is not None:
                await self._write(asked, plan)
        except AWAY:
            raise
        except NotifierError as error:
            await self._give_up(asked, str(error), error)
        except Exception as error:  # noqa: BLE001  # one that cannot be reckoned holds up no sweep
            await self._give_up(asked, f"could not be reckoned ({type(error).__name__}); the log says where", error)

    async def _write(self, asked: Asked, plan: Mapping[str, Any]) -> None:
        if not await self.database.transact(lambda c: stored.finish(c, asked.id, plan, plans.hash_of(plan))):
            raise Obsolete(OBSOLETE)
        log.info("campaign.reckoned", campaign=str(asked.campaign_id), people=plan["audience"])

    async def _give_up(self, asked: Asked, problem: str, error: Exception) -> None:
        log.warning("campaign.not_reckoned", campaign=str(asked.campaign_id), problem=problem, at=where(error))
        await self.database.transact(lambda c: stored.give_up(c, asked.id, problem))

    async def _plan(self, asked: Asked, is_over: Callable[[], bool]) -> dict[str, Any] | None:
        """The plan; None: there was no time for it."""
        judge = self.reckoning.judge
        schedule, audience = Schedule.parse(asked.schedule), Audience.parse(asked.audience, judge.templates.topics)
        async with await self.database.connect(is_read_only=True) as c:
            await judge.shelf.fetch(c, [asked.template_version])
            template = judge.shelf[asked.template_version]
            walks = await self._walks(c, audience, schedule, asked.now)
            run = self._run(asked, template, schedule, walks)
            async with aclosing(self._batches(c, run, audience, schedule, walks)) as batches:
                looked_at, told_at = 0, 0.0
                async for turns in batches:
                    if time.monotonic() - told_at >= TELL_EVERY:
                        told_at = time.monotonic()
                        await self._tell(asked, looked_at, run.found.audience)
                    await self.reckoning.count(c, run, turns)
                    looked_at += len(turns)
                    if is_over():
                        return None
            await self.reckoning.render(run)
        return run.found.document(_definition(asked, template), self.segments_per_second)

    async def _tell(self, asked: Asked, looked_at: int, of: int) -> None:
        """Say how far it is, and find out whether anybody still wants to know."""
        if not await self.database.transact(lambda c: stored.progress(c, asked.id, looked_at, max(looked_at, of))):
            raise Obsolete(OBSOLETE)

    def _run(self, asked: Asked, template: Template, schedule: Schedule, walks: list[Walk]) -> Run:
        steps = template.steps(self.channels)
        if not steps:
            raise NotConfigured(f"{template.key}: none of its channels has a provider; set one up")
        found = Findings(
            audience=sum(walk.size for walk in walks),
            now=asked.now,
            expires_at=_expires_at(asked, schedule, template.expires_after),
            default_timezone=self.default_timezone,
            channels={channel: OnChannel(step) for channel, step in steps.items()},
            behind=sum(walk.size for walk in walks if schedule.local and walk.due_at < asked.now),
            zoneless=sum(walk.size for walk in walks if walk.zone is not None and known_zone(walk.zone) is None),
        )
        return Run(asked, template, steps, found)

    # Walking ----------------------------------------------------------------------------------------------------------

    async def _walks(self, c: Connection, audience: Audience, schedule: Schedule, now: datetime) -> list[Walk]:
        """One, or one for each zone where a local time counts; in the order of their time."""
        if schedule.local is None:
            return [Walk(None, schedule.starts_at(now), await audiences.count(c, audience))]
        fallback = ZoneInfo(self.default_timezone)
        walks = [
            Walk(zone, schedule.due_in(known_zone(zone) or fallback, now), size)
            for zone, size in (await audiences.zones(c, audience)).items()
        ]
        return sorted(walks, key=lambda walk: walk.due_at)

    async def _batches(
        self, c: Connection, run: Run, audience: Audience, schedule: Schedule, walks: list[Walk]
    ) -> AsyncGenerator[dict[UUID, datetime]]:
        """Everybody, a batch at a time, each with their turn. Whose turn comes too late is only counted."""
        pace = Pace.of(run.asked.rate, sum(step == 0 for step in run.steps.values()), run.found.now)
        for walk in walks:
            position, before = None, 0
            while people := await audiences.walk(c, audience, position, BATCH, walk.zone):
                turns = {
                    person: pace.turn(walk.due_at + schedule.delay(before + n, walk.size))
                    for n, person in enumerate(people)
                }
                in_time = {person: at for person, at in turns.items() if at < run.found.expires_at}
                run.found.too_late += len(turns) - len(in_time)
                if in_time:
                    yield in_time
                position, before = people[-1], before + len(people)


def _expires_at(asked: Asked, schedule: Schedule, lasts: timedelta) -> datetime:
    """When the campaign ends; of a recurring one, when its next occurrence does."""
    if schedule.recurs:
        ends = schedule.starts_at(asked.now) + schedule.recurs.expires_after
        return min(ends, asked.expires_at or ends)
    return asked.expires_at or schedule.ends_at(asked.now) + lasts


def _definition(asked: Asked, template: Template) -> dict[str, Any]:
    """What somebody approves."""
    return {
        "template": template.key,
        "template_hash": template.hash,
        "topic": template.topic.key,
        "data": dict(asked.data),
        "audience": dict(asked.audience),
        "schedule": dict(asked.schedule),
        "rate": asked.rate,
        "sender": asked.sender,
        "expires_at": plans.written(asked.expires_at) if asked.expires_at else None,
    }
