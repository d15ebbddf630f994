"""What a provider's "slow down" does to marketing, shared by all processes: asked before a batch, told after it."""

from __future__ import annotations

import json
import time
from dataclasses import astuple

import structlog

from notifier.domain.messages import Lane
from notifier.domain.throttling import News, Throttle
from notifier.limits import Limits, digest

log = structlog.get_logger(__name__)

IN_HAND = 1.0  #: seconds of a throttled rate that one batch may hold
LOOK_AGAIN = 0.5  #: seconds after which Redis is asked again, and told what was taken meanwhile


class ProviderThrottle:
    """The throttle of one provider, as one worker process sees it. Belongs to one event loop.

    Both lanes tell what they hear; only marketing is throttled. As long as nobody is told anything, the cost is
    a question to Redis twice a second at most, and none at all in the transactional lane.
    """

    def __init__(self, limits: Limits, provider: str, rate: str, lane: Lane, ceiling: float = float("inf")) -> None:
        """`rate`: the name of what the lanes share; `ceiling`: marketing's part of it, in messages a second."""
        self._limits = limits
        self._provider = provider
        self._rate = rate
        self._lane = lane
        self._ceiling = ceiling
        self._throttle = Throttle()
        self._taken = 0  #: messages that the throttle was not told of yet
        self._looked_at = float("-inf")
        self._ahead = 0.0  #: seconds by which Redis's clock is ahead of the monotonic one

    async def most(self, size: int) -> int:
        """So many of a batch may be taken in hand: few when the rate is low, so that none waits there for long."""
        if self._lane is Lane.TRANSACTIONAL:
            return size
        if time.monotonic() - self._looked_at >= LOOK_AGAIN:
            await self._tell(0)
        rate = self._throttle.rate
        return size if rate is None else max(1, min(size, int(rate * IN_HAND)))

    async def turn(self, messages: int) -> float:
        """Reserve places for a batch that is in hand; the seconds until it may go to the gate."""
        if self._lane is Lane.TRANSACTIONAL or (rate := self._throttle.rate) is None:
            return 0.0
        return await self._limits.place(f"{self._rate} throttled", rate, messages)

    async def learn(self, taken: int, told: int) -> None:
        """What came of a batch: so many were taken, and for so many the provider told us to slow down. Never raises."""
        if told or self._lane is Lane.MARKETING:
            self._taken += taken
        if told:
            await self._tell(told)

    async def _tell(self, told: int) -> None:
        news, before = News(self._lane, self._taken, told), self._throttle.rate
        self._taken, self._looked_at = 0, time.monotonic()
        key = f"notifier:throttle:{digest(self._rate)}"
        if not await self._limits.change(key, lambda held, now: self._step(held, now, news)):
            self._throttle = self._throttle.after(news, time.monotonic() + self._ahead, self._ceiling)
        after = self._throttle.rate
        if told and after is not None and (before is None or after < before):
            log.warning("provider.slowed", provider=self._provider, per_second=round(after, 1))

    def _step(self, held: str, now: float, news: News) -> str:
        self._ahead = now - time.monotonic()
        self._throttle = throttle = _read(held)
        if news.taken or news.told:
            self._throttle = throttle.after(news, now, self._ceiling)
        return held if self._throttle == throttle else json.dumps(astuple(self._throttle))


def _read(held: str) -> Throttle:
    """What another process wrote; what cannot be read, such as another release's form of it, is forgotten."""
    try:
        rate, *others = json.loads(held) if held else astuple(Throttle())
        return Throttle(None if rate is None else float(rate), *map(float, others))
    except (ValueError, TypeError):
        return Throttle()
