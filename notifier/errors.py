"""Every way a request or a command can be refused, in one tree.

    NotifierError
    ├── InvalidInput        the caller's mistake: carries the fields and what to do (HTTP 422)
    ├── Conflict            two truths at once: several holders of an address (HTTP 409)
    ├── NotFound            no such thing (HTTP 404)
    ├── Forbidden           the key lacks the scope (HTTP 403)
    ├── TooSoon             often enough for now: carries when it may be asked again (HTTP 429)
    ├── NotConfigured       a setting is missing or wrong: carries its name and the remedy
    └── TemplateError       a template does not load, check or render

No message holds an address, a name, a token or message data (I5): they may name fields, never values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in an input: where (RFC 6901 JSON pointer), what, and the remedy in the same sentence."""

    pointer: str
    detail: str


class NotifierError(Exception):
    """Something was refused; the text says what and how to mend it, the problems say where."""

    def __init__(self, detail: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(detail)
        self.problems = tuple(problems)


class InvalidInput(NotifierError):
    """The input cannot be accepted; nothing of it was."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{problem.pointer or '/'}: {problem.detail}" for problem in problems), problems)


class Conflict(NotifierError):
    """The input contradicts what is stored."""


class NotFound(NotifierError):
    """No such thing is stored."""


class Forbidden(NotifierError):
    """The caller may not do this."""


class TooSoon(NotifierError):
    """Often enough for now; nothing was done."""

    def __init__(self, detail: str, wait: timedelta) -> None:
        super().__init__(detail)
        self.wait = wait


class NotConfigured(NotifierError):
    """A setting is missing or wrong."""


class TemplateError(NotifierError):
    """A template does not load, check or render. Says which file and line, never the data."""
