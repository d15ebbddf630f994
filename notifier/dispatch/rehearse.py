"""A campaign tried out: real messages to people who are named, marked as tests, through the same gate as all others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from notifier.dispatch.drafts import Reach, refuse_people, sendable, unknown
from notifier.dispatch.once import Once
from notifier.dispatch.shelf import Shelf
from notifier.dispatch.steering import locked, refused
from notifier.domain.access import Actor
from notifier.domain.campaigns import CampaignState, data_for
from notifier.domain.messages import Ids, Lane
from notifier.domain.who import Given
from notifier.errors import InvalidInput, Problem
from notifier.rendering import Template, Templates
from notifier.store import messages, recipients, templates, who
from notifier.store.campaigns import Campaign
from notifier.store.database import Connection
from notifier.store.messages import NewMessage
from notifier_channels.contract import Channel

MOST = 20  #: people at once
_ALIVE = frozenset(CampaignState) - {CampaignState.FINISHED, CampaignState.CANCELLED}


@dataclass(frozen=True, slots=True)
class Rehearse:
    """Sends tests. On each of the template's channels that reaches a person, whatever their order is to be later."""

    templates: Templates
    channels: frozenset[Channel]  #: those with a provider
    _ids: Ids = field(default_factory=Ids)

    async def __call__(
        self, c: Connection, id_: UUID, people: Sequence[Given], actor: Actor, once: Once | None = None
    ) -> tuple[Mapping[str, Any], list[NewMessage]]:
        """The answer, and the messages, which are due now. Runs in the caller's transaction.

        Raises:
            NotFound, Forbidden: there is no such campaign, or it is not the actor's to touch.
            Conflict: it is over; or an address is not the stored one, or has several holders.
            InvalidInput: somebody is unknown or out of reach, or their attributes lack what the template needs.

        """
        first = await once.answered(c) if once else None
        if first is not None:
            return first, []
        campaign = await locked(c, id_, actor)
        if campaign.state not in _ALIVE:
            raise refused(campaign, "tested", *_ALIVE)
        number, template = await self._version(c, campaign)
        planned = await who.settle(c, people, self._new_id, replace=False)
        refuse_people([f"/recipients/{n}" for n in range(len(people))], planned.answers)
        named = [one for one in planned.answers if isinstance(one, UUID)]
        reach = await who.reach(c, planned, set(named))
        await self._refuse(c, named, campaign, template, reach)
        same = _same(campaign, template, number, await messages.clock(c))
        new = [
            NewMessage(self._new_id(), recipient_id=person, address_id=address, channel=channel, **same)
            for person in dict.fromkeys(named)
            for channel in sendable(template, self.channels)
            for address in reach[person].get(channel, ())
        ]
        await messages.insert(c, new)
        answer = {"messages": [{"id": str(one.id), "channel": str(one.channel)} for one in new]}
        if once:
            await once.keep(c, id_, answer)
        return answer, new

    async def _version(self, c: Connection, campaign: Campaign) -> tuple[int, Template]:
        """What is pinned, or of a draft what is current."""
        if campaign.template_version is not None:
            shelf = Shelf(self.templates)
            await shelf.fetch(c, [campaign.template_version])
            return campaign.template_version, shelf[campaign.template_version]
        template = self.templates.find(campaign.content.template)
        if template is None:
            raise InvalidInput(
                [Problem("", f"the campaign names {unknown(self.templates, campaign.content.template)}")]
            )
        return await templates.register(c, template), template

    async def _refuse(
        self, c: Connection, named: Sequence[UUID], campaign: Campaign, template: Template, reach: Reach
    ) -> None:
        possible = sendable(template, self.channels)
        stored = await recipients.by_ids(c, named)
        problems = []
        for n, person in enumerate(named):
            if not any(reach[person].get(channel) for channel in possible):
                wanted = " or ".join(possible)
                problems.append(Problem(f"/recipients/{n}", f"has no address for {wanted}; store one or give it here"))
            data = data_for(template.schema.properties, stored[person].attributes, campaign.content.data)
            problems += [
                Problem(
                    f"/recipients/{n}", f"their attributes do not make up for the data: `{one.pointer}` {one.detail}"
                )
                for one in template.problems(data)
            ]
        if problems:
            raise InvalidInput(problems)

    def _new_id(self) -> UUID:
        return self._ids.new(time.time_ns() // 1_000_000)


def _same(campaign: Campaign, template: Template, number: int, now: datetime) -> dict[str, Any]:
    """What all of its messages have alike."""
    return {
        "notification_id": None,
        "lane": Lane(template.topic.category),
        "category": template.topic.category,
        "topic": template.topic.key,
        "template_version": number,
        "due_at": now,
        "expires_at": now + template.expires_after,
        "campaign_id": campaign.id,
        "is_test": True,
    }
