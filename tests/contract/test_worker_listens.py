"""How an idle worker listens: the lane often, what is always empty seldom."""

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
