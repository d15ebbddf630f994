"""The last look before the byte: a no that came after the gate holds the message back, anything else does not."""

from __future__ import annotations

from uuid import UUID

import pytest

from notifier.dispatch.witness import REMEMBERED, Attempt, Hold
from notifier.domain.consent import Topic
from notifier.domain.messages import Category
from notifier.store.consent import Heard
from notifier_channels.contract import Channel

ANN, BEN = UUID(int=1), UUID(int=2)
NEWS = Topic("news", Category.MARKETING, {})
RESET = Topic("security", Category.TRANSACTIONAL, {}, mandatory=True)


def attempt(topic=NEWS, number=10):
    return Attempt(1, number, ANN, topic, Channel.EMAIL)


def heard(number=11, recipient=ANN, scope="marketing", channel="any"):
    hold = Hold()
    hold.hear(Heard(number, recipient, scope, channel))
    return hold


@pytest.mark.parametrize("scope", ["topic:news", "marketing", "all"])
@pytest.mark.parametrize("channel", ["any", "email"])
def test_a_later_no_that_covers_the_message_holds_it_back(scope, channel):
    assert heard(scope=scope, channel=channel).was_withdrawn(attempt())


@pytest.mark.parametrize(
    "hold",
    [
        Hold(),
        heard(number=9),  # the gate has seen this one
        heard(recipient=BEN),
        heard(scope="topic:offers"),
        heard(channel="sms"),
    ],
)
def test_anything_else_does_not(hold):
    assert not hold.was_withdrawn(attempt())


def test_a_mandatory_message_goes_whatever_was_said():
    assert not heard(scope="all").was_withdrawn(attempt(RESET))


def test_what_is_kept_in_mind_is_bounded_and_the_oldest_goes_first():
    hold = heard()
    for n in range(REMEMBERED):
        hold.hear(Heard(100 + n, UUID(int=10 + n), "all", "any"))
    assert len(hold._withdrawn) == REMEMBERED
    assert not hold.was_withdrawn(attempt())
