"""What holds for a person, topic by topic and channel by channel; and which of the things that are said is news."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from notifier.domain.consent import ALL, ANY, MARKETING, ConsentEvent, Decision, Rule, Topic, judge
from notifier.domain.messages import Category
from notifier.domain.withdrawals import ECHO, is_refused, standing
from notifier_channels.contract import Channel


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a topic may go to somebody over a channel, as far as their consent goes, and why."""

    topic: Topic
    channel: Channel
    allowed: bool
    decision: Decision


@dataclass(frozen=True, slots=True)
class Change:
    """One yes or no that somebody is about to say."""

    scope: str
    channel: str
    granted: bool


def standings(topics: Mapping[str, Topic], events: Sequence[ConsentEvent], at: datetime) -> list[Standing]:
    """What holds at an instant, for every topic on each of its channels, in the order in which they are declared."""
    return [
        Standing(topic, channel, *judge(topic, channel, events, at))
        for topic in topics.values()
        for channel in topic.defaults
    ]


def in_words(standing: Standing) -> str:
    """Why, as it is read aloud."""
    return _WORDS[standing.decision.rule].format(topic=standing.topic.key, what=_refused(standing.decision.detail))


def news(
    changes: Sequence[Change],
    events: Sequence[ConsentEvent],
    expires_at: datetime | None,
    said_at: datetime | None = None,
    anew: Collection[Change] = (),
) -> list[Change]:
    """Those that change anything, said together: a yes that stands as long, or a no that stands, is not written twice.

    `expires_at`: when the yeses among them end. `said_at`: when all of it was said, where somebody knows that.
    `anew`: noes that are written though they stand; a yes that is said beside one is then written behind it, as ever.
    """
    said_again = {(one.scope, one.channel) for one in changes if one.granted}
    others = [event for event in events if not (event.granted and (event.scope, event.channel) in said_again)]
    noes = [one for one in changes if not one.granted and (one in anew or not _stands(one, others, said_at))]
    yeses = [
        one
        for one in changes
        if one.granted and (any(_meet(one, no) for no in noes) or not _lasts(one, events, expires_at))
    ]
    return noes + yeses


def refusing(topic: Topic, channel: str, events: Sequence[ConsentEvent], at: datetime) -> int | None:
    """The number of a no that the person said to this topic and that stands on this channel, or on any of `any`."""
    channels = list(topic.defaults) if channel == ANY else [Channel(channel)]
    decisions = [judge(topic, one, events, at)[1] for one in channels]
    return next((decision.numbers[0] for decision in decisions if decision.rule is Rule.WITHDRAWN), None)


def may_overrule(yes: Change, said_at: datetime, events: Sequence[ConsentEvent]) -> bool:
    """Whether a yes would come after a no that stood then and that it may take something from.

    Wider than the rule, for whoever does not know which topics there are.
    """
    lasting = [event for event in events if event.expires_at is None or event.expires_at > said_at]
    return any(
        not event.granted
        and event.occurred_at <= said_at
        and _meet(yes, event)
        and is_refused(lasting, event.scope, event.channel)
        for event in lasting
    )


def covers(topic: Topic, channel: Channel, withdrawals: Iterable[ConsentEvent], since: datetime) -> bool:
    """Whether a no to this topic on this channel was said after `since`."""
    return any(
        not event.granted
        and event.occurred_at > since
        and event.scope in topic.scopes_above
        and event.channel in (channel, ANY)
        for event in withdrawals
    )


def scopes(topics: Mapping[str, Topic]) -> dict[str, frozenset[Channel]]:
    """Every scope that a yes or a no may name, with its channels. What is mandatory is not up for choice."""
    chosen = [topic for topic in topics.values() if not topic.mandatory]
    marketing = [topic for topic in chosen if topic.category is Category.MARKETING]
    return {topic.scope: frozenset(topic.defaults) for topic in chosen} | {
        MARKETING: frozenset(channel for topic in marketing for channel in topic.defaults),
        ALL: frozenset(channel for topic in chosen for channel in topic.defaults),
    }


def _stands(no: Change, events: Sequence[ConsentEvent], said_at: datetime | None) -> bool:
    """Whether exactly this no was said already, with no yes since that it would take away.

    One that was said well after it, on a known day, is news: a yes from in between may yet become known.
    """
    near = [event for event in events if not event.granted or _meet(event, no)]
    line = standing(near, no.scope, no.channel)
    return line is not None and (said_at is None or said_at - line.occurred_at <= ECHO)


def _lasts(yes: Change, events: Sequence[ConsentEvent], expires_at: datetime | None) -> bool:
    """Whether exactly this yes was said already, lasts as long, and no no since has taken anything of it away."""
    last_no = max((event.occurred_at for event in events if not event.granted and _meet(yes, event)), default=None)
    return any(
        (last_no is None or event.occurred_at > last_no)
        and (event.expires_at is None or (expires_at is not None and event.expires_at >= expires_at))
        for event in events
        if event.granted and (event.scope, event.channel) == (yes.scope, yes.channel)
    )


def _meet(yes: Change | ConsentEvent, no: Change | ConsentEvent) -> bool:
    """Whether a no may take away something of what a yes gives. Wider than the rule, so that nothing is missed."""
    same_channel = ANY in (yes.channel, no.channel) or yes.channel == no.channel
    return same_channel and (no.scope == yes.scope or no.scope in (MARKETING, ALL) or yes.scope in (MARKETING, ALL))


def _refused(detail: str) -> str:
    scope, _, channel = detail.partition("/")
    return f"{_WHAT.get(scope, scope.removeprefix('topic:'))} {_BY.get(channel, channel)}"


_WHAT = {MARKETING: "all marketing", ALL: "everything that is not mandatory"}
_BY = {"email": "by email", "sms": "by text message", "push": "as a notification", "any": "on every channel"}

_WORDS = {
    Rule.MANDATORY: "Everybody gets it: it protects their account or tells what the law demands.",
    Rule.GRANTED: "They said yes to {topic}.",
    Rule.OPT_OUT_DEFAULT: "They have not said no, and it is sent until they do.",
    Rule.WITHDRAWN: "They said no to {what}.",
    Rule.NO_GRANT: "It goes only to those who said yes, and they have not, or no longer.",
}
