"""Double opt-in: somebody is asked by a message whether it was really them, and only their button is a yes.

Until then nothing but that message is sent. A link works once, for the address that it was sent to, and no longer when
a no was said meanwhile. Needs PostgreSQL; a lost ring is made up for by the sweep.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeAlias
from uuid import UUID

from notifier.dispatch.refusals import lock_holders
from notifier.domain.basis import Basis
from notifier.domain.confirmations import LOOK_BACK, TEMPLATE, remaining, wait
from notifier.domain.consent import SuppressionReason, Topic
from notifier.domain.messages import Category, Ids, Lane
from notifier.domain.recipients import Hasher
from notifier.domain.standing import covers
from notifier.domain.tokens import CONFIRM_FOR, ConfirmLink, Links
from notifier.errors import Conflict, InvalidInput, NotFound, Problem, TooSoon
from notifier.jobs import Jobs
from notifier.rendering import Template, Templates
from notifier.rendering.locales import pick
from notifier.store import confirmations, consent, messages, notifications, recipients, suppressions, templates
from notifier.store.addresses import restore
from notifier.store.confirmations import Confirmation
from notifier.store.consent import NewEvent
from notifier.store.database import Connection, Database
from notifier.store.messages import NewMessage
from notifier.store.notifications import NewNotification
from notifier.store.recipients import HeldAddress, Recipient
from notifier_channels.contract import Address, Channel

SOURCE = "double_opt_in"  #: of such ledger lines


@dataclass(frozen=True, slots=True)
class Asked:
    """A message is on its way that asks."""

    confirmation: UUID
    notification: UUID
    expires_at: datetime
    remaining: int  #: how many more may be sent within a day


@dataclass(frozen=True, slots=True)
class Pending:
    """What a link asks, and to whom."""

    topic: Topic
    channel: Channel
    masked: str | None = None
    locale: str | None = None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The yes is written down. A repeat says so again and writes nothing."""

    pending: Pending


@dataclass(frozen=True, slots=True)
class Outdated:
    """A no was said since, or the address or the topic is gone: nothing has changed."""

    pending: Pending | None


Standing: TypeAlias = Pending | Confirmed | Outdated


@dataclass(frozen=True, slots=True)
class _Request:
    """What product code passed on."""

    recipient: str
    topic: Topic
    channel: Channel
    evidence: Mapping[str, Any]
    key_id: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """Asks, and takes the answer."""

    database: Database
    templates: Templates
    jobs: Jobs
    hasher: Hasher
    links: Links
    channels: frozenset[Channel]  #: those with a provider
    _ids: Ids = field(default_factory=Ids)

    # Asking -----------------------------------------------------------------------------------------------------------

    async def ask(
        self, recipient: str, topic: str, channel: Channel, *, evidence: Mapping[str, Any], key_id: str
    ) -> Asked:
        """Send the message that asks whether it was really them.

        Raises:
            NotFound: there is no such recipient.
            InvalidInput: the topic or the channel cannot be confirmed, or the recipient has no address there.
            TooSoon: the recipient or the address was asked often enough for now.
            Conflict: the installation's templates lack the one that asks.

        """
        template = self._template(topic, channel)
        request = _Request(recipient, self.templates.topics[topic], channel, evidence, key_id)
        asked, message = await self.database.transact(lambda c: self._ask(c, request, template))
        self.jobs.ring(Lane.TRANSACTIONAL, [message])
        return asked

    def _template(self, key: str, channel: Channel) -> Template:
        topic, template = self.templates.topics.get(key), self.templates.find(TEMPLATE)
        if topic is None:
            raise InvalidInput([Problem("/topic", "no such topic; see topics.toml for all")])
        if topic.mandatory:
            raise InvalidInput([Problem("/topic", "is mandatory and needs no yes; leave it out")])
        if channel not in topic.defaults:
            raise InvalidInput([Problem("/channel", "the topic has no such channel")])
        if template is None:
            raise Conflict(f"There is no template `{TEMPLATE}`; copy the one that ships, or mend it.")
        if channel not in template.channels & self.channels:
            raise InvalidInput([Problem("/channel", "cannot be confirmed by a link; ask on another channel")])
        return template

    async def _ask(self, c: Connection, request: _Request, template: Template) -> tuple[Asked, UUID]:
        person, held = await self._lock(c, request.recipient, request.channel)
        now = await messages.clock(c)
        left = await self._room(c, person.id, held, now)
        one = Confirmation(
            id=self._new_id(),
            recipient=person.id,
            topic=request.topic.key,
            channel=request.channel,
            address_hash=held.address_hash,
            requested_at=now,
            expires_at=now + CONFIRM_FOR,
            evidence=request.evidence,
        )
        await confirmations.add(c, one)
        version = await templates.register(c, template)
        notification, message = self._message(one, held, template, version, now)
        data = self._data(one, request.topic, person.locale)
        await notifications.insert(c, [_notification(notification, message, data, request.key_id, now)])
        await messages.insert(c, [message])
        return Asked(one.id, notification, one.expires_at, left), message.id

    async def _lock(self, c: Connection, recipient: str, channel: Channel) -> tuple[Recipient, HeldAddress]:
        """Lock everybody who holds the recipient's address, so that nobody else counts what it was asked meanwhile."""
        person = (await recipients.by_external_ids(c, [recipient])).get(recipient)
        if person is None:
            raise NotFound("There is no recipient with this id; PUT /v1/recipients/{id} first.")
        if found := await self._address(c, person.id, channel):
            await lock_holders(c, self.hasher, found[1], channel)
        held = await self._address(c, person.id, channel)
        if held is None or held != found:
            raise InvalidInput([Problem("/channel", "the recipient has no address there; PUT it first")])
        return person, held[0]

    async def _address(self, c: Connection, person: UUID, channel: Channel) -> tuple[HeldAddress, Address] | None:
        for held in await recipients.addresses_of(c, [person]):
            if held.channel is channel and (address := restore(channel, held.address)):
                return held, address
        return None

    async def _room(self, c: Connection, person: UUID, held: HeldAddress, now: datetime) -> int:
        """How many more there may be after this one."""
        both = (
            await confirmations.asked_of(c, person, LOOK_BACK),
            await confirmations.asked_at(c, sorted(self._hashes(held)), LOOK_BACK),
        )
        waits = [time_left for asked in both if (time_left := wait(asked, now))]
        if waits:
            raise TooSoon("Somebody was asked for a confirmation a short while ago, or often today.", max(waits))
        return min(remaining(asked, now) for asked in both) - 1

    def _hashes(self, held: HeldAddress) -> set[bytes]:
        address = restore(held.channel, held.address)
        return {held.address_hash, *(self.hasher.all(address) if address else ())}

    def _message(
        self, one: Confirmation, held: HeldAddress, template: Template, version: int, now: datetime
    ) -> tuple[UUID, NewMessage]:
        notification = self._new_id()
        return notification, NewMessage(
            id=self._new_id(),
            notification_id=notification,
            recipient_id=one.recipient,
            address_id=held.id,
            channel=one.channel,
            lane=Lane(template.topic.category),
            category=template.topic.category,
            topic=template.topic.key,
            template_version=version,
            due_at=now,
            expires_at=now + template.expires_after,
        )

    def _data(self, one: Confirmation, topic: Topic, locale: str | None) -> dict[str, Any]:
        link = ConfirmLink(one.id, one.recipient, one.channel, one.address_hash, one.topic, one.expires_at)
        name = self._say(topic.names, locale) or topic.key
        about = self._say(topic.descriptions, locale)
        data = {"confirm_url": self.links.confirm_url(link), "topic_name": name, "valid_days": CONFIRM_FOR.days}
        return data | ({"topic_description": about} if about else {})

    def _say(self, by_locale: Mapping[str, str], locale: str | None) -> str:
        default = self.templates.default_locale
        return pick(by_locale, locale or default, default) or next(iter(by_locale.values()), "")

    def _new_id(self) -> UUID:
        return self._ids.new(time.time_ns() // 1_000_000)

    # The answer -------------------------------------------------------------------------------------------------------

    def read(self, token: str) -> ConfirmLink | None:
        """What the link says, from its signature alone; None when it is not one of ours, or has expired."""
        return self.links.read_confirm(token, datetime.now(UTC))

    def guess(self, link: ConfirmLink) -> Pending | None:
        """What can be shown while the database is away."""
        topic = self.templates.topics.get(link.topic)
        return Pending(topic, link.channel) if topic and not topic.mandatory else None

    async def look(self, link: ConfirmLink) -> Standing:
        """What the page shows. Changes nothing."""
        async with self.database.connection() as c:
            one = await confirmations.find(c, link.confirmation)
            return await self._standing(c, one, one.recipient if one else link.recipient)

    async def __call__(self, link: ConfirmLink, evidence: Mapping[str, Any]) -> Standing:
        """The button: the yes is written down, or there is a reason why not."""
        return await self.database.transact(lambda c: self._confirm(c, link, evidence))

    async def _confirm(self, c: Connection, link: ConfirmLink, evidence: Mapping[str, Any]) -> Standing:
        asked = await confirmations.find(c, link.confirmation)
        if asked is None:
            return Outdated(self.guess(link))
        holders = await recipients.holders(c, asked.channel, [asked.address_hash])
        survivors = await recipients.lock_survivors(c, [asked.recipient, *(one.recipient_id for one in holders)])
        person = survivors[asked.recipient]
        one = await confirmations.find(c, link.confirmation)  # somebody may have pressed the button while we waited
        standing = await self._standing(c, one, person)
        if one is None or not isinstance(standing, Pending):
            return standing
        [number] = await consent.record(c, [_grant(one, person, standing.topic, evidence)])
        await confirmations.confirm(c, one, number)
        if standing.topic.category is Category.MARKETING:
            await self._lift_complaint(c, person, one, number)
        return Confirmed(standing)

    async def _standing(self, c: Connection, one: Confirmation | None, asked: UUID) -> Standing:
        found = await recipients.by_ids(c, [asked])
        topic = self.templates.topics.get(one.topic) if one else None
        if one is None or asked not in found or topic is None or topic.mandatory:
            return Outdated(None)
        person = found[asked].merged_into or asked
        held = await self._address(c, person, one.channel)
        pending = Pending(topic, one.channel, held[1].masked if held else None, found[asked].locale)
        events = (await consent.events_of(c, [person])).get(person, [])
        is_theirs = held is not None and one.address_hash in self._hashes(held[0])
        is_late = one.expires_at <= await messages.clock(c)
        if is_late or not is_theirs or covers(topic, one.channel, events, one.requested_at):
            return Outdated(pending)
        return pending if one.number is None else Confirmed(pending)

    async def _lift_complaint(self, c: Connection, person: UUID, one: Confirmation, number: int) -> None:
        """New evidence ends a complaint. Hard bounces, STOP and what operators block are not the person's to end."""
        held = await self._address(c, person, one.channel)
        hashes = self._hashes(held[0]) if held else {one.address_hash}
        why = f"confirmed by double opt-in, ledger line {number}"
        asked = {(one.channel, digest) for digest in hashes}
        await suppressions.lift(c, asked, SuppressionReason.COMPLAINT, why=why)


def _grant(one: Confirmation, person: UUID, topic: Topic, evidence: Mapping[str, Any]) -> NewEvent:
    """A yes with both halves of its proof: how it was asked for, and how it was confirmed."""
    shown = {name: one.evidence[name] for name in ("wording", "wording_version") if name in one.evidence}
    proof = {
        **shown,
        "basis": str(Basis.EXPRESS),
        "confirmation": str(one.id),
        "requested": {**one.evidence, "at": one.requested_at.isoformat()},
        "confirmed": {**evidence, "at": datetime.now(UTC).isoformat()},
    }
    return NewEvent(person, topic.scope, str(one.channel), granted=True, source=SOURCE, evidence=proof)


def _notification(
    id_: UUID, message: NewMessage, data: Mapping[str, Any], key_id: str, now: datetime
) -> NewNotification:
    digest = sha256(id_.bytes).digest()
    return NewNotification(
        id=id_,
        recipient_id=message.recipient_id,
        template_version=message.template_version,
        data=data,
        api_key_id=key_id,
        created_at=now,
        key_hash=digest,
        body_hash=digest,
        answer={
            "id": str(id_),
            "created_at": now.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "messages": [{"id": str(message.id), "channel": str(message.channel)}],
        },
    )
