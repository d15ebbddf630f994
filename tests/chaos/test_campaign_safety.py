"""A campaign loses nobody, writes to nobody twice and to nobody after a no, whatever befalls its processes.

The small one of `python3 run.py bench safety`.
"""

from __future__ import annotations

import pytest

from tests.chaos.reckoning import Reckoning
from tests.chaos.storm import Weather, storm
from tests.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300), pytest.mark.xdist_group("chaos")]

WEATHER = Weather(people=2000, presses=120, rate=180, kill_every=1.5, kills=7)


async def test_a_campaign_in_a_storm_loses_nobody_and_reaches_nobody_twice_or_after_a_no(database, redis_url, tmp_path):
    world = World(database, tmp_path / "journals")
    async with storm(world, redis_url, tmp_path, WEATHER) as weathered:
        await weathered.blow()
        found = await Reckoning.of(weathered)
    print(found.figures())
    assert found.harm == []
    assert len(weathered.pauses) == 2
    assert weathered.kills["worker"], "no worker died"
    assert weathered.kills["scheduler"], "the planner did not die"
    assert 0 < found.pressed_in_time < WEATHER.presses, "nothing was raced"
