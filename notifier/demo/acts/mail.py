"""Mail: readers press unsubscribe, some of them while the next newsletter is queued, and it stops."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from notifier.demo.goods import letter, order
from notifier.demo.play import NOT_SENT, SOON, Play, in_words, mails_of
from notifier.demo.product import Wave, hand_over
from notifier.demo.reader import Mail

CLICKERS, SCANNED, LATE_CLICKERS = 25, 12, 10
LEAVING = ("bounce", "late-bounce", "complaint")  #: moods that end marketing


@dataclass(slots=True)
class Newsletters:
    """Two newsletters, with the clicks in between. What it learns on the way is judged at the end."""

    play: Play
    first: Wave = field(default_factory=lambda: Wave("Newsletter, first", "marketing"))
    second: Wave = field(default_factory=lambda: Wave("Newsletter, second", "marketing"))
    again: Wave = field(default_factory=lambda: Wave("Orders after a click", "transactional"))
    clicked: list[str] = field(default_factory=list)  #: ids of people who pressed the button before the second wave
    late: list[str] = field(default_factory=list)  #: who pressed it while the second wave was queued
    scanned: list[str] = field(default_factory=list)  #: whose links were only opened
    answers: Counter[int] = field(default_factory=Counter)
    pages: Sequence[str] = ()  #: a reader's page to leave, and the one to choose

    async def some_say_no(self) -> None:
        """Readers open the first one; some press the button."""
        play = self.play
        play.stage.act("Readers open their mail, and some press “unsubscribe”")
        letters = mails_of(self.first, await play.inbox.mails())
        readers = iter([p.id for p in play.people if p.simulator is None and p.id in letters])
        self.clicked, self.scanned, self.late = (
            [id_ for _, id_ in zip(range(count), readers, strict=False)] for count in (CLICKERS, SCANNED, LATE_CLICKERS)
        )
        play.stage.mail(await play.inbox.read(letters[self.clicked[0]]))
        self.pages = _links(await play.inbox.read(letters[self.scanned[0]]))
        opened = await play.inbox.scan(letters[id_] for id_ in self.scanned)
        play.stage.tell(f"A security scanner opens {len(self.scanned)} links with GET: {in_words(opened)}.")
        pressed = await self._press(letters[id_] for id_ in self.clicked)
        play.stage.tell(f"{len(self.clicked)} mail clients POST the one click of RFC 8058: {in_words(pressed)}.")

    async def the_next_one(self) -> None:
        """The second one is queued; more press the button."""
        play = self.play
        play.stage.act("The next newsletter, and a click while it is queued")
        letters = [(person, letter(person, "Winter in the workshop")) for person in play.people]
        await hand_over(play.marketing, self.second, "newsletter", letters, send_at=datetime.now(UTC) + SOON)
        received = mails_of(self.first, await play.inbox.mails())
        pressed = await self._press(received[id_] for id_ in self.late)
        play.stage.tell(f"{len(letters)} are queued, to go in {SOON.seconds} seconds.")
        play.stage.tell(f"{len(self.late)} more readers press the button meanwhile: {in_words(pressed)}.")
        refusers = [person for person in play.people if person.id in {*self.clicked, *self.late}]
        orders = [(person, order(person, number)) for number, person in enumerate(refusers, start=1000)]
        await hand_over(play.shop, self.again, "order-shipped", orders)
        play.stage.tell(f"The {len(refusers)} who left the newsletter have bought something, too.")
        await play.settle("delivering the second wave", self.second, self.again)
        name = next(person.name for person in refusers if person.id == self.clicked[0])
        play.stage.tell(f"\nWhy did {name} not get the second newsletter?")
        play.stage.explanation(await play.explain(self.second.message_to(self.clicked[0])))
        self.judge(await play.inbox.mails())
        play.show_promises()

    def judge(self, mails: Sequence[Mail]) -> None:
        """What the mail server has, whatever Notifier believes; then what the clicks led to."""
        got_first, got_second = (mails_of(wave, mails).keys() for wave in (self.first, self.second))
        play, refused = self.play, {*self.clicked, *self.late}
        strangers = {person.id for person in play.people if not person.is_subscriber}
        gone = {person.id for person in play.people if person.simulator in LEAVING}
        play.nobody("who said no got the second newsletter", refused, got_second)
        play.nobody("whose mailbox is dead or who complained got it", gone, got_second)
        play.nobody("without a yes got a newsletter", strangers, got_first | got_second)
        play.everybody("opening a link changes nothing", self.scanned, got_second, "still got the second newsletter")
        stopped = [id_ for id_ in self.late if self.second.states[self.second.message_to(id_)][0] in NOT_SENT]
        play.everybody("a click stops what is already queued", self.late, stopped, "stopped")
        is_plain = set(self.answers) == {200}
        play.promise("a one-click POST is answered 200, without a redirect", is_plain, in_words(self.answers))
        heard = mails_of(self.again, mails)
        play.everybody("who left still hears about orders", refused, heard, "in the inbox")

    async def _press(self, mails: Iterable[Mail]) -> Counter[int]:
        answers = await self.play.inbox.press_unsubscribe(mails)
        self.answers += answers
        return answers


def _links(mail: Mapping[str, Any]) -> list[str]:
    """Where the body of a mail leads its reader: to leave, and to choose."""
    return re.findall(r"https?://\S+/u/\S+", mail["text"] or "")
