"""Only what changes something is news, and leaving the rest unwritten changes no decision."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.consent import ConsentEvent, Rule, judge
from notifier.domain.standing import Change, covers, in_words, news, refusing, scopes, standings
from notifier_channels.contract import Channel
from tests.servers.town import TOPICS
from tests.unit.test_consent_rule import NOON, no, topic, yes

changes = st.lists(
    st.builds(
        Change,
        scope=st.sampled_from(["all", "marketing", "topic:newsletter", "topic:orders"]),
        channel=st.sampled_from(["any", "email", "sms"]),
        granted=st.booleans(),
    ),
    max_size=5,
    unique_by=lambda one: (one.scope, one.channel),
)
SOON = NOON + timedelta(hours=1)


def ledger_of(said: list[list[Change]], *, all_of_it: bool) -> list[ConsentEvent]:
    """Each list is said an hour after the one before; noes first, a yes of the same request a moment later."""
    events: list[ConsentEvent] = []
    for hour, request in enumerate(said):
        at = NOON - timedelta(hours=len(said) - hour)
        written = request if all_of_it else news(request, events, None)
        for change in sorted(written, key=lambda one: one.granted):
            moment = at + timedelta(microseconds=change.granted)
            events.append(ConsentEvent(len(events) + 1, change.scope, change.channel, change.granted, moment))
    return events


@given(st.lists(changes, max_size=6))
def test_what_is_not_written_because_it_is_no_news_changes_no_decision(said) -> None:
    whole, short = ledger_of(said, all_of_it=True), ledger_of(said, all_of_it=False)
    for one in TOPICS.values():
        for channel in one.defaults:
            assert judge(one, channel, whole, NOON)[0] == judge(one, channel, short, NOON)[0]


@given(st.lists(changes, max_size=4), changes)
def test_the_same_request_twice_is_news_once(said, last) -> None:
    events = ledger_of([*said, last], all_of_it=False)
    assert news(last, events, None) == []


def test_a_yes_that_lasts_longer_is_news() -> None:
    again = [Change("topic:news", "email", granted=True)]
    assert news(again, [yes(1, "topic:news", "email", at=-1, expires=5)], None) == again
    assert news(again, [yes(1, "topic:news", "email", at=-1)], SOON) == []
    assert news(again, [yes(1, "topic:news", "email", at=-1, expires=1)], SOON) == []


def test_a_no_that_stands_is_named_on_each_of_the_channels_that_are_asked_for() -> None:
    one = topic("news")
    assert refusing(one, "email", [no(3, "marketing", "email", at=-1)], NOON) == 3
    assert refusing(one, "any", [no(3, "marketing", "email", at=-1)], NOON) == 3
    assert refusing(one, "sms", [no(3, "marketing", "email", at=-1)], NOON) is None


@pytest.mark.parametrize(
    ("event", "covered"),
    [
        (no(1, "all"), True),
        (no(1, "marketing", "email"), True),
        (no(1, "topic:news", "sms"), False),
        (no(1, "topic:offers"), False),
        (no(1, "all", at=-2), False),
        (yes(1, "all"), False),
    ],
)
def test_a_no_since_then_covers_its_topics_on_its_channels(event, covered) -> None:
    assert covers(topic("news"), Channel.EMAIL, [event], NOON - timedelta(hours=1)) == covered


def test_every_rule_of_consent_has_words() -> None:
    for events in ([], [no(1, "marketing", "email")], [yes(1, "topic:offers", "email")]):
        for one in standings(TOPICS, events, datetime.now(UTC)):
            assert in_words(one).endswith(".")
            assert "{" not in in_words(one)
    [refused] = [one for one in standings(TOPICS, [no(1, "marketing", "email")], NOON) if one.topic.key == "newsletter"]
    assert (refused.decision.rule, in_words(refused)) == (Rule.WITHDRAWN, "They said no to all marketing by email.")


def test_what_is_mandatory_is_no_scope() -> None:
    assert set(scopes(TOPICS)) == {"topic:newsletter", "topic:offers", "topic:orders", "marketing", "all"}
    assert scopes(TOPICS)["marketing"] == {Channel.EMAIL}
    assert scopes(TOPICS)["all"] == {Channel.EMAIL, Channel.SMS}
