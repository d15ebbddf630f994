"""A person answers a text message: STOP and START go into the ledger of everybody who holds the number.

STOP is a no to everything over text messages, and the number itself is suppressed: somebody who registers with it later
is not written to either. START lifts both. Done and answered once, however often the provider repeats itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from notifier.dispatch.refusals import FROM_THE_NUMBER, KEYWORD, Withdrawal, lock_holders, withdraw
from notifier.domain.answers import answer
from notifier.domain.consent import ALL, SuppressionReason, Topic
from notifier.domain.recipients import Hasher
from notifier.store import consent, inbound, recipients, suppressions
from notifier.store.consent import NewEvent
from notifier.store.database import Connection, Database, Row
from notifier.store.suppressions import NewSuppression
from notifier_channels.addresses import PhoneNumber
from notifier_channels.contract import Channel
from notifier_channels.sms.keywords import Keyword

LONGEST_WORDING = 500  #: characters of a text message that are kept as evidence
AGAIN = "received_again_at"  #: in the evidence of a STOP that stands: when it was said once more


@dataclass(frozen=True, slots=True)
class Reply:
    """What a person wrote."""

    reference: str  #: the provider's id of it
    phone: PhoneNumber
    said: Keyword
    text: str
    is_answered: bool  #: the provider answers by itself
    provider: str
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Replies:
    """Takes text messages that have been proven genuine."""

    database: Database
    hasher: Hasher
    topics: Mapping[str, Topic]
    sender: str  #: who answers, by name
    contact: str  #: where help is to be had
    default_locale: str

    async def __call__(self, reply: Reply) -> str | None:
        """Act on it; the text of the answer, or None when there is none to give (any more)."""
        return await self.database.transact(lambda c: self._act(c, reply))

    async def _act(self, c: Connection, reply: Reply) -> str | None:
        if not await inbound.take(c, reply.reference, reply.said) or reply.said is Keyword.NONE:
            return None
        people = await lock_holders(c, self.hasher, reply.phone, Channel.SMS)
        match reply.said:
            case Keyword.STOP:
                await self._stop(c, reply, people)
            case Keyword.START:
                if not await self._start(c, reply, people):
                    return None
        if reply.is_answered:
            return None
        return answer(reply.said, await self._languages(c, people), sender=self.sender, contact=self.contact)

    async def _stop(self, c: Connection, reply: Reply, people: Collection[UUID]) -> None:
        address, proof = self.hasher.current(reply.phone), _evidence(reply)
        is_new = await suppressions.add(c, [NewSuppression(Channel.SMS, address, SuppressionReason.STOP, proof)])
        if not is_new and not await self._was_stopped_since(c, reply):
            again = {AGAIN: reply.received_at.isoformat()}
            await suppressions.add_evidence(c, self._number(reply), SuppressionReason.STOP, again)
        said = [Withdrawal(person, ALL, Channel.SMS, KEYWORD, proof) for person in sorted(people)]
        await withdraw(c, said, self.topics)

    async def _start(self, c: Connection, reply: Reply, people: Collection[UUID]) -> bool:
        """Ends exactly what STOP began; False when a STOP came after it, as while it waited on some machine's disk.

        It grants no topic: who never said yes to one has not done so now.
        """
        if await self._was_stopped_since(c, reply):
            return False
        known, proof = await consent.sources_of_noes(c, people, ALL, Channel.SMS), _evidence(reply)
        ended = [person for person, sources in sorted(known.items()) if sources <= FROM_THE_NUMBER]
        await consent.record(
            c, [NewEvent(one, ALL, Channel.SMS, granted=True, source=KEYWORD, evidence=proof) for one in ended]
        )
        why = f"START, {reply.provider} {reply.reference}"
        await suppressions.lift(c, self._number(reply), SuppressionReason.STOP, why=why)
        return True

    async def _was_stopped_since(self, c: Connection, reply: Reply) -> bool:
        rows = await suppressions.history(c, Channel.SMS, self.hasher.all(reply.phone))
        stand = [row for row in rows if row["reason"] == SuppressionReason.STOP and row["lifted_at"] is None]
        return any(_said_at(row) > reply.received_at for row in stand)

    def _number(self, reply: Reply) -> set[tuple[Channel, bytes]]:
        return {(Channel.SMS, digest) for digest in self.hasher.all(reply.phone)}

    async def _languages(self, c: Connection, people: Collection[UUID]) -> list[str | None]:
        """The holders' own, when they agree; a family may share a number and no language."""
        locales = {one.locale for one in (await recipients.by_ids(c, sorted(people))).values()}
        return [*(locales if len(locales) == 1 else ()), self.default_locale]


def _said_at(row: Row) -> datetime:
    """When a STOP that stands was last said. One that the provider reported says only when it was written down."""
    received_at = row["evidence"].get(AGAIN) or row["evidence"].get("received_at")
    return datetime.fromisoformat(received_at) if received_at else row["created_at"]


def _evidence(reply: Reply) -> dict[str, str]:
    """What was written, as it was written, and when it reached us. PostgreSQL stores no NUL and no half of a pair."""
    return {
        "wording": reply.text[:LONGEST_WORDING].encode("utf-8", "replace").decode().replace("\0", "?"),
        "provider": reply.provider,
        "reference": reply.reference,
        "received_at": reply.received_at.isoformat(),
    }
