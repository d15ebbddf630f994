"""A suppressed address is found by its hash until it is lifted, once for each reason."""

import pytest

from notifier.domain.consent import SuppressionReason
from notifier.domain.recipients import HashedAddress
from notifier.store import suppressions
from notifier.store.suppressions import NewSuppression
from notifier_channels.contract import Channel

pytestmark = pytest.mark.anyio

ANN, BOB = HashedAddress("h1", b"a" * 32), HashedAddress("h1", b"b" * 32)
BOUNCE, COMPLAINT, STOP = SuppressionReason.HARD_BOUNCE, SuppressionReason.COMPLAINT, SuppressionReason.STOP
EVERYBODY = {(Channel.EMAIL, ANN.digest), (Channel.EMAIL, BOB.digest), (Channel.SMS, ANN.digest)}


async def test_an_address_is_suppressed_once_for_each_reason_and_found_in_a_batch(database):
    async with database.connection() as c:
        new = [
            NewSuppression(Channel.EMAIL, ANN, BOUNCE, {"code": "5.1.1"}),
            NewSuppression(Channel.EMAIL, ANN, BOUNCE),
            NewSuppression(Channel.EMAIL, ANN, COMPLAINT),
            NewSuppression(Channel.EMAIL, BOB, BOUNCE),
        ]
        assert len(await suppressions.add(c, new)) == 3
        assert await suppressions.add(c, new) == []
        assert await suppressions.add(c, []) == []
        found = await suppressions.in_force(c, EVERYBODY)
        assert {digest: {one.reason for one in standing} for digest, standing in found.items()} == {
            ANN.digest: {BOUNCE, COMPLAINT},
            BOB.digest: {BOUNCE},
        }
        assert await suppressions.in_force(c, set()) == {}


async def test_a_suppression_holds_on_its_own_channel_only(database):
    async with database.connection() as c:
        await suppressions.add(c, [NewSuppression(Channel.SMS, ANN, STOP)])
        assert await suppressions.in_force(c, {(Channel.EMAIL, ANN.digest)}) == {}
        assert list(await suppressions.in_force(c, {(Channel.SMS, ANN.digest)})) == [ANN.digest]


async def test_lifting_ends_one_reason_keeps_the_row_and_lets_it_come_back(database):
    async with database.connection() as c:
        await suppressions.add(
            c, [NewSuppression(Channel.EMAIL, ANN, BOUNCE), NewSuppression(Channel.EMAIL, ANN, COMPLAINT)]
        )
        lifted = await suppressions.lift(c, EVERYBODY, BOUNCE, why="mailbox exists again")
        assert len(lifted) == 1
        assert await suppressions.lift(c, EVERYBODY, BOUNCE, why="again") == []
        found = await suppressions.in_force(c, EVERYBODY)
        assert [one.reason for one in found[ANN.digest]] == [COMPLAINT]
        [again] = await suppressions.add(c, [NewSuppression(Channel.EMAIL, ANN, BOUNCE)])
        assert again > lifted[0]
