"""The template versions that messages pin, compiled once per process: what a message is rendered from never changes."""

from __future__ import annotations

from collections.abc import Collection

from notifier.rendering import Template, Templates
from notifier.store import templates as versions
from notifier.store.database import Connection


class Shelf:
    """Template versions by their number in the database."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._pinned: dict[int, Template] = {}

    async def fetch(self, c: Connection, numbers: Collection[int]) -> None:
        """Load and compile those that this process has not seen yet."""
        missing = [number for number in numbers if number not in self._pinned]
        if missing:
            for number, (key, sources) in (await versions.sources_of(c, missing)).items():
                self._pinned[number] = self._templates.pinned(key, sources)

    def __getitem__(self, number: int) -> Template:
        return self._pinned[number]
