"""How many messages one core decides a second, in batches, with quiet hours and caps and without. No database is asked.

    python3 run.py bench decide [--seconds 3] [--rounds 5]

`bare`: consent alone, as for mail. `timed`: with packs, caps and a history, all open. `held`: the same at night, so
that every message is deferred. `prepared`: as `timed`, and finding each person's hours from row to packs counts, too.
`cold`: that finding alone, for numbers that were never seen. `limit`: a loop that only makes the values.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any
from uuid import UUID

from bench.stage import machine
from notifier.dispatch.timing import SHIPPED, Timing
from notifier.domain import packs
from notifier.domain.caps import Cap, Sent
from notifier.domain.consent import (
    ConsentEvent,
    Decision,
    Default,
    Deferral,
    Facts,
    Permit,
    Question,
    Rule,
    Topic,
    decide,
)
from notifier.domain.messages import Category
from notifier.domain.places import place_of
from notifier_channels.contract import Channel

BATCH = 500
NOON = datetime(2026, 11, 25, 18, tzinfo=UTC)
NIGHT = datetime(2026, 11, 25, 7, tzinfo=UTC)
ZONES = ("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles", None)
CAPS = (Cap.read("2/24h", "news"), Cap.read("sms 3/24h"))
NEWS = Topic("news", Category.MARKETING, dict.fromkeys(Channel, Default.OPT_IN), caps=CAPS[:1])
AREAS = (305, 415, 512, 212, 208)


def timing() -> Timing:
    shipped = packs.read(files("notifier.domain").joinpath(SHIPPED).read_text(), SHIPPED)
    return Timing(tuple(shipped.values()), CAPS[1:])


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "channel": "sms",
            "address": f"+1{AREAS[n % 5]}55{5000 + (n + first) % 5000:05}"[:12],
            "timezone": ZONES[n % 5],
        }
        for n in range(count)
    ]


def questions(caps: tuple[Cap, ...]) -> list[Question]:
    expires = NOON + timedelta(days=3)
    return [Question(UUID(int=n << 40), NEWS, Channel.SMS, expires, None, caps) for n in range(BATCH)]


def facts(kept: Timing | None) -> list[Facts]:
    said = [ConsentEvent(7, NEWS.scope, "sms", True, NIGHT - timedelta(days=9))]
    if kept is None:
        return [Facts(said) for _ in range(BATCH)]
    sent = [Sent(NIGHT - timedelta(hours=20), "news", Channel.SMS, 3)]
    return [Facts(said, hours=kept.hours_of(NEWS, row), sent=sent) for row in rows(BATCH)]


def batch(kept: Timing | None, at: datetime, kind: type) -> Callable[[], int]:
    asked, known = questions(CAPS if kept else ()), facts(kept)

    def run() -> int:
        verdicts = [decide(question, one, at) for question, one in zip(asked, known, strict=True)]
        if not all(isinstance(verdict, kind) for verdict in verdicts):
            raise RuntimeError("not what was to be measured")
        return BATCH

    return run


def prepared() -> int:
    asked, sent = rows(BATCH), [Sent(NIGHT - timedelta(hours=20), "news", Channel.SMS, 3)]
    said = [ConsentEvent(7, NEWS.scope, "sms", True, NIGHT - timedelta(days=9))]
    for n, row in enumerate(asked):
        question = Question(
            UUID(int=n), NEWS, Channel.SMS, NOON + timedelta(days=3), None, KEPT.caps_of(NEWS, Channel.SMS)
        )
        decide(question, Facts(said, hours=KEPT.hours_of(NEWS, row), sent=sent), NOON)
    return BATCH


def cold() -> int:
    place_of.cache_clear()
    for row in rows(BATCH):
        KEPT.hours_of(NEWS, row)
    return BATCH


def limit() -> int:
    for n in range(BATCH):
        Permit(UUID(int=n), Decision(Rule.GRANTED, NOON, (7,)))
    return BATCH


KEPT = timing()
CONTESTS: dict[str, Callable[[], int]] = {
    "bare": batch(None, NOON, Permit),
    "timed": batch(KEPT, NOON, Permit),
    "held": batch(KEPT, NIGHT, Deferral),
    "prepared": prepared,
    "cold": cold,
    "limit": limit,
}


def rate(work: Callable[[], int], seconds: float) -> float:
    done, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        done += work()
    return done / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in CONTESTS}
    for _ in range(chosen.rounds):
        for name, work in CONTESTS.items():
            found[name].append(rate(work, chosen.seconds))
    results = {
        name: {
            "per_second_of_cpu": round(statistics.median(rates)),
            "range": [round(min(rates)), round(max(rates))],
            "us_each": round(1e6 / statistics.median(rates), 2),
        }
        for name, rates in found.items()
    }
    print(json.dumps({"machine": machine(), "batch": BATCH, "results": results}, indent=2))


if __name__ == "__main__":
    main()
