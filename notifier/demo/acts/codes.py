"""Sign-in codes: by text message, and by mail at once where the phone turns out to be dead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from notifier.demo.cast import BUSY, DEAD, OFF, Person
from notifier.demo.goods import code
from notifier.demo.phones import Text
from notifier.demo.play import Play, mails_of
from notifier.demo.product import Wave, hand_over
from notifier.demo.reader import Mail

WITHOUT_TROUBLE = 5  #: people whose phones work
NOT_THERE = (DEAD, OFF)
TURN = timedelta(minutes=2)  #: the template's route: as long the text message has, unless it is known to be lost
AT_ONCE = TURN / 4


@dataclass(slots=True)
class Codes:
    """A few people sign in."""

    play: Play
    wave: Wave = field(default_factory=lambda: Wave("Sign-in codes", "transactional"))
    codes: dict[str, str] = field(default_factory=dict)  #: by person

    async def people_sign_in(self) -> None:
        """Everybody gets a code once, by the first way that works."""
        play = self.play
        play.stage.act("Sign-in codes: a text message, and mail when it does not arrive")
        callers = [person for person in play.people if person.phone in (*NOT_THERE, BUSY)]
        callers += [p for p in play.people if p.phone and p not in callers and p.takes_offers][-WITHOUT_TROUBLE:]
        items = [(person, code()) for person in callers]
        self.codes = {person.id: data["code"] for person, data in items}
        play.stage.tell("One number does not exist, and one phone is switched off. Mail has its turn")
        play.stage.tell("after two minutes, and at once when the text message is known to be lost.")
        await hand_over(play.shop, self.wave, "sign-in-code", items)
        await play.settle("signing in", self.wave)
        self.judge(callers, await play.phones.texts(), await play.inbox.mails())
        play.show_promises()

    def judge(self, callers: Sequence[Person], texts: Sequence[Text], mails: Sequence[Mail]) -> None:
        """What phones and inbox have."""
        play, by_mail = self.play, mails_of(self.wave, mails)
        by_text = {
            person.id
            for person in callers
            for text in texts
            if text.phone == person.phone and text.has_arrived and self.codes[person.id] in text.body
        }
        twice = len(by_text & by_mail.keys())
        nothing = len(self.codes.keys() - by_text - by_mail.keys())
        seen = f"{len(by_text)} by text, {len(by_mail)} by mail, {twice} by both, {nothing} not at all"
        play.promise("a code comes once", not twice and not nothing, seen)
        lost = {person.id for person in callers if person.phone in NOT_THERE}
        waits = [
            by_mail[id_].at - self.wave.handed_over_at for id_ in lost & by_mail.keys() if self.wave.handed_over_at
        ]
        longest = max(waits, default=TURN)
        seen = f"{len(waits)} of {len(lost)}, {longest.total_seconds():.1f} s after the request"
        play.promise("a dead phone wakes the mail at once", len(waits) == len(lost) and longest < AT_ONCE, seen)
