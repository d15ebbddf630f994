"""How fast marketing may go at a provider that has asked to slow down: halved at once, and grown back little by little.

Additive increase, multiplicative decrease (AIMD, RFC 5681 3.1), in messages a second. The transactional lane is never
throttled: it only waits as long as the provider has named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from notifier.domain.messages import Lane
from notifier_channels.contract import Outcome, RateLimited, Unavailable

FLOOR = 1.0  #: messages a second; a provider whose own rate is lower is slowed to half of that
APART = 1.0  #: seconds between two halvings: what was on the wire meanwhile was told the same thing
WINDOW = 5.0  #: seconds over which is counted how fast marketing goes
RECOVERY = 120.0  #: seconds at the slowed speed in which it gains as much as it had when it was first slowed
TOLERATED = 0.02  #: so few among many speak of their recipients (greylisting, a domain that is not found), not of us

_SLOW_DOWN = re.compile(r"(?:421|451)\b|\d{3} 4\.7\.|UNAVAILABLE\Z")


def asks_to_slow(outcome: Outcome) -> bool:
    """True for an answer that speaks of our speed.

    Beside a plain "too fast" (HTTP 429, the words of `email/replies.py`) these are SMTP 421 and 451, which Yahoo, Gmail
    and Amazon give to senders they throttle, policies that hold for a while (RFC 3463, 4.7.x), and FCM's 503 with the
    code UNAVAILABLE, "the server is overloaded". A provider that is away is paused instead.
    """
    match outcome:
        case RateLimited():
            return True
        case Unavailable(code=code, is_away=False):
            return _SLOW_DOWN.match(code) is not None
        case _:
            return False


@dataclass(frozen=True, slots=True)
class News:
    """What came of some messages of one lane."""

    lane: Lane
    taken: int
    told: int  #: to slow down

    @property
    def is_warning(self) -> bool:
        """True unless those that were told are a few among many."""
        return self.told > TOLERATED * (self.taken + self.told)


@dataclass(frozen=True, slots=True)
class Throttle:
    """What all processes together know of marketing's speed at one provider. Instants are seconds on one clock."""

    rate: float | None = None  #: at most so many messages a second; None: as fast as it likes
    start: float = 0.0  #: how fast it went when it was first slowed
    slowed_at: float = 0.0
    grown_at: float = 0.0
    since: float = 0.0  #: the beginning of the window
    taken: float = 0.0  #: messages in the window
    flow: float = 0.0  #: messages a second in the window before

    def after(self, news: News, now: float, ceiling: float = float("inf")) -> Throttle:
        """What holds once this is known. `ceiling` is the rate that is set for marketing here, if one is."""
        taken = news.taken if news.lane is Lane.MARKETING else 0
        counted = _counted(self, taken, now)
        return _slowed(counted, news.lane, now, ceiling) if news.is_warning else _grown(counted, taken, now, ceiling)


def _counted(throttle: Throttle, taken: int, now: float) -> Throttle:
    passed = now - throttle.since
    if 0 <= passed < WINDOW:
        return replace(throttle, taken=throttle.taken + taken)
    return replace(throttle, since=now, taken=taken, flow=throttle.taken / passed if passed > 0 else 0.0)


def _slowed(throttle: Throttle, lane: Lane, now: float, ceiling: float) -> Throttle:
    if 0 <= now - throttle.slowed_at < APART:
        return throttle
    floor = min(FLOOR, ceiling / 2)
    if throttle.rate is not None:
        return replace(throttle, rate=max(throttle.rate / 2, floor), slowed_at=now, grown_at=now)
    flow = max(throttle.flow, throttle.taken / max(now - throttle.since, 1.0))
    if lane is Lane.TRANSACTIONAL and not flow:
        return throttle  # marketing is idle: it is not what is too much
    start = min(max(flow, 2 * floor), ceiling)
    return replace(throttle, rate=start / 2, start=start, slowed_at=now, grown_at=now)


def _grown(throttle: Throttle, taken: int, now: float, ceiling: float) -> Throttle:
    """Only what is taken proves that there is room; twice as fast as when it began, it is free."""
    if throttle.rate is None:
        return throttle
    seconds = min(taken / throttle.rate, max(now - throttle.grown_at, 0.0))
    rate = throttle.rate + throttle.start / RECOVERY * seconds
    return replace(throttle, rate=rate if rate < min(2 * throttle.start, ceiling) else None, grown_at=now)
