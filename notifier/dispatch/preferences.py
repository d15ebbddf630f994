"""A person looks at their own choices and changes them, through a link that stands for them.

Whoever holds a link may reduce; to opt in or to see everything it must be fresh (`ManageLink.is_fresh`): mail is passed
on. Every change is decided and written under the recipient's lock, so of two forms at once each undoes nothing that the
other one did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from notifier.dispatch.explain import stories_of
from notifier.dispatch.refusals import Withdrawal, withdraw
from notifier.domain.consent import Rule, Topic
from notifier.domain.explanation import Story
from notifier.domain.preferences import (
    Changes,
    Pause,
    Place,
    Preferences,
    Profile,
    Switch,
    changes,
    is_sooner,
    snoozed,
    view,
)
from notifier.domain.recipients import Hasher
from notifier.domain.tokens import Links, ManageLink
from notifier.store import addresses, consent, devices, messages, preferences, recipients, suppressions
from notifier.store.consent import NewEvent
from notifier.store.database import Connection, Database
from notifier.store.recipients import HeldAddress, Recipient
from notifier_channels.contract import Channel

SOURCE = "preference_page"
ORDER = (Channel.EMAIL, Channel.SMS, Channel.PUSH)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the page shows."""

    preferences: Preferences
    at: datetime  #: the database's clock
    is_fresh: bool  #: the link may also opt in


@dataclass(frozen=True, slots=True)
class Wished:
    """What a person asks for. None: no wish."""

    switches: Mapping[str, bool] = field(default_factory=dict)
    pause: Pause | None = None
    locale: str | None = None
    timezone: str | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """What has changed, and how everything stands now."""

    seen: Seen
    before: Profile
    changes: Changes
    is_pause_held_back: bool  #: it would have let marketing come earlier, and the link is not fresh
    undo: str | None  #: a token that takes back what was switched off

    @property
    def says_something(self) -> bool:
        """Whether anything at all has changed."""
        return bool(self.changes.off or self.changes.on or self.before != self.seen.preferences.profile)

    @property
    def needs_fresh_link(self) -> bool:
        """Whether something was asked for that only a fresh link may do."""
        return bool(self.changes.held_back) or self.is_pause_held_back


@dataclass(frozen=True, slots=True)
class Because:
    """Why a message came, for the person who got it."""

    topic: Topic | None
    sent_at: datetime | None
    rule: Rule | None  #: None: nobody can say any more
    source: str | None = None  #: how they had said yes
    said_at: datetime | None = None


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class PreferencePage:
    """Everything behind a manage link, and the reason why a message came."""

    database: Database
    links: Links
    hasher: Hasher
    topics: Mapping[str, Topic]
    now: Callable[[], datetime] = field(default=_utc_now)

    async def look(self, link: ManageLink) -> Seen | None:
        """What the page shows. Changes nothing (I7). None: nobody is known by this link."""
        async with self.database.connection() as c:
            person = await self._survivor(c, link.recipient)
            return await self._see(c, person, link) if person else None

    async def save(
        self, link: ManageLink, wished: Wished, evidence: Callable[[Switch], Mapping[str, Any]]
    ) -> Saved | None:
        """Write what is news among the wishes, and stop what is queued where it was a no."""
        return await self.database.transact(lambda c: self._save(c, link, wished, evidence))

    async def export(self, link: ManageLink) -> dict[str, Any] | None:
        """All that is kept of this person's choices and addresses; None unless the link is fresh and known."""
        if not link.is_fresh(self.now()):
            return None
        async with self.database.connection() as c:
            person = await self._survivor(c, link.recipient)
            return await self._export(c, person, link) if person else None

    async def why(self, message: UUID) -> Because | None:
        """Why a message came; None when it is not, or no longer, stored."""
        async with self.database.connection() as c:
            stories = await stories_of(c, self.hasher, message)
        return _because(stories[0], self.topics.get(stories[0].topic)) if stories else None

    # Save -------------------------------------------------------------------------------------------------------------

    async def _save(
        self, c: Connection, link: ManageLink, wished: Wished, evidence: Callable[[Switch], Mapping[str, Any]]
    ) -> Saved | None:
        person = (await recipients.lock_survivors(c, [link.recipient])).get(link.recipient)
        if person is None:
            return None
        before = await self._see(c, person, link)
        news = changes(before.preferences, wished.switches, may_grant=before.is_fresh)
        numbers = await self._write(c, person, news, lambda switch: {**link.trace, **evidence(switch)})
        profile, is_held_back = _chosen(before, wished)
        if profile != before.preferences.profile:
            await preferences.choose(c, person, profile)
        undo = self.links.undo_token(link.recipient, numbers, self.now()) if numbers else None
        return Saved(await self._see(c, person, link), before.preferences.profile, news, is_held_back, undo)

    async def _write(
        self, c: Connection, person: UUID, news: Changes, evidence: Callable[[Switch], Mapping[str, Any]]
    ) -> tuple[int, ...]:
        """First each no, then each yes: a topic that is turned on stays on beside a wider no of the same form."""
        said = [Withdrawal(person, one.scope, one.channel, SOURCE, evidence(one)) for one in news.off]
        withdrawn = await withdraw(c, said, self.topics) if said else None
        grants = [
            NewEvent(person, one.scope, one.channel, granted=True, source=SOURCE, evidence=evidence(one))
            for one in news.on
        ]
        await consent.record(c, grants)
        return withdrawn.numbers if withdrawn else ()

    # See --------------------------------------------------------------------------------------------------------------

    async def _survivor(self, c: Connection, recipient: UUID) -> UUID | None:
        """Who it is now: an old link names the nameless recipient that it was made for."""
        person = (await recipients.by_ids(c, [recipient])).get(recipient)
        return (person.merged_into or person.id) if person else None

    async def _see(self, c: Connection, person: UUID, link: ManageLink) -> Seen:
        found = (await recipients.by_ids(c, [person]))[person]
        events = (await consent.events_of(c, [person]))[person]
        at = await messages.clock(c)
        profile = Profile(found.locale, found.timezone, found.snoozed_until)
        shown = view(self.topics.values(), events, await self._places(c, person), profile, at)
        return Seen(shown, at, link.is_fresh(self.now()))

    async def _places(self, c: Connection, person: UUID) -> list[Place]:
        held = await recipients.addresses_of(c, [person])
        names = {one.id: one.name or str(one.platform) for one in await devices.of_recipient(c, person)}
        hashes = {one.id: self._hashes(one) for one in held}
        standing = await suppressions.in_force(c, [(one.channel, digest) for one in held for digest in hashes[one.id]])
        places = [
            Place(
                one.channel,
                names.get(one.id) or _masked(one),
                frozenset(block.reason for digest in hashes[one.id] for block in standing.get(digest, ())),
            )
            for one in held
        ]
        return sorted(places, key=lambda place: ORDER.index(place.channel))

    def _hashes(self, held: HeldAddress) -> set[bytes]:
        address = addresses.restore(held.channel, held.address)
        return {held.address_hash, *(self.hasher.all(address) if address else ())}

    async def _export(self, c: Connection, person: UUID, link: ManageLink) -> dict[str, Any]:
        seen = await self._see(c, person, link)
        found = (await recipients.by_ids(c, [person]))[person]
        held = await recipients.addresses_of(c, [person])
        names = {one.id: one for one in await devices.of_recipient(c, person)}
        ledger = await consent.ledger_of(c, person)
        return {
            "exported_at": seen.at,
            "profile": _profile(found),
            "addresses": [
                {"channel": one.channel, "address": one.address}
                if one.id not in names
                else {"channel": one.channel, "name": names[one.id].name, "platform": names[one.id].platform}
                for one in held
            ],
            "topics": [
                {"topic": switch.topic.key, "channel": switch.channel, "allowed": switch.on}
                for switch in seen.preferences.switches.values()
                if switch.topic is not None
            ],
            "ledger": [{name: value for name, value in row.items() if name != "recipient_id"} for row in ledger],
        }


def _chosen(before: Seen, wished: Wished) -> tuple[Profile, bool]:
    """The profile as it is wished, and whether the wish for a pause had to be held back."""
    profile = before.preferences.profile
    until = profile.snoozed_until
    if wished.pause is not None:
        until = snoozed(wished.pause, before.at)
    is_held_back = not before.is_fresh and is_sooner(until, profile.snoozed_until, before.at)
    return replace(
        profile,
        locale=wished.locale or profile.locale,
        timezone=wished.timezone or profile.timezone,
        snoozed_until=profile.snoozed_until if is_held_back else until,
    ), is_held_back


def _masked(held: HeldAddress) -> str:
    address = addresses.restore(held.channel, held.address)
    return address.masked if address else ""


def _profile(found: Recipient) -> dict[str, Any]:
    names = ("external_id", "locale", "timezone", "snoozed_until", "attributes", "created_at")
    return {name: getattr(found, name) for name in names}


def _because(story: Story, topic: Topic | None) -> Because:
    decision = story.decision or {}
    rule = Rule(decision["rule"]) if decision.get("rule") in set(Rule) else None
    deciding: Sequence[int] = decision.get("numbers", ())
    line = next((line for line in story.lines if line.number in deciding), None)
    sent_at = max((one.started_at for one in story.tries), default=story.accepted_at)
    return Because(topic, sent_at, rule, line.source if line else None, line.occurred_at if line else None)
