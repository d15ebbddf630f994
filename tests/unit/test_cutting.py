import csv
import io
import itertools

from hypothesis import given
from hypothesis import strategies as st

from notifier.web.lists import LEFT_OPEN, MAX_LINE, TOO_LONG, Bad, Cutter, cells

LETTERS = st.text(alphabet='a,"\r\n ü', max_size=8)


def cut(data: bytes, sizes=(1 << 20,)) -> list[tuple[int, bytes | Bad]]:
    cutter, left = Cutter(quoted=True), io.BytesIO(data)
    found = []
    for size in itertools.cycle(sizes):
        if not (piece := left.read(size)):
            return [*found, *cutter.end()]
        found += cutter.feed(piece)
    raise AssertionError


@given(
    st.lists(st.lists(LETTERS, min_size=2, max_size=4), max_size=6),
    st.lists(st.integers(1, 9), min_size=1),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_a_csv_writer_wrote_comes_back_whole_however_it_arrives(table, sizes, quoting) -> None:
    written = io.StringIO()
    csv.writer(written, quoting=quoting).writerows(table)
    lines = [line for _, line in cut(written.getvalue().encode(), sizes)]
    assert [cells(line) for line in lines if isinstance(line, bytes)] == table


def test_a_quote_within_a_cell_is_a_letter_and_takes_no_line_along() -> None:
    assert cut(b'a,5" disk\nb,x\nc,6" disk\n') == [(1, b'a,5" disk'), (2, b"b,x"), (3, b'c,6" disk')]


@given(st.integers(1, 3 * MAX_LINE), st.booleans())
def test_a_cell_that_is_too_long_is_one_bad_line_whatever_its_lines_say(size, has_lines) -> None:
    filling = b"x\n" * MAX_LINE if has_lines else b"x" * 2 * MAX_LINE
    found = cut(b'a,"' + filling + b'\nb,"" ""\nc,d\n"\ne,f\n', (size,))
    number = 4 + (MAX_LINE if has_lines else 0) + 1
    assert found == [(1, TOO_LONG), (number, b"e,f")]


def test_a_long_line_without_a_quote_is_bad_alone() -> None:
    assert cut(b"a\n" + b"x" * 2 * MAX_LINE + b"\nb\n", (1000,)) == [(1, b"a"), (2, TOO_LONG), (3, b"b")]
    assert cut(b"a\n" + b"x" * 2 * MAX_LINE, (1000,)) == [(1, b"a"), (2, TOO_LONG)]


def test_a_quote_that_is_left_open_is_said_once_and_for_all_that_follows() -> None:
    assert cut(b'a\n"b\n' + b"c,d\n" * MAX_LINE) == [(1, b"a"), (2, LEFT_OPEN)]
    assert cut(b'a\n"b\nc') == [(1, b"a"), (2, LEFT_OPEN)]
