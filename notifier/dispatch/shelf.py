"""The template versions that messages pin, compiled once per process: what a message is rendered from never changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from notifier.errors import TemplateError
from notifier.rendering import Template, Templates
from notifier.store import templates as versions
from notifier.store.database import Connection


class Shelf:
    """Template versions by their number in the database."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._pinned: dict[int, Template | TemplateError] = {}

    async def fetch(self, c: Connection, numbers: Collection[int]) -> None:
        """Load and compile those that this process has not seen yet."""
        missing = [number for number in numbers if number not in self._pinned]
        if missing:
            for number, (key, sources) in (await versions.sources_of(c, missing)).items():
                self._pinned[number] = self._compile(key, sources)

    def __getitem__(self, number: int) -> Template:
        """The version.

        Raises:
            TemplateError: it no longer compiles, as after an upgrade. Its messages fail; others are not held up.

        """
        found = self._pinned[number]
        if isinstance(found, TemplateError):
            raise TemplateError(str(found))
        return found

    def _compile(self, key: str, sources: Mapping[str, str]) -> Template | TemplateError:
        try:
            return self._templates.pinned(key, sources)
        except TemplateError as error:
            return error
