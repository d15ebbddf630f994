"""Every version of a template that a message was ever accepted with: a message is rendered from the one it pinned."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, TypeAlias

from psycopg.types.json import Jsonb

from notifier.domain.consent import Topic
from notifier.store.database import Connection, rows

Stored: TypeAlias = tuple[str, Mapping[str, str]]  #: key, sources


class Version(Protocol):
    """What of a `rendering.Template` is stored. The store does not know how to render."""

    @property
    def key(self) -> str:
        """The name callers use."""

    @property
    def hash(self) -> str:
        """Of everything that takes part."""

    @property
    def topic(self) -> Topic:
        """What it belongs to."""

    @property
    def sources(self) -> Mapping[str, str]:
        """Path -> text."""


async def register(c: Connection, template: Version) -> int:
    """The number of this version; stored when it is not there yet. Callers keep it: it never changes."""
    await c.execute(
        "INSERT INTO template_versions (key, hash, topic, category, sources) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (hash) DO NOTHING",
        (
            template.key,
            template.hash,
            template.topic.key,
            str(template.topic.category),
            Jsonb(dict(template.sources)),
        ),
    )
    number: int = (await rows(c, "SELECT id FROM template_versions WHERE hash = %s", (template.hash,)))[0]["id"]
    return number


async def sources_of(c: Connection, numbers: Collection[int]) -> dict[int, Stored]:
    """The key and the sources of these versions."""
    query = "SELECT id, key, sources FROM template_versions WHERE id = ANY(%s)"
    return {row["id"]: (row["key"], row["sources"]) for row in await rows(c, query, (list(numbers),))}
