"""On what ground a yes stands, and for how long: the law's terms as data, each with its source.

A yes that a person said themselves (`express`) lasts until they take it back. One that the law infers from something
they did ends by itself, however often it is read; and it never overrules a no that they said.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum


class Basis(StrEnum):
    """The ground of a yes: `basis` in its evidence."""

    EXPRESS = "express"  #: they said it
    IMPLIED_PURCHASE = "implied_purchase"  #: they bought something, or made another contract
    IMPLIED_INQUIRY = "implied_inquiry"  #: they asked about something
    SOFT_OPT_IN = "soft_opt_in"  #: they bought something similar and were shown how to refuse


@dataclass(frozen=True, slots=True)
class Terms:
    """What the law says of one basis."""

    months: int | None  #: how long it lasts from what the person did; None: until they say no
    law: str
    source: str
    read_on: date

    def end(self, since: datetime) -> datetime | None:
        """When a yes ends that stands on what a person did at `since`; None: never by itself."""
        return _months_after(since, self.months) if self.months else None


TERMS: Mapping[Basis, Terms] = {
    Basis.EXPRESS: Terms(
        None,
        "GDPR art. 7; ePrivacy directive art. 13(1); CASL s. 10(1)",
        "eur-lex.europa.eu/eli/reg/2016/679/oj",
        date(2026, 11, 25),
    ),
    Basis.IMPLIED_PURCHASE: Terms(
        24,
        "CASL s. 10(9)(a) with s. 10(10)(a), (b) and (d): within two years of a purchase, a barter or a contract's end",
        "laws-lois.justice.gc.ca/eng/acts/E-1.6/",
        date(2026, 11, 25),
    ),
    Basis.IMPLIED_INQUIRY: Terms(
        6,
        "CASL s. 10(9)(a) with s. 10(10)(e): within six months of an inquiry or an application",
        "laws-lois.justice.gc.ca/eng/acts/E-1.6/",
        date(2026, 11, 25),
    ),
    Basis.SOFT_OPT_IN: Terms(
        None,
        "ePrivacy directive art. 13(2); UK PECR reg. 22(3): own similar goods, with a way to refuse at the sale and in "
        "every message",
        "eur-lex.europa.eu/eli/dir/2002/58/oj",
        date(2026, 11, 25),
    ),
}


class Unfounded(Exception):
    """A basis that does not carry this yes: says what is wrong and what to do."""


def read(text: object) -> Basis:
    """The basis that evidence names; evidence that names none is of a yes that the person said.

    Raises:
        Unfounded: there is no such basis.

    """
    if text is None:
        return Basis.EXPRESS
    if text not in list(Basis):
        raise Unfounded(f"is no known basis; there are {', '.join(Basis)}")
    return Basis(str(text))


def end_of(basis: Basis, since: datetime, asked: datetime | None) -> datetime | None:
    """When a yes ends: as its basis says, or before that when `asked`. None: never by itself.

    Raises:
        Unfounded: `asked` is later than the basis lasts.

    """
    end = TERMS[basis].end(since)
    if end is None or asked is None:
        return asked or end
    if asked > end:
        raise Unfounded(f"is later than {basis} lasts, which is {TERMS[basis].months} months; leave it out")
    return asked


def _months_after(moment: datetime, months: int) -> datetime:
    """The same day so many months later, or the last one of a shorter month."""
    years, month = divmod(moment.month - 1 + months, 12)
    year, month = moment.year + years, month + 1
    return moment.replace(year=year, month=month, day=min(moment.day, calendar.monthrange(year, month)[1]))
