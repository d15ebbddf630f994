"""How fast a provider, a sender or a campaign may go, whichever process it goes through: what is shared is in Redis.

Rates are kept with the generic cell rate algorithm (ITU-T I.371) as one script: the key holds the instant at which the
next place is free. While Redis is away each process keeps to its own share of a rate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
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
REMEMBERED = 900_000  #: milliseconds for which a shared value that nobody changes is kept
TRIES = 3  #: at changing one that others change at the same moment

# Beside the instant stands when it was written: a clock that was set back since takes the instant along. Else all who
# share the rate would wait until it is again as late as it was.
_RESERVE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local free, written = string.match(redis.call('GET', KEYS[1]) or '', '(%S+) (%S+)')
free = math.max((free or 0) - math.max((written or 0) - now, 0), now)
local cost = tonumber(ARGV[1])
local held = string.format('%.3f %.3f', free + cost, now)
redis.call('SET', KEYS[1], held, 'PX', math.ceil(free + cost - now) + 1000)
return string.format('%.3f', free - now)
"""

_SWAP = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


class Limits:
    """All rates, and what is known of them. Belongs to one event loop."""

    def __init__(self, redis_url: str) -> None:
        self._client = redis.asyncio.Redis.from_url(
            redis_url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=ANSWERS_WITHIN,
            socket_connect_timeout=ANSWERS_WITHIN,
            client_name="notifier-limits",
        )
        self._reserve = self._client.register_script(_RESERVE)
        self._swap = self._client.register_script(_SWAP)
        self._away_until = 0.0
        self._free_here: dict[str, float] = {}  #: when the next place is free, while Redis is away (monotonic clock)

    def pace(self, sender: str, per_second: float, lane: Lane, *, is_own: bool = False) -> SenderPace:
        """The pace of a sender for one lane; marketing leaves room for the other, unless the sender is its own."""
        buckets = [Bucket(sender, per_second)]
        if lane is Lane.MARKETING and not is_own:
            buckets.insert(0, Bucket(f"{sender} bulk", per_second * MARKETING_SHARE))
        return SenderPace(self, tuple(buckets))

    async def place(self, name: str, per_second: float, units: int) -> float:
        """Reserve the next `units` places of a rate together; the seconds until they are free, 0.0 for now.

        They are taken, used or not, and what comes next waits until `units / per_second` seconds later. The rate is
        shared by all who say the same `name`, such as `campaign <id> 5.0`, and may be another one each time; what was
        not used is not saved up. While Redis is away each process has a third of the rate (`OWN_SHARE`). Never raises.
        """
        return await self.reserve(Bucket(name, per_second), units)

    async def reserve(self, bucket: Bucket, units: int) -> float:
        """Take the next free place; the seconds until it comes."""
        if not self._is_away:
            try:
                wait = await self._reserve(keys=[bucket.key], args=[units / bucket.per_second * 1000])
                return float(wait) / 1000
            except (RedisError, OSError) as error:
                self._lost(error)
        return self._reserve_here(bucket, units, time.monotonic())

    async def change(self, key: str, step: Callable[[str, float], str]) -> bool:
        """Replace a value by what `step` makes of it and of Redis's clock; False while Redis is away.

        `step` may be called again, when another process was faster. A change that others forestall each time is lost:
        they had news of the same second.
        """
        if self._is_away:
            return False
        try:
            for _ in range(TRIES):
                old, now = await self._look(key)
                new = step(old, now)
                if new == old or await self._swap(keys=[key], args=[old, new, REMEMBERED]):
                    break
        except (RedisError, OSError) as error:
            self._lost(error)
            return False
        return True

    async def _look(self, key: str) -> tuple[str, float]:
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.get(key)
            pipe.time()
            held, (seconds, micros) = await pipe.execute()
        return (held or b"").decode(), seconds + micros / 1e6

    @property
    def _is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def _lost(self, error: Exception) -> None:
        self._away_until = time.monotonic() + AWAY_FOR
        log.warning("limits.redis_away", error=type(error).__name__)

    def _reserve_here(self, bucket: Bucket, units: int, now: float) -> float:
        """The same for this process alone, with its share of the rate."""
        self._free_here = {key: free_at for key, free_at in self._free_here.items() if free_at > now}
        starts_at = self._free_here.get(bucket.key, now)
        self._free_here[bucket.key] = starts_at + units / (bucket.per_second * OWN_SHARE)
        return starts_at - now

    async def close(self) -> None:
        """Give the connection back."""
        await self._client.aclose()


@dataclass(frozen=True, slots=True)
class Bucket:
    """One rate."""

    name: str
    per_second: float

    @property
    def key(self) -> str:
        """Where it stands in Redis; the sender's number is nobody's business there (I5)."""
        return f"notifier:rate:{digest(self.name)}"


@dataclass(slots=True)
class SenderPace:
    """The turns of one sender in one lane (`contract.Pace`)."""

    limits: Limits
    buckets: tuple[Bucket, ...]
    _left: int = 0  #: units that are reserved and not used yet
    _line: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def together(self) -> int:
        """As many units as leave within a moment anyway."""
        return max(1, int(self.buckets[0].per_second * TOGETHER))

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


def digest(name: str) -> str:
    """Under what a name stands in Redis (I5)."""
    return sha256(name.encode()).hexdigest()[:16]
