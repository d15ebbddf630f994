"""A yes lasts as long as its basis does, and no request makes it last longer."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.basis import TERMS, Basis, Unfounded, end_of, read

moments = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def test_every_basis_has_its_terms_with_law_source_and_date() -> None:
    assert set(TERMS) == set(Basis)
    assert all(terms.law and terms.source and terms.read_on for terms in TERMS.values())
    assert {basis: terms.months for basis, terms in TERMS.items() if terms.months} == {
        Basis.IMPLIED_PURCHASE: 24,
        Basis.IMPLIED_INQUIRY: 6,
    }


def test_the_page_lists_each_basis_with_its_terms() -> None:
    page = (Path(__file__).parents[2] / "docs/why/consent.md").read_text()
    for basis, terms in TERMS.items():
        lasts = f"{terms.months} months" if terms.months else "until they say no"
        assert f"| `{basis}` | {lasts} | {terms.law} |" in page


@pytest.mark.parametrize(
    ("basis", "since", "end"),
    [
        (Basis.IMPLIED_PURCHASE, datetime(2024, 2, 29, 8, tzinfo=UTC), datetime(2026, 2, 28, 8, tzinfo=UTC)),
        (Basis.IMPLIED_INQUIRY, datetime(2026, 8, 31, tzinfo=UTC), datetime(2027, 2, 28, tzinfo=UTC)),
        (Basis.IMPLIED_INQUIRY, datetime(2026, 6, 30, tzinfo=UTC), datetime(2026, 12, 30, tzinfo=UTC)),
        (Basis.EXPRESS, datetime(2026, 1, 1, tzinfo=UTC), None),
        (Basis.SOFT_OPT_IN, datetime(2026, 1, 1, tzinfo=UTC), None),
    ],
)
def test_the_end_is_the_same_day_so_many_months_later(basis, since, end) -> None:
    assert end_of(basis, since, None) == end


@given(st.sampled_from(Basis), moments, st.none() | st.integers(-2000, 2000))
def test_asking_for_an_end_only_ever_shortens(basis, since, days) -> None:
    asked = None if days is None else since + timedelta(days=days)
    own = TERMS[basis].end(since)
    if own is not None and asked is not None and asked > own:
        with pytest.raises(Unfounded):
            end_of(basis, since, asked)
        return
    end = end_of(basis, since, asked)
    assert end == (asked or own)
    assert own is None or (end is not None and end <= own)


@given(st.sampled_from([basis for basis, terms in TERMS.items() if terms.months]), moments)
def test_a_term_is_never_more_than_its_months(basis, since) -> None:
    end = TERMS[basis].end(since)
    assert end is not None
    assert (end.year - since.year) * 12 + end.month - since.month == TERMS[basis].months
    assert end.day <= since.day


def test_evidence_that_names_no_basis_is_of_an_express_yes() -> None:
    assert read(None) is Basis.EXPRESS
    assert read("soft_opt_in") is Basis.SOFT_OPT_IN
    for nonsense in ("hearsay", "", 7, [], {"a": 1}):
        with pytest.raises(Unfounded, match="implied_purchase"):
            read(nonsense)
