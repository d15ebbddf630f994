"""Several sizes of a campaign beside one another: does a message of a million cost what one of ten thousand costs?

Rounds are interleaved, so that what slows the machine for a while slows every size. Each run has an installation of its
own, with servers and tables that are empty when it begins: what an earlier million left behind would weigh on the next.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

SERVERS = ("postgres", "valkey")
MEDIANS = ("msgs_per_s", "ratio_to_smtp_source", "cpu_us_per_msg")

Run = Mapping[str, Any]  #: what `bench campaign` prints of one


def several(text: str) -> list[int]:
    """Numbers of people, separated by commas; each counts once."""
    sizes = sorted({int(part) for part in text.split(",")})
    if sizes[0] < 1:
        raise argparse.ArgumentTypeError("a campaign is for at least one person")
    return sizes


def compared(run: Callable[[int], Run], sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Measure each size once a round. What is known of a run is said at once, since all of them take long."""
    runs: list[Run] = []
    for size in turns(sizes, rounds):
        runs.append(run(size))
        said = {name: runs[-1][name] for name in (*MEDIANS, "worker_rss_mb_max", "seconds")}
        print(f"{size} people: {said}", file=sys.stderr, flush=True)
    by_size = {size: summary([one for one in runs if one["recipients"] == size]) for size in sizes}
    return {
        "rounds": rounds,
        "each_run_on": "servers and tables of its own",
        "runs": runs,
        "by_recipients": {str(size): found for size, found in by_size.items()},
        "spread": spread([found["cpu_us_per_msg"] for found in by_size.values()]),
        "spread_with_servers": spread([found["cpu_us_per_msg_with_servers"] for found in by_size.values()]),
    }


def turns(sizes: Sequence[int], rounds: int) -> Iterator[int]:
    """Upwards in one round and downwards in the next: none always follows the largest."""
    for number in range(rounds):
        yield from sizes if number % 2 == 0 else reversed(sizes)


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Of runs of one size: medians, and of the memory the most that there ever was.

    `planned_per_scheduler_cpu_s`: how many people the planner would put into batches if it did nothing but that; while
    a campaign is sent it waits for the workers, so its rate is theirs. `bench plan` measures it alone.
    """
    found = {name: statistics.median(one[name] for one in runs) for name in MEDIANS}
    return found | {
        "cpu_us_per_msg_with_servers": statistics.median(with_servers(one) for one in runs),
        "planned_per_scheduler_cpu_s": round(statistics.median(planned_per_cpu_s(one) for one in runs)),
        "worker_rss_mb_max": max(one["worker_rss_mb_max"] for one in runs),
    }


def with_servers(run: Run) -> int:
    """Microseconds of a message, those of PostgreSQL and Valkey among them; the far end is not ours."""
    each: Mapping[str, int] = run["cpu_us_per_msg_by_component"]
    return sum((run["cpu_us_per_msg"], *(each[name] for name in SERVERS)))


def planned_per_cpu_s(run: Run) -> float:
    """The scheduler's CPU is given by mail sent, and it plans the others, too."""
    per_mail = max(run["cpu_us_per_msg_by_component"]["scheduler"], 1)
    return float(run["recipients"] / (run["sent"] * per_mail / 1e6))


def spread(costs: Sequence[float]) -> float:
    """The dearest beside the cheapest."""
    return round(max(costs) / min(costs), 3)
