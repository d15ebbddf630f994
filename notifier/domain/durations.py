"""Lengths of time as people write them in templates, topics and campaigns: `15m`, `24h`, `3d`."""

from __future__ import annotations

import re
from datetime import timedelta

LIKE = '"15m", "24h" or "3d"'

_DURATION = re.compile(r"([1-9][0-9]{0,3})([mhd])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def read(text: object) -> timedelta | None:
    """`"15m"`, `"24h"` or `"3d"`; None for anything else."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None


def written(length: timedelta) -> str:
    """The shortest of these that means the same: `90m`, `2h`."""
    minutes = int(length.total_seconds()) // 60
    for unit, size in (("d", 24 * 60), ("h", 60)):
        if minutes % size == 0:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"
