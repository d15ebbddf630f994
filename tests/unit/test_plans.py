"""A plan as it is counted, hashed and read: pure, and the same each time."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from notifier.commands.plans import WIDTH, lines
from notifier.domain.consent import Decision, Deferral, Permit, Refusal, Rule
from notifier.domain.plans import NAMED, Findings, OnChannel, Pace, Sample, Segments, Tally, hash_of
from notifier_channels.contract import Channel

NOW = datetime(2026, 11, 29, 16, 30, tzinfo=UTC)
ID = UUID(int=1)
DEFINITION = {"template": "spring", "template_hash": "0123456789abcdef", "topic": "news", "rate": None, "sender": None}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=5), json_values), st.randoms())
def test_the_hash_is_of_what_is_said_and_not_of_how_it_is_written(plan, dice):
    shuffled = list(plan.items())
    dice.shuffle(shuffled)
    again = json.loads(json.dumps(dict(shuffled), indent=2, ensure_ascii=True))
    assert hash_of(again) == hash_of(plan)
    assert hash_of({**plan, "added": 1}) != hash_of(plan) or plan.get("added") == 1


@given(st.lists(st.none() | st.sampled_from("abcdefgh")))
def test_a_tally_counts_everybody_and_names_a_few_once(ids):
    tally = Tally()
    for one in ids:
        tally.add(one)
    assert tally.count == len(ids)
    assert tally.sample == list(dict.fromkeys(one for one in ids if one))[:NAMED]


@given(st.integers(0, 60), st.integers(1, 20))
def test_a_sample_keeps_some_of_those_that_were_offered_and_each_once(offered, size):
    sample = Sample[int](size)
    for one in range(offered):
        sample.offer(one)
    assert len(set(sample.kept)) == len(sample.kept) == min(offered, size)
    assert set(sample.kept) <= set(range(offered))


def test_a_sample_draws_from_all_of_them():
    sample = Sample[int](100)
    for one in range(10_000):
        sample.offer(one)
    assert set(Counter(one // 1000 for one in sample.kept)) == set(range(10))


@given(st.floats(0.01, 1000), st.integers(1, 3), st.lists(st.integers(0, 100), max_size=30).map(sorted))
def test_a_pace_keeps_to_the_rate_and_lets_nobody_go_before_their_time(rate, channels, seconds):
    pace = Pace.of(rate, channels, NOW)
    due = [NOW + timedelta(seconds=one) for one in seconds]
    turns = [pace.turn(at) for at in due]
    assert all(turn >= at for turn, at in zip(turns, due, strict=True))
    each = timedelta(seconds=channels / rate)
    assert all(after - before >= each for before, after in pairwise(turns))


def test_without_a_rate_everybody_goes_when_it_is_their_time():
    pace = Pace.of(None, 2, NOW)
    assert [pace.turn(NOW + timedelta(hours=hours)) for hours in (0, 0, 3)] == [NOW, NOW, NOW + timedelta(hours=3)]


def test_no_text_no_segments_and_no_price_no_cost():
    assert Segments((), "0.05 EUR").document(10) is None
    assert Segments((1, 2), None).document(10) == {
        "sampled": 2, "least": 1, "most": 2, "mean": 1.5, "expected": 15, "cost": None,
    }  # fmt: skip


def findings() -> Findings:
    found = Findings(
        5000, NOW, NOW + timedelta(days=1), "UTC", {Channel.EMAIL: OnChannel(0), Channel.SMS: OnChannel(1)}
    )
    found.note(Channel.EMAIL, "anna", Permit(ID, Decision(Rule.GRANTED, NOW)), NOW)
    for number in range(100):
        morning = NOW + timedelta(hours=14 + number)
        quiet = Decision(Rule.QUIET_HOURS, NOW, (), f"night-{number}/Europe/Vienna")
        found.note(Channel.SMS, f"{'long' * 20}-{number}", Deferral(ID, morning, quiet), NOW)
    withdrawn = Decision(Rule.WITHDRAWN, NOW, (), "marketing/any")
    found.note(Channel.EMAIL, "bert", Refusal(ID, withdrawn), NOW)
    found.channels[Channel.SMS].segments = Segments((1, 3), "0.0079 USD")
    found.channels[Channel.SMS].not_rendered["spring/en/sms.j2: takes 9 segments; " + "shorten it " * 20].add("carl")
    found.misfits["/name is missing; this template needs it"].add("dora")
    found.unreachable.add("emil", 700)
    found.too_late, found.behind, found.zoneless = 12, 3, 4
    return found


def test_a_plan_is_read_on_eighty_columns_with_the_warnings_last():
    plan = findings().document(DEFINITION)
    text = list(lines(plan))
    assert max(map(len, text)) <= WIDTH
    assert text[0] == "5,000 people on 2026-11-29 16:30 UTC"
    assert "               1    withdrawn:marketing/any, such as bert" in text
    assert "              88    for 88 more reasons" in text
    assert "  segments              200  at 1 to 3 a text, about 1.58 USD" in text
    assert any(line.startswith("  and 53 in 53 more hours, until ") for line in text)
    after = text[text.index("Before you approve it") + 1 :]
    assert [line[:4] for line in after if line[:4] != "    "] == ["  ! "] * len(plan["warnings"])
    assert [one["code"] for one in plan["warnings"]] == [
        "unknown_zone", "local_time_past", "expires_first", "unreachable", "misfits", "not_rendered",
    ]  # fmt: skip


def test_a_plan_of_nobody_is_read_too():
    plan = Findings(0, NOW, NOW, "UTC", {Channel.EMAIL: OnChannel(0)}).document(DEFINITION)
    assert list(lines(plan))[-1] == "  ! Nobody would get it."
