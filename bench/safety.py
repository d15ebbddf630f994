"""A campaign of 20,000 in a storm: is anybody lost, written to twice, or written to after a no?

`python3 run.py bench safety` prints one JSON object, and fails when anybody came to harm. A marketing worker or the
planner is killed every two seconds; the campaign is paused and resumed twice, Redis emptied once, and 500 people press
unsubscribe meanwhile over the real API. What was sent is counted from the SMTP server's own log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from bench.stage import machine, stage
from tests.chaos.reckoning import Reckoning
from tests.chaos.storm import Weather, storm

PAUSE_WITHIN = 1.0  #: seconds from a pause to the last attempt that begins


async def measure(weather: Weather) -> tuple[dict[str, Any], list[str]]:
    """The figures, and the harm."""
    load = round(os.getloadavg()[0], 2)
    with stage() as ground:
        async with (
            ground.world() as world,
            storm(world, ground.redis_url, ground.state.parent, weather) as weathered,
        ):
            await weathered.blow()
            found = await Reckoning.of(weathered)
    late = [pause.last_begun for pause in weathered.pauses if pause.last_begun > PAUSE_WITHIN]
    harm = [*found.harm, *(f"an attempt began {seconds:.1f} s after a pause" for seconds in late)]
    return {"machine": machine() | {"load_before": load}, **found.figures()}, harm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipients", type=int, default=20_000)
    parser.add_argument("--one-clicks", type=int, default=500)
    parser.add_argument("--kill-every", type=float, default=2.0, help="seconds")
    parser.add_argument("--rate", type=float, default=400.0, help="of the campaign, messages a second")
    parser.add_argument("--json", type=Path, help="also write the figures into this file")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started ends in order
    weather = Weather(chosen.recipients, chosen.one_clicks, chosen.rate, chosen.kill_every, connections=4, longest=600)
    found, harm = asyncio.run(measure(weather))
    text = json.dumps(found | {"harm": harm}, indent=2)
    if chosen.json:
        chosen.json.write_text(text + "\n")
    print(text)
    sys.exit(1 if harm else 0)


if __name__ == "__main__":
    main()
