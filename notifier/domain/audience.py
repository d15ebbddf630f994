"""Whom a campaign is for: a filter over everybody, or over those on an uploaded list, less those on others.

A person is in an audience once, whatever they match: it is made of people, not of addresses. Whether each of them may
be written to is decided at the gate, later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from notifier.domain import filters
from notifier.domain.consent import Topic
from notifier.domain.filters import Expression
from notifier.errors import InvalidInput, Problem

EXCLUSIONS = 20  #: lists
FIELDS = ("filter", "list", "exclude")


@dataclass(frozen=True, slots=True)
class Audience:
    """Who is meant, and the document that says so. Without filter and list: everybody."""

    document: Mapping[str, Any]  #: as it is stored; parsed again it is the same audience
    filter: Expression | None = None
    list: UUID | None = None
    exclude: tuple[UUID, ...] = ()

    @classmethod
    def parse(cls, document: object, topics: Mapping[str, Topic], pointer: str = "/audience") -> Audience:
        """Read `{"filter": expression | null, "list": id | null, "exclude": [id, ...]}`; each may be left out.

        Whether the lists are there is not known here: `store.lists.hold` looks.

        Raises:
            InvalidInput: every mistake, each with its place below `pointer` and what to do.

        """
        if not isinstance(document, dict):
            raise InvalidInput([Problem(pointer, f"must be an object with {_KNOWN}; {{}} is everybody")])
        problems = [
            Problem(f"{pointer}/{_escaped(name)}", f"is not a known field; there are {_KNOWN}")
            for name in document
            if name not in FIELDS
        ]
        expression = None
        if document.get("filter") is not None:
            try:
                expression = filters.read(document["filter"], topics, f"{pointer}/filter")
            except InvalidInput as error:
                problems += error.problems
        included = _id(document.get("list"), f"{pointer}/list", problems)
        excluded = _ids(document.get("exclude"), f"{pointer}/exclude", problems)
        if problems:
            raise InvalidInput(problems)
        canonical = {
            "filter": document.get("filter"),
            "list": str(included) if included else None,
            "exclude": [str(one) for one in excluded],
        }
        return cls(canonical, expression, included, excluded)

    @property
    def lists(self) -> Mapping[str, UUID]:
        """The lists that it names, each by its place in the document."""
        places = {f"/exclude/{n}": one for n, one in enumerate(self.exclude)}
        return places | ({"/list": self.list} if self.list else {})


_KNOWN = ", ".join(f"`{name}`" for name in FIELDS)
_NO_ID = "is not the id of a list; `GET /v1/lists` shows all"


def _ids(given: object, pointer: str, problems: list[Problem]) -> tuple[UUID, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > EXCLUSIONS:
        problems.append(Problem(pointer, f"must be a list of at most {EXCLUSIONS} ids of lists"))
        return ()
    read = [_id(one, f"{pointer}/{n}", problems, is_needed=True) for n, one in enumerate(given)]
    return tuple(dict.fromkeys(one for one in read if one is not None))


def _id(given: object, pointer: str, problems: list[Problem], *, is_needed: bool = False) -> UUID | None:
    if given is None and not is_needed:
        return None
    try:
        return UUID(given if isinstance(given, str) else "")
    except ValueError:
        problems.append(Problem(pointer, _NO_ID))
        return None


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
