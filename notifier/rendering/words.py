"""What every message of one template, channel and locale has in common: words of the layout, sender, topic's name."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from babel import Locale, UnknownLocaleError

from notifier.domain.consent import Topic
from notifier.domain.messages import Category
from notifier.errors import TemplateError
from notifier.rendering import folder
from notifier.rendering.identity import Identity
from notifier.rendering.locales import pick
from notifier_channels.contract import Channel


def constants(
    words: str, identity: Identity, topic: Topic, channel: Channel, locale: str, default: str
) -> dict[str, Any]:
    """The values that stand in every render; `words` is the text of `_layouts/words.toml`, empty without a layout."""
    name = pick(topic.names, locale, default) or topic.key
    kind = _kind(topic, channel)
    spoken = _spoken(words, locale, kind, topic=name, sender=identity.sender.name) if words else {}
    return {
        "locale": locale,
        "direction": _direction(locale),
        "sender": identity.sender.name,
        "postal_address": identity.postal_address,
        "topic": {"name": name, "description": pick(topic.descriptions, locale, default) or ""},
        "words": spoken,
    } | ({"stop_text": spoken["stop_text"]} if "stop_text" in spoken else {})


def _spoken(text: str, locale: str, kind: str, **names: str) -> dict[str, str]:
    """The words of one locale. Of the reasons `why` a mail comes, the one that is true for this topic."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TemplateError(f"{folder.WORDS}: {error}") from None
    table = tables.get(locale) or tables.get(locale.partition("-")[0])
    if table is None:
        raise TemplateError(f"{folder.WORDS}: there is no [{locale}], which a template is written in")
    reasons = table.get("why", {})
    if kind not in reasons:
        raise TemplateError(f"{folder.WORDS}: [{locale}.why] has no `{kind}`")
    words = {word: value for word, value in table.items() if isinstance(value, str)} | {"why": reasons[kind]}
    return {word: _filled(value, names) for word, value in words.items()}


def _kind(topic: Topic, channel: Channel) -> str:
    """Why somebody gets this: the topic is `mandatory` or `transactional`, or what silence means on this channel."""
    if topic.mandatory:
        return "mandatory"
    return str(topic.defaults[channel] if topic.category is Category.MARKETING else topic.category)


def _filled(text: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _direction(locale: str) -> str:
    try:
        return Locale.parse(locale, sep="-").text_direction
    except UnknownLocaleError:
        raise TemplateError(f"{locale} is not a locale that Babel knows") from None
