"""Reads `template.toml`: the topic, how long a message is wanted, how long a text may be, and its way to people."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from notifier.domain.routing import Route
from notifier.errors import TemplateError
from notifier.rendering import routes
from notifier.rendering.durations import duration

MOST_SEGMENTS = 10  #: Twilio takes 1,600 characters, which is what ten segments hold at most

_NEEDED = frozenset({"topic", "expires_after", "description"})
_OPTIONAL = frozenset({"sms", "route"})
_SMS = frozenset({"segments", "smart_encoding"})


@dataclass(frozen=True, slots=True)
class TextRules:
    """What a text message of this template may cost."""

    segments: int = 3  #: one that needs more is not sent
    smart_encoding: bool = True  #: typographic signs become plain, where they alone would double the price


@dataclass(frozen=True, slots=True)
class Declaration:
    """What an author says of a template beside its content."""

    topic: str
    description: str
    expires_after: timedelta
    text_rules: TextRules
    route: Route | None  #: None: the topic's


def read(text: str, path: str) -> Declaration:
    """Raise `TemplateError`, with the remedy, for what is missing, misspelt or out of range."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TemplateError(f"{path}: {error}") from None
    needed = {name: value for name, value in table.items() if name not in _OPTIONAL}
    if needed.keys() != _NEEDED or not all(isinstance(value, str) for value in needed.values()):
        optional = " and ".join(sorted(_OPTIONAL))
        raise TemplateError(
            f"{path}: write {', '.join(sorted(_NEEDED))}, each as text; {optional} may follow as tables"
        )
    return Declaration(
        topic=needed["topic"],
        description=needed["description"],
        expires_after=duration(needed["expires_after"], f"{path}: expires_after"),
        text_rules=_text_rules(table.get("sms", {}), f"{path} sms"),
        route=routes.read(table["route"], f"{path} route") if "route" in table else None,
    )


def _text_rules(table: object, where: str) -> TextRules:
    if not isinstance(table, Mapping) or not table.keys() <= _SMS:
        raise TemplateError(f"{where}: write it like sms = {{ segments = 2, smart_encoding = true }}")
    rules = TextRules(**table)
    if rules.segments.__class__ is not int or not 1 <= rules.segments <= MOST_SEGMENTS:
        raise TemplateError(f"{where}: segments is a number from 1 to {MOST_SEGMENTS}")
    if not isinstance(rules.smart_encoding, bool):
        raise TemplateError(f"{where}: smart_encoding is true or false")
    return rules
