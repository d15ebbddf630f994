"""The pace of a sender: shared through a real Valkey, kept alone when that is away."""

from __future__ import annotations

import asyncio

import pytest
import redis

from notifier import limits
from notifier.domain.messages import Lane
from notifier.limits import MARKETING_SHARE, OWN_SHARE, Bucket, Limits

pytestmark = pytest.mark.anyio

SENDER = "+4930123456"


@pytest.fixture
async def two(redis_url):
    """Two processes' limits."""
    made = Limits(redis_url), Limits(redis_url)
    yield made
    for one in made:
        await one.close()


async def test_two_processes_share_one_rate(two):
    waits = [await one.reserve(Bucket(SENDER, 0.5), 1) for one in (*two, *two)]
    assert [round(wait) for wait in waits] == [0, 2, 4, 6]


async def test_a_message_of_three_segments_takes_three_places(two):
    bucket = Bucket(SENDER, 0.1)
    await two[0].reserve(bucket, 3)
    assert 29 < await two[1].reserve(bucket, 1) <= 30


async def test_a_clock_that_is_set_back_by_an_hour_makes_nobody_wait_for_an_hour(two, redis_url):
    """As it was written by a clock that went an hour ahead; what was reserved then is still waited for."""
    bucket = Bucket(SENDER, 0.1)
    await two[0].reserve(bucket, 2)
    with redis.Redis.from_url(redis_url) as ahead:
        instants = [float(one) + 3_600_000 for one in ahead.get(bucket.key).split()]
        ahead.set(bucket.key, " ".join(map(str, instants)))
    assert 19 < await two[1].reserve(bucket, 1) <= 20
    assert 29 < await two[0].reserve(bucket, 1) <= 30


async def test_each_sender_has_a_rate_of_its_own(two):
    await two[0].reserve(Bucket(SENDER, 0.01), 10)
    assert await two[0].reserve(Bucket("+4930999999", 0.01), 1) == 0


async def test_what_was_not_used_is_not_saved_up(two):
    bucket = Bucket(SENDER, 1000)
    await two[0].reserve(bucket, 1)
    await asyncio.sleep(0.01)
    assert await two[0].reserve(bucket, 1000) == 0
    assert await two[0].reserve(bucket, 1) > 0.9


async def test_marketing_leaves_a_share_of_the_rate_to_the_other_lane(two):
    """Whatever marketing has reserved, a transactional message comes before the next but one of it."""
    [bulk, whole] = two[0].pace(SENDER, 0.1, Lane.MARKETING).buckets
    assert (bulk.per_second, whole.per_second) == (0.1 * MARKETING_SHARE, 0.1)
    await two[0].reserve(bulk, 1)
    await two[0].reserve(whole, 1)
    next_of_marketing = await two[0].reserve(bulk, 1)
    [own] = two[1].pace(SENDER, 0.1, Lane.TRANSACTIONAL).buckets
    assert own.key == whole.key
    assert await two[1].reserve(own, 1) < next_of_marketing


async def test_a_sender_of_its_own_is_marketings_whole(two):
    [whole] = two[0].pace(SENDER, 0.1, Lane.MARKETING, is_own=True).buckets
    assert whole.per_second == 0.1


async def test_a_batchs_places_are_reserved_together_and_the_next_batch_waits_for_as_long(two):
    waits = [await one.place("campaign 1", 10, 50) for one in (*two, *two)]
    assert [round(wait) for wait in waits] == [0, 5, 10, 15]
    assert await two[0].place("campaign 2", 10, 50) == 0


async def test_a_campaigns_rate_may_change_between_batches(two):
    await two[0].place("campaign 1", 10, 50)
    assert round(await two[0].place("campaign 1", 50, 50)) == 5
    assert round(await two[0].place("campaign 1", 50, 50)) == 6


async def test_places_are_kept_apart_without_redis_too(tmp_path):
    alone = Limits(f"unix://{tmp_path}/nobody.sock")
    waits = [await alone.place("campaign 1", 10, 5) for _ in range(3)]
    assert await alone.place("campaign 2", 10, 5) == 0
    await alone.close()
    assert [round(wait, 1) for wait in waits] == [0, 1.5, 3]


async def test_no_number_stands_in_redis(two, redis_url):
    import redis.asyncio

    await two[0].reserve(Bucket(SENDER, 1), 1)
    client = redis.asyncio.Redis.from_url(redis_url)
    found = await client.keys("*")
    await client.aclose()
    assert len(found) == 1
    assert SENDER.encode() not in found[0]


async def test_a_place_is_forgotten_when_it_is_past(two, redis_url):
    import redis.asyncio

    bucket = Bucket(SENDER, 0.5)
    await two[0].reserve(bucket, 1)
    client = redis.asyncio.Redis.from_url(redis_url)
    left = await client.pttl(bucket.key)
    await client.aclose()
    assert 0 < left <= 3000


async def test_without_redis_each_process_keeps_to_its_share(tmp_path):
    alone = Limits(f"unix://{tmp_path}/nobody.sock")
    bucket = Bucket(SENDER, 0.3)
    waits = [await alone.reserve(bucket, 1) for _ in range(3)]
    await alone.close()
    apart = 1 / (0.3 * OWN_SHARE)
    assert waits[0] == 0
    assert [round(wait) for wait in waits] == [0, round(apart), round(2 * apart)]


async def test_redis_that_is_away_is_not_asked_for_each_message(tmp_path, monkeypatch):
    alone = Limits(f"unix://{tmp_path}/nobody.sock")
    asked = []

    async def reserve(**_):
        asked.append(1)
        raise ConnectionError

    monkeypatch.setattr(alone, "_reserve", reserve)
    for _ in range(5):
        await alone.reserve(Bucket(SENDER, 1), 1)
    monkeypatch.setattr(limits, "AWAY_FOR", 0.0)
    alone._away_until = 0.0
    await alone.reserve(Bucket(SENDER, 1), 1)
    await alone.close()
    assert len(asked) == 2


async def test_a_turn_ends_when_the_place_has_come(two):
    pace = two[0].pace(SENDER, 10, Lane.MARKETING)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(5):
        await pace.turn(1)
    assert loop.time() - began >= 4 / (10 * MARKETING_SHARE) * 0.9


async def test_a_fast_sender_asks_redis_now_and_then_and_keeps_its_rate(two, monkeypatch):
    reserved = []

    async def reserve(bucket, units):
        reserved.append(units)
        return 0.0

    monkeypatch.setattr(Limits, "reserve", lambda _, *asked: reserve(*asked))
    pace = two[0].pace(SENDER, 200, Lane.TRANSACTIONAL)
    await asyncio.gather(*(pace.turn(1) for _ in range(100)))
    assert reserved == [20] * 5
    await pace.turn(50)
    assert sum(reserved) == 150
