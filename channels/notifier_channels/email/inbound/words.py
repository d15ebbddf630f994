"""The words of bounces, read once from `words.toml`, where each stands below what it means."""

from __future__ import annotations

import re
import tomllib
from importlib import resources

_LISTS: dict[str, list[str]] = tomllib.loads(resources.files(__package__).joinpath("words.toml").read_text("utf-8"))


def _any(name: str) -> re.Pattern[str]:
    """All expressions of one list as one; the two short lists stand in others by name."""
    written = "|".join(_LISTS[name])
    for short in ("there", "gone"):
        written = written.replace(f"<{short}>", f"(?:{'|'.join(_LISTS[short])})")
    return re.compile(written, re.IGNORECASE)


NOBODY_THERE = _any("nobody_there")
FULL = _any("full")
TOO_LARGE = _any("too_large")
PASSING = _any("passing")
POLICY = _any("policy")
NO_DOMAIN = _any("no_domain")
PERHAPS = _any("perhaps")
FAILED = _any("failed")
WARNING = _any("warning")
AWAY = _any("away")
