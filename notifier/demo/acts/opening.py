"""The people come, and everybody hears of an order: by mail, text message and push, wherever they are reached."""

from __future__ import annotations

from datetime import UTC, datetime

from notifier.client import Refused
from notifier.demo.goods import letter, order
from notifier.demo.play import Play
from notifier.demo.product import Wave, hand_over, register_devices


async def people_come(play: Play) -> None:
    """Import everybody, register their devices, and try what the key may not."""
    play.stage.act("The product brings its people")
    now = datetime.now(UTC)
    kept = await play.shop.import_recipients(person.line(now) for person in play.people)
    phones = sum(person.phone is not None for person in play.people)
    devices = await register_devices(play.shop, play.people)
    play.stage.tell(
        f"[green]{kept.stored}[/] recipients imported; {phones} have a phone, and {devices} devices the app."
    )
    play.stage.tell(f"[green]{kept.grants}[/] times somebody said yes to marketing; the proof is in the ledger.")
    person = play.people[-1]
    try:
        await play.shop.send("newsletter", to={"id": person.id}, data=dict(letter(person, "Not allowed")))
        status = 202
    except Refused as refused:
        status = refused.problem.status
    play.stage.tell(f"The shop's key tries to send a newsletter: [yellow]{status}[/].")
    play.promise("a key for transactional messages cannot send marketing", status == 403, f"answer {status}")
    play.show_promises()


async def everybody_gets_something(play: Play, newsletter: Wave) -> None:
    """The first wave on all channels, and the first newsletter."""
    play.stage.act("An order update on every channel, and a newsletter")
    orders = [(person, order(person, number)) for number, person in enumerate(play.people)]
    letters = [(person, letter(person, "What the workshop taught us")) for person in play.people]
    await hand_over(play.shop, play.orders, "order-shipped", orders)
    await hand_over(play.marketing, newsletter, "newsletter", letters)
    await play.settle("delivering the first wave", play.orders, newsletter)
