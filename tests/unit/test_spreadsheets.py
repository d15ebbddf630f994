"""A line of CSV reads back as it was, and no cell of it is a formula to a spreadsheet."""

import csv
import io
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.spreadsheets import line

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_what_would_be_a_formula_begins_with_an_apostrophe(start: str) -> None:
    assert line([f'{start}cmd|"x"!A1', "a=b"]) == f'"\'{start}cmd|""x""!A1","a=b"\r\n'


@given(st.lists(TEXT, min_size=1))
def test_every_line_reads_back_but_for_the_apostrophes(cells: list[str]) -> None:
    [read] = csv.reader(io.StringIO(line(cells), newline=""))
    assert [cell.removeprefix("'") for cell in read] == [cell.removeprefix("'") for cell in cells]
    assert not any(cell[:1] in "=+-@\t\r\n" for cell in read if cell)


def test_nothing_is_empty_and_an_instant_is_written_in_utc() -> None:
    vienna = datetime(2026, 7, 1, 9, 0, 0, 5, timezone(timedelta(hours=2)))
    assert line([None, vienna, 7]) == '"","2026-07-01T07:00:00.000005Z","7"\r\n'
