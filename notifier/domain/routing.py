"""Which channel a notification takes: all of them, the first that may be used, or the next when one does not arrive.

A notification's messages stand in steps. Those of the first step are decided like any other; a later one waits for its
turn, and whether that has come is judged at its gate from what became of the messages before it (`stands`). So nothing
has to happen in between: a wake-up that is lost costs time, never a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from notifier.domain.messages import State
from notifier_channels.contract import Channel

LOOK_AGAIN = timedelta(seconds=30)  #: how long a message waits for one that is under way, unless it is woken

REPORTING = frozenset({Channel.SMS})
"""The channels whose providers report every delivery. On the others, taken is the best that is ever known."""

RETURNING = frozenset({Channel.EMAIL, Channel.SMS})
"""The channels on which what was taken may still come back. On the others, taken is known at once to be the best."""

_ARRIVED = frozenset({State.DELIVERED, State.COMPLAINED})
ENDED = frozenset({State.BOUNCED, State.FAILED, State.EXPIRED, State.SUPPRESSED, State.CANCELLED})
_NOT_CHOSEN = frozenset({State.EXPIRED, State.SUPPRESSED, State.CANCELLED})
_UNDECIDED = frozenset({State.QUEUED, State.CLAIMED, State.SENDING})


class Mode(StrEnum):
    """What the channels of a topic or a template are to one another."""

    ALL = "all"  #: a message on each
    FIRST = "first"  #: one message: on the first that the person allows and has an address for
    THEN = "then"  #: the next one when the one before has not arrived in time


@dataclass(frozen=True, slots=True)
class Route:
    """A topic's or a template's channels in their order."""

    mode: Mode = Mode.ALL
    order: tuple[Channel, ...] = ()
    after: timedelta = timedelta()  #: `then`: how long each channel has before the next one's turn

    def steps(self, channels: Iterable[Channel]) -> dict[Channel, int]:
        """The step of each channel; channels that the order does not name come last."""
        given = sorted(channels)
        if self.mode is Mode.ALL:
            return dict.fromkeys(given, 0)
        ordered = [channel for channel in self.order if channel in given]
        ordered += [channel for channel in given if channel not in ordered]
        return {channel: step for step, channel in enumerate(ordered)}

    def turn_at(self, step: int, due_at: datetime) -> datetime:
        """When the turn of this step comes at the latest, where an earlier one is only waited for."""
        return due_at + self.after * step

    def looks_at(self, step: int, due_at: datetime) -> datetime:
        """When a message of this step is first looked at, unless it is woken before."""
        match self.mode:
            case Mode.FIRST if step:
                return due_at + LOOK_AGAIN
            case Mode.THEN:
                return self.turn_at(step, due_at)
            case _:
                return due_at


EVERY_CHANNEL = Route()


@dataclass(frozen=True, slots=True)
class Earlier:
    """A message of an earlier step, as it stands now."""

    channel: Channel
    state: State
    reason: str | None = None
    due_at: datetime | None = None  #: while it waits

    @property
    def found_nobody(self) -> bool:
        """True when it turned out that the person has no address there."""
        return self.state is State.FAILED and (self.reason or "").startswith("bad_address")


@dataclass(frozen=True, slots=True)
class Turn:
    """All that decides whether the turn of a message has come."""

    mode: Mode
    at: datetime  #: its turn comes then at the latest (`then`)
    earlier: Sequence[Earlier]


@dataclass(frozen=True, slots=True)
class Go:
    """Its turn has come."""


@dataclass(frozen=True, slots=True)
class Stop:
    """It is not needed any more: the person was reached on this channel."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: one on this channel may still arrive."""

    channel: Channel
    until: datetime


Standing: TypeAlias = Go | Stop | Wait


def stands(turn: Turn, now: datetime) -> Standing:
    """Whether a message of a later step is to go now, later, or not at all."""
    match turn.mode:
        case Mode.ALL:
            return Go()
        case Mode.FIRST:
            return _first(turn, now)
        case Mode.THEN:
            return _then(turn, now)


def _first(turn: Turn, now: datetime) -> Standing:
    """The first channel on which something was sent is the one; that it was refused there changes nothing."""
    sent = [one for one in turn.earlier if one.state not in _NOT_CHOSEN | _UNDECIDED and not one.found_nobody]
    if sent:
        return Stop(sent[0].channel)
    undecided = [one for one in turn.earlier if one.state in _UNDECIDED]
    if not undecided:
        return Go()
    next_due = min(one.due_at or now for one in undecided)  # what is held back does not end before that
    return Wait(undecided[0].channel, max(next_due, now + LOOK_AGAIN))


def _then(turn: Turn, now: datetime) -> Standing:
    """What was delivered has arrived; where nothing reports that, what was taken and has not come back by its turn."""
    is_due = turn.at <= now
    for one in turn.earlier:
        is_best = one.state is State.ACCEPTED and one.channel not in REPORTING
        if one.state in _ARRIVED or (is_best and (is_due or one.channel not in RETURNING)):
            return Stop(one.channel)
    waiting = [one for one in turn.earlier if one.state not in ENDED]
    return Wait(waiting[0].channel, turn.at) if waiting and not is_due else Go()
