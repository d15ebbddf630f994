"""What is asked, judged before anything of it is written: by its template, its times, its channels and its recipient.

Each refusal lists everything that is wrong, with its place in the request and the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, assert_never
from uuid import UUID

from notifier.domain.access import Scope
from notifier.domain.notifications import Notification
from notifier.domain.routing import Mode
from notifier.domain.who import Answer, Plan, Rule
from notifier.errors import Conflict, Forbidden, InvalidInput, Problem
from notifier.rendering import Template, Templates
from notifier.store.notifications import FirstAnswer
from notifier_channels.contract import Channel

MAX_PROBLEMS = 100  #: of one answer: enough to mend a batch by
OTHER_BODY = "this key came with another body in the last 7 days; use a new key for a new request"

Reach: TypeAlias = Mapping[UUID, Mapping[Channel, Sequence[UUID]]]
"""By person and channel the address rows that a message each goes to: one mailbox, one number, every device."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A notification that may be accepted, if its recipient can be reached."""

    position: int
    asked: Notification
    template: Template
    channels: Sequence[Channel]
    due_at: datetime
    expires_at: datetime

    def person(self, planned: Plan) -> UUID:
        """Whom it is for."""
        match planned.answers[self.position]:
            case UUID() as person:
                return person
            case rule:
                raise AssertionError(f"{rule} is refused before anything is composed")

    def reachable(self, held: Mapping[Channel, Sequence[UUID]]) -> list[Channel]:
        """The channels on which there will be a message, or one that waits for its turn."""
        return [channel for channel in self.channels if held.get(channel)]

    def unreachable(self, held: Mapping[Channel, Sequence[UUID]]) -> list[Problem]:
        """All channels that were asked for must be there; of those that are merely possible, one."""
        reachable = self.reachable(held)
        missing = [channel for channel in self.channels if channel not in reachable]
        are_choices = self.asked.channels is None or self.template.route.mode is not Mode.ALL
        if not missing or (are_choices and reachable):
            return []
        wanted = " or ".join(missing)
        return [self.asked.problem("recipient", f"has no address for {wanted}; store one or give it here")]


@dataclass(frozen=True, slots=True)
class Judge:
    """Knows what can be sent at all."""

    templates: Templates
    channels: frozenset[Channel]  #: those with a provider

    def __call__(self, new: Sequence[Notification], now: datetime) -> list[Draft]:
        """Everything that is right about them so far; raises InvalidInput with everything that is wrong."""
        drafts: list[Draft] = []
        problems: list[Problem] = []
        for position, asked in enumerate(new):
            match self._judge(position, asked, now):
                case Draft() as draft:
                    drafts.append(draft)
                case found:
                    problems += found
        if problems:
            raise InvalidInput(problems[:MAX_PROBLEMS])
        return drafts

    def _judge(self, position: int, asked: Notification, now: datetime) -> Draft | list[Problem]:
        template = self.templates.find(asked.template)
        if template is None:
            return [asked.problem("template", unknown(self.templates, asked.template)), *asked.timing_problems(now)]
        problems = asked.timing_problems(now) + self._channel_problems(asked, template)
        problems += template.problems(asked.data, f"{asked.pointer}/data")
        if problems:
            return problems
        due_at, expires_at = asked.schedule(now, template.expires_after)
        return Draft(position, asked, template, asked.channels or sendable(template, self.channels), due_at, expires_at)

    def _channel_problems(self, asked: Notification, template: Template) -> list[Problem]:
        possible = sendable(template, self.channels)
        if asked.channels is None:
            return [] if possible else [asked.problem("template", "none of its channels has a provider; set one up")]
        remedy = f"choose of: {', '.join(possible)}" if possible else "it has none that can be sent"
        return [
            asked.problem(f"channels/{position}", f"the template cannot be sent by {channel}; {remedy}")
            for position, channel in enumerate(asked.channels)
            if channel not in possible
        ]


def unknown(templates: Templates, key: str) -> str:
    """What to say to a key that no template has."""
    near = difflib.get_close_matches(key, [template.key for template in templates.all()], n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "see `notifier templates check`"
    return f"no such template; {hint}"


def sendable(template: Template, channels: frozenset[Channel]) -> tuple[Channel, ...]:
    """Those of these channels that a template has content for and its topic speaks of."""
    return tuple(sorted(template.channels & template.topic.defaults.keys() & channels))


def refuse_doubled_keys(asked: Sequence[Notification]) -> None:
    """Which of the two would be the first answer?"""
    first: dict[bytes, int] = {}
    problems = [
        Problem(one.key_pointer, f"the item at position {first[one.key_hash]} has the same key; each needs its own")
        for position, one in enumerate(asked)
        if first.setdefault(one.key_hash, position) != position
    ]
    if problems:
        raise InvalidInput(problems[:MAX_PROBLEMS])


def refuse_other_bodies(asked: Sequence[Notification], first: Mapping[bytes, FirstAnswer]) -> None:
    """A key stands for one request."""
    problems = [
        Problem(one.key_pointer, OTHER_BODY)
        for one in asked
        if one.key_hash in first and first[one.key_hash].body_hash != one.body_hash
    ]
    if problems:
        raise InvalidInput(problems[:MAX_PROBLEMS])


def refuse_scopes(drafts: Sequence[Draft]) -> None:
    """Who may send one category may not send the other."""
    missing = [(draft, scope) for draft in drafts if (scope := _needed(draft)) not in draft.asked.caller.scopes]
    if missing:
        names = " and ".join(sorted({f"`{scope}`" for _, scope in missing}))
        raise Forbidden(
            f"This key lacks the scope {names}, which the template's category needs.",
            [draft.asked.problem("template", f"needs the scope `{scope}`") for draft, scope in missing[:MAX_PROBLEMS]],
        )


def _needed(draft: Draft) -> Scope:
    return Scope.to_send(draft.template.topic.category)


def refuse_people(places: Sequence[str], answers: Sequence[Answer]) -> None:
    """What only the stored people tell of those who were named; `places`: where in the request each of them was."""
    refused = [(place, answer) for place, answer in zip(places, answers, strict=True) if isinstance(answer, Rule)]
    problems = [_explain(place, rule) for place, rule in refused[:MAX_PROBLEMS]]
    if any(rule in (Rule.SEVERAL_HOLDERS, Rule.OTHER_ADDRESS) for _, rule in refused):
        raise Conflict("What is asked contradicts what is stored about a recipient.", problems)
    if problems:
        raise InvalidInput(problems)


def _explain(place: str, rule: Rule) -> Problem:
    match rule:
        case Rule.SEVERAL_HOLDERS:
            return Problem(place, "several recipients hold this address; name the id")
        case Rule.OTHER_ADDRESS:
            remedy = "change it with PUT /v1/recipients/{id}, or leave it out"
            return Problem(place, f"holds another address than this; {remedy}")
        case Rule.UNKNOWN_ID:
            return Problem(f"{place}/id", "no such recipient; PUT /v1/recipients/{id} first, or add an address")
        case Rule.NO_ADDRESS:
            return Problem(place, "name an id, an address, or both")
        case _:
            assert_never(rule)


def refuse_unreachable(drafts: Sequence[Draft], planned: Plan, reach: Reach) -> None:
    """A message goes to an address."""
    problems = [problem for draft in drafts for problem in draft.unreachable(reach[draft.person(planned)])]
    if problems:
        raise InvalidInput(problems[:MAX_PROBLEMS])
