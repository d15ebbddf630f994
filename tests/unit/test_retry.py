"""What each outcome means: the two tables of DESIGN.md section 3."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.consent import SuppressionReason
from notifier.domain.messages import LIVE, NEXT, AttemptState, Category, State
from notifier.domain.retry import (
    BACKOFF,
    LONGEST_HOLD,
    MAX_TRIES,
    PROBE_AFTER,
    RECONCILE_AFTER,
    CameBack,
    Tried,
    held_until,
    in_doubt,
    poison,
    proven_unsent,
    settle,
    spoiled,
    tried_again_at,
)
from notifier_channels.contract import (
    Again,
    Ambiguous,
    BadAddress,
    Channel,
    Misconfigured,
    OptedOut,
    Outcome,
    RateLimited,
    Receipt,
    Rejected,
    Unavailable,
    Withheld,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
OUTCOMES = [
    Receipt("q1", "250"),
    Unavailable("451"),
    RateLimited("421", timedelta(seconds=90)),
    Ambiguous("lost"),
    Rejected("554"),
    BadAddress("550 5.1.1"),
    OptedOut("21610"),
    Misconfigured("535"),
    Withheld(),
]


def tried(category=Category.TRANSACTIONAL, channel=Channel.EMAIL, tries=0, expires=3600, *, repeated=False):
    return Tried(category, channel, tries, repeated, NOW + timedelta(seconds=expires))


def test_every_outcome_is_tried_here():
    assert {type(outcome) for outcome in OUTCOMES} == set(get_args(Outcome))


@pytest.mark.parametrize("outcome", OUTCOMES)
@given(
    category=st.sampled_from(Category),
    channel=st.sampled_from(Channel),
    tries=st.integers(0, 40),
    repeated=st.booleans(),
    expires=st.integers(-100, 10**6),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_whatever_happens_the_next_state_is_one_that_may_follow(
    outcome, category, channel, tries, repeated, expires, jitter
):
    message = tried(category, channel, tries, expires, repeated=repeated and category is Category.TRANSACTIONAL)
    made = settle(outcome, message, NOW, jitter)
    assert made.state in NEXT[State.SENDING]
    assert (made.state is State.QUEUED) <= (made.due_at is not None)
    assert made.due_at is None or made.state in (State.QUEUED, State.UNKNOWN)
    assert made.reason or made.state is State.ACCEPTED  # I6
    assert (made.attempt in LIVE) == (
        made.state in (State.ACCEPTED, State.UNKNOWN)
    )  # I3: a live attempt is not repeated


def test_a_receipt_is_accepted():
    made = settle(OUTCOMES[0], tried(), NOW, 0)
    assert (made.state, made.attempt) == (State.ACCEPTED, AttemptState.ACCEPTED)


@pytest.mark.parametrize("category", Category)
def test_unavailable_backs_off_twice_as_long_each_time_up_to_a_limit(category):
    first, longest = BACKOFF[category]
    waits = [
        settle(Unavailable("451"), tried(category, tries=n, expires=10**6), NOW, 0).due_at - NOW for n in range(11)
    ]
    assert waits == [min(first * 2**n, longest) / 2 for n in range(11)]


@given(st.floats(0, 1, exclude_max=True))
def test_jitter_spreads_a_retry_over_the_upper_half_of_its_wait(jitter):
    first, _ = BACKOFF[Category.MARKETING]
    due = settle(Unavailable("451"), tried(Category.MARKETING, expires=10**6), NOW, jitter).due_at
    assert NOW + first / 2 <= due <= NOW + first


def test_unavailable_gives_up_after_so_many_counted_tries():
    assert settle(Unavailable("451"), tried(tries=MAX_TRIES - 2), NOW, 0).state is State.QUEUED
    last = settle(Unavailable("451"), tried(tries=MAX_TRIES - 1), NOW, 0)
    assert (last.state, last.reason) == (State.FAILED, "gave_up:unavailable:451")


def test_a_retry_past_the_expiry_comes_due_at_the_expiry_and_expires_there():
    assert settle(Unavailable("451"), tried(expires=1), NOW, 0.9).due_at == NOW + timedelta(seconds=1)


def test_a_rate_limit_waits_as_told_and_does_not_count():
    made = settle(RateLimited("421", timedelta(seconds=90)), tried(tries=MAX_TRIES), NOW, 0)
    assert (made.state, made.counts, made.due_at) == (State.QUEUED, False, NOW + timedelta(seconds=90))


@given(st.floats(0, 1, exclude_max=True))
def test_what_was_told_to_wait_does_not_come_back_at_once_and_never_early(jitter):
    wait = timedelta(seconds=60)
    due = settle(RateLimited("429", wait), tried(), NOW, jitter).due_at
    assert NOW + wait <= due <= NOW + wait * 1.5
    assert settle(RateLimited("429", wait), tried(), NOW, 0.5).due_at == NOW + timedelta(seconds=75)


def test_doubt_about_marketing_stays_doubt():
    made = settle(Ambiguous("lost"), tried(Category.MARKETING), NOW, 0)
    assert (made.state, made.attempt, made.due_at) == (State.UNKNOWN, AttemptState.UNKNOWN, None)


def test_doubt_about_a_transactional_message_is_looked_at_once_more():
    assert settle(Ambiguous("lost"), tried(), NOW, 0).due_at == NOW + RECONCILE_AFTER
    assert settle(Ambiguous("lost"), tried(repeated=True), NOW, 0).due_at is None


def test_a_dead_workers_doubt_is_doubt_like_any_other():
    assert in_doubt(tried(), NOW).due_at == NOW + RECONCILE_AFTER
    assert in_doubt(tried(Category.MARKETING), NOW).due_at is None


def test_a_bad_address_is_suppressed_and_a_dead_device_too():
    assert settle(BadAddress("550"), tried(), NOW, 0).suppress is SuppressionReason.HARD_BOUNCE
    assert settle(BadAddress("404"), tried(channel=Channel.PUSH), NOW, 0).suppress is SuppressionReason.DEAD_DEVICE


def test_a_rejection_suppresses_nobody():
    made = settle(Rejected("554"), tried(), NOW, 0)
    assert (made.state, made.suppress) == (State.FAILED, None)


def test_our_own_mistake_pauses_the_provider_and_costs_the_message_nothing():
    made = settle(Misconfigured("535"), tried(tries=MAX_TRIES), NOW, 0)
    assert (made.state, made.counts, made.pauses_provider) == (State.QUEUED, False, True)


@given(
    lasting=st.timedeltas(timedelta(0), timedelta(days=3)),
    left=st.timedeltas(timedelta(0), timedelta(days=3)),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_what_is_held_is_looked_at_more_seldom_the_longer_it_lasts_and_at_its_expiry_at_the_latest(
    lasting, left, jitter
):
    due = held_until(NOW - lasting, NOW + left, NOW, jitter)
    assert NOW + min(left, PROBE_AFTER / 2) <= due <= NOW + min(left, LONGEST_HOLD)
    assert due >= NOW + min(left, lasting / 2, LONGEST_HOLD / 2)


@pytest.mark.parametrize("outcome", [Withheld(), None])
def test_what_was_withheld_or_proven_unsent_goes_again_at_once_and_is_not_counted(outcome):
    made = settle(outcome, tried(tries=MAX_TRIES), NOW, 0) if outcome else proven_unsent(NOW)
    assert (made.state, made.attempt, made.due_at, made.counts) == (State.QUEUED, AttemptState.NOT_TAKEN, NOW, False)


def test_what_cannot_be_rendered_or_kills_its_worker_fails_with_a_reason():
    assert (spoiled("template").state, spoiled("template").reason) == (State.FAILED, "render:template")
    assert (poison().state, poison().reason) == (State.FAILED, "poison")


@given(
    st.sampled_from(Category), st.booleans(), st.integers(0, 9), st.integers(0, 9), st.timedeltas(timedelta(1) / 1440,
    timedelta(hours=2)), st.timedeltas(timedelta(), timedelta(days=3)),
)  # fmt: skip
def test_what_came_back_goes_again_only_where_it_may_and_in_time(category, is_followed, times, most, after, lives):
    due = tried_again_at(Again(after, most), CameBack(category, is_followed, times, NOW + lives), NOW)
    may = category is Category.TRANSACTIONAL and not is_followed and times < most
    in_time = after * 2**times < lives
    assert due == (NOW + after * 2**times if may and in_time else None)
