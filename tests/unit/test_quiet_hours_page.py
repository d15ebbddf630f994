"""The page of quiet hours lists the packs that ship, as they are."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from notifier.dispatch.timing import SHIPPED
from notifier.domain import packs
from notifier.domain.clocks import Window
from notifier.domain.packs import DAYS
from notifier.domain.timing import Pack

PAGE = Path("docs/reference/quiet-hours.md")


def row(pack: Pack) -> str:
    where = (
        "numbers of its area codes" if pack.prefixes else "numbers of 32 countries" if len(pack.countries) > 1 else ""
    )
    where = where or (f"numbers of {next(iter(pack.countries))}" if pack.countries else "everybody")
    channels = ", ".join(sorted(pack.channels))
    return f"| `{pack.key}` | {pack.title} | {channels} | {where} | {hours(pack)} | {pack.source} | {pack.read} |"


def hours(pack: Pack) -> str:
    said = []
    for window, days in groupby(range(7), key=lambda day: pack.week[day]):
        found = list(days)
        span = DAYS[found[0]] if len(found) == 1 else f"{DAYS[found[0]]}-{DAYS[found[-1]]}"
        said.append(f"{span} {clock(window) if window else 'closed'}")
    return ", ".join(said)


def clock(window: Window) -> str:
    return "-".join(f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (window.opens, window.closes))


def test_every_pack_has_its_row():
    shipped = packs.read(files("notifier.domain").joinpath(SHIPPED).read_text(), SHIPPED)
    listed = re.findall(r"^\| `.*\|$", PAGE.read_text(), re.MULTILINE)
    assert listed == [row(pack) for pack in shipped.values()]
