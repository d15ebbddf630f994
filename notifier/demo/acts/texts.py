"""Text messages: people type STOP in their own words while an offer is queued, are answered, and get no text after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from notifier.demo.cast import MOODS, Person
from notifier.demo.goods import offer, order
from notifier.demo.phones import Text
from notifier.demo.play import NOT_SENT, SOON, Play, mails_of
from notifier.demo.product import Wave, hand_over
from notifier.demo.reader import Mail

STOPS = ("Stop please", "STOP", "Stop please", "STOP")
FRENCH_STOP = "ne plus recevoir"
QUESTION = "Where is the bus stop?"
HEADLINE = "Lamps you can talk to"


@dataclass(slots=True)
class Offers:
    """An offer by text message and mail, and the orders of those who typed STOP."""

    play: Play
    offers: Wave = field(default_factory=lambda: Wave("Offer by text and mail", "marketing"))
    after: Wave = field(default_factory=lambda: Wave("Orders after STOP", "transactional"))
    typed: dict[str, str] = field(default_factory=dict)  #: by number
    answers: dict[str, Sequence[str]] = field(default_factory=dict)  #: by number

    async def people_type_stop(self) -> None:
        """They do it while the offer is queued; afterwards something that they bought is shipped."""
        play = self.play
        play.stage.act("An offer by text message, and STOP while it is queued")
        people = [person for person in play.people if person.phone]
        await hand_over(
            play.marketing,
            self.offers,
            "product-news",
            [(person, offer(person, HEADLINE)) for person in people],
            channels=["sms", "email"],
            send_at=datetime.now(UTC) + SOON,
        )
        readers = [one for one in people if one.takes_offers and one.phone not in MOODS and one not in play.asleep]
        self.typed = _typed(readers)
        for phone, words in self.typed.items():
            self.answers[phone] = await play.phones.type_on(phone, words)
        play.stage.tell(f"{len(people)} texts are queued, to go in {SOON.seconds} seconds. Meanwhile people type:")
        play.stage.tell(", ".join(f"“{words}”" for words in dict.fromkeys(self.typed.values())))
        stopped = [person for person in readers if person.phone in self.stoppers]
        orders = [(person, order(person, number)) for number, person in enumerate(stopped, start=2000)]
        await hand_over(play.shop, self.after, "order-shipped", orders, channels=["sms", "email"])
        await play.settle("delivering the offer", self.offers, self.after)
        play.stage.thread((await play.phones.thread(stopped[0].phone or ""))[-3:])
        self.judge(await play.phones.texts(), await play.inbox.mails())
        play.show_promises()

    @property
    def stoppers(self) -> Mapping[str, str]:
        """The numbers on which something was typed that means STOP."""
        return {phone: words for phone, words in self.typed.items() if words != QUESTION}

    def judge(self, texts: Sequence[Text], mails: Sequence[Mail]) -> None:
        """What phones and inbox have."""
        play, stoppers = self.play, self.stoppers
        owner = {person.phone: person.id for person in play.people if person.phone}
        offered = {text.phone for text in texts if HEADLINE in text.body and text.has_arrived}
        answered = {phone for phone in stoppers if len(self.answers[phone]) == 1}
        play.everybody("each STOP is answered, once", stoppers, answered, "answered")
        late = {phone for phone in stoppers if len(_sent_after_stop(phone, texts)) > 1}
        play.nobody("who typed STOP got another text than the answer", stoppers, late, "phones")
        held = {phone for phone in stoppers if self._state(owner[phone]) in NOT_SENT}
        play.everybody("a STOP stops what is already queued", stoppers, held, "stopped")
        people = {owner[phone] for phone in stoppers}
        mailed = mails_of(self.offers, mails).keys() & mails_of(self.after, mails).keys()
        play.everybody("their mail still comes: the offer and the order", people, mailed, "in the inbox")
        askers = self.typed.keys() - stoppers.keys()
        unheard = {phone for phone in askers if phone in offered and not self.answers[phone]}
        play.everybody("a bus stop is no STOP", askers, unheard, "still got the offer")
        waiting = {owner.id for owner in play.asleep if self._state(owner.id) == "queued"}
        play.everybody("a phone is not woken at night", {owner.id for owner in play.asleep}, waiting, "wait")
        strangers = {person.phone for person in play.people if person.phone and not person.takes_offers}
        play.nobody("without a yes got an offer by text", strangers, offered, "phones")

    def _state(self, person: str) -> str:
        return self.offers.states[self.offers.message_to(person, "sms")][0]


def _typed(readers: Sequence[Person]) -> dict[str, str]:
    """Who types what: the French speakers in French, the first few others in other words."""
    french = [person for person in readers if person.locale == "fr"]
    others = [person for person in readers if person.locale != "fr"]
    said = {person.phone: words for person, words in zip(others, (*STOPS, QUESTION), strict=False)}
    said |= {person.phone: FRENCH_STOP for person in french}
    return {phone: words for phone, words in said.items() if phone}


def _sent_after_stop(phone: str, texts: Sequence[Text]) -> list[Text]:
    """What came to a phone after something had been typed on it; the texts are newest first."""
    thread = [text for text in texts if text.phone == phone]
    first = next((place for place, text in enumerate(thread) if text.is_typed), 0)
    return thread[:first]
