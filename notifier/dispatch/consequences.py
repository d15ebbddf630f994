"""What an outcome does beyond its own message: a dead address is left alone, a no said at the provider is ours too.

Called by whoever writes outcomes. The people are locked before the messages (the order of all locks), so it comes in
two halves: `lock` with what is about to be written, `follow` once it is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from notifier.dispatch.refusals import PROVIDER, Bound, Withdrawal, lock_bound, taken_back, withdraw
from notifier.domain.consent import ALL, SuppressionReason, Topic
from notifier.domain.recipients import Hasher
from notifier.store import addresses, devices, suppressions
from notifier.store.addresses import Reached
from notifier.store.database import Connection
from notifier.store.messages import Settled
from notifier.store.suppressions import NewSuppression
from notifier_channels.contract import BadAddress, OptedOut, Outcome


@dataclass(frozen=True, slots=True)
class Locked:
    """Where the messages went whose outcome concerns their address, and whom a no there binds: all are locked."""

    reached: Mapping[UUID, Reached]
    bound: Bound


@dataclass(frozen=True, slots=True)
class Consequences:
    """Knows whom an address belongs to and what can be refused."""

    hasher: Hasher
    topics: Mapping[str, Topic]

    async def lock(self, c: Connection, outcomes: Mapping[UUID, Outcome]) -> Locked:
        """Lock everybody who holds an address that one of these outcomes speaks of. Mostly there is nobody."""
        grave = [message for message, outcome in outcomes.items() if isinstance(outcome, (BadAddress, OptedOut))]
        reached = await addresses.reached_by(c, grave) if grave else {}
        bound = await lock_bound(c, self.hasher, reached.values()) if reached else Bound({}, frozenset())
        return Locked(reached, bound)

    async def follow(self, c: Connection, locked: Locked, written: Sequence[Settled]) -> None:
        """Suppress the address, take the device away, write the no into the ledger. A repeat changes nothing."""
        grave = [one for one in written if one.settlement.suppress and one.id in locked.reached]
        if not grave:
            return
        over = await self._alive(c, locked, grave) | await self._taken_back(c, locked, grave)
        grave = [one for one in grave if one.id not in over]
        await suppressions.add(c, [_suppression(one, locked.reached[one.id]) for one in grave])
        await devices.remove_dead(c, _of(grave, SuppressionReason.DEAD_DEVICE, locked.reached))
        said = [no for one in grave if one.settlement.suppress is SuppressionReason.STOP for no in _no(one, locked)]
        if said:
            await withdraw(c, said, self.topics)

    async def _alive(self, c: Connection, locked: Locked, grave: Collection[Settled]) -> frozenset[UUID]:
        """Whose device its app has registered after the attempt began: what was said of it may be older than that.

        An answer may be written long after it was heard. If the device is dead all the same, the next push tells.
        """
        dead = [one for one in grave if one.settlement.suppress is SuppressionReason.DEAD_DEVICE]
        attempts = [
            (one.id, one.n, digest)
            for one in dead
            if (device := locked.reached[one.id].address)
            for digest in self.hasher.all(device)
        ]
        return await devices.heard_of_since(c, attempts) if attempts else frozenset()

    async def _taken_back(self, c: Connection, locked: Locked, grave: Collection[Settled]) -> frozenset[UUID]:
        stopped = [(one.id, one.n) for one in grave if one.settlement.suppress is SuppressionReason.STOP]
        return await taken_back(c, self.hasher, locked.reached, stopped)


def _suppression(one: Settled, reached: Reached) -> NewSuppression:
    reason = SuppressionReason(one.settlement.suppress or "")
    return NewSuppression(reached.channel, reached.hashed, reason, _evidence(one))


def _of(grave: Collection[Settled], reason: SuppressionReason, reached: Mapping[UUID, Reached]) -> list[bytes]:
    return [reached[one.id].hashed.digest for one in grave if one.settlement.suppress is reason]


def _no(one: Settled, locked: Locked) -> list[Withdrawal]:
    """A STOP that the provider knows of and we do not: everything over that channel, for each holder of the number."""
    channel = locked.reached[one.id].channel
    people = sorted(locked.bound.by_message.get(one.id, ()))
    return [Withdrawal(person, ALL, channel, PROVIDER, _evidence(one)) for person in people]


def _evidence(one: Settled) -> dict[str, str | int]:
    return {"message": str(one.id), "attempt": one.n, "code": one.code}
