"""However somebody is asked for, they are asked at most once in ten minutes and three times a day."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.confirmations import LIMITS, LOOK_BACK, remaining, wait

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
gaps = st.lists(st.integers(0, 40_000).map(lambda seconds: timedelta(seconds=seconds)), max_size=40)


@given(gaps)
def test_no_window_ever_holds_more_than_its_limit(waits) -> None:
    at, asked = NOW, []
    for gap in waits:
        at += gap
        known = [moment for moment in asked if moment > at - LOOK_BACK]
        if wait(known, at) is None:
            asked.append(at)
    for limit in LIMITS:
        for moment in asked:
            assert sum(moment - limit.within < other <= moment for other in asked) <= limit.most


@given(gaps)
def test_after_the_wait_it_may_be_asked_and_not_a_second_before(waits) -> None:
    at, asked = NOW, []
    for gap in waits:
        at += gap
        if (left := wait(asked, at)) is None:
            asked.append(at)
            continue
        assert left > timedelta(0)
        assert wait(asked, at + left) is None
        assert wait(asked, at + left - timedelta(microseconds=1)) is not None


def test_the_first_may_be_asked_at_once_and_then_it_slows_down() -> None:
    assert (wait([], NOW), remaining([], NOW)) == (None, 3)
    assert wait([NOW], NOW) == timedelta(minutes=10)
    spread = [NOW - timedelta(hours=hours) for hours in (1, 2, 3)]
    assert wait(spread, NOW) == timedelta(hours=21)
    assert (remaining(spread, NOW), remaining(spread[:1], NOW)) == (0, 2)
