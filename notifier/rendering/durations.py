"""Lengths of time as authors write them in `template.toml` and `topics.toml`."""

from __future__ import annotations

import re
from datetime import timedelta

from notifier.errors import TemplateError

_DURATION = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def duration(text: object, where: str) -> timedelta:
    """`"15m"`, `"24h"` or `"3d"`.

    Raises:
        TemplateError: names `where` and shows how it is written.

    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise TemplateError(f'{where} is written like "15m", "24h" or "3d"')
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def written(length: timedelta) -> str:
    """The shortest of these that means the same: `90m`, `2h`."""
    minutes = int(length.total_seconds()) // 60
    for unit, size in (("d", 24 * 60), ("h", 60)):
        if minutes % size == 0:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"
