"""Before a campaign's message there is its batch: the planner starts campaigns, walks their audience, and ends them.

It stays a few seconds of work ahead of the workers, never more, so that a million people take no more memory than a
thousand and an edit takes hold at once. Each step is a transaction that names the state which it expects: it may be
killed at any point and goes on from there, and two of them do no harm.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import structlog

from notifier.dispatch.shelf import Shelf
from notifier.domain.audience import Audience
from notifier.domain.campaigns import AHEAD, BATCHES_AHEAD, CampaignState, batch_size, batches_ahead
from notifier.domain.messages import Ids, Lane
from notifier.domain.routing import Route
from notifier.domain.schedules import Recurrence, Schedule, known_zone
from notifier.errors import NotConfigured, NotifierError
from notifier.jobs import RINGS_AT_ONCE, Jobs
from notifier.rendering import Template, Templates
from notifier.store import audiences, planning
from notifier.store.database import AWAY, Connection, Database
from notifier.store.planning import EVERYBODY, MOVED, Alive, Page, Slice, Walk
from notifier.telemetry import where
from notifier_channels.contract import Channel

log = structlog.get_logger(__name__)

SEARCH = 10_000  #: people among whom those are looked for at a time who have moved meanwhile
REST = 60.0  #: seconds before a campaign that could not be planned is looked at again


@dataclass(frozen=True, slots=True)
class Plan:
    """One look at every campaign that lives."""

    database: Database
    jobs: Jobs
    templates: Templates
    shelf: Shelf
    channels: frozenset[Channel]  #: those with a provider
    default_zone: str
    _ids: Ids = field(default_factory=Ids)
    _resting: dict[UUID, float] = field(default_factory=dict)  #: until when, on the monotonic clock

    async def __call__(self) -> None:
        """Start what is due, plan what is sent, end what is done. One that resists does not hold up the others."""
        if await self.look():
            await self.look()  # what has begun is planned at once
        await self._ring()

    async def look(self) -> bool:
        """One look at each; True when one of them has begun."""
        async with self.database.connection() as c:
            alive = await planning.alive(c)
        has_begun = False
        for campaign in alive:
            if self._resting.get(campaign.id, 0.0) > time.monotonic():
                continue
            try:
                has_begun |= await self._look(campaign)
            except AWAY:
                raise
            except (NotifierError, psycopg.Error) as error:
                self._resting[campaign.id] = time.monotonic() + REST
                problem = str(error) if isinstance(error, NotifierError) else type(error).__name__
                log.error("campaign.not_planned", campaign=str(campaign.id), problem=problem, at=where(error))
        return has_begun

    async def _look(self, campaign: Alive) -> bool:
        schedule = Schedule.parse(campaign.schedule)
        is_late = campaign.expires_at is not None and campaign.expires_at <= campaign.now
        match campaign.state:
            case CampaignState.SCHEDULED if schedule.recurs:
                await self._recur(campaign, schedule, schedule.recurs)
            case CampaignState.SCHEDULED if schedule.starts_at(campaign.scheduled_at) <= campaign.now:
                return await self._start(campaign, schedule)
            case CampaignState.SENDING | CampaignState.PAUSED if is_late:
                await self._expire(campaign)
            case CampaignState.SENDING:
                await self._send(campaign, schedule)
        return False

    async def _ring(self) -> None:
        """Ring for the batches that are due, as often as there are any, as long as the rings are answered."""
        async with self.database.connection() as c:
            due = await planning.due(c, RINGS_AT_ONCE)
        if not due:
            return
        waiting = await asyncio.to_thread(self.jobs.waiting, Lane.MARKETING)
        if waiting is not None:  # else Redis is away, and workers poll
            for _ in range(min(due, RINGS_AT_ONCE - waiting)):
                self.jobs.ring(Lane.MARKETING, ())

    # Start ------------------------------------------------------------------------------------------------------------

    async def _start(self, campaign: Alive, schedule: Schedule) -> bool:
        """Count the audience, and begin a walk over it; one for each zone when it is a local time that counts.

        False when it has expired, or somebody else was first.
        """
        async with self.database.connection() as c:
            walks = await self._walks(c, campaign, schedule)
        people = sum(walk.size for walk in walks)
        if campaign.expires_at is not None and campaign.expires_at <= campaign.now:
            if await self.database.transact(lambda c: planning.give_up(c, campaign, people)):
                log.warning("campaign.expired", campaign=str(campaign.id), people=people, began=False)
            return False
        has_begun = await self.database.transact(lambda c: planning.begin(c, campaign, walks))
        if has_begun:
            log.info("campaign.started", campaign=str(campaign.id), people=people)
        return has_begun

    async def _walks(self, c: Connection, campaign: Alive, schedule: Schedule) -> list[Walk]:
        audience = self._audience(campaign)
        if schedule.local is None:
            people = await audiences.count(c, audience)
            return [Walk(EVERYBODY, schedule.starts_at(campaign.scheduled_at), people)]
        sizes = await audiences.zones(c, audience)
        known = {zone: known_zone(zone) for zone in sizes}
        if strangers := sum(size for zone, size in sizes.items() if known[zone] is None):
            log.warning(
                "campaign.zones_unknown", campaign=str(campaign.id), people=strangers, taken_for=self.default_zone
            )
        due = {
            zone: schedule.due_in(found or ZoneInfo(self.default_zone), campaign.scheduled_at)
            for zone, found in known.items()
        }
        last = Walk(MOVED, max(due.values(), default=campaign.now), 0)
        return [*(Walk(zone, due[zone], size) for zone, size in sizes.items()), last]

    def _audience(self, campaign: Alive) -> Audience:
        return Audience.parse(campaign.audience, self.templates.topics)

    # Send -------------------------------------------------------------------------------------------------------------

    async def _send(self, campaign: Alive, schedule: Schedule) -> None:
        """Cut as many batches as may wait, from the walks that are due; finish the campaign when there is no more."""
        async with self.database.connection() as c:
            walks = await planning.open_walks(c, campaign.id)
            waiting = await planning.waiting(c, campaign.id)
        if not walks:
            await self._finish(campaign)
        due = [
            walk for walk in walks if walk.due_at <= campaign.now + AHEAD and (walk.zone != MOVED or len(walks) == 1)
        ]
        if not due:
            return
        template = await self._template(campaign)
        steps = self._steps(template)
        # A channel that stands still does not hold up the others.
        waits = min(waiting.get(channel, 0) for channel, step in steps.items() if step == 0)
        for walk in due:
            size = batch_size(campaign.rate, schedule.over, walk.size)
            room = min(batches_ahead(campaign.rate, size), BATCHES_AHEAD) - waits
            if (count := _count(walk, schedule, size, room, campaign.now)) > 0:
                waits += await self._cut(campaign, walk, _Cut(schedule, template.route, steps, size), count)

    async def _cut(self, campaign: Alive, walk: Walk, cut: _Cut, count: int) -> int:
        """Put the next people of a walk into so many batches; how many there were."""
        is_local = cut.schedule.local is not None
        async with self.database.connection() as c:
            met = await self._meet(c, campaign, walk, count * cut.size, is_local=is_local)
        slices = list(cut.slices(campaign, walk, len(met.people)))
        page = Page(met.people, slices, met.position, is_last=met.is_last)
        await self.database.transact(lambda c: planning.cut(c, campaign.id, walk, page))
        return -(-len(met.people) // cut.size)

    async def _meet(self, c: Connection, campaign: Alive, walk: Walk, limit: int, *, is_local: bool) -> _Met:
        """Whom a walk meets next. At a local time, each is planned once, to whatever zone they move meanwhile."""
        audience, is_search = self._audience(campaign), is_local and walk.zone == MOVED
        look = max(limit, SEARCH) if is_search else limit
        zone = walk.zone if is_local and not is_search else None
        met = await audiences.walk(c, audience, walk.position, look, zone)
        people = met
        if is_local:
            changed = await planning.changed(c, campaign.id, met)
            people = [one for one in met if not (changed.get(one, True) if is_search else changed.get(one, False))]
        if len(people) > limit:
            return _Met(people[:limit], people[limit - 1], is_last=False)
        return _Met(people, met[-1] if met else None, is_last=len(met) < look)

    async def _template(self, campaign: Alive) -> Template:
        async with self.database.connection() as c:
            await self.shelf.fetch(c, [campaign.template_version])
        return self.shelf[campaign.template_version]

    def _steps(self, template: Template) -> dict[Channel, int]:
        if steps := template.steps(self.channels):
            return steps
        raise NotConfigured(f"{template.key}: none of its channels has a provider; set one up")

    # End --------------------------------------------------------------------------------------------------------------

    async def _expire(self, campaign: Alive) -> None:
        """Stop walking and drop what waits. What is queued expires by itself; then it is finished."""
        if people := await self.database.transact(lambda c: planning.expire(c, campaign.id)):
            log.warning("campaign.expired", campaign=str(campaign.id), people=people, began=True)
        await self._finish(campaign)

    async def _finish(self, campaign: Alive) -> None:
        if await self.database.transact(lambda c: planning.finish(c, campaign.id)):
            log.info("campaign.finished", campaign=str(campaign.id))

    # Again and again --------------------------------------------------------------------------------------------------

    async def _recur(self, series: Alive, schedule: Schedule, recurs: Recurrence) -> None:
        """Make the latest occurrence that is due. Those that were missed before it are only told of."""
        since = max(series.scheduled_at, series.last_occurrence or series.scheduled_at)
        until = min(series.now, series.expires_at or series.now)
        occurred = list(takewhile(lambda at: at <= until, recurs.after(since)))
        if occurred:
            await self._occur(series, schedule, recurs, occurred)
        elif until < series.now and await self.database.transact(lambda c: planning.give_up(c, series, 0)):
            log.info("campaign.series_ended", campaign=str(series.id))

    async def _occur(self, series: Alive, schedule: Schedule, recurs: Recurrence, occurred: Sequence[datetime]) -> None:
        *missed, occurs_at = occurred
        new = self._ids.new(time.time_ns() // 1_000_000)
        once = schedule.occurrence(occurs_at).document
        expires_at = occurs_at + recurs.expires_after
        is_new = await self.database.transact(
            lambda c: planning.occur(c, series, new, occurs_at, once, min(expires_at, series.expires_at or expires_at))
        )
        if is_new and missed:
            first, last = missed[0].isoformat(), missed[-1].isoformat()
            log.warning("campaign.missed", series=str(series.id), times=len(missed), first=first, last=last)
        if is_new:
            log.info("campaign.occurred", series=str(series.id), campaign=str(new), at=occurs_at.isoformat())


@dataclass(frozen=True, slots=True)
class _Met:
    """People who are to be planned next, and how far the walk has come with them."""

    people: Sequence[UUID]
    position: UUID | None
    is_last: bool


@dataclass(frozen=True, slots=True)
class _Cut:
    """How the people of a campaign are put into batches."""

    schedule: Schedule
    route: Route
    steps: dict[Channel, int]
    size: int  #: people in one

    def slices(self, campaign: Alive, walk: Walk, people: int) -> Iterator[Slice]:
        """Where each batch begins and ends among the people who come next, and when it is due on each channel."""
        for first in range(0, people, self.size):
            turn = max(campaign.now, walk.due_at + self.schedule.delay(walk.planned + first, walk.size))
            for channel, step in self.steps.items():
                due_at = self.route.looks_at(step, turn)
                due_at = min(due_at, campaign.expires_at or due_at)
                yield Slice(channel, step, first, min(first + self.size, people), turn, due_at)


def _count(walk: Walk, schedule: Schedule, size: int, room: int, now: datetime) -> int:
    """How many batches are to be cut now: as many as there is room for, and none that is due much later."""
    count = 0
    while count < room and walk.due_at + schedule.delay(walk.planned + count * size, walk.size) <= now + AHEAD:
        count += 1
    return count
