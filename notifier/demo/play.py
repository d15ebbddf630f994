"""What every act of the scenario works with: who takes part, the waves that were handed over, and what was promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from notifier.client import AsyncNotifier
from notifier.demo.cast import Person
from notifier.demo.phones import Phones
from notifier.demo.product import Wave, until_settled
from notifier.demo.reader import Inbox, Mail
from notifier.demo.stage import Check, Stage
from notifier.domain.explanation import Explanation

SOON = timedelta(seconds=4)  #: a wave waits so long in the queue, while people say no
NOT_SENT = ("suppressed", "cancelled", "expired", "failed")


@dataclass(slots=True)
class Play:
    """One run."""

    stage: Stage
    shop: AsyncNotifier  #: may send transactional messages and keep recipients
    marketing: AsyncNotifier  #: may send marketing
    inbox: Inbox
    phones: Phones
    explain: Callable[[str], Awaitable[Explanation]]
    people: Sequence[Person]
    orders: Wave = field(default_factory=lambda: Wave("Order shipped", "transactional"))  #: to everybody, everywhere
    waves: list[Wave] = field(default_factory=list)
    promised: list[Check] = field(default_factory=list)
    _shown: int = field(default=0, init=False)

    @property
    def asleep(self) -> Sequence[Person]:
        """Those who would take an offer by text message, but in whose zone it is night."""
        return [person for person in self.people if person.is_asleep]

    async def settle(self, text: str, *waves: Wave) -> None:
        """Wait until these waves are through, and show what became of them."""
        self.waves += waves
        with self.stage.busy(text):
            await until_settled(self.shop, *waves)
        for wave in waves:
            self.stage.wave(wave)

    def promise(self, promise: str, holds: bool, seen: str) -> None:  # noqa: FBT001  the verdict is the point
        """Judge one thing."""
        self.promised.append(Check(promise, holds, seen))

    def nobody(self, promise: str, people: Collection[str], got: Collection[str], where: str = "in the inbox") -> None:
        """Judge that none of these people got something."""
        wrong = {*people} & {*got}
        self.promise(f"nobody {promise}", not wrong, f"{len(wrong)} of {len({*people})} {where}")

    def everybody(self, promise: str, people: Collection[str], got: Collection[str], where: str) -> None:
        """Judge that all of these people got something."""
        right = {*people} & {*got}
        self.promise(promise, len(right) == len({*people}), f"{len(right)} of {len({*people})} {where}")

    def show_promises(self) -> None:
        """Show what was judged since the last time."""
        self.stage.checks(self.promised[self._shown :])
        self._shown = len(self.promised)

    @property
    def holds(self) -> bool:
        """True when every promise was kept."""
        return all(check.holds for check in self.promised)


def mails_of(wave: Wave, mails: Sequence[Mail]) -> dict[str, Mail]:
    """The mails of a wave by the person who got them."""
    return {wave.people[mail.message].id: mail for mail in mails if mail.message in wave.people}


def in_words(answers: Counter[int]) -> str:
    """HTTP statuses and how often each came."""
    return ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))
