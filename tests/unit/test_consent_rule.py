"""The consent rule against a slow, obvious reference: hypothesis looks for a ledger on which the two disagree."""

from __future__ import annotations

import ast
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.consent import (
    ConsentEvent,
    Decision,
    Default,
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
    fold,
    judge,
    state_at,
)
from notifier.domain.messages import Category
from notifier_channels.contract import Channel

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
MESSAGE = UUID(int=1)


def topic(key="news", category=Category.MARKETING, default=Default.OPT_OUT, *, mandatory=False):
    return Topic(key, category, dict.fromkeys(Channel, default), mandatory)


def event(number, scope, channel, *, granted, at=0, expires=None):
    moment = NOON + timedelta(hours=at)
    return ConsentEvent(
        number, scope, channel, granted, moment, None if expires is None else NOON + timedelta(hours=expires)
    )


def yes(number, scope, channel="any", **rest):
    return event(number, scope, channel, granted=True, **rest)


def no(number, scope, channel="any", **rest):
    return event(number, scope, channel, granted=False, **rest)


topics = st.builds(
    topic,
    key=st.sampled_from(["news", "offers"]),
    category=st.sampled_from(Category),
    default=st.sampled_from(Default),
)
events = st.builds(
    event,
    number=st.integers(1, 10_000),
    scope=st.sampled_from(["all", "marketing", "topic:news", "topic:offers"]),
    channel=st.sampled_from(["any", "email", "sms"]),
    granted=st.booleans(),
    at=st.integers(-6, 0),
    expires=st.none() | st.integers(-8, 3),
).map(lambda e: e if e.granted else ConsentEvent(e.number, e.scope, e.channel, False, e.occurred_at))
ledgers = st.lists(events, max_size=12, unique_by=lambda e: e.number)


def reference(asked: Topic, channel: str, ledger, at) -> bool:
    """DESIGN.md section 4, a sentence at a time."""
    valid = [e for e in ledger if e.expires_at is None or e.expires_at > at]

    def covers(w):
        scope = w.scope == "all" or w.scope == f"topic:{asked.key}"
        scope = scope or (w.scope == "marketing" and asked.category is Category.MARKETING)
        return scope and w.channel in ("any", channel)

    def ended(w):
        for g in valid:
            if g.granted and g.occurred_at > w.occurred_at:
                if g.scope == w.scope and g.channel == w.channel:
                    return True
                if g.scope == f"topic:{asked.key}" and (g.channel == channel or (g.channel == "any" == w.channel)):
                    return True
        return False

    if any(not w.granted and covers(w) and not ended(w) for w in valid):
        return False
    if asked.defaults[Channel(channel)] is Default.OPT_OUT:
        return True
    return any(g.granted and g.scope == f"topic:{asked.key}" and g.channel in ("any", channel) for g in valid)


@given(topics, st.sampled_from([Channel.EMAIL, Channel.SMS]), ledgers)
def test_the_rule_agrees_with_the_reference_on_every_ledger(asked, channel, ledger):
    assert judge(asked, channel, ledger, NOON)[0] == reference(asked, channel, ledger, NOON)


@given(topics, st.sampled_from([Channel.EMAIL, Channel.SMS]), ledgers, st.integers(-4, 4))
def test_the_projection_decides_as_the_whole_ledger_does(asked, channel, ledger, hours):
    at = NOON + timedelta(hours=hours)
    assert judge(asked, channel, fold(ledger), at) == judge(asked, channel, ledger, at)


@given(ledgers, st.randoms())
def test_the_order_in_which_events_arrive_does_not_matter(ledger, random):
    shuffled = list(ledger)
    random.shuffle(shuffled)
    assert fold(shuffled) == fold(ledger)


@given(topics, ledgers)
def test_a_withdrawal_of_everything_now_refuses_whatever_was_said_before(asked, ledger):
    stop = no(20_000, "all", at=0)
    assert not judge(asked, Channel.EMAIL, [*ledger, stop], NOON)[0]


@given(topics, ledgers)
def test_a_grant_of_marketing_or_all_never_allows_what_an_opt_in_topic_was_not_granted(asked, ledger):
    opt_in = topic(asked.key, asked.category, Default.OPT_IN)
    own = [e for e in ledger if not (e.granted and e.scope == opt_in.scope)]
    assert not judge(opt_in, Channel.EMAIL, [*own, yes(20_001, "all"), yes(20_002, "marketing")], NOON)[0]


def test_silence_means_the_topics_default():
    assert judge(topic(default=Default.OPT_OUT), Channel.EMAIL, [], NOON)[1].rule is Rule.OPT_OUT_DEFAULT
    assert judge(topic(default=Default.OPT_IN), Channel.EMAIL, [], NOON)[1].rule is Rule.NO_GRANT


def test_a_topic_without_a_default_for_the_channel_needs_a_grant():
    email_only = Topic("news", Category.MARKETING, {Channel.EMAIL: Default.OPT_OUT})
    assert judge(email_only, Channel.SMS, [], NOON) == (False, judge(email_only, Channel.SMS, [], NOON)[1])
    assert judge(email_only, Channel.SMS, [yes(1, "topic:news", "sms")], NOON)[0]


def test_at_a_tie_the_withdrawal_comes_last():
    assert not judge(topic(), Channel.EMAIL, [no(1, "topic:news"), yes(2, "topic:news")], NOON)[0]


def test_a_backdated_grant_does_not_beat_a_later_withdrawal():
    assert not judge(topic(), Channel.EMAIL, [no(1, "topic:news", at=-1), yes(2, "topic:news", at=-2)], NOON)[0]


def test_a_topics_grant_that_names_the_channel_overrules_a_wider_withdrawal():
    ledger = [no(1, "all", at=-3), yes(2, "topic:news", "email", at=-2)]
    assert judge(topic(), Channel.EMAIL, ledger, NOON)[0]
    assert not judge(topic(), Channel.SMS, ledger, NOON)[0]


def test_a_topics_grant_on_any_channel_does_not_overrule_a_withdrawal_of_one_channel():
    assert not judge(topic(), Channel.EMAIL, [no(1, "all", "email", at=-3), yes(2, "topic:news", at=-2)], NOON)[0]


def test_a_grant_of_marketing_does_not_end_a_topics_own_withdrawal():
    assert not judge(topic(), Channel.EMAIL, [no(1, "topic:news", at=-3), yes(2, "marketing", at=-2)], NOON)[0]


def test_an_implied_grant_ends_by_itself_and_the_withdrawal_before_it_stands_again():
    ledger = [no(1, "topic:news", at=-3), yes(2, "topic:news", at=-2, expires=1)]
    assert judge(topic(), Channel.EMAIL, ledger, NOON)[0]
    assert not judge(topic(), Channel.EMAIL, ledger, NOON + timedelta(hours=1))[0]


def test_a_mandatory_topic_skips_the_rule():
    security = topic("security", Category.TRANSACTIONAL, mandatory=True)
    assert judge(security, Channel.EMAIL, [no(1, "all")], NOON) == (True, judge(security, Channel.EMAIL, [], NOON)[1])


def test_a_marketing_withdrawal_leaves_transactional_topics_alone():
    orders = topic("orders", Category.TRANSACTIONAL)
    assert judge(orders, Channel.EMAIL, [no(1, "marketing")], NOON)[0]
    assert not judge(orders, Channel.EMAIL, [no(1, "all")], NOON)[0]


def test_the_past_can_be_asked_for():
    ledger = [yes(1, "topic:news", at=-5), no(2, "topic:news", at=-3), yes(3, "topic:news", at=-1)]
    opt_in = topic(default=Default.OPT_IN)
    allowed = {
        hour: judge(opt_in, Channel.EMAIL, state_at(ledger, NOON + timedelta(hours=hour)), NOON)[0]
        for hour in (-6, -4, -2, 0)
    }
    assert allowed == {-6: False, -4: True, -2: False, 0: True}


def ask(facts=None, *, about=None, expires=24):
    question = Question(MESSAGE, about or topic(), Channel.EMAIL, NOON + timedelta(hours=expires))
    return decide(question, facts or Facts(), NOON)


def test_a_permit_names_the_message_and_the_ledger_line_it_rests_on():
    verdict = ask(Facts([yes(7, "topic:news")]), about=topic(default=Default.OPT_IN))
    assert isinstance(verdict, Permit)
    assert (verdict.message, verdict.decision.rule, verdict.decision.numbers) == (MESSAGE, Rule.GRANTED, (7,))


def test_a_message_past_its_expiry_is_refused_even_on_a_mandatory_topic():
    verdict = ask(about=topic("security", Category.TRANSACTIONAL, mandatory=True), expires=0)
    assert isinstance(verdict, Refusal)
    assert verdict.decision.rule is Rule.EXPIRED


def test_an_address_that_the_person_no_longer_holds_is_refused():
    assert ask(Facts(has_address=False)).decision.rule is Rule.ADDRESS_REMOVED


@pytest.mark.parametrize("reason", SuppressionReason)
@pytest.mark.parametrize("category", Category)
def test_a_suppression_blocks_every_category_but_a_complaint_only_marketing(reason, category):
    verdict = ask(Facts(suppressions=[Suppression(3, reason)]), about=topic(category=category))
    blocked = reason is not SuppressionReason.COMPLAINT or category is Category.MARKETING
    assert isinstance(verdict, Refusal) == blocked
    if blocked:
        assert verdict.decision.reason == f"suppressed_address:{reason}"
        assert verdict.decision.numbers == (3,)


@pytest.mark.parametrize("category", Category)
def test_an_operator_may_block_one_category_alone(category):
    block = Suppression(3, SuppressionReason.MANUAL, only=Category.MARKETING)
    verdict = ask(Facts(suppressions=[block]), about=topic(category=category))
    assert isinstance(verdict, Refusal) == (category is Category.MARKETING)


def test_a_suppression_blocks_a_mandatory_topic_too():
    security = topic("security", Category.TRANSACTIONAL, mandatory=True)
    assert isinstance(ask(Facts(suppressions=[Suppression(1, SuppressionReason.HARD_BOUNCE)]), about=security), Refusal)


def test_a_snooze_defers_marketing_until_its_end_and_nothing_else():
    until = NOON + timedelta(hours=2)
    verdict = ask(Facts(snoozed_until=until))
    assert isinstance(verdict, Deferral)
    assert verdict.until == until
    assert isinstance(ask(Facts(snoozed_until=until), about=topic(category=Category.TRANSACTIONAL)), Permit)
    assert isinstance(ask(Facts(snoozed_until=NOON)), Permit)


def test_a_snooze_past_the_expiry_is_a_refusal():
    verdict = ask(Facts(snoozed_until=NOON + timedelta(hours=24)), expires=24)
    assert isinstance(verdict, Refusal)
    assert verdict.decision.rule is Rule.EXPIRED


def test_only_the_consent_rule_makes_a_permit():
    for path in Path("notifier").rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        makes = [call for call in calls if getattr(call.func, "id", getattr(call.func, "attr", "")) == "Permit"]
        assert not makes or path.as_posix() == "notifier/domain/consent.py", path


numbers = st.lists(st.integers(1, 2**62), max_size=3).map(tuple)
instants = st.datetimes(timezones=st.just(UTC))


@given(st.builds(Decision, st.sampled_from(Rule), instants, numbers, st.text()))
def test_a_decision_is_written_as_what_it_says(decision):
    assert json.loads(decision.written) == decision.note
