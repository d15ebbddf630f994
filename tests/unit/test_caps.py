"""Frequency caps against brute force, how they are written, and what a topic may say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.caps import Cap, Period, Sent, reached
from notifier.errors import TemplateError
from notifier.rendering import topics
from notifier_channels.contract import Channel

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
BERLIN = ZoneInfo("Europe/Berlin")
ZONES = (BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Pacific/Kiritimati"))

caps = st.builds(
    Cap,
    st.integers(1, 4),
    st.sampled_from(Period) | st.integers(1, 200).map(lambda hours: hours * HOUR),
    st.none() | st.sampled_from([Channel.SMS, Channel.EMAIL]),
    st.none() | st.sampled_from(["news", "offers"]),
)
histories = st.lists(
    st.builds(
        Sent,
        st.integers(-40 * 24 * 60, 0).map(lambda minutes: NOON + timedelta(minutes=minutes)),
        st.sampled_from(["news", "offers"]),
        st.sampled_from([Channel.SMS, Channel.EMAIL]),
        st.integers(1, 1000),
    ),
    max_size=12,
)


def same(period: Period, one: datetime, other: datetime) -> bool:
    match period:
        case Period.DAY:
            return one.date() == other.date()
        case Period.WEEK:
            return one.isocalendar()[:2] == other.isocalendar()[:2]
        case Period.MONTH:
            return (one.year, one.month) == (other.year, other.month)


def counted(cap: Cap, history, at, zones) -> int:
    """What counts at an instant, a sentence at a time."""
    relevant = [one for one in history if cap.topic in (None, one.topic) and cap.channel in (None, one.channel)]
    if isinstance(cap.window, timedelta):
        return sum(one.at > at - cap.window for one in relevant)
    return sum(any(same(cap.window, one.at.astimezone(z), at.astimezone(z)) for z in zones) for one in relevant)


@given(caps, histories, st.lists(st.sampled_from(ZONES), min_size=1, max_size=2, unique=True))
def test_a_cap_is_reached_when_so_many_count_and_until_one_leaves(cap, history, zones):
    found = reached([cap], history, Channel.SMS, NOON, zones)
    if cap.channel is Channel.EMAIL:
        assert found is None
        return
    assert (found is not None) == (counted(cap, history, NOON, zones) >= cap.limit)
    if found:
        until = found.held.until
        assert until > NOON
        assert counted(cap, history, until, zones) < cap.limit
        assert counted(cap, history, until - timedelta(seconds=1), zones) >= cap.limit
        assert len(found.numbers) == cap.limit


@given(st.lists(caps, max_size=4), histories)
def test_of_several_caps_the_one_that_holds_longest_is_named_and_then_none_is_reached(several, history):
    found = reached(several, history, Channel.SMS, NOON, ZONES)
    if found:
        assert reached(several, history, Channel.SMS, found.held.until, ZONES) is None


@given(caps)
def test_a_cap_reads_what_it_writes(cap):
    text = str(cap)
    assert Cap.read(text.removeprefix(f"{cap.topic or 'marketing'} "), cap.topic) == cap


@given(caps, histories)
def test_nothing_counts_that_is_older_than_a_cap_looks_back(cap, history):
    recent = [one for one in history if one.at > NOON - cap.looks_back]
    assert reached([cap], recent, Channel.SMS, NOON, ZONES) == reached([cap], history, Channel.SMS, NOON, ZONES)


def test_a_day_of_the_calendar_is_the_persons_own_and_may_have_25_hours():
    cap = Cap.read("1/day")
    morning = datetime(2026, 10, 25, 0, 30, tzinfo=BERLIN)  # clocks go back that night
    assert cap.leaves(morning, [BERLIN]) - morning.astimezone(UTC) == timedelta(hours=24, minutes=30)
    assert cap.leaves(morning, []) == datetime(2026, 10, 25, tzinfo=UTC)  # without a zone it is UTC's


@pytest.mark.parametrize(
    "text", ["", "1", "0/day", "1/0d", "1/day ", "fax 1/day", "1/year", "1000/day", "1/999d", "SMS 1/day", "1/24 h"]
)
def test_what_is_no_cap_is_refused(text):
    with pytest.raises(ValueError):
        Cap.read(text)


NEWS = """
[news]
category = "%s"
channels = { email = "opt_out", sms = "opt_out" }
name.en = "News"
description.en = "News."
caps = %s
"""


def declared(caps: str, category: str = "marketing"):
    return topics.read(topics.declarations(NEWS % (category, caps))["news"])


def test_a_topic_declares_its_caps():
    assert declared('["1/day", "sms 3/7d"]').caps == (
        Cap(1, Period.DAY, None, "news"),
        Cap(3, timedelta(days=7), Channel.SMS, "news"),
    )


@pytest.mark.parametrize(
    ("caps", "says"), [('"1/day"', "a list such as"), ("[1]", "a list such as"), ('["daily"]', "written like")]
)
def test_a_cap_that_is_wrong_is_named_with_its_topic(caps, says):
    with pytest.raises(TemplateError, match=rf"\[news\] caps: .*{says}"):
        declared(caps)


def test_what_somebody_waits_for_has_no_caps():
    with pytest.raises(TemplateError, match="only a marketing topic has caps"):
        declared('["1/day"]', "transactional")
