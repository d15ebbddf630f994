"""The filters a template may use, and the situation of the one render that they speak in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from typing import Any

import babel
from babel import dates, numbers
from jinja2 import filters as jinja_filters

from notifier.errors import TemplateError

MAX_ITERATIONS = 100_000


@dataclass(slots=True)
class Situation:
    """One render: whose formats and clock count, and how much looping is left."""

    formats: babel.Locale
    timezone: tzinfo
    iterations: int = MAX_ITERATIONS


situation: ContextVar[Situation] = ContextVar("situation")
"""Set for the time of one render. Filters read it, since macros of imported files see no context of the render."""

_DIGITS = re.compile(r"-?\d{1,15}(\.\d{1,6})?")
_CURRENCY = re.compile(r"[A-Z]{3}")
_LINK = re.compile(r"(https?://[^\s/]|mailto:|tel:)[^\s\x00-\x1f\x7f\"<>\\^`{|}]*", re.IGNORECASE)


def money(amount: str | int, currency: str) -> str:
    """`"1999.00"` or 199900 (minor units) with `EUR`: €1,999.00, or 1.999,00 € in German.

    No floats: 0.1 + 0.2 is no amount.
    """
    if not _CURRENCY.fullmatch(currency):
        raise ValueError("a currency is three capital letters (ISO 4217)")
    return numbers.format_currency(_amount(amount, currency), currency, locale=situation.get().formats)


def number(value: str | float) -> str:
    """1234.5: 1,234.5, or 1.234,5 in German."""
    return numbers.format_decimal(_decimal(value), locale=situation.get().formats)


def day(value: str, style: str = "long") -> str:
    """`"2026-03-12"`: March 12, 2026. An instant becomes the recipient's day. Styles: full, long, medium, short."""
    if len(value) == len("2026-03-12"):
        return dates.format_date(date.fromisoformat(value), style, locale=situation.get().formats)
    return dates.format_date(_instant(value).date(), style, locale=situation.get().formats)


def moment(value: str, style: str = "long") -> str:
    """`"2026-03-12T13:05:00Z"`: March 12, 2026 at 2:05 PM CET, in the recipient's time zone."""
    now = situation.get()
    instant = _instant(value)
    time = dates.format_time(instant, "short", tzinfo=now.timezone, locale=now.formats)
    zone = dates.get_timezone_name(instant, width="short", locale=now.formats)
    if zone.startswith(("+", "-")):  # CLDR has no short name for it in this region
        zone = dates.get_timezone_gmt(instant, width="long", locale=now.formats)
    pattern = str(now.formats.datetime_formats[style]).replace("'", "")
    return pattern.format(f"{time} {zone}", dates.format_date(instant.date(), style, locale=now.formats))


def plural(count: int, **forms: str) -> str:
    """`3|plural(one="# item", other="# items")`: the form of the language's rule (CLDR), `#` being the number."""
    locale = situation.get().formats
    form = forms.get(locale.plural_form(count)) or forms["other"]
    return form.replace("#", numbers.format_decimal(count, locale=locale))


def url(value: str) -> str:
    """Refuses any scheme but https, http, mailto and tel. Added to every link when a template loads."""
    if not isinstance(value, str) or not _LINK.fullmatch(value):
        raise ValueError("a link is an absolute URL with https, http, mailto or tel")
    return value


def each(items: Iterable[Any]) -> Iterable[Any]:
    """Wrapped around every loop at load: data may be a list of 100,000, but not one inside another."""
    sized = items if isinstance(items, list | tuple | str | Mapping) else list(items)
    now = situation.get()
    now.iterations -= len(sized)
    if now.iterations < 0:
        raise TemplateError(f"loops more than {MAX_ITERATIONS} times")
    return sized


_PLAIN = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "int", "float", "join", "last"),
    *("length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "select"),
    *("selectattr", "sort", "string", "sum", "title", "trim", "truncate", "unique", "upper", "urlencode", "wordcount"),
)

ALLOWED: Mapping[str, Callable[..., Any]] = {
    **{name: jinja_filters.FILTERS[name] for name in _PLAIN},
    "money": money,
    "number": number,
    "date": day,
    "datetime": moment,
    "plural": plural,
    "url": url,
    "each": each,
}


def _amount(amount: str | int, currency: str) -> Decimal:
    if isinstance(amount, bool | float):
        raise TypeError('write an amount as text ("19.99") or as an integer of minor units (1999)')
    if isinstance(amount, int):
        return _decimal(amount).scaleb(-numbers.get_currency_precision(currency))
    return _decimal(amount)


def _decimal(value: str | float) -> Decimal:
    """Bounded: `1E+999999` is a valid decimal that takes a megabyte to write."""
    text = str(value)
    if not _DIGITS.fullmatch(text):
        raise ValueError("a number has up to 15 digits before and 6 after the point")
    return Decimal(text)


def _instant(value: str) -> datetime:
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError("an instant needs an offset, such as Z or +01:00")
    return instant.astimezone(UTC).astimezone(situation.get().timezone)
