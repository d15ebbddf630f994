"""A campaign before it is sent: drawn up, edited, foreseen by a dry-run, and approved by scheduling it.

What is wrong is said when it is drawn up, and again when it is scheduled: templates change. Everything here runs in the
caller's transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from notifier.dispatch.drafts import sendable, unknown
from notifier.dispatch.once import Once
from notifier.dispatch.steering import current, locked, refused, require
from notifier.domain.access import Actor
from notifier.domain.audience import Audience
from notifier.domain.campaigns import CampaignState, is_notice
from notifier.domain.confirmations import TEMPLATE as CONFIRMATION
from notifier.domain.messages import Ids
from notifier.domain.notifications import FURTHEST, PAST_MEANS_NOW, canonical
from notifier.domain.schedules import Schedule
from notifier.domain.tokens import FRESH_LINK
from notifier.errors import Conflict, InvalidInput, Problem
from notifier.rendering import Template, Templates
from notifier.store import campaigns, lists, messages, templates
from notifier.store.campaigns import Approval, Campaign, Content, Plan
from notifier.store.database import Connection
from notifier_channels.contract import Channel

T = TypeVar("T")

WHILE_SENT = ("name", "rate", "expires_at")  #: what may be edited then
UNDER_WAY = frozenset({CampaignState.SENDING, CampaignState.PAUSED})
_SYSTEM = frozenset({FRESH_LINK, CONFIRMATION})
UNSENT = frozenset({CampaignState.DRAFT, CampaignState.SCHEDULED})


@dataclass(frozen=True, slots=True)
class _Sound:
    """A campaign with which nothing is wrong, as it is stored."""

    content: Content
    template: Template
    audience: Audience
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class Campaigns:
    """Draws campaigns up and lets them be approved."""

    templates: Templates
    channels: frozenset[Channel]  #: those with a provider
    _ids: Ids = field(default_factory=Ids)

    async def create(
        self, c: Connection, content: Content, actor: Actor, once: Once | None = None
    ) -> tuple[Campaign, bool]:
        """Keep a draft. True: it was there already, under the same key.

        Raises:
            InvalidInput: lists everything that is wrong with it.
            Forbidden: a marketing topic needs another scope, or a notice does.

        """
        first = await once.answered(c) if once else None
        if first is not None:
            return await current(c, UUID(first["id"])), True
        content = (await self._sound(c, content, await messages.clock(c))).content
        require(actor, is_notice=content.is_notice)
        id_ = self._new_id()
        if once:
            await once.keep(c, id_, {"id": str(id_)})
        await campaigns.insert(c, id_, content, actor.name)
        return await current(c, id_), False

    async def edit(self, c: Connection, id_: UUID, said: Mapping[str, Any], actor: Actor) -> Campaign:
        """Change what is mentioned: all of a draft, and what can still change while it is sent.

        Raises:
            NotFound, Forbidden, InvalidInput: as `create`.
            Conflict: it is scheduled, or it is over.

        """
        campaign, now = await locked(c, id_, actor), await messages.clock(c)
        content = replace(campaign.content, **said)
        if campaign.state is CampaignState.DRAFT:
            content = (await self._sound(c, content, now)).content
            require(actor, is_notice=content.is_notice)
        elif campaign.state in UNDER_WAY:
            _refuse_while_sent(content, said, now)
        else:
            raise refused(campaign, "edited", CampaignState.DRAFT, *UNDER_WAY)
        is_another = campaign.state is CampaignState.DRAFT and _approved(content) != _approved(campaign.content)
        if not await campaigns.edit(c, campaign, content, is_another=is_another):
            raise AssertionError("the row is locked")
        if campaign.state in UNDER_WAY:
            await _take_hold(c, campaign, content)
        return await current(c, id_)

    def from_attributes(self, campaign: Campaign) -> Sequence[str]:
        """What its template needs and its data does not give: it comes from each recipient's attributes."""
        template = self.templates.find(campaign.content.template)
        return sorted(template.schema.required - campaign.content.data.keys()) if template else ()

    # Approval ---------------------------------------------------------------------------------------------------------

    async def preview(self, c: Connection, id_: UUID, actor: Actor) -> UUID:
        """Ask for a dry-run of the campaign as it is now; its id. The scheduler reckons it.

        Raises:
            NotFound, Forbidden, InvalidInput: as `create`.
            Conflict: it is sent already, or over.

        """
        campaign = await locked(c, id_, actor)
        if campaign.state not in UNSENT:
            raise refused(campaign, "previewed", *UNSENT)
        if campaign.template_version is not None:
            return await campaigns.ask_plan(c, self._new_id(), campaign, campaign.template_version)
        template = (await self._sound(c, campaign.content, await messages.clock(c))).template
        return await campaigns.ask_plan(c, self._new_id(), campaign, await templates.register(c, template))

    async def schedule(self, c: Connection, id_: UUID, plan_hash: str, actor: Actor) -> Campaign:
        """Approve a dry-run: what it was of is pinned, and goes out when its time comes.

        Raises:
            NotFound, Forbidden, InvalidInput: as `create`; no finished dry-run has this hash.
            Conflict: the campaign or its template is another since; or it is no draft.

        """
        campaign = await locked(c, id_, actor)
        if campaign.plan_hash == plan_hash and campaign.state is not CampaignState.CANCELLED:
            return campaign
        if campaign.state is not CampaignState.DRAFT:
            raise refused(campaign, "scheduled", CampaignState.DRAFT)
        now = await messages.clock(c)
        sound = await self._sound(c, campaign.content, now)
        require(actor, is_notice=sound.content.is_notice)
        version = await templates.register(c, sound.template)
        plan = _chosen(await campaigns.plans_with(c, id_, plan_hash), campaign, version)
        if not await campaigns.schedule(c, id_, _approval(sound, plan, version, now, actor)):
            raise AssertionError("the row is locked")
        return await current(c, id_)

    # What is wrong ----------------------------------------------------------------------------------------------------

    async def _sound(self, c: Connection, content: Content, now: datetime) -> _Sound:
        """Raises InvalidInput with everything that is wrong; its lists stay there until the transaction ends."""
        sound = self._checked(content, now)
        await lists.hold(c, sound.audience)
        return sound

    def _checked(self, content: Content, now: datetime) -> _Sound:
        problems: list[Problem] = []
        template = self.templates.find(content.template)
        if template is None:
            problems.append(Problem("/template", unknown(self.templates, content.template)))
        else:
            problems += self._template_problems(template)
            problems += template.problems(content.data, "/data", partly=True)
        audience = _parsed(lambda: Audience.parse(content.audience, self.templates.topics), problems)
        schedule = _parsed(lambda: Schedule.parse(content.schedule), problems)
        problems += self._sender_problems(content.sender) + _timing_problems(schedule, content.expires_at, now)
        if problems or template is None or audience is None or schedule is None:
            raise InvalidInput(problems)
        stored = replace(
            content, audience=audience.document, schedule=schedule.document, is_notice=is_notice(template.topic)
        )
        return _Sound(stored, template, audience, schedule)

    def _template_problems(self, template: Template) -> list[Problem]:
        if not template.is_marketing and not is_notice(template.topic):
            remedy = "choose one of a marketing topic, or send notifications one by one"
            return [Problem("/template", f"is of a transactional topic that is not mandatory; {remedy}")]
        if template.key in _SYSTEM:
            return [Problem("/template", "is Notifier's own, sent to those who asked for it; choose another one")]
        if not sendable(template, self.channels):
            return [Problem("/template", "none of its channels has a provider; set one up")]
        return []

    def _sender_problems(self, sender: str | None) -> list[Problem]:
        known = self.templates.identity.senders
        if sender is None or sender in known:
            return []
        names = f"choose of: {', '.join(sorted(known))}" if known else "it names none; leave this out"
        return [Problem("/sender", f"is not in NOTIFIER_SENDERS; {names}")]

    def _new_id(self) -> UUID:
        return self._ids.new(time.time_ns() // 1_000_000)


def _parsed(parse: Callable[[], T], problems: list[Problem]) -> T | None:
    try:
        return parse()
    except InvalidInput as error:
        problems += error.problems
        return None


def _timing_problems(schedule: Schedule | None, expires_at: datetime | None, now: datetime) -> list[Problem]:
    """What is wrong with its times, seen from `now`. Without a `schedule`: while it is sent."""
    remedy = "choose a later time" + (", or null to leave it to the template" if schedule else "")
    if schedule and schedule.ends_at(now) < now - PAST_MEANS_NOW:
        return [Problem("/schedule/at", "lies in the past; null means at once")]
    starts_at = schedule.starts_at(now) if schedule else now
    if starts_at > now + FURTHEST and schedule and not schedule.recurs:
        return [Problem("/schedule/at", "lies more than a year ahead; choose an earlier time")]
    if expires_at is None:
        return []
    if expires_at <= now:
        return [Problem("/expires_at", f"lies in the past; {remedy}")]
    if expires_at <= starts_at:
        return [Problem("/expires_at", f"lies before it begins; {remedy}")]
    if expires_at > now + 2 * FURTHEST:
        return [Problem("/expires_at", "lies more than two years ahead; choose an earlier time")]
    return []


async def _take_hold(c: Connection, campaign: Campaign, content: Content) -> None:
    """Let what was changed while it is sent hold at once, for what waits too."""
    if content.expires_at != campaign.content.expires_at:
        await campaigns.expire_queued(c, campaign.id, content.expires_at)
    if content.rate != campaign.content.rate:
        await campaigns.unpace(c, campaign.id)


def _approved(content: Content) -> bytes:
    """What an approval is of: all but the name. Not compared as Python does, to which `true` is the same as 1."""
    values = {name: getattr(content, name) for name in Content.__slots__ if name != "name"}
    expires_at = content.expires_at and content.expires_at.astimezone(UTC).isoformat()
    return canonical(values | {"expires_at": expires_at})


def _refuse_while_sent(content: Content, said: Mapping[str, Any], now: datetime) -> None:
    problems = [
        Problem(f"/{name}", f"cannot change any more while it is sent; only {', '.join(WHILE_SENT)} can")
        for name in said
        if name not in WHILE_SENT
    ]
    if "expires_at" in said:
        problems += _timing_problems(None, content.expires_at, now)
    if content.expires_at is None:
        problems.append(Problem("/expires_at", "cannot be removed while it is sent; choose a later time"))
    if problems:
        raise InvalidInput(problems)


def _chosen(plans: Sequence[Plan], campaign: Campaign, version: int) -> Plan:
    """The one that is of the campaign as it is now."""
    if not plans:
        raise InvalidInput(
            [Problem("/plan", "no finished dry-run of this campaign has this hash; copy it from the dry-run")]
        )
    if not (of_this := [plan for plan in plans if plan.revision == campaign.revision]):
        raise Conflict("The campaign was edited after this dry-run; ask for another one and look at it.")
    if not (current_ones := [plan for plan in of_this if plan.template_version == version]):
        raise Conflict("The template has changed since this dry-run; ask for another one and look at it.")
    return current_ones[0]


def _approval(sound: _Sound, plan: Plan, version: int, now: datetime, actor: Actor) -> Approval:
    """What recurs has no end of its own; each of its occurrences has."""
    lasts_until = sound.schedule.ends_at(now) + sound.template.expires_after
    return Approval(
        plan=plan.id,
        plan_hash=str(plan.hash),
        template_version=version,
        topic=sound.template.topic.key,
        category=sound.template.topic.category,
        is_notice=sound.content.is_notice,
        starts_at=sound.schedule.starts_at(now),
        expires_at=sound.content.expires_at or (None if sound.schedule.recurs else lasts_until),
        by=actor.name,
    )
