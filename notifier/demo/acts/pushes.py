"""Pushes: an app is deleted; its device is tried once more and never again, while the owner's other one goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from notifier.demo.cast import Person
from notifier.demo.goods import order
from notifier.demo.phones import Push
from notifier.demo.play import Play
from notifier.demo.product import Wave, hand_over

DELETING = 3  #: people who delete the app from one of their two devices
LOST = "unregistered-"  #: how the ids of devices begin that had lost the app before


@dataclass(slots=True)
class Apps:
    """Two pushes to people with two devices."""

    play: Play
    once: Wave = field(default_factory=lambda: Wave("Push, app just deleted", "transactional"))
    more: Wave = field(default_factory=lambda: Wave("Push, once more", "transactional"))
    gone: list[str] = field(default_factory=list)  #: devices without the app

    async def an_app_is_deleted(self) -> None:
        """The next push finds out, and the one after it knows."""
        play = self.play
        play.stage.act("Somebody deletes the app from one of their devices")
        owners = [person for person in play.people if len(person.devices) > 1]
        before = await self._registered(owners)
        lost = [device for person in owners for device in person.devices if device.startswith(LOST)]
        deleted = [person.devices[0] for person in owners[:DELETING]]
        self.gone = [*lost, *deleted]
        for device in deleted:
            await play.phones.remove_app(device)
        for number, wave in enumerate((self.once, self.more), start=3000):
            items = [(person, order(person, number * 10 + place)) for place, person in enumerate(owners)]
            await hand_over(play.shop, wave, "order-shipped", items, channels=["push"])
            await play.settle("pushing", wave)
        play.stage.tell(
            f"\n{len(lost)} devices were removed after the first wave's push, {len(deleted)} after this one:"
        )
        play.stage.tell(f"{before} were registered, and {await self._registered(owners)} are left.")
        pushes = await play.phones.pushes()
        reader = next(person for person in owners if person.locale == "en")
        play.stage.lock_screen(next(push for push in pushes if push.device == reader.devices[1]))
        self.judge(owners, pushes, {device: await play.phones.refused(device) for device in self.gone})
        play.show_promises()

    async def _registered(self, owners: Sequence[Person]) -> int:
        return sum([len(await self.play.shop.devices(person.id)) for person in owners])

    def judge(self, owners: Sequence[Person], pushes: Sequence[Push], refused: Mapping[str, int]) -> None:
        """What FCM was asked, and what the lock screens have."""
        play = self.play
        tried = [device for device, times in refused.items() if times == 1]
        play.everybody("a device without the app is tried once, then removed", self.gone, tried, "tried once")
        others = {device for person in owners for device in person.devices} - {*self.gone}
        for wave, promise in (
            (self.once, "its owner's other device gets that push"),
            (self.more, "later pushes go to devices with the app, to no other"),
        ):
            got = Counter(push.device for push in pushes if push.message in wave.people)
            right = [device for device, times in got.items() if times == 1 and len(got) == len(others)]
            play.everybody(promise, others, right, "lock screens")
