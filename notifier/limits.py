"""How fast a sender may go, whichever process sends through it: one reservation in Redis before each message.

The generic cell rate algorithm (ITU-T I.371) as one script: the key holds the instant at which the sender is free
again. While Redis is away each process keeps to its own share of the rate.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from hashlib import sha256
from math import ceil

import redis.asyncio
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from notifier.domain.messages import Lane

log = structlog.get_logger(__name__)

MARKETING_SHARE = 0.7  #: of a sender's rate: the rest is always free for the transactional lane (I10)
OWN_SHARE = 1 / 3  #: of a sender's rate while Redis is away: an installation usually runs three worker processes
AWAY_FOR = 5.0  #: seconds before Redis is asked again
ANSWERS_WITHIN = 1.0  #: seconds
TOGETHER = 0.1  #: seconds of a rate that are reserved at once

_RESERVE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local free = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local cost = tonumber(ARGV[1])
redis.call('SET', KEYS[1], string.format('%.3f', free + cost), 'PX', math.ceil(free + cost - now) + 1000)
return string.format('%.3f', free - now)
"""


class Limits:
    """The rates of all senders. Belongs to one event loop."""

    def __init__(self, redis_url: str) -> None:
        self._client = redis.asyncio.Redis.from_url(
            redis_url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=ANSWERS_WITHIN,
            socket_connect_timeout=ANSWERS_WITHIN,
            client_name="notifier-limits",
        )
        self._reserve = self._client.register_script(_RESERVE)
        self._away_until = 0.0
        self._places: dict[str, Bucket] = {}

    def pace(self, sender: str, per_second: float, lane: Lane) -> SenderPace:
        """The pace of a sender for one lane; marketing leaves room for the other."""
        whole = Bucket(sender, per_second)
        buckets = (
            [whole] if lane is Lane.TRANSACTIONAL else [Bucket(f"{sender} bulk", per_second * MARKETING_SHARE), whole]
        )
        return SenderPace(self, tuple(buckets))

    async def place(self, name: str, per_second: float, units: int) -> float:
        """Reserve the next `units` places of a rate together; the seconds until they are free."""
        bucket = self._places.setdefault(name, Bucket(name, per_second))
        bucket.per_second = per_second
        return await self.reserve(bucket, units)

    async def reserve(self, bucket: Bucket, units: int) -> float:
        """Take the next free place; the seconds until it comes."""
        if time.monotonic() >= self._away_until:
            try:
                wait = await self._reserve(keys=[bucket.key], args=[units / bucket.per_second * 1000])
                return float(wait) / 1000
            except (RedisError, OSError) as error:
                self._away_until = time.monotonic() + AWAY_FOR
                log.warning("limits.redis_away", error=type(error).__name__)
        return bucket.reserve_here(units, time.monotonic())

    async def close(self) -> None:
        """Give the connection back."""
        await self._client.aclose()


@dataclass(slots=True)
class Bucket:
    """One rate."""

    name: str
    per_second: float
    _free_at: float = field(default=0.0)  #: on the monotonic clock, for as long as Redis is away

    @property
    def key(self) -> str:
        """Where it stands in Redis; the sender's number is nobody's business there (I5)."""
        return f"notifier:rate:{sha256(self.name.encode()).hexdigest()[:16]}"

    def reserve_here(self, units: int, now: float) -> float:
        """The same for this process alone, with its share of the rate."""
        starts_at = max(self._free_at, now)
        self._free_at = starts_at + units / (self.per_second * OWN_SHARE)
        return starts_at - now


@dataclass(slots=True)
class SenderPace:
    """The turns of one sender in one lane (`contract.Pace`)."""

    limits: Limits
    buckets: tuple[Bucket, ...]
    _left: int = 0  #: units that are reserved and not used yet
    _line: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def turn(self, units: int) -> None:
        """Wait until so many units may go: one bucket after the other, the narrowest first.

        A fast sender's places are reserved some at a time: a question to Redis for each would cost more than the rest.
        """
        async with self._line:
            if self._left < units:
                together = max(units - self._left, ceil(self.buckets[0].per_second * TOGETHER))
                for bucket in self.buckets:
                    if (wait := await self.limits.reserve(bucket, together)) > 0:
                        await asyncio.sleep(wait)
                self._left += together
            self._left -= units
