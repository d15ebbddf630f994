"""Would this be sent? The words for a message that does not exist, at any instant, by the rules of a real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from notifier.domain.consent import Deferral, Permit, Refusal, Rule, Topic, Verdict
from notifier.domain.explanation import Block, Explanation, Fact, Line, Story, explain, instant
from notifier.domain.messages import State
from notifier_channels.contract import Channel

NOBODY = UUID(int=0)  #: the id of a message that does not exist

_RANK = {Permit: 0, Deferral: 1, Refusal: 2}
_STATES = {Permit: State.ACCEPTED, Deferral: State.QUEUED, Refusal: State.SUPPRESSED}


@dataclass(frozen=True, slots=True)
class Foresight:
    """What would become of it at one of the person's addresses: the one where most can be done."""

    recipient: str
    topic: Topic
    template: str | None
    channel: Channel
    address: str | None  #: masked
    at: datetime
    is_past: bool
    expires_at: datetime
    verdict: Verdict
    lines: Sequence[Line] = ()
    blocks: Sequence[Block] = ()


def best(verdicts: Mapping[UUID | None, Verdict]) -> UUID | None:
    """Of several addresses, such as devices, the one that is decided most kindly; the first of several."""
    return min(verdicts, key=lambda address: _RANK[type(verdicts[address])])


def kind(verdict: Verdict) -> Literal["permit", "deferral", "refusal"]:
    """The verdict in a word."""
    match verdict:
        case Permit():
            return "permit"
        case Deferral():
            return "deferral"
        case Refusal():
            return "refusal"


def foretell(seen: Foresight) -> Explanation:
    """Put it into the words of a real message's explanation."""
    said = explain(_story(seen))
    why = said.why
    if seen.verdict.decision.rule is Rule.ADDRESS_REMOVED:
        why = [f"There is no address by which this person is reached on the channel `{seen.channel}`."]
    what = seen.template or f"a message of {seen.topic.key}"
    where = f" at {seen.address}" if seen.address else ""
    about = f"{what} on the channel `{seen.channel}`, to {seen.recipient}{where}, on {instant(seen.at)}."
    return Explanation(about[0].upper() + about[1:], _answer(seen), why, (), _facts(said.consent, seen))


def _facts(facts: Sequence[Fact], seen: Foresight) -> Sequence[Fact]:
    """What had not been said yet at that time has no part in it."""
    return [fact for fact in facts if fact.at <= seen.at or not seen.is_past]


def _answer(seen: Foresight) -> str:
    would = "would have" if seen.is_past else "would"
    match seen.verdict:
        case Permit():
            return f"It {would} {_be(seen)} sent."
        case Deferral(until=until):
            wait = "waited" if seen.is_past else "wait"
            return f"It {would} {wait} until {instant(until)}, to be looked at again then."
        case Refusal():
            return f"It would not {'have ' if seen.is_past else ''}{_be(seen)} sent."


def _be(seen: Foresight) -> str:
    return "been" if seen.is_past else "be"


def _story(seen: Foresight) -> Story:
    note: dict[str, Any] = seen.verdict.decision.note
    return Story(
        id=NOBODY,
        recipient=seen.recipient,
        address=seen.address,
        channel=seen.channel,
        topic=seen.topic.key,
        category=seen.topic.category,
        template=seen.template or seen.topic.key,
        state=_STATES[type(seen.verdict)],
        reason=seen.verdict.decision.reason if not isinstance(seen.verdict, Permit) else None,
        decision=note,
        due_at=None,
        expires_at=seen.expires_at,
        accepted_at=None,
        lines=seen.lines,
        blocks=seen.blocks,
    )
