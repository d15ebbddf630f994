"""A message's first step: what callers ask for becomes rows, once per idempotency key, before anybody hears "202".

A batch is accepted whole or not at all, in a constant number of statements; one notification is a batch of one.
"""

from __future__ import annotations

import difflib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, assert_never
from uuid import UUID

import psycopg

from notifier.domain.access import Caller, Scope
from notifier.domain.messages import Ids, Lane
from notifier.domain.notifications import Notification
from notifier.domain.who import Answer, Plan, Rule
from notifier.errors import Conflict, Forbidden, InvalidInput, Problem
from notifier.jobs import Jobs
from notifier.rendering import Template, Templates
from notifier.store import messages, notifications, templates, who
from notifier.store.database import Connection, Database
from notifier.store.messages import NewMessage
from notifier.store.notifications import FirstAnswer, NewNotification
from notifier_channels.contract import Channel

MAX_PROBLEMS = 100  #: of one answer: enough to mend a batch by


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

    async def __call__(self, asked: Sequence[Notification], caller: Caller) -> list[Accepted]:
        """Accept all of these or none; the answers come in the same order.

        Raises:
            InvalidInput: lists everything that is wrong with any of them.
            Conflict: an address has several holders, or is not the stored one.
            Forbidden: the key lacks the scope that a template's category needs.

        """
        _refuse_doubled_keys(asked)
        await self._register(asked)
        answers, new = await self.database.transact(lambda c: self._accept(c, asked, caller))
        due: dict[Lane, list[UUID]] = defaultdict(list)
        for message in new:
            due[message.lane].append(message.id)
        for lane, ids in due.items():
            self.jobs.ring(lane, ids)
        return answers

    async def _accept(
        self, c: Connection, asked: Sequence[Notification], caller: Caller
    ) -> tuple[list[Accepted], list[NewMessage]]:
        now, first = await notifications.first_answers(c, [one.key_hash for one in asked])
        _refuse_other_bodies(asked, first)
        new = [one for one in asked if one.key_hash not in first]
        stored, due = await self._store(c, new, caller, now) if new else ({}, [])
        return [
            Accepted(first[one.key_hash].answer, is_replay=True)
            if one.key_hash in first
            else Accepted(stored[one.key_hash].answer, is_replay=False)
            for one in asked
        ], due

    async def _store(
        self, c: Connection, new: Sequence[Notification], caller: Caller, now: datetime
    ) -> tuple[dict[bytes, NewNotification], list[NewMessage]]:
        drafts = self._draft(new, now)
        _refuse_scopes(drafts, caller)
        planned = await who.settle(c, [one.recipient for one in new], self._new_id, replace=False)
        _refuse_people(new, planned.answers)
        _refuse_unreachable(drafts, planned)
        rows = [self._compose(draft, planned, caller, now) for draft in drafts]
        kept = [notification for notification, _ in rows]
        if not await notifications.insert(c, kept):
            raise psycopg.errors.SerializationFailure("another request was first with one of these keys")
        queued = [message for _, messages_ in rows for message in messages_]
        await messages.insert(c, queued)
        return {one.key_hash: one for one in kept}, [message for message in queued if message.due_at <= now]

    # Judging: pure, and complete before anything is written ------------------------------------------------------

    def _draft(self, new: Sequence[Notification], now: datetime) -> list[_Draft]:
        drafts: list[_Draft] = []
        problems: list[Problem] = []
        for position, asked in enumerate(new):
            match self._judge(position, asked, now):
                case _Draft() as draft:
                    drafts.append(draft)
                case found:
                    problems += found
        if problems:
            raise InvalidInput(problems[:MAX_PROBLEMS])
        return drafts

    def _judge(self, position: int, asked: Notification, now: datetime) -> _Draft | list[Problem]:
        template = self.templates.find(asked.template)
        if template is None:
            return [asked.problem("template", self._near(asked.template)), *asked.timing_problems(now)]
        problems = asked.timing_problems(now) + self._channel_problems(asked, template)
        problems += template.problems(asked.data, f"{asked.pointer}/data")
        if problems:
            return problems
        due_at, expires_at = asked.schedule(now, template.expires_after)
        return _Draft(position, asked, template, asked.channels or self._sendable(template), due_at, expires_at)

    def _near(self, key: str) -> str:
        near = difflib.get_close_matches(key, [template.key for template in self.templates.all()], n=3, cutoff=0.4)
        hint = (
            f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "see `notifier templates check`"
        )
        return f"no such template; {hint}"

    def _sendable(self, template: Template) -> tuple[Channel, ...]:
        return tuple(sorted(template.channels & template.topic.defaults.keys() & self.channels))

    def _channel_problems(self, asked: Notification, template: Template) -> list[Problem]:
        sendable = self._sendable(template)
        if asked.channels is None:
            return [] if sendable else [asked.problem("template", "none of its channels has a provider; set one up")]
        remedy = f"choose of: {', '.join(sendable)}" if sendable else "it has none that can be sent"
        return [
            asked.problem(f"channels/{position}", f"the template cannot be sent by {channel}; {remedy}")
            for position, channel in enumerate(asked.channels)
            if channel not in sendable
        ]

    # Composing the rows ------------------------------------------------------------------------------------------

    def _compose(
        self, draft: _Draft, planned: Plan, caller: Caller, now: datetime
    ) -> tuple[NewNotification, list[NewMessage]]:
        person = draft.person(planned)
        id_, version = self._new_id(), self._versions[draft.template.hash]
        queued = [
            NewMessage(
                id=self._new_id(),
                notification_id=id_,
                recipient_id=person,
                address_id=planned.reach[person][channel].id,
                channel=channel,
                lane=Lane(draft.template.topic.category),
                category=draft.template.topic.category,
                topic=draft.template.topic.key,
                template_version=version,
                due_at=draft.due_at,
                expires_at=draft.expires_at,
            )
            for channel in draft.reachable(planned)
        ]
        return NewNotification(
            id=id_,
            recipient_id=person,
            template_version=version,
            data=draft.asked.data,
            api_key_id=caller.key_id,
            created_at=now,
            key_hash=draft.asked.key_hash,
            body_hash=draft.asked.body_hash,
            answer={
                "id": str(id_),
                "created_at": now.astimezone(UTC).isoformat().replace("+00:00", "Z"),
                "messages": [{"id": str(message.id), "channel": str(message.channel)} for message in queued],
            },
        ), queued

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


@dataclass(frozen=True, slots=True)
class _Draft:
    """A notification that may be accepted, if its recipient can be reached."""

    position: int
    asked: Notification
    template: Template
    channels: Sequence[Channel]
    due_at: datetime
    expires_at: datetime

    def person(self, planned: Plan) -> UUID:
        match planned.answers[self.position]:
            case UUID() as person:
                return person
            case rule:
                raise AssertionError(f"{rule} is refused before anything is composed")

    def reachable(self, planned: Plan) -> list[Channel]:
        held = planned.reach[self.person(planned)]
        return [channel for channel in self.channels if channel in held]

    def unreachable(self, planned: Plan) -> list[Problem]:
        """All channels that were asked for must be there; of those that are merely possible, one."""
        reachable = self.reachable(planned)
        missing = [channel for channel in self.channels if channel not in reachable]
        if not missing or (self.asked.channels is None and reachable):
            return []
        wanted = " or ".join(missing)
        return [self.asked.problem("recipient", f"has no address for {wanted}; store one or give it here")]


def _refuse_doubled_keys(asked: Sequence[Notification]) -> None:
    first: dict[bytes, int] = {}
    problems = [
        Problem(one.key_pointer, f"the item at position {first[one.key_hash]} has the same key; each needs its own")
        for position, one in enumerate(asked)
        if first.setdefault(one.key_hash, position) != position
    ]
    if problems:
        raise InvalidInput(problems[:MAX_PROBLEMS])


def _refuse_other_bodies(asked: Sequence[Notification], first: Mapping[bytes, FirstAnswer]) -> None:
    problems = [
        Problem(one.key_pointer, "this key came with another body in the last 7 days; use a new key for a new request")
        for one in asked
        if one.key_hash in first and first[one.key_hash].body_hash != one.body_hash
    ]
    if problems:
        raise InvalidInput(problems[:MAX_PROBLEMS])


def _refuse_scopes(drafts: Sequence[_Draft], caller: Caller) -> None:
    missing = [(draft, scope) for draft in drafts if (scope := _needed(draft)) not in caller.scopes]
    if missing:
        names = " and ".join(sorted({f"`{scope}`" for _, scope in missing}))
        raise Forbidden(
            f"This key lacks the scope {names}, which the template's category needs.",
            [draft.asked.problem("template", f"needs the scope `{scope}`") for draft, scope in missing[:MAX_PROBLEMS]],
        )


def _needed(draft: _Draft) -> Scope:
    return Scope.to_send(draft.template.topic.category)


def _refuse_people(asked: Sequence[Notification], answers: Sequence[Answer]) -> None:
    refused = [(one, answer) for one, answer in zip(asked, answers, strict=True) if isinstance(answer, Rule)]
    problems = [_explain(one, rule) for one, rule in refused[:MAX_PROBLEMS]]
    if any(rule in (Rule.SEVERAL_HOLDERS, Rule.OTHER_ADDRESS) for _, rule in refused):
        raise Conflict("What is asked contradicts what is stored about a recipient.", problems)
    if problems:
        raise InvalidInput(problems)


def _explain(asked: Notification, rule: Rule) -> Problem:
    match rule:
        case Rule.SEVERAL_HOLDERS:
            return asked.problem("recipient", "several recipients hold this address; name the id")
        case Rule.OTHER_ADDRESS:
            return asked.problem(
                "recipient", "holds another address than this; change it with PUT /v1/recipients/{id}, or leave it out"
            )
        case Rule.UNKNOWN_ID:
            return asked.problem("recipient/id", "no such recipient; PUT /v1/recipients/{id} first, or add an address")
        case Rule.NO_ADDRESS:
            return asked.problem("recipient", "name an id, an address, or both")
        case _:
            assert_never(rule)


def _refuse_unreachable(drafts: Sequence[_Draft], planned: Plan) -> None:
    problems = [problem for draft in drafts for problem in draft.unreachable(planned)]
    if problems:
        raise InvalidInput(problems[:MAX_PROBLEMS])
