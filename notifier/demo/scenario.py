"""The scenario: two kinds of mail to two hundred people, some of whom say no, and what happens to the next wave."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from notifier.client import AsyncNotifier, Refused
from notifier.demo.cast import Person, cast, letter, order
from notifier.demo.product import Wave, caller, hand_over, until_settled
from notifier.demo.reader import Inbox, Mail
from notifier.demo.stage import Check, Counts, Stage
from notifier.dispatch.explain import stories_of
from notifier.domain import explanation
from notifier.domain.access import Scope
from notifier.domain.explanation import Explanation
from notifier.domain.recipients import Hasher
from notifier.store.database import Database

CLICKERS, SCANNED, LATE_CLICKERS = 25, 12, 10
SOON = timedelta(seconds=4)  #: the second wave waits so long in the queue
SHOP = (Scope.SEND_TRANSACTIONAL, Scope.RECIPIENTS, Scope.PREFERENCES, Scope.READ)
NOT_SENT = ("suppressed", "cancelled", "expired", "failed")
LEAVING = ("bounce", "late-bounce", "complaint")  #: moods that end marketing


@dataclass(slots=True)
class Scenario:
    """One run, act by act. What it learns on the way is judged at the end."""

    stage: Stage
    shop: AsyncNotifier  #: may send transactional mail and keep recipients
    marketing: AsyncNotifier  #: may send marketing
    inbox: Inbox
    explain: Callable[[str], Awaitable[Explanation]]
    people: Sequence[Person]
    orders: Wave
    first: Wave
    second: Wave
    again: Wave
    clicked: list[str] = field(default_factory=list)  #: ids of people who pressed the button before the second wave
    late: list[str] = field(default_factory=list)  #: who pressed it while the second wave was queued
    scanned: list[str] = field(default_factory=list)  #: whose links were only opened
    answers: Counter[int] = field(default_factory=Counter)
    checks: list[Check] = field(default_factory=list)
    pages: Sequence[str] = ()  #: a reader's page to leave, and the one to choose

    async def play(self) -> bool:
        """All of it; True when every promise held."""
        await self.inbox.begin()
        await self._people_come()
        await self._everybody_gets_mail()
        await self._some_say_no()
        await self._the_next_wave()
        self.stage.act(5, "What was promised, and what the SMTP server has seen")
        self.stage.table(self._waves)
        self._judge_what_arrived(await self.inbox.mails())
        self._judge_what_is_known()
        self.stage.checks(self.checks)
        return all(check.holds for check in self.checks)

    async def _people_come(self) -> None:
        self.stage.act(1, "The product brings its people")
        now = datetime.now(UTC)
        kept = await self.shop.import_recipients(person.line(now) for person in self.people)
        self.stage.tell(f"[green]{kept.stored}[/] recipients imported.")
        self.stage.tell(f"[green]{kept.grants}[/] of them said yes to the newsletter; the proof is in the ledger.")
        person = self.people[-1]
        try:
            await self.shop.send("newsletter", to={"id": person.id}, data=dict(letter(person, "Not allowed")))
            status = 202
        except Refused as refused:
            status = refused.problem.status
        self.stage.tell(f"The shop's key tries to send a newsletter: [yellow]{status}[/], it may not send marketing.")
        self._promise("a key for transactional mail cannot send marketing", status == 403, f"answer {status}")

    async def _everybody_gets_mail(self) -> None:
        self.stage.act(2, "An order confirmation and a newsletter to everybody")
        orders = [(person, order(person, number)) for number, person in enumerate(self.people)]
        letters = [(person, letter(person, "What the workshop taught us")) for person in self.people]
        await hand_over(self.shop, self.orders, "order-shipped", orders)
        await hand_over(self.marketing, self.first, "newsletter", letters)
        await self._settle("delivering the first wave", self.orders, self.first)

    async def _some_say_no(self) -> None:
        self.stage.act(3, "Readers open their mail, and some press “unsubscribe”")
        letters = await self._letters(self.first)
        readers = iter([p.id for p in self.people if p.simulator is None and p.id in letters])
        self.clicked, self.scanned, self.late = (
            [id_ for _, id_ in zip(range(count), readers, strict=False)] for count in (CLICKERS, SCANNED, LATE_CLICKERS)
        )
        self.stage.mail(await self.inbox.read(letters[self.clicked[0]]))
        self.pages = _links(await self.inbox.read(letters[self.scanned[0]]))
        opened = await self.inbox.scan(letters[id_] for id_ in self.scanned)
        self.stage.tell(f"A security scanner opens {len(self.scanned)} links with GET: {_list(opened)}.")
        pressed = await self._press(letters[id_] for id_ in self.clicked)
        self.stage.tell(f"{len(self.clicked)} mail clients POST the one click of RFC 8058: {_list(pressed)}.")

    async def _the_next_wave(self) -> None:
        self.stage.act(4, "The next newsletter, and a click while it is queued")
        letters = [(person, letter(person, "Winter in the workshop")) for person in self.people]
        await hand_over(self.marketing, self.second, "newsletter", letters, send_at=datetime.now(UTC) + SOON)
        self.stage.tell(f"{len(letters)} are queued, to go in {SOON.seconds} seconds.")
        received = await self._letters(self.first)
        pressed = await self._press(received[id_] for id_ in self.late)
        self.stage.tell(f"{len(self.late)} more readers press the button meanwhile: {_list(pressed)}.")
        refusers = [person for person in self.people if person.id in {*self.clicked, *self.late}]
        orders = [(person, order(person, number)) for number, person in enumerate(refusers, start=1000)]
        await hand_over(self.shop, self.again, "order-shipped", orders)
        self.stage.tell(f"The {len(refusers)} who left the newsletter have bought something, too.")
        await self._settle("delivering the second wave", self.second, self.again)
        name = next(person.name for person in refusers if person.id == self.clicked[0])
        self.stage.tell(f"\nWhy did {name} not get the second newsletter?")
        self.stage.explanation(await self.explain(self.second.message_to(self.clicked[0])))

    def _judge_what_arrived(self, mails: Sequence[Mail]) -> None:
        """What the SMTP server has, whatever Notifier believes."""
        arrived = Counter(mail.message for mail in mails if mail.message)
        got_first, got_second = ({w.people[m].id for m in arrived if m in w.people} for w in (self.first, self.second))
        refused = {*self.clicked, *self.late}
        strangers = {person.id for person in self.people if not person.is_subscriber}
        gone = {person.id for person in self.people if person.simulator in LEAVING}
        doubled = sum(count > 1 for count in arrived.values())
        self._nobody("who said no got the second newsletter", refused, got_second)
        self._nobody("whose mailbox is dead or who complained got it", gone, got_second)
        self._nobody("without a yes got a newsletter", strangers, got_first | got_second)
        seen = f"{len(got_second & {*self.scanned})} of {len(self.scanned)} still got the second newsletter"
        self._promise("opening a link changes nothing", {*self.scanned} <= got_second, seen)
        self._promise("nothing comes twice", not doubled, f"{len(mails)} mails, {doubled} of them twice")
        sent = sum(Counts.of(wave).sent for wave in self._waves)
        self._promise("what is called sent is what the SMTP server has", sent == len(mails), f"{sent} and {len(mails)}")

    def _judge_what_is_known(self) -> None:
        states = [state for wave in self._waves for state in wave.states.values()]
        stopped = sum(self.second.states[self.second.message_to(id_)][0] in NOT_SENT for id_ in self.late)
        heard = sum(state == "delivered" for state, _ in self.again.states.values())
        silent = sum(state in NOT_SENT and not reason for state, reason in states)
        lost = sum(len(wave.ongoing()) for wave in self._waves)
        count = len(self.late)
        self._promise("a click stops what is already queued", stopped == count, f"{stopped} of {count} stopped")
        self._promise(
            "a one-click POST is answered 200, without a redirect", set(self.answers) == {200}, _list(self.answers)
        )
        count = len(self.again.people)
        self._promise("who left still hears about orders", heard == count, f"{heard} of {count} delivered")
        self._promise("nothing is lost", not lost, f"{len(states)} accepted, {lost} without an outcome")
        self._promise("whatever was not sent has a reason", not silent, f"{silent} without one")

    @property
    def _waves(self) -> Sequence[Wave]:
        return (self.orders, self.first, self.second, self.again)

    def _nobody(self, promise: str, people: set[str], got: set[str]) -> None:
        seen = f"{len(people & got)} of {len(people)} in the inbox"
        self._promise(f"nobody {promise}", not people & got, seen)

    def _promise(self, promise: str, holds: bool, seen: str) -> None:  # noqa: FBT001  the verdict is the point
        self.checks.append(Check(promise, holds, seen))

    async def _press(self, mails: Iterable[Mail]) -> Counter[int]:
        answers = await self.inbox.press_unsubscribe(mails)
        self.answers += answers
        return answers

    async def _settle(self, text: str, *waves: Wave) -> None:
        with self.stage.busy(text):
            await until_settled(self.shop, *waves)
        for wave in waves:
            self.stage.wave(wave)

    async def _letters(self, wave: Wave) -> dict[str, Mail]:
        """The mails of a wave by the person who got them."""
        mails = await self.inbox.mails()
        return {wave.people[mail.message].id: mail for mail in mails if mail.message in wave.people}


async def play(
    stage: Stage, *, database: Database, hasher: Hasher, api: str, sandbox: str
) -> tuple[bool, Mapping[str, str]]:
    """Play it once: whether every promise held, and where to go on looking."""

    async def explain(message: str) -> Explanation:
        async with database.connection() as c:
            [story] = await stories_of(c, hasher, UUID(message))
        return explanation.explain(story)

    async with AsyncExitStack() as stack:
        scenario = Scenario(
            stage=stage,
            shop=await caller(stack, database, api, SHOP),
            marketing=await caller(stack, database, api, (Scope.SEND_MARKETING,)),
            inbox=await stack.enter_async_context(Inbox(sandbox)),
            explain=explain,
            people=cast(f"r{secrets.token_hex(3)}"),
            orders=Wave("Order shipped", "transactional"),
            first=Wave("Newsletter, first", "marketing"),
            second=Wave("Newsletter, second", "marketing"),
            again=Wave("Orders of those who left", "transactional"),
        )
        holds = await scenario.play()
    pages = zip(("Unsubscribe page", "Preference page"), scenario.pages, strict=False)
    return holds, {"API docs": f"{api}/docs", "Sandbox inbox": sandbox, **dict(pages)}


def _links(mail: Mapping[str, Any]) -> list[str]:
    """Where the body of a mail leads its reader: to leave, and to choose."""
    return re.findall(r"https?://\S+/u/\S+", mail["text"] or "")


def _list(answers: Counter[int]) -> str:
    return ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))
