"""Runs one compiled part of a template: bounded, and with errors that name the file and never show data (I5)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from types import TracebackType
from typing import Any, Never

import jinja2

from notifier.errors import TemplateError

MAX_OUTPUT = 1_000_000
AT_ONCE = 64  #: pieces between two looks at the limit


def output(part: jinja2.Template, values: dict[str, Any]) -> str:
    """What it prints."""
    return "".join(pieces(part, values))


def pieces(part: jinja2.Template, values: dict[str, Any]) -> list[str]:
    """Run it a few pieces at a time, so that a flood ends at the limit and not in memory."""
    printed: list[str] = []
    size = 0
    try:
        run = part.root_render_func(part.new_context(values, shared=True))  # there are no globals
        while some := list(islice(run, AT_ONCE)):
            printed += some
            size += sum(map(len, some))
            if size > MAX_OUTPUT:
                raise TemplateError(f"more than {MAX_OUTPUT} characters come out")  # noqa: TRY301  # gets its place below
    except Exception as error:  # noqa: BLE001  # templates can raise anything; the data must not get into a message
        _blame(part, error)
    return printed


def _blame(part: jinja2.Template, error: Exception) -> Never:
    """Where it happened and the template's own line: enough to mend it, and nothing of the data (I5)."""
    name, number = _place(part, error.__traceback__)
    originals: Mapping[str, str] = getattr(part.environment, "originals", {})
    lines = originals.get(name, "").splitlines()
    line = lines[number - 1].strip()[:120] if 0 < number <= len(lines) else ""
    what = str(error) if isinstance(error, TemplateError) else type(error).__name__
    raise TemplateError(f"{name}:{number}: {what} in `{line}`") from None


def _place(part: jinja2.Template, traceback: TracebackType | None) -> tuple[str, int]:
    """The innermost frame that belongs to a template."""
    name, number = part.name or "", 0
    while traceback:
        owner = traceback.tb_frame.f_globals.get("__jinja_template__")
        if isinstance(owner, jinja2.Template):
            name, number = owner.name or "", owner.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
    return name, number
