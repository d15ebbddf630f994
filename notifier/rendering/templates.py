"""All templates of an installation, loaded and proven once, and the stored versions that messages have pinned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from notifier.domain.consent import Topic
from notifier.errors import TemplateError
from notifier.rendering import building, folder, topics
from notifier.rendering.check import prove
from notifier.rendering.identity import Identity
from notifier.rendering.template import Template

MAX_PINNED = 500


@dataclass(frozen=True, slots=True)
class Templates:
    """What the service can send. Safe to share between threads: nothing in it changes but the cache."""

    topics: Mapping[str, Topic]
    identity: Identity
    default_locale: str
    _current: Mapping[str, Template]
    _versions: dict[str, Template] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: Path, identity: Identity, default_locale: str) -> Templates:
        """Read the folder; a template that loads has rendered its sample in every locale.

        Raises:
            TemplateError: lists everything that is wrong with any of them.

        """
        files = folder.read(directory)
        declared = topics.declarations(files.get(topics.FILE, ""))
        known = {key: topics.read(declaration) for key, declaration in declared.items()}

        def one(key: str) -> Template:
            sources = building.gather(key, files, declared, default_locale)
            return prove(building.build(key, sources, identity, default_locale))

        current = _each(folder.keys(files), one)
        return cls(known, identity, default_locale, current, {template.hash: template for template in current.values()})

    def find(self, key: str) -> Template | None:
        """The current version."""
        return self._current.get(key)

    def all(self) -> Sequence[Template]:
        """The current versions, by key."""
        return list(self._current.values())

    def version(self, content_hash: str) -> Template | None:
        """A version that is at hand already; else read its sources and call `pinned`."""
        return self._versions.get(content_hash)

    def pinned(self, key: str, sources: Mapping[str, str]) -> Template:
        """The version that these stored sources are, compiled once per process."""
        content_hash = folder.content_hash(sources)
        if found := self._versions.get(content_hash):
            return found
        if len(self._versions) >= MAX_PINNED:
            self._versions.clear()
        built = building.build(key, sources, self.identity, self.default_locale)
        return self._versions.setdefault(content_hash, built)


def _each(keys: Sequence[str], load: Callable[[str], Template]) -> dict[str, Template]:
    """Load them all before complaining, so that one run names every mistake."""
    loaded: dict[str, Template] = {}
    mistakes: list[str] = []
    for key in keys:
        try:
            loaded[key] = load(key)
        except TemplateError as error:
            mistakes.append(str(error))
    if mistakes:
        raise TemplateError("\n".join(mistakes))
    return loaded
