"""Stops a campaign by itself when too much of it fails by our own fault, before all of it does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from uuid import UUID

import structlog

from notifier.domain.campaigns import Failures, goes_wrong
from notifier.store import batches
from notifier.store.batches import Campaign
from notifier.store.database import Connection

NONE = Failures(0, 0, 0)  #: as mostly

log = structlog.get_logger(__name__)


async def brake(c: Connection, campaign: Campaign, settled: Sequence[UUID], failed: Collection[UUID]) -> None:
    """Count a batch's failures in rendering or configuration, and pause the campaign when they are too many.

    Args:
        c: of the transaction that settles the batch.
        campaign: as it stood at the gate.
        settled: the batch's messages, in the order in which they were sent.
        failed: those of them that failed by our own fault.

    """
    failures = Failures(*_runs([message in failed for message in settled])) if failed else NONE
    if failures.count:
        spoiled, in_row, decided = await batches.note_failures(c, campaign.id, failures)
        if goes_wrong(spoiled, max(in_row, failures.longest), decided) and await batches.stop(c, campaign.id, "fails"):
            log.error("campaign.paused", campaign=str(campaign.id), failed=spoiled, of=decided)
    elif campaign.spoiled_in_row:
        await batches.note_success(c, campaign.id)


def _runs(failed: Sequence[bool]) -> tuple[int, int, int | None]:
    """How many, the longest run, and the run at the end; None for that when there was nothing but failures."""
    runs = [(is_failed, len(list(run))) for is_failed, run in groupby(failed)]
    longest = max((length for is_failed, length in runs if is_failed), default=0)
    if all(failed):
        return len(failed), longest, None
    last_failed, length = runs[-1]
    return sum(failed), longest, length if last_failed else 0
