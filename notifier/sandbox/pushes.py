"""Pushes as lock screens show them, by device, newest last; and which devices are dead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

MOST_PUSHES = 5_000
MOST_REFUSING = 10_000  #: devices of which refusals are counted


@dataclass(frozen=True, slots=True)
class Push:
    """One push that was taken. A later one with the same tag replaces it on the screen."""

    id: int
    at: datetime
    device: str  #: `fid:...` or `token:...`
    tag: str  #: Notifier's message
    title: str
    body: str
    image: str | None = None
    link: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    is_urgent: bool = False
    ttl: str | None = None
    raw: Mapping[str, object] = field(default_factory=dict)  #: the request's `message`, as it came


class Pushes:
    """All of them. Belongs to one event loop."""

    def __init__(self, *, most: int = MOST_PUSHES) -> None:
        self._most = most
        self._pushes: dict[int, Push] = {}
        self.taken = 0  #: ever
        self.dead: set[str] = set()  #: devices whose app is gone
        self._refused: dict[str, int] = {}  #: by device

    def __len__(self) -> int:
        return len(self._pushes)

    def __iter__(self) -> Iterator[Push]:
        """Newest first, over a copy."""
        return reversed(list(self._pushes.values()))

    def keep(self, push: Push) -> Push:
        """Keep one; the oldest make room."""
        self._pushes[push.id] = push
        self.taken += 1
        while len(self._pushes) > self._most:
            self._pushes.pop(next(iter(self._pushes)))
        return push

    def refuse(self, device: str) -> None:
        """Count a push that was not taken; what is counted of the oldest devices makes room."""
        self._refused[device] = self.refused(device) + 1
        while len(self._refused) > MOST_REFUSING:
            self._refused.pop(next(iter(self._refused)))

    def refused(self, device: str) -> int:
        """How many pushes to this device were not taken."""
        return self._refused.get(device, 0)

    def screen(self, device: str) -> list[Push]:
        """What one lock screen shows, newest first: of those with one tag, the last."""
        shown: dict[str, Push] = {}
        for push in self:
            if push.device == device:
                shown.setdefault(push.tag or str(push.id), push)
        return list(shown.values())

    def clear(self) -> int:
        """Throw all away and say how many there were."""
        count = len(self._pushes)
        self._pushes.clear()
        return count
