"""Reads policy packs: those that ship (`quiet_hours.toml` beside this file) and an operator's own, in the same form."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import date
from typing import Any

from notifier.domain.clocks import Week, Window
from notifier.domain.timing import Pack
from notifier.errors import NotConfigured
from notifier_channels.contract import Channel

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FIELDS = {"title", "channels", "hours", "countries", "prefixes", "source", "read"}
NEEDED = ("title", "channels", "hours", "source", "read")
ALL, NONE = "all", "none"

_HOURS = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")
_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}")
_COUNTRY = re.compile(r"[A-Z]{2}")


def read(text: str, where: str) -> dict[str, Pack]:
    """The packs of a file, in its order.

    Raises:
        NotConfigured: names the file, the pack and what is wrong.

    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotConfigured(f"{where}: {error}") from None
    return {key: _pack(key, table, f"{where} [{key}]") for key, table in tables.items()}


def chosen(packs: Mapping[str, Pack], names: str) -> tuple[Pack, ...]:
    """Those that are on: `all`, `none`, or their names with commas between.

    Raises:
        NotConfigured: there is no such pack.

    """
    if names == NONE:
        return ()
    if names == ALL:
        return tuple(packs.values())
    wanted = [name.strip() for name in names.split(",")]
    if unknown := [name for name in wanted if name not in packs]:
        raise NotConfigured(f"NOTIFIER_QUIET_HOURS: no pack {', '.join(unknown)}; there are {', '.join(packs)}")
    return tuple(pack for key, pack in packs.items() if key in wanted)


def _pack(key: str, table: object, where: str) -> Pack:
    if not isinstance(table, Mapping) or not table.keys() <= FIELDS or not all(name in table for name in NEEDED):
        raise NotConfigured(f"{where}: a pack has {', '.join(NEEDED)}, and may have countries and prefixes")
    if not isinstance(table["read"], date):
        raise NotConfigured(f"{where} read: the date of reading, e.g. read = 2026-11-24")
    return Pack(
        key=key,
        title=str(table["title"]),
        channels=frozenset(Channel(one) for one in _texts(table, "channels", re.compile("|".join(Channel)), where)),
        week=_week(table["hours"], f"{where} hours"),
        countries=frozenset(_texts(table, "countries", _COUNTRY, where)),
        prefixes=tuple(_texts(table, "prefixes", _PREFIX, where)),
        source=str(table["source"]),
        read=table["read"],
    )


def _texts(table: Mapping[str, Any], name: str, form: re.Pattern[str], where: str) -> list[str]:
    values = table.get(name, [])
    if not isinstance(values, list) or not all(isinstance(one, str) and form.fullmatch(one) for one in values):
        raise NotConfigured(f"{where} {name}: a list of texts like {form.pattern}")
    return values


def _week(table: object, where: str) -> Week:
    if not isinstance(table, Mapping) or not table:
        raise NotConfigured(f'{where}: write it by days, e.g. {{ mon-fri = "08:00-20:00", sat = "10:00-17:00" }}')
    week: list[Window | None] = [None] * 7
    for days, hours in table.items():
        first, _, last = days.partition("-")
        if first not in DAYS or (last or first) not in DAYS or DAYS.index(last or first) < DAYS.index(first):
            raise NotConfigured(f"{where}: {days} is no day, and no days in their order; they are {', '.join(DAYS)}")
        for day in range(DAYS.index(first), DAYS.index(last or first) + 1):
            week[day] = _window(hours, f"{where}.{days}")
    return tuple(week)


def _window(hours: object, where: str) -> Window:
    match = _HOURS.fullmatch(hours) if isinstance(hours, str) else None
    numbers = [int(group) for group in match.groups()] if match else [0, 0, 0, 0]
    opens, closes = numbers[0] * 60 + numbers[1], numbers[2] * 60 + numbers[3]
    if not opens < closes <= 24 * 60:
        raise NotConfigured(f'{where}: written like "08:00-20:00", within one day; the end may be 24:00')
    return Window(opens, closes)
