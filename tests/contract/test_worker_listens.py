"""How an idle worker listens: the lane often, what is always empty seldom."""

import pytest
import redis

from notifier import jobs
from notifier.domain.messages import Lane


def test_the_lane_is_asked_often_and_its_delay_queue_at_leisure(redis_url):
    broker = jobs.broker(redis_url)
    lane = str(Lane.TRANSACTIONAL)
    broker.declare_queue(lane)
    [delayed] = broker.get_declared_delay_queues()
    assert broker.consume(lane, 16, 250).timeout == jobs.LISTEN_MS[lane]
    assert broker.consume(delayed, 16, 250).timeout == 250
    broker.close()


@pytest.mark.parametrize(
    ("trouble", "cure"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
    ids=["full", "replica"],
)
def test_a_redis_that_answers_and_takes_no_ring_counts_as_away_so_that_workers_look_by_themselves(
    redis_url, trouble, cure
):
    lane, operator, bell = Lane.TRANSACTIONAL, redis.Redis.from_url(redis_url), jobs.Jobs(redis_url)
    assert bell.waiting(lane) == 0
    operator.execute_command(*trouble)
    try:
        assert bell.waiting(lane) is None
    finally:
        operator.execute_command(*cure)
    assert bell.waiting(lane) == 0
    bell.close()
    operator.close()
