"""A mail came to one of our own addresses: a bounce, a complaint, somebody who wants to leave, or nothing of ours.

The address decides, not the mail: only one that we have signed means anything, and what it says is all that is
believed. Anybody can write a report about anybody. Nothing is ever answered, and whoever sends learns nothing from us.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from uuid import UUID

import structlog

from notifier.dispatch.refusals import Withdrawal, lock_bound, withdraw
from notifier.domain.consent import MARKETING, Topic
from notifier.domain.recipients import Hasher
from notifier.domain.tokens import Links, MailOptOut, ReturnPath
from notifier.store import inbound, recipients
from notifier.store.addresses import Reached, restore
from notifier.store.database import Connection, Database
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Channel, DeliveryEvent, EventKind, MessageId, Strike
from notifier_channels.email.inbound import Bounce, Complaint, Fault, Nothing, Wish, read_report, read_wish, references

log = structlog.get_logger(__name__)

SOURCE = "mail"  #: of the reports
MAILTO = "mailto"  #: of the ledger's lines

_STRIKES = {Fault.NO_DOMAIN: Strike.DOMAIN, Fault.UNCLEAR: Strike.SOFT}


class Came(StrEnum):
    """What came of a mail."""

    REPORT = "report"  #: stored, and applied where it says something
    REFUSAL = "refusal"  #: somebody has left
    REPEATED = "repeated"
    STRANGE = "strange"  #: no signature of ours
    NOTHING = "nothing"  #: ours, and without meaning


@dataclass(frozen=True, slots=True)
class Inbound:
    """Takes every mail; raises only what the database raises, so that the sender tries again."""

    database: Database
    links: Links
    hasher: Hasher
    topics: Mapping[str, Topic]
    feedback: Callable[[Sequence[DeliveryEvent]], Awaitable[frozenset[MessageId]]]
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    async def __call__(self, raw: bytes, recipient: str, sender: str | None = None) -> Came:
        """Act on a raw mail. `recipient` and `sender` are the envelope's; `<>` is no sender, None an unknown one."""
        local, _, _ = _bare(recipient).partition("@")
        came, why = await self._act(raw, self.links.read_mail(local), None if sender is None else _bare(sender))
        log.info("inbound.taken", came=str(came), why=why)
        return came

    async def _act(self, raw: bytes, address: MailOptOut | ReturnPath | None, sender: str | None) -> tuple[Came, str]:
        match address:
            case ReturnPath():
                return await self._report(raw, address)
            case MailOptOut():
                return await self._wish(raw, address, sender)
            case None:
                return await self._stray(raw)

    async def _report(self, raw: bytes, address: ReturnPath) -> tuple[Came, str]:
        match read_report(raw):
            case Nothing(why=why):
                return Came.NOTHING, str(why)
            case Bounce() as bounce:
                await self.feedback([self._bounce(bounce, raw, address)])
                return Came.REPORT, str(bounce.fault or bounce.kind)
            case Complaint() as complaint:
                await self.feedback([self._complaint(complaint, raw, address)])
                return Came.REPORT, complaint.feedback

    async def _stray(self, raw: bytes) -> tuple[Came, str]:
        """A feedback loop sends all complaints to one address; the mail that it returns carries our signature."""
        report = read_report(raw)
        if not isinstance(report, Complaint):
            return Came.STRANGE, "unsigned"
        signed = [path for text in references(raw) if isinstance(path := self.links.read_mail(text), ReturnPath)]
        if len({path.message for path in signed}) != 1:
            return Came.STRANGE, "unsigned"
        await self.feedback([self._complaint(report, raw, signed[0])])
        return Came.REPORT, report.feedback

    def _bounce(self, bounce: Bounce, raw: bytes, address: ReturnPath) -> DeliveryEvent:
        return DeliveryEvent(
            address.message,
            bounce.kind,
            SOURCE,
            _digest(raw, address.message.bytes).hex(),
            self.now(),
            address.attempt,
            bounce.code,
            is_dead=bounce.fault is Fault.DEAD,
            strike=_STRIKES.get(bounce.fault) if bounce.fault else None,
        )

    def _complaint(self, complaint: Complaint, raw: bytes, address: ReturnPath) -> DeliveryEvent:
        digest = _digest(raw, address.message.bytes).hex()
        kind = EventKind.COMPLAINED
        return DeliveryEvent(address.message, kind, SOURCE, digest, self.now(), address.attempt, complaint.feedback)

    # Unsubscribe ------------------------------------------------------------------------------------------------------

    async def _wish(self, raw: bytes, address: MailOptOut, sender: str | None) -> tuple[Came, str]:
        wish = read_wish(raw, sender)
        if isinstance(wish, Nothing):
            return Came.NOTHING, str(wish.why)
        scope = self._scope(address)
        if scope is None:
            return Came.NOTHING, "mandatory"
        return await self.database.transact(lambda c: self._refuse(c, address, scope, wish, raw)), scope

    def _scope(self, address: MailOptOut) -> str | None:
        """A topic that has vanished refuses all marketing; one that is mandatory cannot be refused."""
        topic = self.topics.get(address.topic_among(self.topics) or "")
        if topic is None:
            return MARKETING
        return None if topic.mandatory else topic.scope

    async def _refuse(self, c: Connection, address: MailOptOut, scope: str, wish: Wish, raw: bytes) -> Came:
        about = address.recipient.bytes + address.topic_hash  # one mail to the addresses of two topics leaves both
        if not await inbound.take_mail(c, _digest(raw, about)):
            return Came.REPEATED
        reached = await self._reached(c, address.recipient, wish.sender)
        bound = await lock_bound(c, self.hasher, reached, [address.recipient])
        proof = {"message_id": wish.message_id, "date": wish.date, "received_at": self.now().isoformat()}
        said = [Withdrawal(person, scope, Channel.EMAIL, MAILTO, proof) for person in sorted(bound.everybody)]
        await withdraw(c, said, self.topics)
        return Came.REFUSAL

    async def _reached(self, c: Connection, person: UUID, sender: str) -> list[Reached]:
        """The mailbox that the no came from: the one that the mail names, if it is this person's, else the only one."""
        known = await recipients.by_ids(c, [person])
        who = [one.merged_into or one.id for one in known.values()]
        held = [one for one in await recipients.addresses_of(c, who) if one.channel is Channel.EMAIL]
        named = [one for one in held if one.address_hash in self._hashes(sender)]
        mailboxes = named or held
        if len({one.address_hash for one in mailboxes}) != 1:
            return []
        [one, *_] = mailboxes
        address = restore(Channel.EMAIL, one.address)
        if address is None:
            return []
        return [Reached(one.id, one.recipient_id, "", Channel.EMAIL, self.hasher.current(address), address)]

    def _hashes(self, sender: str) -> frozenset[bytes]:
        try:
            return frozenset(self.hasher.all(EmailAddress.parse(sender, allow_test_domains=True)))
        except ValueError:
            return frozenset()


def _bare(path: str) -> str:
    """Without the angle brackets that some put around it."""
    return path.strip().strip("<>")


def _digest(raw: bytes, about: bytes) -> bytes:
    """`about` is as long for every mail of its kind, so that no two pairs give the same bytes."""
    return sha256(about + raw).digest()
