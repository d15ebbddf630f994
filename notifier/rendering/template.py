"""A template as it is used: its contract, and for each channel and locale the parts that are ready to render."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from notifier.domain.consent import Topic
from notifier.domain.messages import Category
from notifier.domain.routing import Route
from notifier.errors import Problem, TemplateError
from notifier.rendering.declaration import TextRules
from notifier.rendering.identity import Identity
from notifier.rendering.locales import pick
from notifier.rendering.mail import Mail
from notifier.rendering.push import Push
from notifier.rendering.schema import Schema
from notifier.rendering.sms import Text
from notifier_channels.contract import Channel, ListHeaders

Variant: TypeAlias = Mail | Text | Push


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
    variants: Mapping[Channel, Mapping[str, Variant]]  #: by channel, then by locale
    text_rules: TextRules
    own_route: Route | None
    identity: Identity
    default_locale: str

    @property
    def channels(self) -> frozenset[Channel]:
        """The channels it has content for."""
        return frozenset(self.variants)

    @property
    def route(self) -> Route:
        """What its channels are to one another: as it says itself, else as its topic says, else all of them."""
        return self.own_route or self.topic.route

    def steps(self, sendable: Collection[Channel]) -> dict[Channel, int]:
        """The channels that it may go out on, each with its step; empty when none of them has a provider."""
        return self.route.steps(self.channels & self.topic.defaults.keys() & set(sendable))

    @property
    def locales(self) -> tuple[str, ...]:
        """The languages it is written in, be it for one channel only."""
        return tuple(sorted({locale for by_locale in self.variants.values() for locale in by_locale}))

    @property
    def is_marketing(self) -> bool:
        """The category is the topic's and cannot be set by anyone else."""
        return self.topic.category is Category.MARKETING

    def problems(self, data: Mapping[str, Any], pointer: str = "", *, partly: bool = False) -> list[Problem]:
        """What is wrong with a caller's data: places below `pointer` and remedies, never values.

        `partly`: what is missing comes from elsewhere, as a campaign takes it from each recipient's attributes.
        """
        return self.schema.problems(data, pointer, partly=partly)

    def variant(self, channel: Channel, locale: str) -> Variant:
        """The best language that the channel has for a person: de-AT, else de, else the default."""
        by_locale = self.variants.get(channel)
        if not by_locale:
            raise TemplateError(f"{self.key}: has no content for {channel}")
        return pick(by_locale, locale, self.default_locale) or next(iter(by_locale.values()))

    def list_headers(self, locale: str, unsubscribe_url: str, unsubscribe_mailto: str | None) -> ListHeaders | None:
        """What marketing carries to be left with one click; None for transactional mail."""
        if not self.is_marketing:
            return None
        name = pick(self.topic.names, locale, self.default_locale) or self.topic.key
        list_id = f"{self.topic.key}.{self.identity.list_domain}"
        return ListHeaders(list_id, name, unsubscribe_url, unsubscribe_mailto)
