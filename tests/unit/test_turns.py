"""No channel holds all hands of a worker while another one has none."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from notifier.dispatch.turns import Turns
from notifier_channels.contract import Channel

EMAIL, SMS, PUSH = Channel.EMAIL, Channel.SMS, Channel.PUSH


def test_one_channel_alone_may_have_all_hands():
    turns = Turns([EMAIL], 2)
    with turns.held(EMAIL):
        assert turns.may_take(EMAIL)


def test_a_slow_channel_leaves_a_hand_for_each_of_the_others():
    turns = Turns([EMAIL, SMS, PUSH], 4)
    with turns.held(SMS), turns.held(SMS):
        assert not turns.may_take(SMS)
        assert turns.may_take(EMAIL)
        with turns.held(EMAIL):
            assert not turns.may_take(SMS)
            assert turns.may_take(PUSH)


def test_with_fewer_hands_than_channels_each_still_gets_its_turn():
    turns = Turns([EMAIL, SMS, PUSH], 1)
    assert all(turns.may_take(channel) for channel in (EMAIL, SMS, PUSH))


def test_the_channel_that_was_looked_at_last_comes_last():
    turns = Turns([EMAIL, SMS, PUSH], 4)
    with turns.held(EMAIL):
        pass
    assert turns.order({EMAIL, SMS, PUSH}) == [SMS, PUSH, EMAIL]
    assert turns.order({EMAIL, PUSH}) == [PUSH, EMAIL]


@given(st.integers(3, 8), st.lists(st.sampled_from([EMAIL, SMS, PUSH]), max_size=30))
def test_whatever_is_asked_for_every_channel_finds_a_hand(hands, asked):
    turns = Turns([EMAIL, SMS, PUSH], hands)
    with ExitStack() as taken:
        busy = 0
        for channel in asked:
            if turns.may_take(channel) and busy < hands:
                taken.enter_context(turns.held(channel))
                busy += 1
        for channel in (EMAIL, SMS, PUSH):
            assert turns._busy[channel] or busy < hands
