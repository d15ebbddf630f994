"""Whose turn it is among a notification's channels: as a table in words, and as what must hold for any history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.consent import Default, Deferral, Facts, Permit, Question, Refusal, Rule, Topic, decide
from notifier.domain.messages import FINAL, Category, State
from notifier.domain.routing import LOOK_AGAIN, Earlier, Go, Mode, Route, Stop, Turn, Wait, stands
from notifier_channels.contract import Channel

EMAIL, SMS, PUSH = Channel.EMAIL, Channel.SMS, Channel.PUSH
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


# Steps ----------------------------------------------------------------------------------------------------------------


def test_all_channels_are_one_step_without_a_route() -> None:
    assert Route().steps([SMS, EMAIL, PUSH]) == {EMAIL: 0, PUSH: 0, SMS: 0}


@pytest.mark.parametrize("mode", [Mode.FIRST, Mode.THEN])
def test_steps_follow_the_order_leave_out_what_is_not_there_and_end_with_what_is_not_named(mode) -> None:
    route = Route(mode, (PUSH, SMS), HOUR)
    assert route.steps([EMAIL, SMS, PUSH]) == {PUSH: 0, SMS: 1, EMAIL: 2}
    assert route.steps([EMAIL, SMS]) == {SMS: 0, EMAIL: 1}


def test_a_later_step_is_looked_at_soon_when_one_is_chosen_and_at_its_turn_when_one_is_waited_for() -> None:
    first, then = Route(Mode.FIRST, (PUSH, SMS)), Route(Mode.THEN, (PUSH, SMS), HOUR)
    assert [first.looks_at(step, NOW) for step in range(3)] == [NOW, NOW + LOOK_AGAIN, NOW + LOOK_AGAIN]
    assert [then.looks_at(step, NOW) for step in range(3)] == [NOW, NOW + HOUR, NOW + 2 * HOUR]
    assert Route().looks_at(0, NOW) == NOW


# The table in words ---------------------------------------------------------------------------------------------------

READ = {  # what is said of an earlier message
    "mail waits": Earlier(EMAIL, State.QUEUED),
    "mail is in hand": Earlier(EMAIL, State.CLAIMED),
    "mail is on the wire": Earlier(EMAIL, State.SENDING),
    "mail was taken": Earlier(EMAIL, State.ACCEPTED),
    "mail arrived": Earlier(EMAIL, State.DELIVERED),
    "mail came back": Earlier(EMAIL, State.BOUNCED, "bounced:550 5.1.1"),
    "mail is in doubt": Earlier(EMAIL, State.UNKNOWN, "in_doubt:timeout"),
    "mail was called spam": Earlier(EMAIL, State.COMPLAINED, "complained"),
    "mail was refused": Earlier(EMAIL, State.FAILED, "rejected:554"),
    "nobody has that mailbox": Earlier(EMAIL, State.FAILED, "bad_address:550 5.1.1"),
    "mail was not wanted": Earlier(EMAIL, State.SUPPRESSED, "withdrawn:all/email"),
    "mail ran out of time": Earlier(EMAIL, State.EXPIRED, "expired"),
    "mail was called back": Earlier(EMAIL, State.CANCELLED, "withdrawn:all/email"),
    "text was taken": Earlier(SMS, State.ACCEPTED),
    "text arrived": Earlier(SMS, State.DELIVERED),
    "STOP was said at the provider": Earlier(SMS, State.SUPPRESSED, "opted_out_at_provider:21610"),
    "push was taken": Earlier(PUSH, State.ACCEPTED),
    "push is in hand": Earlier(PUSH, State.CLAIMED),
    "one device is dead": Earlier(PUSH, State.FAILED, "bad_address:UNREGISTERED"),
}

TABLE = """
earlier                                | first | then, before its turn | then, at its turn
                                       | go    | go                    | go
mail waits                             | wait  | wait                  | go
mail is in hand                        | wait  | wait                  | go
mail is on the wire                    | wait  | wait                  | go
mail was taken                         | stop  | wait                  | stop
mail arrived                           | stop  | stop                  | stop
mail came back                         | stop  | go                    | go
mail is in doubt                       | stop  | wait                  | go
mail was called spam                   | stop  | stop                  | stop
mail was refused                       | stop  | go                    | go
nobody has that mailbox                | go    | go                    | go
mail was not wanted                    | go    | go                    | go
mail ran out of time                   | go    | go                    | go
mail was called back                   | go    | go                    | go
text was taken                         | stop  | wait                  | go
text arrived                           | stop  | stop                  | stop
STOP was said at the provider          | go    | go                    | go
push was taken                         | stop  | stop                  | stop
one device is dead                     | go    | go                    | go
one device is dead, push was taken     | stop  | stop                  | stop
one device is dead, push is in hand    | wait  | wait                  | go
push is in hand, push was taken        | stop  | stop                  | stop
mail was not wanted, text was taken    | stop  | wait                  | go
mail came back, text arrived           | stop  | stop                  | stop
mail came back, text was taken         | stop  | wait                  | go
"""
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in TABLE.strip().splitlines()[1:]]
WORDS = {Go: "go", Stop: "stop", Wait: "wait"}


@pytest.mark.parametrize(("earlier", "first", "before", "at"), ROWS, ids=[row[0] or "nothing" for row in ROWS])
def test_the_table_in_words(earlier, first, before, at) -> None:
    said = [READ[words] for words in earlier.split(", ") if words]
    turns = [Turn(Mode.FIRST, NOW, said), Turn(Mode.THEN, NOW + HOUR, said), Turn(Mode.THEN, NOW, said)]
    assert [WORDS[type(stands(turn, NOW))] for turn in turns] == [first, before, at]
    assert stands(Turn(Mode.ALL, NOW, said), NOW) == Go()


@pytest.mark.parametrize(
    ("dues", "wait"),
    [
        ([8 * HOUR], 8 * HOUR),
        ([8 * HOUR, HOUR], HOUR),
        ([8 * HOUR, -HOUR], LOOK_AGAIN),
        ([8 * HOUR, None], LOOK_AGAIN),
        ([timedelta(seconds=1)], LOOK_AGAIN),
    ],
)
def test_first_looks_again_when_the_next_of_those_before_it_is_due_and_not_sooner_than_soon(dues, wait) -> None:
    """What quiet hours hold back is not asked about twice a minute all night."""
    history = [Earlier(SMS, State.SENDING if due is None else State.QUEUED, None, due and NOW + due) for due in dues]
    assert stands(Turn(Mode.FIRST, NOW, history), NOW) == Wait(SMS, NOW + wait)


# Whatever happened before ---------------------------------------------------------------------------------------------

REASONS = {
    State.FAILED: st.sampled_from(["rejected:c", "bad_address:c", "poison", "render:c", "gave_up:unavailable:c"]),
    State.SUPPRESSED: st.sampled_from(["withdrawn:all/any", "opted_out_at_provider:c", "reached_otherwise:push"]),
}
offsets = st.integers(-7200, 7200).map(lambda seconds: timedelta(seconds=seconds))
earliers = st.sampled_from(list(State)).flatmap(
    lambda state: st.builds(
        Earlier,
        st.sampled_from(list(Channel)),
        st.just(state),
        REASONS.get(state, st.none()),
        offsets.map(NOW.__add__) if state is State.QUEUED else st.none(),
    )
)
histories = st.lists(earliers, min_size=1, max_size=6)

MAY_STILL_ARRIVE = {State.QUEUED, State.CLAIMED, State.SENDING, State.UNKNOWN}
UNDER_WAY = {State.QUEUED, State.CLAIMED, State.SENDING}
SENT = {State.ACCEPTED, State.DELIVERED, State.UNKNOWN, State.BOUNCED, State.COMPLAINED}
ENDED_ELSEWHERE = {State.BOUNCED, State.FAILED, State.EXPIRED, State.SUPPRESSED, State.CANCELLED}


@given(histories)
def test_first_never_lets_a_second_channel_go_when_something_was_or_may_be_sent(history) -> None:
    standing = stands(Turn(Mode.FIRST, NOW, history), NOW)
    if any(one.state in SENT for one in history):
        assert isinstance(standing, Stop)
    elif any(one.state in UNDER_WAY for one in history):
        assert not isinstance(standing, Go)


@given(histories, offsets)
def test_then_never_goes_before_its_turn_while_one_may_still_arrive(history, offset) -> None:
    standing = stands(Turn(Mode.THEN, NOW + offset, history), NOW)
    on_its_way = any(one.state in MAY_STILL_ARRIVE | {State.ACCEPTED} for one in history)
    if on_its_way and offset > timedelta():
        assert not isinstance(standing, Go)


@given(histories, offsets)
def test_then_always_goes_when_all_before_ended_without_arriving(history, offset) -> None:
    ended = [one for one in history if one.state in ENDED_ELSEWHERE]
    assert stands(Turn(Mode.THEN, NOW + offset, ended), NOW) == Go()


@given(histories, offsets)
def test_then_never_goes_when_one_arrived(history, offset) -> None:
    standing = stands(Turn(Mode.THEN, NOW + offset, history), NOW)
    if any(one.state in {State.DELIVERED, State.COMPLAINED} for one in history):
        assert isinstance(standing, Stop)
    if any(one.state is State.ACCEPTED and one.channel is not SMS for one in history):
        assert not isinstance(standing, Go)


@given(st.sampled_from(Mode), histories, offsets)
def test_a_wait_is_for_a_channel_that_is_named_and_ends_later_than_now(mode, history, offset) -> None:
    standing = stands(Turn(mode, NOW + offset, history), NOW)
    if isinstance(standing, Wait):
        at_latest = max([NOW + max(offset, LOOK_AGAIN), *(one.due_at for one in history if one.due_at)])
        assert NOW < standing.until <= at_latest
        assert any(one.channel is standing.channel and one.state not in FINAL for one in history)


@given(st.sampled_from(Mode), histories, offsets)
def test_nothing_waits_for_ever(mode, history, offset) -> None:
    """With the earlier ones ended it never waits, and `then` does not even wait for that beyond its turn."""
    ended = [one for one in history if one.state not in UNDER_WAY]
    turn_at = NOW + offset
    assert not isinstance(stands(Turn(Mode.FIRST, turn_at, ended), NOW), Wait)
    assert not isinstance(stands(Turn(Mode.THEN, turn_at, history), max(turn_at, NOW)), Wait)


# As a part of the decision --------------------------------------------------------------------------------------------

TOPIC = Topic("orders", Category.TRANSACTIONAL, dict.fromkeys(Channel, Default.OPT_OUT))


def ask(turn: Turn | None, expires: timedelta = timedelta(days=1), facts: Facts | None = None):
    return decide(Question(UUID(int=1), TOPIC, SMS, NOW + expires, turn), facts or Facts(), NOW)


def test_a_message_that_is_not_needed_is_refused_and_names_the_channel() -> None:
    verdict = ask(Turn(Mode.FIRST, NOW, [READ["push was taken"]]))
    assert isinstance(verdict, Refusal)
    assert verdict.decision.reason == "reached_otherwise:push"


def test_a_message_that_waits_is_deferred_and_names_the_channel() -> None:
    verdict = ask(Turn(Mode.THEN, NOW + HOUR, [READ["mail was taken"]]))
    assert isinstance(verdict, Deferral)
    assert (verdict.until, verdict.decision.reason) == (NOW + HOUR, "waits_for_channel:email")


def test_a_message_whose_turn_has_come_is_decided_like_any_other() -> None:
    gone = Turn(Mode.FIRST, NOW, [READ["one device is dead"]])
    assert isinstance(ask(gone), Permit)
    assert ask(gone, facts=Facts(has_address=False)).decision.rule is Rule.ADDRESS_REMOVED


@given(st.sampled_from(Mode), histories, offsets, st.integers(-3600, 7200))
def test_a_deferral_is_later_than_now_and_never_beyond_the_expiry(mode, history, offset, expires) -> None:
    verdict = ask(Turn(mode, NOW + offset, history), timedelta(seconds=expires))
    if expires <= 0:
        assert verdict.decision.rule is Rule.EXPIRED
    elif isinstance(verdict, Deferral):
        assert NOW < verdict.until <= NOW + timedelta(seconds=expires)
