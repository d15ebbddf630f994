"""Whose turn it is: a batch holds messages of one channel, and no slow channel ever holds all hands of its process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from notifier_channels.contract import Channel


class Turns:
    """Counts the batches that a worker process has in hand, by channel. Belongs to one event loop."""

    def __init__(self, channels: Collection[Channel], hands: int) -> None:
        self._channels = list(channels)
        self._hands = hands  #: batches at once
        self._busy: Counter[Channel] = Counter()

    def order(self, ready: Collection[Channel]) -> list[Channel]:
        """The channels to look at, the one that has waited longest first."""
        return [channel for channel in self._channels if channel in ready]

    def may_take(self, channel: Channel) -> bool:
        """True unless the last free hands are kept for channels that have none: a dead provider must not delay them."""
        idle = [other for other in self._channels if other is not channel and not self._busy[other]]
        return not self._busy[channel] or self._hands - self._busy.total() > len(idle)

    @contextmanager
    def held(self, channel: Channel) -> Iterator[None]:
        """Hold a hand, from before the claim until the batch is settled; the channel goes to the end of the line."""
        self._busy[channel] += 1
        self._channels.remove(channel)
        self._channels.append(channel)
        try:
            yield
        finally:
            self._busy[channel] -= 1
