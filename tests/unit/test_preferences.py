"""Whatever is in a ledger and a form: nothing is granted that was not ticked, nothing refused that was not unticked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.consent import ALL, ANY, MARKETING, ConsentEvent, Default, SuppressionReason, Topic
from notifier.domain.messages import Category
from notifier.domain.preferences import Changes, Pause, Place, Profile, changes, is_sooner, snoozed, view, wishes
from notifier_channels.contract import Channel

NOW = datetime(2026, 11, 25, tzinfo=UTC)
OPT_IN, OPT_OUT = Default.OPT_IN, Default.OPT_OUT
TOPICS = [
    Topic("news", Category.MARKETING, {Channel.EMAIL: OPT_OUT, Channel.SMS: OPT_IN, Channel.PUSH: OPT_IN}),
    Topic("letter", Category.MARKETING, {Channel.EMAIL: OPT_IN}),
    Topic("orders", Category.TRANSACTIONAL, {Channel.EMAIL: OPT_OUT, Channel.SMS: OPT_OUT}),
    Topic("security", Category.TRANSACTIONAL, {Channel.EMAIL: OPT_OUT}, mandatory=True),
]
EVERYWHERE = [Place(channel, "x") for channel in Channel]
KEYS = list(view(TOPICS, [], EVERYWHERE, Profile(), NOW).switches)

events = st.builds(
    ConsentEvent,
    number=st.integers(1, 10_000),
    scope=st.sampled_from([MARKETING, ALL, *(topic.scope for topic in TOPICS)]),
    channel=st.sampled_from([ANY, *Channel]),
    granted=st.booleans(),
    occurred_at=st.integers(1, 50).map(lambda days: NOW - timedelta(days=days)),
    expires_at=st.one_of(st.none(), st.integers(-20, 20).map(lambda days: NOW + timedelta(days=days))),
)
ledgers = st.lists(events, max_size=12, unique_by=lambda event: event.number).map(
    lambda lines: [line if line.granted else line._replace(expires_at=None) for line in lines]
)
forms = st.tuples(
    st.dictionaries(st.sampled_from([*KEYS, "topic:security/email", "topic:gone/email", "x"]), st.booleans()),
    st.sets(st.sampled_from([*KEYS, "topic:security/email", "topic:gone/email", "x"])),
)
channels = st.sets(st.sampled_from(list(Channel)))


def seen(ledger, held=frozenset(Channel), at=NOW):
    return view(TOPICS, ledger, [Place(channel, "x") for channel in held], Profile(), at)


def after(ledger, news: Changes):
    """The ledger as the page writes it: each no, then each yes."""
    number = max((event.number for event in ledger), default=0)
    lines = [(switch, False, NOW) for switch in news.off]
    lines += [(switch, True, NOW + timedelta(microseconds=1)) for switch in news.on]
    return ledger + [
        ConsentEvent(number + n, switch.scope, switch.channel, on, at) for n, (switch, on, at) in enumerate(lines, 1)
    ]


@given(ledgers, forms, channels, st.booleans())
def test_only_what_was_ticked_is_granted_and_only_what_was_unticked_is_refused(ledger, form, held, may_grant):
    shown, ticked = form
    news = changes(seen(ledger, held), wishes(shown, ticked), may_grant=may_grant)
    assert {one.key for one in news.on} <= {key for key, was_on in shown.items() if not was_on and key in ticked}
    now_on = {key for key, switch in seen(ledger).switches.items() if switch.on}
    unticked = {key for key, was_on in shown.items() if was_on and key not in ticked}
    assert {one.key for one in news.off} == unticked & now_on
    assert may_grant or not news.on
    assert not (may_grant and news.held_back)
    assert "security" not in {one.topic.key for one in [*news.on, *news.off] if one.topic}


@given(ledgers, forms)
def test_what_a_change_says_is_so_afterwards(ledger, form):
    news = changes(seen(ledger), wishes(*form), may_grant=True)
    now = seen(after(ledger, news), at=NOW + timedelta(seconds=1)).switches
    assert all(now[switch.key].on for switch in news.on)
    assert not any(now[switch.key].on for switch in news.off)


@given(ledgers, forms)
def test_a_switch_that_was_not_touched_stays_unless_a_wider_one_was(ledger, form):
    news = changes(seen(ledger), wishes(*form), may_grant=True)
    touched = {switch.key for switch in [*news.on, *news.off]}
    if touched & {f"{MARKETING}/{ANY}", f"{ALL}/{ANY}"}:
        return
    at = NOW + timedelta(seconds=1)
    before, now = seen(ledger, at=at).switches, seen(after(ledger, news), at=at).switches
    assert {key: before[key].on for key in before.keys() - touched} == {
        key: now[key].on for key in now.keys() - touched
    }


@given(ledgers, ledgers)
def test_a_form_that_nobody_touched_changes_nothing_whatever_happened_meanwhile(ledger, meanwhile):
    shown = {key: switch.on for key, switch in seen(ledger).switches.items()}
    untouched = wishes(shown, {key for key, on in shown.items() if on})
    assert changes(seen(meanwhile), untouched, may_grant=True) == Changes(off=[], on=[])


def test_a_yes_needs_an_address_and_a_no_does_not():
    only_mail = seen([], {Channel.EMAIL})
    wished = {"topic:news/sms": True, "topic:orders/sms": False}
    news = changes(only_mail, wished, may_grant=True)
    assert ([one.key for one in news.on], [one.key for one in news.off]) == ([], ["topic:orders/sms"])
    assert {switch.channel for _, switches in only_mail.topics for switch in switches} == {Channel.EMAIL}


def test_a_topic_that_is_turned_on_beside_a_wider_no_of_the_same_form_stays_on():
    wished = {"marketing/any": False, "topic:letter/email": True}
    news = changes(seen([]), wished, may_grant=True)
    now = seen(after([], news), at=NOW + timedelta(seconds=1)).switches
    assert (now["topic:letter/email"].on, now["topic:news/email"].on) == (True, False)


def test_mandatory_topics_are_shown_where_they_arrive_and_have_no_switch():
    assert [topic.key for topic in seen([]).locked] == ["security"]
    assert seen([], {Channel.PUSH}).locked == []
    assert not any("security" in key for key in KEYS)


def test_a_shorter_pause_or_none_is_an_opt_in_and_a_longer_one_is_not():
    week = snoozed(Pause.WEEK, NOW)
    assert snoozed(Pause.END, NOW) is None
    assert is_sooner(None, week, NOW)
    assert is_sooner(snoozed(Pause.DAY, NOW), week, NOW)
    assert not is_sooner(snoozed(Pause.MONTH, NOW), week, NOW)
    assert not is_sooner(None, NOW - timedelta(days=1), NOW)
    assert not is_sooner(week, None, NOW)


def test_a_place_hides_its_text_from_whoever_prints_it():
    assert "a…@x" not in repr(Place(Channel.EMAIL, "a…@x", frozenset({SuppressionReason.STOP})))
