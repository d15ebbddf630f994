"""Which language a person gets: de-AT, else de, else the installation's default."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

import babel

T = TypeVar("T")


@lru_cache(maxsize=1024)
def chain(locale: str, default: str) -> tuple[str, ...]:
    """The locales to try, best first: `de-Latn-AT` gives de-Latn-AT, de-Latn, de, and then the default."""
    subtags = locale.replace("_", "-").split("-")
    narrowing = ["-".join(subtags[:length]) for length in range(len(subtags), 0, -1)]
    return tuple(dict.fromkeys([*narrowing, default]))


def pick(by_locale: Mapping[str, T], locale: str, default: str) -> T | None:
    """What stands for the best known locale, or None when not even the default is there."""
    for tag in chain(locale, default):
        if tag in by_locale:
            return by_locale[tag]
    return None


@lru_cache(maxsize=1024)
def formats_of(recipient: str, language: str) -> babel.Locale:
    """How numbers and dates are written: as the recipient's region does, when it shares the text's language.

    An English text says `12 March` to en-GB and `March 12` to en-US, and also to pt-BR, who got English for want of
    Portuguese: a text never mixes two languages.
    """
    text = babel.Locale.parse(language, sep="-")
    for tag in chain(recipient, language):
        try:
            locale = babel.Locale.parse(tag, sep="-")
        except (ValueError, babel.UnknownLocaleError):
            continue
        if locale.language == text.language:
            return locale
    return text
