"""A repeated no is no news exactly when it changes nothing; an undo brings back what was allowed and nothing more."""

from datetime import UTC, datetime, timedelta

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from notifier.domain.consent import ANY, ConsentEvent, Default, Rule, Topic, judge
from notifier.domain.feedback import advance, proves_nobody_there
from notifier.domain.messages import NEXT, Category, State
from notifier.domain.standing import Change, may_overrule
from notifier.domain.withdrawals import lasts_until, may_be_undone, standing, still_undoable, was_undone
from notifier_channels.contract import Channel, EventKind

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=100)
TOPICS = {
    "news": Topic("news", Category.MARKETING, {Channel.EMAIL: Default.OPT_OUT, Channel.SMS: Default.OPT_IN}),
    "offers": Topic("offers", Category.MARKETING, {Channel.EMAIL: Default.OPT_IN}),
    "orders": Topic("orders", Category.TRANSACTIONAL, {Channel.EMAIL: Default.OPT_OUT, Channel.SMS: Default.OPT_OUT}),
    "security": Topic("security", Category.TRANSACTIONAL, {Channel.EMAIL: Default.OPT_OUT}, mandatory=True),
}
FOR_A_WHILE = ConsentEvent(2, "marketing", ANY, True, START + timedelta(days=1), START + timedelta(days=2))
scopes = st.sampled_from(["topic:news", "topic:offers", "topic:orders", "marketing", "all"])
wires = st.sampled_from(["email", "sms"])
channels = st.sampled_from(["email", "sms", ANY])


@st.composite
def ledgers(draw):
    lines = draw(
        st.lists(st.tuples(scopes, channels, st.booleans(), st.integers(0, 20), st.none() | st.integers(0, 150)))
    )
    return [
        ConsentEvent(
            number,
            scope,
            channel,
            granted,
            START + timedelta(days=day),
            START + timedelta(days=end) if granted and end is not None else None,
        )
        for number, (scope, channel, granted, day, end) in enumerate(lines, 1)
    ]


def allowed(events, at=NOW):
    return {
        (key, channel)
        for key, topic in TOPICS.items()
        for channel in topic.defaults
        if judge(topic, channel, events, at)[0]
    }


def topic_of(scope):
    return TOPICS.get(scope.removeprefix("topic:"))


def said(events, scope, channel, *, granted, ends=None):
    return ConsentEvent(len(events) + 1, scope, channel, granted, NOW - timedelta(seconds=3600 - len(events)), ends)


@given(ledgers(), scopes, channels)
def test_a_no_that_stands_already_changes_nothing_when_repeated(events, scope, channel):
    if standing(events, scope, channel):
        assert allowed([*events, said(events, scope, channel, granted=False)]) == allowed(events)


@given(ledgers(), scopes, channels)
def test_a_no_stands_as_soon_as_it_was_said(events, scope, channel):
    line = said(events, scope, channel, granted=False)
    assert standing([*events, line], scope, channel) == line


@settings(max_examples=400)
@given(ledgers(), scopes, wires, st.timedeltas(timedelta(0), timedelta(days=60)))
def test_an_undo_brings_back_exactly_what_was_allowed_and_no_longer_than_it_was(events, scope, channel, days):
    assume(topic_of(scope) is None or Channel(channel) in topic_of(scope).defaults)
    if not may_be_undone(events, scope, channel, topic_of(scope), NOW):
        return
    refused = [*events, said(events, scope, channel, granted=False)]
    number = refused[-1].number
    assert still_undoable(refused, number, topic_of(scope), NOW)
    assert not was_undone(refused, number)
    ends = lasts_until(refused, number, topic_of(scope), NOW)
    undone = [*refused, said(refused, scope, channel, granted=True, ends=ends)]
    assert allowed(undone) == allowed(events)
    assert allowed(undone, NOW + days) <= allowed(events, NOW + days)
    assert was_undone(undone, number)
    assert not still_undoable(undone, number, topic_of(scope), NOW)


def test_a_no_is_not_undone_by_a_lasting_yes_where_a_yes_for_a_while_has_run_out():
    events = [
        ConsentEvent(1, "all", "sms", False, START),
        ConsentEvent(2, "all", "sms", True, START + timedelta(days=1), START + timedelta(days=2)),
    ]
    assert not may_be_undone(events, "all", "sms", None, NOW)


@settings(max_examples=400)
@given(ledgers(), scopes, channels)
@example([ConsentEvent(1, "marketing", ANY, False, START), FOR_A_WHILE], "topic:news", "email")
def test_a_yes_that_may_overrule_no_no_brings_back_nothing_that_was_refused(events, scope, channel):
    yes = said(events, scope, channel, granted=True)
    assume(not may_overrule(Change(scope, channel, granted=True), yes.occurred_at, events))
    for topic in TOPICS.values():
        for one in topic.defaults:
            refused = judge(topic, one, events, yes.occurred_at)[1].rule is Rule.WITHDRAWN
            assert not (refused and judge(topic, one, [*events, yes], yes.occurred_at)[0])


def test_an_undo_outlasts_no_yes_that_held_a_wider_no_down_for_a_while():
    ends = NOW + timedelta(days=3)
    events = [
        ConsentEvent(1, "topic:offers", "email", True, START),
        ConsentEvent(2, "marketing", "any", False, START + timedelta(days=1)),
        ConsentEvent(3, "topic:offers", "email", True, START + timedelta(days=2), ends),
        ConsentEvent(4, "topic:offers", "email", False, NOW),
    ]
    assert lasts_until(events, 4, TOPICS["offers"], NOW) == ends


def test_an_undo_comes_too_late_when_the_yes_that_was_refused_has_run_out_meanwhile():
    clicked = NOW - timedelta(minutes=5)
    before = [
        ConsentEvent(1, "all", "sms", False, START),
        ConsentEvent(2, "all", "sms", True, START + timedelta(days=1), NOW),
    ]
    assert may_be_undone(before, "all", "sms", None, clicked)
    refused = [*before, ConsentEvent(3, "all", "sms", False, clicked)]
    assert still_undoable(refused, 3, None, clicked)
    assert not still_undoable(refused, 3, None, NOW + timedelta(minutes=5))


@given(ledgers(), scopes, wires, ledgers())
def test_an_undo_never_allows_what_is_not_allowed_without_the_line(events, scope, channel, since):
    """Whatever was said between the click and the undo."""
    assume(topic_of(scope) is None or Channel(channel) in topic_of(scope).defaults)
    assume(may_be_undone(events, scope, channel, topic_of(scope), NOW))
    refused = [*events, said(events, scope, channel, granted=False)]
    number = refused[-1].number
    for line in since:
        refused.append(said(refused, line.scope, line.channel, granted=line.granted, ends=line.expires_at))
    if still_undoable(refused, number, topic_of(scope), NOW):
        ends = lasts_until(refused, number, topic_of(scope), NOW)
        undone = [*refused, said(refused, scope, channel, granted=True, ends=ends)]
        assert allowed(undone) <= allowed([line for line in refused if line.number != number])


@given(st.sampled_from(State), st.lists(st.sampled_from(EventKind)), st.booleans())
def test_reports_move_a_message_only_along_the_table_of_states(state, kinds, may_go_again):
    after = advance(state, kinds, may_go_again=may_go_again)
    assert after is state or after in NEXT[state]
    if state not in (State.ACCEPTED, State.DELIVERED):
        assert after is state


@given(st.lists(st.sampled_from(EventKind)))
def test_a_bounce_after_which_it_may_go_again_ends_nothing(kinds):
    kinds.append(EventKind.BOUNCED)
    others = [kind for kind in kinds if kind is not EventKind.BOUNCED]
    after = advance(State.ACCEPTED, kinds, may_go_again=True)
    assert after is {State.ACCEPTED: State.QUEUED}.get(advance(State.ACCEPTED, others), advance(State.ACCEPTED, others))
    assert advance(State.DELIVERED, kinds, may_go_again=True) is advance(State.DELIVERED, others)


def test_a_bounce_code_is_read_wherever_it_stands():
    assert proves_nobody_there("550 5.1.1 <gone>")
    assert proves_nobody_there("5.1.1")
    assert not proves_nobody_there("15.1.1")
    assert not proves_nobody_there("5.1.10.3 5.7.1")
    assert not proves_nobody_there("")
