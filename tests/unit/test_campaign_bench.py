"""What `bench campaign` stands on: its templates load, its peers send the same mail, a tenth of its people said no.

And sizes are compared fairly.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest

from bench.audience import people
from bench.peers import Arrivals
from bench.peers.body import HANDLEBARS, JINJA, body
from bench.sizes import compared, several, turns
from notifier.rendering import Templates
from notifier.rendering.check import PREFERENCES_URL, UNSUBSCRIBE_URL, look_at
from notifier_channels.contract import Channel
from tests.world import IDENTITY

TEMPLATES = Path(__file__).parents[2] / "bench" / "templates"


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates.load(TEMPLATES, IDENTITY, "en")


@pytest.mark.parametrize("key", ["fields", "loops"])
def test_a_peer_sends_the_same_mail(templates: Templates, key: str) -> None:
    template = templates.find(key)
    values = {**template.sample, "unsubscribe_url": UNSUBSCRIBE_URL, "preferences_url": PREFERENCES_URL}
    ours = look_at(template, Channel.EMAIL, "en")
    theirs = {
        part: jinja2.Environment(
            autoescape=part == "html", keep_trailing_newline=True, undefined=jinja2.StrictUndefined
        )
        .from_string(source)
        .render(values)
        for part, source in body(template, JINJA).items()
    }
    assert theirs == {"subject": ours.subject, "html": ours.html, "text": ours.text}


def test_handlebars_get_their_own_loop_around_what_each_item_has(templates: Templates) -> None:
    text = body(templates.find("loops"), HANDLEBARS)["text"]
    start, end = text.index("{{#each items}}"), text.index("{{/each}}")
    assert start < text.index("{{name}}") < text.index("{{url}}") < end
    assert "zz" not in text


@pytest.mark.parametrize("key", ["fields", "loops"])
def test_a_tenth_of_the_people_has_not_consented_and_all_fit_the_template(templates: Templates, key: str) -> None:
    everybody = list(people(200, key, "all"))
    assert sum(not one.consents for one in everybody) == 20
    assert {one.granted for one in everybody if not one.consents} == {True, False}
    schema = templates.find(key).schema
    for one in everybody:
        assert not schema.problems({name: one.attributes[name] for name in schema.required}, "")


def test_the_clock_starts_when_a_quarter_has_arrived_and_ends_with_the_last() -> None:
    seen = [(0.0, 1000), (5.0, 1000), (6.0, 1020), (7.0, 1030), (8.0, 1060), (12.0, 1100), (13.0, 1100)]
    assert Arrivals(seen).per_s() == (1100 - 1030) / (12 - 7)
    with pytest.raises(SystemExit, match="give it more people"):
        Arrivals([(0.0, 1000), (1.0, 1002)]).per_s()


def a_run(recipients: int, ours: int, postgres: int, rss: int = 100) -> dict[str, Any]:
    each = {"workers": ours - 10, "scheduler": 10, "postgres": postgres, "valkey": 5, "sink": 50}
    return {
        "recipients": recipients, "sent": recipients * 9 // 10, "msgs_per_s": 1000, "ratio_to_smtp_source": 0.5,
        "seconds": 1.0, "cpu_us_per_msg": ours, "cpu_us_per_msg_by_component": each, "worker_rss_mb_max": rss,
    }  # fmt: skip


def test_sizes_take_turns_upwards_and_downwards() -> None:
    assert list(turns([10, 100, 1000], 3)) == [10, 100, 1000, 1000, 100, 10, 10, 100, 1000]


def test_of_each_size_the_median_counts_and_of_memory_the_most() -> None:
    of = {10: [(120, 50, 90), (900, 70, 95), (100, 60, 80)], 100: [(150, 80, 99), (130, 90, 97), (140, 70, 98)]}
    waiting: dict[int, Iterator[tuple[int, int, int]]] = {size: iter(runs) for size, runs in of.items()}
    found = compared(lambda size: a_run(size, *next(waiting[size])), [10, 100], 3)
    assert [one["recipients"] for one in found["runs"]] == [10, 100, 100, 10, 10, 100]
    small, large = found["by_recipients"]["10"], found["by_recipients"]["100"]
    assert (small["cpu_us_per_msg"], large["cpu_us_per_msg"]) == (120, 140)
    assert (small["cpu_us_per_msg_with_servers"], large["cpu_us_per_msg_with_servers"]) == (175, 225)
    assert (small["worker_rss_mb_max"], large["worker_rss_mb_max"]) == (95, 99)
    assert small["planned_per_scheduler_cpu_s"] == round(10 / (9 * 10 / 1e6))
    assert (found["spread"], found["spread_with_servers"]) == (1.167, 1.286)


def test_sizes_are_numbers_of_people() -> None:
    assert several("1000,10,1000") == [10, 1000]
    with pytest.raises(argparse.ArgumentTypeError):
        several("0,10")
    with pytest.raises(ValueError, match="invalid literal"):
        several("ten")
