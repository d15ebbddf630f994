"""What leaves as CSV (RFC 4180) for people's spreadsheets, which take some cells for formulas unless told otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with, in full width, too: owasp.org/www-community/attacks/CSV_Injection."""


def line(cells: Iterable[object]) -> str:
    """One line. Every cell is quoted, so that none ends early; what would be a formula begins with an apostrophe.

    None is empty, an instant is written in UTC, anything else as its text.
    """
    return ",".join(map(_cell, cells)) + "\r\n"


def _cell(value: object) -> str:
    if value is None:
        return '""'
    text = f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}" if isinstance(value, datetime) else str(value)
    safe = f"'{text}" if text.startswith(_FORMULAS) else text
    return '"' + safe.replace("\0", "").replace('"', '""') + '"'
