"""The journal: what a dead worker's file says, however it was torn."""

from __future__ import annotations

import asyncio
import resource
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier import journal as notebook
from notifier.journal import Journal, read
from notifier_channels.contract import Ambiguous, RateLimited, Receipt, Rejected

ONE, TWO = UUID(int=1), UUID(int=2)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journals" / "worker-1.journal")
    yield journal
    journal.close()


def lines_of(journal):
    return journal.path.read_text().splitlines(keepends=True)


@pytest.mark.parametrize(
    "outcome", [Receipt("queue-id 7", "250 2.0.0"), RateLimited("421", timedelta(seconds=90)), Rejected("554", "no")]
)
def test_an_answer_is_read_back_as_it_was_given(journal, outcome):
    journal.before(ONE, 2)
    journal.after(ONE, 2, outcome)
    assert read(lines_of(journal)).answers == {(ONE, 2): outcome}


def test_a_line_before_without_one_after_is_a_commitment_without_an_answer(journal):
    journal.before(ONE, 1)
    said = read(lines_of(journal))
    assert (said.committed, said.answers) == ({(ONE, 1)}, {})


def test_the_message_being_rendered_at_the_end_is_the_one_in_hand(journal):
    journal.rendering(ONE)
    journal.rendering(TWO)
    assert read(lines_of(journal)).in_hand == TWO
    journal.rendered()
    assert read(lines_of(journal)).in_hand is None


@given(st.data())
def test_a_torn_tail_says_nothing_that_was_not_written(data):
    lines = [
        "R " + ONE.hex + "\n",
        "E\n",
        f"B {ONE.hex} 1\n",
        f'A {ONE.hex} 1 ["Ambiguous", {{"code": "x"}}]\n',
        f"B {TWO.hex} 1\n",
    ]
    whole = "".join(lines)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    said = read(cut.splitlines(keepends=True))
    complete = cut.count("\n")
    written = [(3, (ONE, 1)), (5, (TWO, 1))]
    assert said.committed == {attempt for line, attempt in written if complete >= line}
    assert said.answers == ({(ONE, 1): Ambiguous("x")} if complete > 3 else {})


@pytest.mark.parametrize(
    "damage",
    ["\n", "\0\0\0\n", "B 0123\n", f"B {TWO.hex} x\n", f"B {ONE.hex[:9]}B {TWO.hex} 1\n", "EB 1 2\n",
     f'A {ONE.hex} 1 ["Gone", {{}}]\n', f'A {ONE.hex} 1 ["Receipt", {{"odd": 1}}]\n', "A 1 2 {\n"],
)  # fmt: skip
def test_a_damaged_line_takes_the_proof_from_the_whole_journal(journal, damage):
    journal.before(ONE, 1)
    assert read([*lines_of(journal), damage, "E\n"]) is None


def test_half_a_line_on_a_full_disk_is_taken_back_and_reported(journal):
    journal.before(ONE, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 5, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            journal.before(TWO, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.before(TWO, 2)
    assert read(lines_of(journal)).committed == {(ONE, 1), (TWO, 2)}


def test_a_journal_begins_empty_though_a_file_of_an_earlier_life_is_there(tmp_path):
    tmp_path.joinpath("worker-1.journal").write_text(f"B {ONE.hex} 1\n")
    journal = Journal(tmp_path / "worker-1.journal")
    assert not lines_of(journal)
    journal.close()


def test_a_path_that_cannot_be_read_is_no_testimony(tmp_path):
    tmp_path.joinpath("file").touch()
    with notebook.testimony(tmp_path / "file" / "worker-1.journal") as said:
        assert said is None


def test_a_living_writers_file_cannot_be_read_and_a_missing_one_is_none(journal, tmp_path):
    with notebook.testimony(journal.path) as said:
        assert said is None
    with notebook.testimony(tmp_path / "gone") as said:
        assert said is None


def test_the_file_is_cut_when_the_last_batch_has_settled_and_not_before(journal):
    async def batches():
        async with journal.batch():
            async with journal.batch():
                journal.before(ONE, 1)
            assert lines_of(journal)
        assert not lines_of(journal)

    asyncio.run(batches())


def test_a_batch_that_did_not_settle_leaves_its_lines(journal):
    async def batch():
        async with journal.batch():
            journal.before(ONE, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(batch())
    assert read(lines_of(journal)).committed == {(ONE, 1)}


def test_a_long_journal_holds_new_batches_back_until_it_is_cut(journal, monkeypatch):
    monkeypatch.setattr("notifier.journal.LONGEST", 10)

    async def batches():
        first = journal.batch()
        await first.__aenter__()
        journal.before(ONE, 1)
        second = asyncio.ensure_future(journal.batch().__aenter__())
        await asyncio.sleep(0)
        assert not second.done()
        await first.__aexit__(None, None, None)
        await second

    asyncio.run(batches())
