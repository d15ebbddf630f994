"""How far ahead a campaign is planned: a few seconds of work, in batches that no rate and no spread is too slow for."""

import math
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.campaigns import AHEAD, BATCH, BATCHES_AHEAD, batch_size, batches_ahead

rates = st.none() | st.floats(0.001, 100_000)


@given(rates, st.integers(0, 43_200), st.integers(0, 5_000_000))
def test_a_batch_is_never_empty_and_never_larger_than_one_may_be(rate, minutes, people):
    size = batch_size(rate, timedelta(minutes=minutes), people)
    assert 1 <= size <= BATCH
    if rate is not None and size > 1:
        assert size <= rate  # a second of work
    if minutes and people and size > 1:
        assert (size - 1) * minutes < people  # a minute of a spread


@given(st.floats(0.001, 100_000))
def test_what_waits_is_a_few_seconds_of_the_rate(rate):
    size = batch_size(rate, timedelta(), 1000)
    ahead = batches_ahead(rate, size)
    assert 1 <= ahead <= BATCHES_AHEAD
    assert (ahead - 1) * size < rate * AHEAD.total_seconds()
    if ahead < BATCHES_AHEAD:
        assert math.ceil(rate * AHEAD.total_seconds()) <= ahead * size


def test_without_a_rate_or_a_spread_batches_are_as_large_and_as_many_as_they_may_be():
    assert batch_size(None, timedelta(), 10) == BATCH
    assert batches_ahead(None, BATCH) == BATCHES_AHEAD
