"""What an outcome means for its message: one pure function that settle obeys. DESIGN.md section 3, the two tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from notifier.domain.consent import SuppressionReason
from notifier.domain.messages import AttemptState, Category, State
from notifier_channels.contract import (
    EXPIRED,
    Again,
    Ambiguous,
    BadAddress,
    Channel,
    Misconfigured,
    OptedOut,
    Outcome,
    RateLimited,
    Receipt,
    Rejected,
    Unavailable,
    Withheld,
)

MAX_TRIES = 100  #: a bound, not a plan: a message is tried until it expires
RECONCILE_AFTER = timedelta(minutes=1)  #: doubt waits this long for proof, transactional doubt then for its repeat
CAN_BE_ASKED = frozenset({Channel.SMS})  #: channels whose providers tell later what they took (`contract.LooksUp`)
PROBE_AFTER = timedelta(seconds=30)  #: a misconfigured provider is tried again with one message
AWAY_FOR = timedelta(seconds=5)  #: one that cannot be reached is, too, but sooner
LONGEST_HOLD = timedelta(minutes=5)  #: between two looks at a message whose platform is paused
BACKOFF: dict[Category, tuple[timedelta, timedelta]] = {  # first wait, longest wait; doubling in between
    Category.TRANSACTIONAL: (timedelta(seconds=5), timedelta(minutes=10)),
    Category.MARKETING: (timedelta(minutes=1), timedelta(hours=1)),
}


@dataclass(frozen=True, slots=True)
class Tried:
    """The message as it stands when its outcome comes in."""

    category: Category
    channel: Channel
    tries: int  #: counted attempts before this one
    repeated: bool  #: its one repeat out of `unknown` is spent
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Settlement:
    """What settle writes."""

    state: State
    attempt: AttemptState
    reason: str | None = None
    due_at: datetime | None = None
    counts: bool = False
    suppress: SuppressionReason | None = None
    pauses_provider: bool = False


def settle(outcome: Outcome, message: Tried, now: datetime, jitter: float) -> Settlement:
    """Decide once. `jitter` is a random number in [0, 1) that spreads retries (full jitter over the upper half)."""
    match outcome:
        case Receipt():
            return Settlement(State.ACCEPTED, AttemptState.ACCEPTED)
        case Unavailable(code=code):
            return _again(message, now, now + _backoff(message, jitter), f"unavailable:{code}", counts=True)
        case RateLimited(code=code, retry_after=wait):
            due = now + wait * (1 + jitter / 2)  # never earlier than told, and not all at once
            return _again(message, now, due, f"rate_limited:{code}", counts=False)
        case Ambiguous(code=code):
            return _in_doubt(message, now, f"in_doubt:{code}")
        case Rejected(code=code):
            return Settlement(State.FAILED, AttemptState.REFUSED, f"rejected:{code}", counts=True)
        case BadAddress(code=code):
            dead = SuppressionReason.DEAD_DEVICE if message.channel is Channel.PUSH else SuppressionReason.HARD_BOUNCE
            return Settlement(State.FAILED, AttemptState.REFUSED, f"bad_address:{code}", counts=True, suppress=dead)
        case OptedOut(code=code):
            stop, reason = SuppressionReason.STOP, f"opted_out_at_provider:{code}"
            return Settlement(State.SUPPRESSED, AttemptState.REFUSED, reason, counts=True, suppress=stop)
        case Misconfigured(code=code):
            due = now + PROBE_AFTER
            return Settlement(
                State.QUEUED, AttemptState.NOT_TAKEN, f"misconfigured:{code}", due_at=due, pauses_provider=True
            )
        case Withheld():
            # This machine's clock may be ahead of the gate's, which is the database's: sooner, it would be let through.
            due = max(message.expires_at, now) if outcome == EXPIRED else now
            return Settlement(State.QUEUED, AttemptState.NOT_TAKEN, "released", due_at=due)
        case _:
            assert_never(outcome)


@dataclass(frozen=True, slots=True)
class CameBack:
    """A message whose attempt was taken, and is reported as not delivered for a cause that may pass."""

    category: Category
    is_followed: bool  #: another channel's turn comes when this one ends
    times: int  #: it has come back so before, and was tried again
    expires_at: datetime


def tried_again_at(again: Again, message: CameBack, now: datetime) -> datetime | None:
    """When a message that came back is tried once more; None: it ends as bounced.

    Marketing is sent at most once (I4). Where another channel is next, its turn now is better than this one's later.
    """
    if message.category is not Category.TRANSACTIONAL or message.is_followed or message.times >= again.most:
        return None
    due = now + again.after * (1 << message.times)
    return due if due < message.expires_at else None


def pause_for(outcome: Misconfigured | Unavailable) -> timedelta | None:
    """How long the provider gets no further batch; None when the outcome speaks of the message alone."""
    match outcome:
        case Misconfigured():
            return PROBE_AFTER
        case Unavailable(is_away=is_away):
            return AWAY_FOR if is_away else None


def held_until(since: datetime, expires_at: datetime, now: datetime, jitter: float) -> datetime:
    """When a message whose platform is paused `since` then is looked at again, at its expiry at the latest.

    The longer a pause lasts, the more messages it holds, and the more seldom each is looked at.
    """
    full = min(max(now - since, PROBE_AFTER), LONGEST_HOLD)
    return min(now + full * (0.5 + jitter / 2), expires_at)


def in_doubt(message: Tried, now: datetime) -> Settlement:
    """The writer died between the accepting byte and the answer, or its journal is out of reach."""
    return _in_doubt(message, now, "in_doubt:worker_died")


def proven_unsent(now: datetime) -> Settlement:
    """The writer died, and its journal proves that no accepting byte left."""
    return Settlement(State.QUEUED, AttemptState.NOT_TAKEN, "worker_died", due_at=now)


def poison() -> Settlement:
    """It has brought down its worker too often."""
    return Settlement(State.FAILED, AttemptState.NOT_TAKEN, "poison", counts=True)


def spoiled(code: str) -> Settlement:
    """It could not be rendered: nothing left, and trying again would fail again."""
    return Settlement(State.FAILED, AttemptState.NOT_TAKEN, f"render:{code}", counts=True)


def _in_doubt(message: Tried, now: datetime, reason: str) -> Settlement:
    may_repeat = message.category is Category.TRANSACTIONAL and not message.repeated
    due = now + RECONCILE_AFTER if may_repeat or message.channel in CAN_BE_ASKED else None
    return Settlement(State.UNKNOWN, AttemptState.UNKNOWN, reason, due_at=due, counts=True)


def _again(message: Tried, now: datetime, due: datetime, reason: str, *, counts: bool) -> Settlement:
    if counts and message.tries + 1 >= MAX_TRIES:
        return Settlement(State.FAILED, AttemptState.NOT_TAKEN, f"gave_up:{reason}", counts=True)
    # Due after its expiry it is still queued, so that it ends as `expired`, with the last reason in its timeline.
    return Settlement(State.QUEUED, AttemptState.NOT_TAKEN, reason, min(due, max(message.expires_at, now)), counts)


def _backoff(message: Tried, jitter: float) -> timedelta:
    first, longest = BACKOFF[message.category]
    full = min(first * (1 << min(message.tries, 20)), longest)
    return full * (0.5 + jitter / 2)
