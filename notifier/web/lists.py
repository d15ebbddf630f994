"""Lists of recipients as they arrive: cut into lines while they stream, each line read for itself.

A bad line is reported with its number and the good ones are kept.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from notifier.domain.consent import ALL, MARKETING
from notifier.errors import InvalidInput, Problem
from notifier.web.bodies import ImportLine
from notifier.web.problems import explain

MAX_LINE = 64 * 1024
BOM = b"\xef\xbb\xbf"

COLUMNS = ("id", "email", "phone", "locale", "timezone", "grant", "granted_at", "withdrawn", "withdrawn_at")
PREFIXES = ("attributes.", "evidence.")


@dataclass(frozen=True, slots=True)
class Bad:
    """What is wrong with a line."""

    problems: Sequence[Problem]

    @classmethod
    def because(cls, detail: str) -> Bad:
        """Wrong as a whole."""
        return cls((Problem("", detail),))


TOO_LONG = Bad.because(f"longer than {MAX_LINE // 1024} KB; is a quote left open?")
LEFT_OPEN = Bad.because("a quote is left open: nothing after it was read; close it and send the list again")

# A cell that begins with a quote goes on to the next single one; anywhere else a quote is a letter, as in `5" disk`.
_CELL = rb'(?:"[^"]*+(?:""[^"]*+)*+"|(?!"))[^,]*+'
_CELLS = re.compile(_CELL + b"(?:," + _CELL + b")*+")


@dataclass(slots=True)
class Cutter:
    """Cuts bytes into numbered lines; a line of a CSV file goes on while a quote is open (RFC 4180).

    However long that is: what stands in somebody's cell must never be taken for a line of its own.
    """

    quoted: bool
    _rest: bytearray = field(default_factory=bytearray)  #: what came after the last line feed
    _line: bytearray = field(default_factory=bytearray)  #: physical lines of a quoted one
    _number: int = 0  #: physical lines so far
    _first: int = 1
    _is_open: bool = False  #: a quote is
    _is_too_long: bool = False  #: nothing of the line is kept any more, and only its end is looked for

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes | Bad]]:
        """The lines that are complete now."""
        self._rest += data
        *complete, rest = self._rest.split(b"\n")
        self._rest = rest
        for line in complete:
            yield from self._physical(bytes(line))
        if self._is_too_long or len(self._rest) > MAX_LINE:
            self._grow(bytes(self._rest))
            self._rest.clear()

    def end(self) -> Iterator[tuple[int, bytes | Bad]]:
        """What is left when nothing more comes."""
        if self._rest:
            yield from self._physical(bytes(self._rest))
        if self._is_open:
            yield self._first, LEFT_OPEN
        elif self._is_too_long:
            yield self._first, TOO_LONG

    def _physical(self, line: bytes) -> Iterator[tuple[int, bytes | Bad]]:
        self._grow((line if self._number else line.removeprefix(BOM)) + b"\n")
        self._number += 1
        if self._is_open:
            return
        whole = bytes(self._line).strip(b"\r\n")
        if self._is_too_long:
            yield self._first, TOO_LONG
        elif whole.strip():
            yield self._first, whole
        self._line.clear()
        self._is_too_long = False

    def _grow(self, piece: bytes) -> None:
        if not (self._line or self._is_too_long):
            self._first = self._number + 1
        if self.quoted and b'"' in piece:
            self._is_open = _CELLS.fullmatch(b'"' + piece if self._is_open else piece) is None
        self._is_too_long = self._is_too_long or len(self._line) + len(piece) > MAX_LINE
        if self._is_too_long:
            self._line.clear()
        else:
            self._line += piece


async def cut(stream: AsyncIterator[bytes], *, quoted: bool) -> AsyncIterator[tuple[int, bytes | Bad]]:
    """Number and cut what streams in."""
    cutter = Cutter(quoted)
    async for data in stream:
        for line in cutter.feed(data):
            yield line
    for line in cutter.end():
        yield line


def read_json(line: bytes) -> ImportLine | Bad:
    """One line of an NDJSON file."""
    try:
        return ImportLine.model_validate(from_json(line, allow_inf_nan=False))
    except ValidationError as error:
        return _bad(error)
    except ValueError:
        return Bad.because("is not a JSON object in UTF-8")


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file, as its first line describes it."""

    columns: Sequence[str]

    @classmethod
    def described(cls, header: bytes) -> Table:
        """Read the first line.

        Raises:
            InvalidInput: names the columns that mean nothing here.

        """
        columns = [name.strip() for name in cells(header) or ()]
        unknown = [name for name in columns if name not in COLUMNS and not name.startswith(PREFIXES)]
        doubled = {name for name in columns if columns.count(name) > 1}
        known = ", ".join((*COLUMNS, *(f"{prefix}*" for prefix in PREFIXES)))
        problems = [
            Problem(f"/{columns.index(name)}", f"is not a known column; there are: {known}") for name in unknown
        ] + [Problem(f"/{columns.index(name)}", "stands twice in the first line") for name in sorted(doubled)]
        if not {"id", "email", "phone"} & set(columns):
            problems.append(
                Problem("", f"the first line must name the columns, one of them id, email or phone: {known}")
            )
        if problems:
            raise InvalidInput(problems)
        return cls(columns)

    def read(self, line: bytes) -> ImportLine | Bad:
        """One line of the file. An empty cell says nothing."""
        found = cells(line)
        if found is None:
            return Bad.because("is not CSV in UTF-8")
        if len(found) != len(self.columns):
            return Bad.because(f"has {len(found)} cells where the first line names {len(self.columns)}")
        filled = {name: cell.strip() for name, cell in zip(self.columns, found, strict=True) if cell.strip()}
        try:
            return ImportLine.model_validate(_nested(filled))
        except ValidationError as error:
            return _bad(error)


def cells(line: bytes) -> list[str] | None:
    """The cells of one line; None: it is not CSV in UTF-8."""
    try:
        rows = list(csv.reader(io.StringIO(line.decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    return rows[0] if len(rows) == 1 else None


def _nested(cells: Mapping[str, str]) -> dict[str, Any]:
    """Cells as the JSON form has them: `attributes.plan`, and `grant` as topic keys such as `news product-news/sms`.

    `withdrawn` is written like `grant`, and may name `marketing` and `all`, too.
    """
    line: dict[str, Any] = {name: cell for name, cell in cells.items() if name in COLUMNS[:5]}
    if attributes := _below(cells, "attributes."):
        line["attributes"] = attributes
    grants = [grant.partition("/") for grant in cells.get("grant", "").split()]
    evidence = _below(cells, "evidence.")
    if grants:
        shared = {"granted_at": cells["granted_at"]} if "granted_at" in cells else {}
        line["grants"] = [
            {"topic": topic, "evidence": evidence, **shared, **({"channel": channel} if channel else {})}
            for topic, _, channel in grants
        ]
    withdrawn = [no.partition("/") for no in cells.get("withdrawn", "").split()]
    if withdrawn:
        shared = {"withdrawn_at": cells["withdrawn_at"]} if "withdrawn_at" in cells else {}
        line["withdrawals"] = [
            {"scope": _scope(what), "evidence": evidence, **shared, **({"channel": channel} if channel else {})}
            for what, _, channel in withdrawn
        ]
    return line


def _scope(word: str) -> str:
    """A topic's key, unless it is the word for something wider."""
    return word if word in (MARKETING, ALL) else f"topic:{word}"


def _below(cells: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): cell for name, cell in cells.items() if name.startswith(prefix)}


def _bad(error: ValidationError) -> Bad:
    return Bad([explain(one) for one in error.errors(include_url=False)])
