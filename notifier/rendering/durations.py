"""Lengths of time as authors write them in `template.toml` and `topics.toml`."""

from __future__ import annotations

from datetime import timedelta

from notifier.domain import durations
from notifier.errors import TemplateError


def duration(text: object, where: str) -> timedelta:
    """`"15m"`, `"24h"` or `"3d"`.

    Raises:
        TemplateError: names `where` and shows how it is written.

    """
    length = durations.read(text)
    if length is None:
        raise TemplateError(f"{where} is written like {durations.LIKE}")
    return length
