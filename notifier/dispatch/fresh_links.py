"""Mails a person a fresh link to their own settings: what a link that may have been passed on offers instead of acting.

It goes to the addresses that the person holds, never to whoever asked, who does not learn either whether it went.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

from notifier.domain.confirmations import LINK_LIMITS, LOOK_BACK, wait
from notifier.domain.messages import Ids, Lane
from notifier.domain.recipients import Hasher
from notifier.domain.tokens import FRESH_LINK, PageLink
from notifier.jobs import Jobs
from notifier.rendering import Template, Templates
from notifier.store import addresses, messages, notifications, preferences, recipients, templates
from notifier.store.database import Connection, Database
from notifier.store.messages import NewMessage
from notifier.store.notifications import NewNotification
from notifier.store.recipients import HeldAddress
from notifier_channels.contract import Channel


@dataclass(frozen=True, slots=True)
class FreshLinks:
    """Sends a manage link to whom a link stands for."""

    database: Database
    templates: Templates
    jobs: Jobs
    hasher: Hasher
    channels: frozenset[Channel]  #: those with a provider
    _ids: Ids = field(default_factory=Ids)

    @property
    def template(self) -> Template | None:
        """None where the product's own templates have none: then no link is offered."""
        return self.templates.find(FRESH_LINK)

    async def __call__(self, link: PageLink) -> bool:
        """Send one, unless there were enough of late or it can go nowhere. The answer is not for whoever asked."""
        template = self.template
        if template is None:
            return False
        queued = await self.database.transact(lambda c: self._queue(c, link.recipient, template))
        if due := [message.id for message in queued if not message.step]:
            self.jobs.ring(Lane.TRANSACTIONAL, due)
        return bool(queued)

    async def _queue(self, c: Connection, recipient: UUID, template: Template) -> list[NewMessage]:
        person = await self._lock(c, recipient)
        if person is None:
            return []
        now = await messages.clock(c)
        held = await self._free(c, person, template.topic.key, now)
        channels = template.channels & template.topic.defaults.keys() & self.channels
        reach = {one.channel: one.id for one in held if one.channel in channels}
        if not reach:
            return []
        version = await templates.register(c, template)
        id_ = self._new_id()
        queued = self._messages(template, version, id_, person, reach, now)
        await notifications.insert(c, [_notification(id_, person, version, queued, now)])
        await messages.insert(c, queued)
        return queued

    async def _lock(self, c: Connection, recipient: UUID) -> UUID | None:
        """Lock whom the link stands for and whoever else holds their addresses, so that nobody counts at once."""
        person = (await recipients.by_ids(c, [recipient])).get(recipient)
        if person is None:
            return None
        held = await recipients.addresses_of(c, [person.merged_into or person.id])
        others = await self._holders(c, held)
        return (await recipients.lock_survivors(c, [recipient, *others])).get(recipient)

    async def _free(self, c: Connection, person: UUID, topic: str, now: datetime) -> list[HeldAddress]:
        """Those of the person's addresses to which one more may go; none when the person has had enough."""
        held = await recipients.addresses_of(c, [person])
        oldest = UUID(int=int((time.time() - 2 * LOOK_BACK.total_seconds()) * 1000) << 80)
        people = {person, *(await self._holders(c, held))}
        sent = await preferences.newest(c, people, topic, LOOK_BACK, oldest)
        if wait(list({request: at for request, whose, _, at in sent if whose == person}.values()), now, LINK_LIMITS):
            return []
        hashes = {one.id: self._hashes(one) for one in held}
        at = {one.id: [at for _, _, digest, at in sent if digest in hashes[one.id]] for one in held}
        return [one for one in held if wait(at[one.id], now, LINK_LIMITS) is None]

    async def _holders(self, c: Connection, held: Sequence[HeldAddress]) -> set[UUID]:
        found = [await recipients.holders(c, one.channel, sorted(self._hashes(one))) for one in held]
        return {other.recipient_id for others in found for other in others}

    def _hashes(self, held: HeldAddress) -> set[bytes]:
        address = addresses.restore(held.channel, held.address)
        return {held.address_hash, *(self.hasher.all(address) if address else ())}

    def _messages(
        self,
        template: Template,
        version: int,
        notification: UUID,
        person: UUID,
        reach: Mapping[Channel, UUID],
        now: datetime,
    ) -> list[NewMessage]:
        """One on each channel, in the order of their steps."""
        steps = template.route.steps(reach)
        expires_at = now + template.expires_after
        return [
            NewMessage(
                id=self._new_id(),
                notification_id=notification,
                recipient_id=person,
                address_id=reach[channel],
                channel=channel,
                lane=Lane(template.topic.category),
                category=template.topic.category,
                topic=template.topic.key,
                template_version=version,
                due_at=min(template.route.looks_at(steps[channel], now), expires_at),
                expires_at=expires_at,
                step=steps[channel],
                turn_at=template.route.turn_at(steps[channel], now) if steps[channel] else None,
                is_followed=steps[channel] < max(steps.values()),
            )
            for channel in sorted(reach, key=steps.__getitem__)
        ]

    def _new_id(self) -> UUID:
        return self._ids.new(time.time_ns() // 1_000_000)


def _notification(
    id_: UUID, person: UUID, version: int, queued: Sequence[NewMessage], now: datetime
) -> NewNotification:
    """What stands for the request: no caller's key, so the hash of its own id."""
    digest = sha256(id_.bytes).digest()
    return NewNotification(
        id=id_,
        recipient_id=person,
        template_version=version,
        data={},
        api_key_id=None,
        created_at=now,
        key_hash=digest,
        body_hash=digest,
        answer={
            "id": str(id_),
            "created_at": now.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "messages": [{"id": str(message.id), "channel": str(message.channel)} for message in queued],
        },
    )
