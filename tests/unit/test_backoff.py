"""A child that keeps dying is started again with growing pauses."""

import pytest

from notifier.supervise.children import LONGEST_PAUSE, SETTLED_AFTER, Backoff


def test_pauses_double_up_to_the_longest():
    backoff = Backoff()
    pauses = []
    for now in range(8):
        backoff.started(now)
        pauses.append(backoff.died(now + 0.1))
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, LONGEST_PAUSE, LONGEST_PAUSE]


def test_a_child_that_lived_long_starts_again_at_once():
    backoff = Backoff()
    for _ in range(5):
        backoff.died(0)
    backoff.started(100)
    assert backoff.died(100 + SETTLED_AFTER) == pytest.approx(0.2)


def test_it_is_due_after_the_pause_and_not_while_it_runs():
    backoff = Backoff()
    assert backoff.due_at is None
    pause = backoff.died(50)
    assert backoff.due_at == 50 + pause
    backoff.started(51)
    assert backoff.due_at is None


def test_thousands_of_deaths_do_not_overflow():
    assert Backoff(deaths=5000).died(0) == LONGEST_PAUSE
