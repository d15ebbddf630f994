"""What a provider reports of a message after it took it: stored once, applied in any order, at the same moment a no.

Reports come twice, late, out of order, and before our own commit. A row for each keeps them; the message moves when it
has settled (`store.events.apply_pending`, which settle calls as well).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import structlog

from notifier.dispatch.refusals import PROVIDER, Bound, Withdrawal, lock_bound, taken_back, withdraw
from notifier.domain.consent import ALL, MARKETING, SuppressionReason, Topic
from notifier.domain.feedback import Tolerance, proves_nobody_there
from notifier.domain.messages import Category
from notifier.domain.recipients import Hasher
from notifier.store import addresses, events, providers, suppressions
from notifier.store.addresses import Reached
from notifier.store.database import Connection, Database
from notifier.store.providers import Pause
from notifier.store.suppressions import NewSuppression
from notifier_channels.contract import Alarm, Channel, DeliveryEvent, EventKind, MessageId

log = structlog.get_logger(__name__)

REPORTED = "what was taken is reported as not allowed for this account or sender"
REPORTED_FOR = timedelta(minutes=10)  #: each probe is taken, and the report of it comes later: seldom enough


@dataclass(frozen=True, slots=True)
class Feedback:
    """Takes reports that have been proven genuine."""

    database: Database
    hasher: Hasher
    topics: Mapping[str, Topic]
    tolerance: Tolerance = field(default_factory=Tolerance)

    async def __call__(self, reports: Sequence[DeliveryEvent]) -> frozenset[MessageId]:
        """Store and apply; the ids of messages that we do not know, whose reports the sender may repeat later."""
        return await self.database.transact(lambda c: self._take(c, reports))

    async def _take(self, c: Connection, reports: Sequence[DeliveryEvent]) -> frozenset[MessageId]:
        reached = await addresses.reached_by(c, {report.message for report in reports})
        known = [report for report in reports if report.message in reached]
        grave = {
            report.message
            for report in known
            if report.strike
            or _reason(report, reached[report.message].channel)
            or report.kind is EventKind.UNSUBSCRIBED
        }
        bound = await lock_bound(c, self.hasher, [reached[message] for message in grave])
        await events.lock_messages(c, reached)
        new = await self._current(c, await events.add(c, known), reached)
        await events.apply_pending(c, reached)
        await suppressions.add(c, [one for report in new if (one := _suppression(report, reached[report.message]))])
        await suppressions.add(c, await self._worn_out(c, new, reached))
        await withdraw(c, self._withdrawals(new, reached, bound), self.topics)
        await _alarm(c, [report for report in new if report.alarm])
        return frozenset({report.message for report in reports} - reached.keys())

    async def _current(
        self, c: Connection, new: Sequence[DeliveryEvent], reached: Mapping[UUID, Reached]
    ) -> list[DeliveryEvent]:
        """Without the noes that somebody has taken back by the time they are reported."""
        noes = [
            report
            for report in new
            if report.kind is EventKind.UNSUBSCRIBED and reached[report.message].channel is Channel.SMS
        ]
        over = await taken_back(c, self.hasher, reached, {(report.message, report.attempt or 1) for report in noes})
        return [report for report in new if report not in noes or report.message not in over]

    async def _worn_out(
        self, c: Connection, new: Sequence[DeliveryEvent], reached: Mapping[UUID, Reached]
    ) -> list[NewSuppression]:
        """The addresses of which one bounce proves nothing, and this one was the last that is borne."""
        against = [(report, report.strike) for report in new if report.strike]
        if not against:
            return []
        counts = await events.strikes(c, {report.message for report, _ in against}, self.tolerance.within)
        return [
            NewSuppression(
                reached[report.message].channel,
                reached[report.message].hashed,
                SuppressionReason.HARD_BOUNCE,
                {**_evidence(report), "bounces": str(counts[report.message, strike])},
            )
            for report, strike in against
            if self.tolerance.is_spent(strike, counts.get((report.message, strike), 0))
        ]

    def _withdrawals(
        self, new: Sequence[DeliveryEvent], reached: Mapping[UUID, Reached], bound: Bound
    ) -> list[Withdrawal]:
        return [
            Withdrawal(person, scope, reached[report.message].channel, source, _evidence(report))
            for report in new
            if (no := self._no(report, reached[report.message]))
            for scope, source in [no]
            for person in sorted(bound.by_message[report.message])
        ]

    def _no(self, report: DeliveryEvent, reached: Reached) -> tuple[str, str] | None:
        """The scope and the source of the no that a report stands for, if it does."""
        match report.kind:
            case EventKind.COMPLAINED:
                return MARKETING, "complaint"
            case EventKind.UNSUBSCRIBED if reached.channel is Channel.SMS:
                return ALL, PROVIDER
            case EventKind.UNSUBSCRIBED if scope := _left(self.topics.get(reached.topic)):
                return scope, PROVIDER
            case _:
                return None


def _left(topic: Topic | None) -> str | None:
    """What somebody refuses who left a provider's list by a mail of this topic; None: the topic cannot be refused.

    A provider knows lists and streams of its own and none of our topics: "all" there is all marketing here.
    """
    if topic and topic.mandatory:
        return None
    return topic.scope if topic and topic.category is Category.TRANSACTIONAL else MARKETING


async def _alarm(c: Connection, reports: Sequence[DeliveryEvent]) -> None:
    """Tell a person what is wrong with our account or sender; pause it where nothing would arrive.

    Throttling is not slowed down here: such a report comes from one carrier, and the sender's rate is a setting.
    """
    carriers = await providers.that_carried(c, {report.message for report in reports}) if reports else {}
    for report in reports:
        name, code = carriers.get((report.message, report.attempt or 1), report.source), report.code or ""
        match report.alarm:
            case Alarm.REFUSED:
                log.error("provider.paused", provider=name, code=code, detail=REPORTED)
                await providers.pause(c, Pause(name, code, REPORTED, REPORTED_FOR))
            case Alarm.FILTERED:
                log.error("report.filtered", provider=name, code=code, message=str(report.message))
            case Alarm.TOO_FAST:
                log.warning("report.too_fast", provider=name, code=code)


def _reason(report: DeliveryEvent, channel: Channel) -> SuppressionReason | None:
    """Why this report's address must not be used again, if so."""
    match report.kind:
        case EventKind.COMPLAINED:
            return SuppressionReason.COMPLAINT
        case EventKind.UNSUBSCRIBED if channel is Channel.SMS:
            return SuppressionReason.STOP
        case EventKind.BOUNCED if _is_dead(report):
            return SuppressionReason.HARD_BOUNCE
        case _:
            return None


def _is_dead(report: DeliveryEvent) -> bool:
    """The source has read more than the code, so its word counts first."""
    return proves_nobody_there(report.code) if report.is_dead is None else report.is_dead


def _suppression(report: DeliveryEvent, reached: Reached) -> NewSuppression | None:
    reason = _reason(report, reached.channel)
    return NewSuppression(reached.channel, reached.hashed, reason, _evidence(report)) if reason else None


def _evidence(report: DeliveryEvent) -> dict[str, str | None]:
    return {
        "message": str(report.message),
        "source": report.source,
        "report": report.source_id,
        "code": report.code,
        "reported_at": report.occurred_at.isoformat(),
    }
