"""Makes harmless what data may hold: text that is shown as it is, one line where there is one line."""

from __future__ import annotations

import re

MAX_LINE = 250

_INVISIBLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")
"""Besides controls: line separators, the marks that turn the direction of text and so can disguise it, surrogates."""
_LINE_ENDS = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")
_TRAILING = re.compile(r"[^\S\n]+(?=\n)")
_BLANK_LINES = re.compile(r"\n\n\n+")  # where an `if` left nothing; `\n{3,}` takes ten times as long to find


def one_line(text: str) -> str:
    """Whatever data holds, a header or a title is one line of visible characters."""
    is_plain = text.isprintable() and "  " not in text  # as nearly every one is, and this tells it at once
    line = (text if is_plain else _INVISIBLE.sub(" ", text)).strip()
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1].rstrip() + "…"


def visible(text: str) -> str:
    """Text without control characters and marks that disguise; its lines stay, without blanks at their ends."""
    if text.isprintable():  # most texts are one line, and hold nothing of all that
        return text.strip()
    shown = _CONTROLS.sub("", _LINE_ENDS.sub("\n", text).replace("\t", " "))
    return few_blank_lines(_TRAILING.sub("", shown)).strip()


def few_blank_lines(text: str) -> str:
    """Where a condition left nothing, one blank line is enough."""
    return _BLANK_LINES.sub("\n\n", text)
