"""A template as it is used: its contract, and for each locale the parts that are ready to render."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jinja2

from notifier.domain.consent import Topic
from notifier.domain.messages import Category
from notifier.domain.routing import Route
from notifier.errors import Problem
from notifier.rendering.identity import Identity
from notifier.rendering.locales import pick
from notifier.rendering.schema import Schema
from notifier_channels.contract import Channel, ListHeaders


@dataclass(frozen=True, slots=True)
class Variant:
    """One locale of a template. The constants are what every render of it has in common."""

    locale: str
    subject: jinja2.Template
    html: jinja2.Template | None
    text: jinja2.Template | None
    constants: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Template:
    """One version of a template. Two with the same hash render the same."""

    key: str
    topic: Topic
    description: str
    expires_after: timedelta
    hash: str
    sources: Mapping[
        str, str
    ]  #: path -> text of all that took part; `Templates.pinned` makes this template of it again
    schema: Schema
    sample: Mapping[str, Any]
    variants: Mapping[str, Variant]
    identity: Identity
    default_locale: str

    @property
    def channels(self) -> frozenset[Channel]:
        """The channels it has content for."""
        return frozenset({Channel.EMAIL})

    @property
    def route(self) -> Route:
        """What its channels are to one another."""
        return self.topic.route

    @property
    def locales(self) -> tuple[str, ...]:
        """The languages it is written in."""
        return tuple(self.variants)

    @property
    def is_marketing(self) -> bool:
        """The category is the topic's and cannot be set by anyone else."""
        return self.topic.category is Category.MARKETING

    def problems(self, data: Mapping[str, Any], pointer: str = "") -> list[Problem]:
        """What is wrong with a caller's data: places below `pointer` and remedies, never values."""
        return self.schema.problems(data, pointer)

    def variant(self, locale: str) -> Variant:
        """The best language for a person: de-AT, else de, else the default."""
        best = pick(self.variants, locale, self.default_locale)
        return best or next(iter(self.variants.values()))

    def list_headers(self, locale: str, unsubscribe_url: str, unsubscribe_mailto: str | None) -> ListHeaders | None:
        """What marketing carries to be left with one click; None for transactional mail."""
        if not self.is_marketing:
            return None
        name = pick(self.topic.names, locale, self.default_locale) or self.topic.key
        list_id = f"{self.topic.key}.{self.identity.list_domain}"
        return ListHeaders(list_id, name, unsubscribe_url, unsubscribe_mailto)
