"""A provider's throttle: shared through a real Valkey, kept alone when that is away."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio

from notifier import limits, throttles
from notifier.domain.messages import Lane
from notifier.limits import Limits, digest
from notifier.throttles import ProviderThrottle

pytestmark = pytest.mark.anyio

RATE = "+4930123456"
KEY = f"notifier:throttle:{digest(RATE)}"


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch):
    monkeypatch.setattr(throttles, "LOOK_AGAIN", 0.0)


@pytest.fixture
async def two(redis_url):
    """Two processes' limits."""
    made = Limits(redis_url), Limits(redis_url)
    yield made
    for one in made:
        await one.close()


@pytest.fixture
async def client(redis_url):
    client = redis.asyncio.Redis.from_url(redis_url)
    yield client
    await client.aclose()


def throttle(limits: Limits, lane: Lane = Lane.MARKETING, **options) -> ProviderThrottle:
    return ProviderThrottle(limits, "twilio", RATE, lane, **options)


async def test_what_one_process_was_told_throttles_the_others(two):
    first, second = throttle(two[0]), throttle(two[1])
    await first.learn(100, 0)
    await first.learn(0, 100)
    assert await second.most(500) == 50
    assert await second.turn(50) == 0
    assert 0.9 < await first.turn(50) <= 1


async def test_what_all_processes_took_is_the_measure(two):
    for one in (first := throttle(two[0]), second := throttle(two[1])):
        await one.learn(60, 0)
        await one.most(500)
    await second.learn(0, 100)
    assert await first.most(500) == 60


async def test_the_transactional_lane_tells_and_is_never_throttled(two):
    marketing, transactional = throttle(two[0]), throttle(two[1], Lane.TRANSACTIONAL)
    await marketing.learn(100, 0)
    await marketing.most(500)
    await transactional.learn(0, 1)
    assert await marketing.most(500) == 50
    assert await transactional.most(500) == 500
    assert await transactional.turn(500) == 0


async def test_a_rate_below_one_leaves_one_message_at_a_time(two):
    slow = throttle(two[0], ceiling=0.7)
    await slow.learn(0, 1)
    assert await slow.most(500) == 1
    assert await slow.turn(1) == 0
    assert 2.5 < await slow.turn(1) < 3


async def test_free_it_reserves_nothing_and_asks_now_and_then(two, client, monkeypatch):
    monkeypatch.setattr(throttles, "LOOK_AGAIN", 60.0)
    asked, change = [], Limits.change
    monkeypatch.setattr(Limits, "change", lambda self, *given: asked.append(1) or change(self, *given))
    marketing, transactional = throttle(two[0]), throttle(two[1], Lane.TRANSACTIONAL)
    for one in (marketing, transactional):
        for _ in range(20):
            assert await one.most(500) == 500
            assert await one.turn(500) == 0
            await one.learn(500, 0)
    assert len(asked) == 1
    assert await client.keys("*") == []


async def test_changes_at_the_same_moment_are_not_lost(two, monkeypatch):
    monkeypatch.setattr(limits, "TRIES", 50)
    many = [throttle(two[n % 2]) for n in range(20)]

    async def take(one):
        await one.learn(5, 0)
        await one.most(500)

    await asyncio.gather(*map(take, many))
    await many[0].learn(0, 100)
    assert await many[1].most(500) == 50


async def test_without_redis_each_process_goes_by_what_it_hears(tmp_path):
    alone, other = (throttle(Limits(f"unix://{tmp_path}/nobody.sock")) for _ in range(2))
    await alone.learn(100, 0)
    await alone.learn(0, 100)
    assert await alone.most(500) == 50
    assert await other.most(500) == 500


async def test_no_name_stands_in_redis_and_what_stands_there_is_forgotten(two, client):
    first = throttle(two[0])
    await first.learn(10, 1)
    await first.turn(1)
    found = await client.keys("*")
    assert KEY.encode() in found
    for key in found:
        assert RATE.encode() not in key + (await client.get(key))
        assert 0 < await client.pttl(key) <= limits.REMEMBERED


@pytest.mark.parametrize("strange", ["", "nonsense", "[]", "{}", '["a"]', "[1, null]", "[1,2,3,4,5,6,7,8,9]", "7"])
async def test_what_cannot_be_read_is_forgotten(two, client, strange):
    await client.set(KEY, strange)
    first = throttle(two[0])
    assert await first.most(500) == 500
    await first.learn(10, 10)
    assert await first.most(500) == 5
