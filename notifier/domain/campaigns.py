"""A campaign's states and who may move it where: one template to many people, in batches, stoppable at any moment."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from notifier.domain.messages import Category

if TYPE_CHECKING:
    from notifier.domain.consent import Topic

LOOK_AGAIN = timedelta(minutes=10)  #: how long a message of a paused campaign waits, unless it is resumed before

BATCH = 500  #: people that are planned and sent together, at most


class CampaignState(StrEnum):
    """Where a campaign stands. The comment says who moves it out."""

    DRAFT = "draft"  #: marketing (schedule, cancel)
    SCHEDULED = "scheduled"  #: the planner (its time has come), marketing (back to draft, cancel)
    SENDING = "sending"  #: the planner (finished), marketing (pause, cancel), deliver (pauses it when too much fails)
    PAUSED = "paused"  #: marketing (resume, cancel), the planner (expired meanwhile)
    FINISHED = "finished"  #: nobody
    CANCELLED = "cancelled"  #: nobody


NEXT: dict[CampaignState, frozenset[CampaignState]] = {
    CampaignState.DRAFT: frozenset({CampaignState.SCHEDULED, CampaignState.CANCELLED}),
    CampaignState.SCHEDULED: frozenset(
        {CampaignState.SENDING, CampaignState.DRAFT, CampaignState.FINISHED, CampaignState.CANCELLED}
    ),
    CampaignState.SENDING: frozenset({CampaignState.PAUSED, CampaignState.FINISHED, CampaignState.CANCELLED}),
    CampaignState.PAUSED: frozenset({CampaignState.SENDING, CampaignState.FINISHED, CampaignState.CANCELLED}),
    CampaignState.FINISHED: frozenset(),
    CampaignState.CANCELLED: frozenset(),
}


def may_become(state: CampaignState) -> frozenset[CampaignState]:
    """The states from which this one may be reached: what a compare-and-set expects."""
    return frozenset(before for before, following in NEXT.items() if state in following)


def is_notice(topic: Topic) -> bool:
    """Whether a campaign of this topic is a notice: to everyone, by the law's or the contract's need, at most once."""
    return topic.category is Category.TRANSACTIONAL and topic.mandatory


# When to stop by itself -----------------------------------------------------------------------------------------------

SPOILED_SHARE = 0.01  #: of those decided; more than this, and never fewer than `SPOILED_LEAST`
SPOILED_LEAST = 5
SPOILED_IN_ROW = 20


@dataclass(frozen=True, slots=True)
class Failures:
    """Of one batch: what failed by our own fault."""

    count: int
    longest: int  #: run of them
    trailing: int | None  #: the run that the batch ended with; None: there was nothing but failures


def goes_wrong(spoiled: int, in_row: int, decided: int) -> bool:
    """Whether so many failed by our own fault, in rendering or configuration, that a person must look first."""
    return in_row >= SPOILED_IN_ROW or (spoiled >= SPOILED_LEAST and spoiled > decided * SPOILED_SHARE)


# How far ahead it is planned ------------------------------------------------------------------------------------------

AHEAD = timedelta(seconds=2)  #: of work that waits: an edit, a pause and a cancel take hold within it
BATCHES_AHEAD = 20  #: at most, on each channel
SHARE = timedelta(minutes=1)  #: of a spread that one batch holds at most


def batch_size(rate: float | None, over: timedelta, people: int) -> int:
    """How many people a batch holds: no more than a second of the rate, and no more than a minute of a spread.

    `rate`: messages a second, or as fast as it goes. `over`: how long so many `people` are spread over.
    """
    by_rate = BATCH if rate is None else int(rate)
    by_spread = math.ceil(people * (SHARE / over)) if over and people else BATCH
    return max(1, min(BATCH, by_rate, by_spread))


def batches_ahead(rate: float | None, size: int) -> int:
    """How many batches may wait on a channel."""
    if rate is None:
        return BATCHES_AHEAD
    return max(1, min(BATCHES_AHEAD, math.ceil(rate * AHEAD.total_seconds() / size)))


# What each person gets ------------------------------------------------------------------------------------------------


def data_for(properties: Collection[str], attributes: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """A template's data for one person: what the campaign gives, and of their own attributes what it leaves open."""
    own = {name: attributes[name] for name in properties if name in attributes}
    return {**own, **data}
