"""A message's first step: what callers ask for becomes rows, once per idempotency key, before anybody hears "202".

A batch is accepted whole or not at all, in a constant number of statements. One notification is a batch of one; those
that arrive while others are being stored share the next batch, and none of them suffers for another's mistake.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from notifier.dispatch.drafts import (
    Draft,
    Judge,
    Reach,
    refuse_doubled_keys,
    refuse_other_bodies,
    refuse_people,
    refuse_scopes,
    refuse_unreachable,
)
from notifier.domain.messages import Ids, Lane
from notifier.domain.notifications import Notification
from notifier.errors import NotifierError
from notifier.jobs import Jobs
from notifier.rendering import Templates
from notifier.store import messages, notifications, templates, who
from notifier.store.database import Connection, Database
from notifier.store.messages import NewMessage
from notifier.store.notifications import NewNotification
from notifier_channels.contract import Channel

TOGETHER = 100  #: single notifications that share a transaction
TURNS = 2  #: such transactions at a time


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the caller hears: the ids, and whether this is the answer to an earlier request under the same key."""

    answer: Mapping[str, Any]
    is_replay: bool


@dataclass(frozen=True, slots=True)
class Accept:
    """Takes notifications in: from their commit on, each message ends in a final state with a reason (I1)."""

    database: Database
    templates: Templates
    jobs: Jobs
    channels: frozenset[Channel] = frozenset({Channel.EMAIL})  #: those with a provider
    _ids: Ids = field(default_factory=Ids)
    _versions: dict[str, int] = field(default_factory=dict)

    async def __call__(self, asked: Sequence[Notification]) -> list[Accepted]:
        """Accept all of these or none; the answers come in the same order.

        Raises:
            InvalidInput: lists everything that is wrong with any of them.
            Conflict: an address has several holders, or is not the stored one.
            Forbidden: the key lacks the scope that a template's category needs.

        """
        refuse_doubled_keys(asked)
        await self._register(asked)
        answers, new = await self.database.transact(lambda c: self._accept(c, asked))
        due: dict[Lane, list[UUID]] = defaultdict(list)
        for message in new:
            due[message.lane].append(message.id)
        for lane, ids in due.items():
            self.jobs.ring(lane, ids)
        return answers

    async def _accept(self, c: Connection, asked: Sequence[Notification]) -> tuple[list[Accepted], list[NewMessage]]:
        now, first = await notifications.first_answers(c, [one.key_hash for one in asked])
        refuse_other_bodies(asked, first)
        new = [one for one in asked if one.key_hash not in first]
        stored, due = await self._store(c, new, now) if new else ({}, [])
        return [
            Accepted(first[one.key_hash].answer, is_replay=True)
            if one.key_hash in first
            else Accepted(stored[one.key_hash].answer, is_replay=False)
            for one in asked
        ], due

    async def _store(
        self, c: Connection, new: Sequence[Notification], now: datetime
    ) -> tuple[dict[bytes, NewNotification], list[NewMessage]]:
        drafts = Judge(self.templates, self.channels)(new, now)
        refuse_scopes(drafts)
        planned = await who.settle(c, [one.recipient for one in new], self._new_id, replace=False)
        refuse_people([f"{one.pointer}/recipient" for one in new], planned.answers)
        by_device = {draft.person(planned) for draft in drafts if Channel.PUSH in draft.channels}
        reach = await who.reach(c, planned, by_device)
        refuse_unreachable(drafts, planned, reach)
        rows = [self._compose(draft, draft.person(planned), reach, now) for draft in drafts]
        kept = [notification for notification, _ in rows]
        if not await notifications.insert(c, kept):
            raise psycopg.errors.SerializationFailure("another request was first with one of these keys")
        queued = [message for _, messages_ in rows for message in messages_]
        await messages.insert(c, queued)
        due = [message for message in queued if message.due_at <= now and not message.step]
        return {one.key_hash: one for one in kept}, due

    # Composing the rows ------------------------------------------------------------------------------------------

    def _compose(
        self, draft: Draft, person: UUID, reach: Reach, now: datetime
    ) -> tuple[NewNotification, list[NewMessage]]:
        id_ = self._new_id()
        queued = self._messages(draft, id_, person, reach[person])
        return NewNotification(
            id=id_,
            recipient_id=person,
            template_version=self._versions[draft.template.hash],
            data=draft.asked.data,
            api_key_id=draft.asked.caller.key_id,
            created_at=now,
            key_hash=draft.asked.key_hash,
            body_hash=draft.asked.body_hash,
            answer={
                "id": str(id_),
                "created_at": now.astimezone(UTC).isoformat().replace("+00:00", "Z"),
                "messages": [{"id": str(message.id), "channel": str(message.channel)} for message in queued],
            },
        ), queued

    def _messages(
        self, draft: Draft, notification: UUID, person: UUID, held: Mapping[Channel, Sequence[UUID]]
    ) -> list[NewMessage]:
        """One for each address, in the order of their steps; all devices of a person share one."""
        route = draft.template.route
        reachable = draft.reachable(held)
        steps = route.steps(reachable)
        return [
            NewMessage(
                id=self._new_id(),
                notification_id=notification,
                recipient_id=person,
                address_id=address,
                channel=channel,
                lane=Lane(draft.template.topic.category),
                category=draft.template.topic.category,
                topic=draft.template.topic.key,
                template_version=self._versions[draft.template.hash],
                due_at=min(route.looks_at(steps[channel], draft.due_at), draft.expires_at),
                expires_at=draft.expires_at,
                step=steps[channel],
                turn_at=route.turn_at(steps[channel], draft.due_at) if steps[channel] else None,
                is_followed=steps[channel] < max(steps.values()),
            )
            for channel in sorted(reachable, key=steps.__getitem__)
            for address in held[channel]
        ]

    def _new_id(self) -> UUID:
        return self._ids.new(time.time_ns() // 1_000_000)

    async def _register(self, asked: Sequence[Notification]) -> None:
        """Number the template versions that this process has not used yet; what is numbered stays numbered."""
        found = {template.hash: template for one in asked if (template := self.templates.find(one.template))}
        missing = [template for hash_, template in found.items() if hash_ not in self._versions]
        if missing:
            async with self.database.connection() as c:
                for template in missing:
                    self._versions[template.hash] = await templates.register(c, template)


@dataclass(slots=True)
class AcceptOne:
    """Takes single notifications in. Under load they share transactions; alone, one waits for nobody."""

    accept: Accept
    _waiting: list[_Waiting] = field(default_factory=list)
    _turns: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)  #: the loop itself would let them be collected

    async def __call__(self, asked: Notification) -> Accepted:
        """Accept one, or refuse it with what `Accept` raises."""
        waiting = _Waiting(asked, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._turns < TURNS:
            self._turns += 1
            task = asyncio.create_task(self._serve())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await waiting.answer

    async def _serve(self) -> None:
        while group := self._next_group():
            try:
                answers = await self.accept([one.asked for one in group])
            except NotifierError as error:
                await self._one_by_one(group, error)
            except Exception as error:  # noqa: BLE001  # each of those who wait is told
                for one in group:
                    one.fail(error)
            else:
                for one, answer in zip(group, answers, strict=True):
                    one.succeed(answer)
        self._turns -= 1  # right after the last look: whoever comes now starts a turn

    def _next_group(self) -> list[_Waiting]:
        """Those who have waited longest; a second request under the same key finds the first one's answer later."""
        group: dict[bytes, _Waiting] = {}
        later = []
        for one in self._waiting:
            free = one.asked.key_hash not in group and len(group) < TOGETHER
            group.setdefault(one.asked.key_hash, one) if free else later.append(one)
        self._waiting = later
        return list(group.values())

    async def _one_by_one(self, group: Sequence[_Waiting], error: NotifierError) -> None:
        """One of them was refused, and with it all: each is heard by itself."""
        if len(group) == 1:
            group[0].fail(error)
            return
        for one in group:
            try:
                [answer] = await self.accept([one.asked])
            except Exception as its_own:  # noqa: BLE001  # whoever waits is told
                one.fail(its_own)
            else:
                one.succeed(answer)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A caller who has gone away is neither told nor missed: what was accepted stays accepted."""

    asked: Notification
    answer: asyncio.Future[Accepted]

    def succeed(self, answer: Accepted) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
