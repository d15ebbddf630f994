"""The doorbell: a job in Redis says that something is due in a lane, and names ids at most (I5).

It may be lost, doubled or late without harm. Everything about the broker that could bite is switched off here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from typing import cast
from uuid import UUID

import dramatiq
import redis
from dramatiq.broker import Consumer
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware
from redis.backoff import NoBackoff
from redis.retry import Retry

from notifier.domain.messages import Lane

log = logging.getLogger(__name__)

ACTOR = "deliver"  #: named by string: nobody who rings imports the worker
IDS_PER_JOB = 500
RINGS_UNDER_WAY = 64  #: more than these, with Redis slow or away, are dropped: `sweep` rings again
RINGS_AT_ONCE = 8  #: unanswered rings that a lane may have; a worker that hears one empties the lane by itself
SOCKET_TIMEOUT = 5.0  #: seconds
TAKES_RINGS = "notifier:takes-rings"  #: what is written to see whether anything can be
#: How often a worker asks Redis, also while it is at work: 50 times a second takes a twentieth of a core. dramatiq's
#: default of a second would cost a password reset 140 ms at the median; a campaign's first mail may wait a little.
LISTEN_MS = {Lane.TRANSACTIONAL: 20, Lane.MARKETING: 200}


class _Doorbell(RedisBroker):
    """A lane is asked often. Its delay queue, in which nothing is ever put, is asked at dramatiq's leisure."""

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """What dramatiq's threads call to hear a queue; `timeout` in milliseconds."""
        return super().consume(
            queue_name, prefetch, LISTEN_MS[Lane(queue_name)] if queue_name in self.queues else timeout
        )


def broker(redis_url: str, middleware: Sequence[Middleware] = ()) -> RedisBroker:
    """A broker that never retries by itself: a client that repeats `enqueue` or `fetch` doubles or strands jobs.

    No Retries, TimeLimit or Results middleware: retry is a decision on the row, and nothing may interrupt a send.
    """
    client = redis.Redis.from_url(
        redis_url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=SOCKET_TIMEOUT,
        socket_connect_timeout=SOCKET_TIMEOUT,
        client_name="notifier",
    )
    return _Doorbell(  # type: ignore[no-untyped-call]  # dramatiq types it in part
        client=client, middleware=list(middleware), heartbeat_timeout=30_000, maintenance_chance=20_000
    )


class Jobs:
    """Rings for workers. Redis being away is not an error: workers then poll, and `sweep` rings when it is back."""

    def __init__(self, redis_url: str) -> None:
        self._broker = broker(redis_url)
        self._ringer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ring")
        self._room = Semaphore(RINGS_UNDER_WAY)

    def ring(self, lane: Lane, ids: Sequence[UUID]) -> None:
        """Say that these messages are due. Returns at once; called after the commit, never inside a transaction."""
        for start in range(0, max(len(ids), 1), IDS_PER_JOB):
            if not self._room.acquire(blocking=False):
                return
            self._ringer.submit(self._enqueue, lane, [id_.hex for id_ in ids[start : start + IDS_PER_JOB]])

    def waiting(self, lane: Lane) -> int | None:
        """How many rings nobody has heard yet; None when Redis takes none. Blocks: call it in a thread.

        One that is full, cannot save to its disk or has become a replica still answers questions, but no ring gets
        through: so it is asked with a write. The broker's own `qsize` also counts what dead workers had fetched, until
        its maintenance comes by: after a few kills nobody would ring any more.
        """
        try:
            with self._broker.client.pipeline(transaction=False) as pipe:
                pipe.set(TAKES_RINGS, 1, px=60_000)
                pipe.llen(f"{self._broker.namespace}:{lane}")
                return cast("int", pipe.execute()[1])
        except redis.RedisError:
            return None

    def close(self) -> None:
        """Let the rings under way go out."""
        self._ringer.shutdown(wait=True)
        self._broker.client.close()

    def _enqueue(self, lane: Lane, ids: list[str]) -> None:
        try:
            self._broker.enqueue(
                dramatiq.Message(queue_name=str(lane), actor_name=ACTOR, args=(ids,), kwargs={}, options={})
            )
        except (redis.RedisError, dramatiq.BrokerError) as error:
            log.warning("ring.lost error=%s", type(error).__name__)
        finally:
            self._room.release()
