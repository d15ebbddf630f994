"""Every row of the rule table is what `decide` says, the page is the table, and laws that hold for all questions."""

from __future__ import annotations

from datetime import timedelta
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.caps import Cap, Period, Sent
from notifier.domain.clocks import Window
from notifier.domain.consent import (
    ConsentEvent,
    Deferral,
    Facts,
    Permit,
    Question,
    Refusal,
    Rule,
    Suppression,
    SuppressionReason,
    Topic,
    decide,
)
from notifier.domain.messages import Category
from notifier.domain.timing import SPREAD, Hours, Pack
from notifier_channels.contract import Channel
from tests.rules import LETTER, NEWS, NOON, ORDERS, SECURITY, TABLE, answered, page

PAGE = Path("docs/reference/rules.md")
ROWS = list(chain.from_iterable(TABLE.values()))
HOUR, WEEK = timedelta(hours=1), timedelta(days=7)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.situation}, {row.topic.key}")
def test_a_row_is_what_is_decided(row):
    assert answered(row.ask()) == (row.answer, row.reason)


def test_the_page_is_the_table():
    assert PAGE.read_text() == "\n".join(page())


def test_every_rule_has_a_row():
    assert {row.reason.partition(":")[0] for row in ROWS} == set(Rule)


# Laws -----------------------------------------------------------------------------------------------------------------

moments = st.integers(-20 * 24 * 60, 0).map(lambda minutes: NOON + timedelta(minutes=minutes))
lines = st.builds(
    ConsentEvent,
    st.integers(1, 1000),
    st.sampled_from(["all", "marketing", "topic:news", "topic:letter", "topic:orders"]),
    st.sampled_from(["any", "sms"]),
    st.booleans(),
    moments,
    st.none(),
)
windows = st.tuples(st.integers(0, 1380), st.integers(30, 1440)).map(lambda w: Window(w[0], min(w[0] + w[1], 1440)))
hours = st.builds(
    lambda week, zones: Hours(
        [Pack("p", "p", frozenset(Channel), tuple(week), frozenset(), (), "", NOON.date())], zones
    ),
    st.lists(st.none() | windows, min_size=7, max_size=7),
    st.lists(st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata"]), min_size=1, max_size=2),
)
facts = st.builds(
    Facts,
    events=st.lists(lines, max_size=4),
    suppressions=st.lists(st.builds(Suppression, st.integers(1, 99), st.sampled_from(SuppressionReason)), max_size=1),
    has_address=st.sampled_from([True, True, True, False]),
    snoozed_until=st.none() | st.integers(-5, 100).map(lambda n: NOON + n * HOUR),
    hours=st.none() | hours,
    sent=st.lists(st.builds(Sent, moments, st.just("news"), st.just(Channel.SMS), st.integers(1, 99)), max_size=4),
    is_doubled=st.just(False),
)
caps = st.builds(Cap, st.integers(1, 3), st.sampled_from(Period) | st.integers(1, 100).map(lambda n: n * HOUR))
questions = st.builds(
    Question,
    message=st.uuids(),
    topic=st.sampled_from([NEWS, LETTER, ORDERS, SECURITY]),
    channel=st.just(Channel.SMS),
    expires_at=st.integers(-2, 400).map(lambda n: NOON + n * HOUR),
    turn=st.none(),
    caps=st.lists(caps, max_size=2),
    spread=st.just(SPREAD),
    campaign=st.none(),
)
TIMING = {Rule.QUIET_HOURS, Rule.FREQUENCY_CAP, Rule.SNOOZED}


@given(questions, facts, st.integers(1, 1000))
def test_a_longer_life_never_turns_a_permit_or_a_wait_into_a_refusal(question, known, more):
    verdict = decide(question, known, NOON)
    longer = decide(question._replace(expires_at=question.expires_at + more * HOUR), known, NOON)
    if isinstance(verdict, Permit):
        assert longer == verdict
    if isinstance(verdict, Deferral):
        assert isinstance(longer, Deferral)
        assert longer.until >= verdict.until


@given(questions, facts)
def test_what_waits_waits_for_an_instant_at_which_time_allows_it_and_it_is_still_of_use(question, known):
    verdict = decide(question, known, NOON)
    if isinstance(verdict, Deferral):
        assert verdict.decision.rule in TIMING
        assert NOON < verdict.until < question.expires_at
        assert isinstance(decide(question, known, verdict.until), Permit)


@given(questions, facts)
def test_time_holds_back_marketing_alone(question, known):
    verdict = decide(question, known, NOON)
    untimed = decide(question, known._replace(hours=None, sent=(), snoozed_until=None), NOON)
    if question.topic.category is Category.TRANSACTIONAL or isinstance(untimed, Refusal):
        assert verdict == untimed
    elif verdict != untimed:
        assert verdict.decision.rule in TIMING | {Rule.EXPIRED}


@given(questions, facts, lines)
def test_a_no_to_everything_is_final_for_all_that_is_not_mandatory(question, known, line):
    stop = line._replace(number=5000, scope="all", channel="any", granted=False, occurred_at=NOON)
    verdict = decide(question, known._replace(events=[*known.events, stop]), NOON)
    assert question.topic.mandatory or isinstance(verdict, Refusal)


@given(questions, facts)
def test_more_that_was_sent_never_lets_more_go(question, known):
    fewer = decide(question, known._replace(sent=known.sent[1:]), NOON)
    if isinstance(decide(question, known, NOON), Permit):
        assert isinstance(fewer, Permit)


@given(st.sampled_from([NEWS, LETTER, ORDERS]), questions, facts)
def test_the_same_question_has_the_same_answer(topic: Topic, question, known):
    question = question._replace(topic=topic)
    assert decide(question, known, NOON) == decide(question, known, NOON)
