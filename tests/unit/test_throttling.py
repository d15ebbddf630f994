"""What "slow down" does to marketing: halved, and grown back by what is taken."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.messages import Lane
from notifier.domain.throttling import APART, FLOOR, RECOVERY, TOLERATED, WINDOW, News, Throttle, asks_to_slow
from notifier_channels.contract import Ambiguous, Misconfigured, RateLimited, Receipt, Rejected, Unavailable

NOW = 1_800_000_000.0
ENDLESS = float("inf")

instants = st.floats(0, 30)
ceilings = st.one_of(st.just(ENDLESS), st.floats(0.1, 1000))
news = st.builds(News, st.sampled_from(Lane), st.integers(0, 500), st.integers(0, 500))
histories = st.lists(st.tuples(instants, news), max_size=40)


def taken(count: int) -> News:
    return News(Lane.MARKETING, count, 0)


def told(count: int = 1, lane: Lane = Lane.MARKETING) -> News:
    return News(lane, 0, count)


def at_full_speed(rate: float, seconds: int = 6) -> Throttle:
    """Free, with so many taken a second, up to NOW."""
    throttle = Throttle()
    for second in range(-seconds, 0):
        throttle = throttle.after(taken(int(rate)), NOW + second)
    return throttle


@given(histories, ceilings)
def test_whatever_comes_the_rate_stays_between_the_floor_and_the_ceiling(history, ceiling):
    throttle, now = Throttle(), NOW
    for passed, heard in history:
        now += passed
        throttle = throttle.after(heard, now, ceiling)
        assert throttle.rate is None or min(FLOOR, ceiling / 2) <= throttle.rate <= ceiling


@given(histories, ceilings)
def test_nothing_but_a_warning_slows_down_and_nothing_grows_faster_than_the_line(history, ceiling):
    throttle, now = Throttle(), NOW
    for passed, heard in history:
        before, now = throttle, now + passed
        throttle = throttle.after(heard, now, ceiling)
        if before.rate is None:
            assert throttle.rate is None or heard.is_warning
        elif throttle.rate is not None and not heard.is_warning:
            since = now - before.grown_at
            assert before.rate <= throttle.rate <= before.rate + before.start / RECOVERY * since * 1.001 + 1e-9


@given(st.lists(st.tuples(instants, st.builds(taken, st.integers(0, 500))), max_size=40), ceilings)
def test_as_long_as_nobody_is_told_anything_it_is_free(history, ceiling):
    throttle, now = Throttle(), NOW
    for passed, heard in history:
        now += passed
        throttle = throttle.after(heard, now, ceiling)
        assert throttle.rate is None


@given(st.lists(st.floats(0, APART * 0.99), min_size=1, max_size=20))
def test_within_a_second_it_is_halved_once(moments):
    throttle = at_full_speed(100).after(told(), NOW)
    for moment in sorted(moments):
        assert throttle.after(told(500), NOW + moment).rate == throttle.rate


def test_it_begins_at_half_of_what_was_measured_and_goes_on_halving():
    throttle = at_full_speed(100).after(told(), NOW)
    assert throttle.rate == pytest.approx(50, rel=0.25)  # a window has an edge
    again = throttle.after(told(), NOW + APART)
    assert again.rate == pytest.approx(throttle.rate / 2)
    for second in range(2, 12):
        again = again.after(told(), NOW + second)
    assert again.rate == FLOOR


def test_the_first_second_counts_before_a_window_is_full():
    assert Throttle().after(taken(80), NOW).after(told(), NOW + 0.5).rate == 40


def test_what_went_long_ago_is_no_measure():
    assert at_full_speed(100).after(told(), NOW + 3600).rate == FLOOR


def test_a_rate_that_is_set_is_the_most_it_begins_with():
    assert Throttle().after(taken(100), NOW, 7).after(told(), NOW + 1, 7).rate == 3.5
    assert Throttle().after(told(), NOW, 0.7).rate == 0.35


@given(st.integers(2, 5000))
def test_at_full_speed_it_grows_back_along_a_line_and_then_is_free(rate):
    throttle = Throttle().after(taken(rate), NOW).after(told(), NOW + 1)
    slowest, start, now = throttle.rate, throttle.start, NOW + 1.0
    seconds = 0
    while throttle.rate is not None:
        now, seconds = now + 1, seconds + 1
        throttle = throttle.after(taken(int(throttle.rate) + 1), now)
        if throttle.rate is not None:
            assert throttle.rate == pytest.approx(slowest + start / RECOVERY * seconds)
    assert seconds == pytest.approx((2 * start - slowest) / start * RECOVERY, abs=2)


def test_silence_proves_nothing_and_grows_nothing():
    throttle = at_full_speed(100).after(told(), NOW)
    for second in range(1, 60):
        assert throttle.after(taken(0), NOW + second).rate == throttle.rate


def test_the_transactional_lane_slows_marketing_that_flows_and_none_that_is_idle():
    assert at_full_speed(100).after(told(lane=Lane.TRANSACTIONAL), NOW).rate is not None
    assert Throttle().after(told(lane=Lane.TRANSACTIONAL), NOW).rate is None


def test_what_the_transactional_lane_sends_is_not_marketings_flow():
    throttle = Throttle().after(News(Lane.TRANSACTIONAL, 500, 0), NOW)
    assert throttle.after(told(), NOW + 1).rate == FLOOR


@given(st.integers(1, 500), st.integers(1, 500))
def test_a_few_among_many_speak_of_their_recipients(took, warned):
    throttle = at_full_speed(100).after(News(Lane.MARKETING, took, warned), NOW)
    assert (throttle.rate is not None) == (warned / (took + warned) > TOLERATED)


@given(histories, st.floats(-1000, 0))
def test_a_clock_that_steps_back_does_not_hold_the_throttle(history, step):
    throttle, now = Throttle(), NOW
    for passed, heard in history:
        now += passed
        throttle = throttle.after(heard, now)
    rate = throttle.after(taken(100), now + step - WINDOW).after(told(500), now + step).rate
    assert rate is not None


@pytest.mark.parametrize(
    "outcome",
    [
        RateLimited("20429", timedelta(seconds=1)), RateLimited("450 4.2.1", timedelta(minutes=1)),
        Unavailable("421"), Unavailable("421 4.3.2"), Unavailable("451 4.3.0"), Unavailable("450 4.7.1"),
        Unavailable("UNAVAILABLE"),
    ],
)  # fmt: skip
def test_what_asks_to_slow_down(outcome):
    assert asks_to_slow(outcome)


@pytest.mark.parametrize(
    "outcome",
    [
        Receipt("421"), Unavailable("452 4.2.2"), Unavailable("450 4.1.2"), Unavailable("connect", is_away=True),
        Unavailable("42101"), Unavailable("closed"), Unavailable("THIRD_PARTY_AUTH_ERROR"), Rejected("550 5.7.1"),
        Misconfigured("550 5.7.28"), Ambiguous("timeout"),
    ],
)  # fmt: skip
def test_what_does_not(outcome):
    assert not asks_to_slow(outcome)
