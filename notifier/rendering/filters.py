"""The filters a template may use, and the situation of the one render that they speak in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from decimal import Decimal
from functools import lru_cache, wraps
from typing import Any

import babel
from babel import dates, numbers
from jinja2 import filters as jinja_filters
from jinja2 import pass_eval_context
from jinja2.nodes import EvalContext
from markupsafe import Markup

from notifier.errors import TemplateError

MAX_ITERATIONS = 100_000
MAX_SEPARATOR = 100


@dataclass(slots=True)
class Situation:
    """One render: whose formats and clock count, and how much looping is left."""

    formats: babel.Locale
    timezone: tzinfo
    iterations: int = MAX_ITERATIONS


situation: ContextVar[Situation] = ContextVar("situation")
"""Set for the time of one render. Filters read it, since macros of imported files see no context of the render."""

_DIGITS = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,6})?")
_CURRENCY = re.compile(r"[A-Z]{3}")
PLAIN_LINK = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9/._~:-]*")  #: of those, one with nothing to escape
_LINK = re.compile(r"(?i:https?://[^\s/]|mailto:|tel:)[^\s\x00-\x1f\x7f\"<>\\]*")


def money(amount: str | int, currency: str) -> str:
    """`"1999.00"` or 199900 (minor units) with `EUR`: €1,999.00, or 1.999,00 € in German. No floats."""
    return _money(amount, currency, situation.get().formats)


def number(value: str | float) -> str:
    """1234.5: 1,234.5, or 1.234,5 in German."""
    return numbers.format_decimal(_decimal(value), locale=situation.get().formats)


def day(value: str, style: str = "long") -> str:
    """`"2026-03-12"`: March 12, 2026. An instant becomes the recipient's day. Styles: full, long, medium, short."""
    now = situation.get()
    return _day(value, style, now.formats, now.timezone)


def moment(value: str, style: str = "long") -> str:
    """`"2026-03-12T13:05:00Z"`: March 12, 2026, 2:05 PM CET, in the recipient's time zone."""
    now = situation.get()
    return _moment(value, style, now.formats, now.timezone)


def plural(count: int, **forms: str) -> str:
    """`3|plural(one="# item", other="# items")`: the form of the language's rule (CLDR), `#` being the number."""
    locale = situation.get().formats
    form = forms.get(locale.plural_form(count)) or forms["other"]
    return form.replace("#", numbers.format_decimal(count, locale=locale))


def url(value: str) -> str:
    """Refuses any scheme but https, http, mailto and tel. Added to every link when a template loads."""
    if value.__class__ is str and PLAIN_LINK.fullmatch(value):  # most are, and this tells it twice as fast
        return value
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


def whole(lazy: Callable[..., Any]) -> Callable[..., Any]:
    """Jinja's filter with a list where it gives what can be read only once: a `set` of it is shown to many people."""

    @wraps(lazy)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        found = lazy(*args, **kwargs)
        return list(found) if isinstance(found, Iterator) else found

    return filtered


def title(text: Any) -> str:
    """Jinja's, which forgets that a text is escaped already."""
    titled: str = jinja_filters.do_title(text)
    return Markup(titled) if hasattr(text, "__html__") else titled  # noqa: S704  # letters of what was markup before


@pass_eval_context
def join(context: EvalContext, items: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    """Jinja's, for a separator that is no text of its own."""
    if len(separator) > MAX_SEPARATOR:
        raise ValueError("a separator is short")
    return jinja_filters.sync_do_join(context, each(items), separator, attribute)


_PLAIN = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "int", "float", "last"),
    *("length", "list", "lower", "max", "min", "round", "sort", "string", "sum", "trim", "truncate", "upper"),
    *("urlencode", "wordcount"),
)
_LAZY = ("map", "reject", "rejectattr", "reverse", "select", "selectattr", "unique")

ALLOWED: Mapping[str, Callable[..., Any]] = {
    **{name: jinja_filters.FILTERS[name] for name in _PLAIN},
    **{name: whole(jinja_filters.FILTERS[name]) for name in _LAZY},
    "money": money,
    "number": number,
    "date": day,
    "datetime": moment,
    "plural": plural,
    "url": url,
    "each": each,
    "title": title,
    "join": join,
}


@lru_cache(maxsize=4096, typed=True)
def _money(amount: str | int, currency: str, locale: babel.Locale) -> str:
    if not _CURRENCY.fullmatch(currency):
        raise ValueError("a currency is three capital letters (ISO 4217)")
    if isinstance(amount, bool | float):
        raise TypeError('write an amount as text ("19.99") or as an integer of minor units (1999)')
    value = _decimal(amount)
    if isinstance(amount, int):
        value = value.scaleb(-numbers.get_currency_precision(currency))
    return numbers.format_currency(value, currency, locale=locale)


@lru_cache(maxsize=4096)
def _day(value: str, style: str, locale: babel.Locale, timezone: tzinfo) -> str:
    is_date = len(value) == len("2026-03-12")
    written = date.fromisoformat(value) if is_date else _instant(value, timezone).date()
    return dates.format_date(written, style, locale=locale)


@lru_cache(maxsize=4096)
def _moment(value: str, style: str, locale: babel.Locale, timezone: tzinfo) -> str:
    instant = _instant(value, timezone)
    time = dates.format_time(instant, "short", tzinfo=timezone, locale=locale)
    zone = dates.get_timezone_name(instant, width="short", locale=locale)
    if zone.startswith(("+", "-")):  # CLDR has no short name for it in this region
        zone = dates.get_timezone_gmt(instant, width="long", locale=locale)
    pattern = str(locale.datetime_formats[style]).replace("'", "")
    return pattern.format(f"{time} {zone}", dates.format_date(instant.date(), style, locale=locale))


def _decimal(value: str | float) -> Decimal:
    """Bounded: `1E+999999` is a valid decimal that takes a megabyte to write."""
    text = f"{value:.6f}" if isinstance(value, float) else str(value)
    if not _DIGITS.fullmatch(text):
        raise ValueError("a number has up to 15 digits before and 6 after the point")
    return Decimal(text)


def _instant(value: str, timezone: tzinfo) -> datetime:
    instant = datetime.fromisoformat(value)
    if instant.tzinfo is None:
        raise ValueError("an instant needs an offset, such as Z or +01:00")
    return instant.astimezone(timezone)
