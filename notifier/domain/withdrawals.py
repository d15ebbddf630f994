"""When a no is news, and when it may be taken back: what every refusal asks of that which was said before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from notifier.domain.consent import ANY, ConsentEvent, Topic, judge
from notifier.domain.tokens import UNDO_FOR
from notifier_channels.contract import Channel

ECHO = UNDO_FOR
"""A no that is repeated within this is written once: somebody clicked twice, or a mail provider tried again, and the
first click's undo still stands. Later it is a no of its own: a yes from in between may yet become known, and must lose.
"""


def standing(events: Iterable[ConsentEvent], scope: str, channel: str) -> ConsentEvent | None:
    """The line that says exactly this no already, with no yes of any kind after it. Then a repeat is no news."""
    events = list(events)
    last = max((event for event in _same(events, scope, channel) if not event.granted), key=_order, default=None)
    if last is None or any(event.granted and event.occurred_at > last.occurred_at for event in events):
        return None
    return last


def is_refused(events: Iterable[ConsentEvent], scope: str, channel: str) -> bool:
    """Whether the last word on exactly this (scope, channel) was a no; at a tie it was."""
    return refusal(events, scope, channel) is not None


def refusal(events: Iterable[ConsentEvent], scope: str, channel: str) -> ConsentEvent | None:
    """The no that was the last word on exactly this (scope, channel)."""
    last = max(_same(events, scope, channel), key=_last_word, default=None)
    return None if last is None or last.granted else last


def may_be_undone(events: Sequence[ConsentEvent], scope: str, channel: str, topic: Topic | None, at: datetime) -> bool:
    """Whether, after a no to (scope, channel), a grant of exactly that only brings back what was allowed before.

    `topic` is the one that the scope names; None for a wider scope. The grant of a topic overrules wider refusals, so
    the topic must have been allowed. A wider grant ends refusals of its own key alone, so there must have been none:
    also none that a grant had ended for a while.
    """
    if topic is not None:
        return _allows(events, topic, channel, at)
    lasting = [event for event in events if event.expires_at is None or event.expires_at > at]
    return not is_refused(lasting, scope, channel)


def still_undoable(events: Sequence[ConsentEvent], number: int, topic: Topic | None, at: datetime) -> bool:
    """Whether, but for line `number`, the topic is allowed: nothing was said since that an undo would overrule."""
    line, later = _since(events, number)
    if line is None or _same(later, line.scope, line.channel):
        return False
    others = [event for event in events if event.number != number]
    return may_be_undone(others, line.scope, line.channel, topic, at)


def was_undone(events: Sequence[ConsentEvent], number: int) -> bool:
    """Whether the last word since line `number` was a yes to what it refused: an undo that is repeated has worked."""
    line, later = _since(events, number)
    if line is None or not _same(later, line.scope, line.channel):
        return False
    return not is_refused(later, line.scope, line.channel)


def lasts_until(events: Sequence[ConsentEvent], number: int, topic: Topic | None, at: datetime) -> datetime | None:
    """When, but for the no of line `number`, what it refused would have ended, so that an undo does not outlast that.

    `events` is the whole ledger: in the projection a no hides older ones to the same. None: no end.
    """
    line = next(event for event in events if event.number == number)
    others = [event for event in events if event.number != number]
    ends = sorted({event.expires_at for event in others if event.expires_at and event.expires_at > at})
    return next((end for end in ends if not may_be_undone(others, line.scope, line.channel, topic, end)), None)


def _allows(events: Sequence[ConsentEvent], topic: Topic, channel: str, at: datetime) -> bool:
    channels = list(topic.defaults) if channel == ANY else [Channel(channel)]
    return all(judge(topic, one, events, at)[0] for one in channels)


def _same(events: Iterable[ConsentEvent], scope: str, channel: str) -> list[ConsentEvent]:
    return [event for event in events if (event.scope, event.channel) == (scope, channel)]


def _since(events: Iterable[ConsentEvent], number: int) -> tuple[ConsentEvent | None, list[ConsentEvent]]:
    events = list(events)
    line = next((event for event in events if event.number == number), None)
    return line, [event for event in events if event.number > number]


def _last_word(event: ConsentEvent) -> tuple[datetime, bool, int]:
    return event.occurred_at, not event.granted, event.number


def _order(event: ConsentEvent) -> tuple[datetime, int]:
    return event.occurred_at, event.number
