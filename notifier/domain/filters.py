"""Whom a campaign is for, in marketing's words: a small JSON expression over what is known of a person, read strictly.

    {"all": [{"attribute": "plan", "in": ["pro", "team"]}, {"language": "de"}, {"subscribed": "newsletter"}]}

A question about what is not known of a person, or is of another kind than the question, is answered with no.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from re import fullmatch
from typing import Any, NoReturn, TypeAlias, TypeVar

from notifier.domain.consent import Topic
from notifier.errors import InvalidInput, Problem
from notifier_channels.contract import Channel

DEPTH = 8  #: levels of `all`, `any` and `not`, with the question at the bottom
NODES = 100  #: of all kinds
VALUES = 1000  #: that all questions together compare with; for more there are lists
TEXT = 200  #: characters of a value
STEPS = 8  #: of a path
LARGEST = 1e30  #: a number that is compared with lies below

T = TypeVar("T")
Scalar: TypeAlias = str | int | float | bool


class Test(StrEnum):
    """How an attribute is compared. Numbers compare as numbers, text by its code points, as dates in ISO 8601 need."""

    EQUALS = "equals"
    IN = "in"
    EXISTS = "exists"  #: it is there, and not null
    ABOVE = "above"
    AT_LEAST = "at_least"
    BELOW = "below"
    AT_MOST = "at_most"
    BETWEEN = "between"  #: both ends belong to it
    CONTAINS = "contains"  #: of an attribute that is a list
    STARTS_WITH = "starts_with"


class Field(StrEnum):
    """What is known of a person besides their attributes."""

    LANGUAGE = "language"  #: `de` is de, de-AT and de-CH
    LOCALE = "locale"  #: `de` is de alone
    TIMEZONE = "timezone"


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One part at least holds."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold, be it only because nothing is known."""

    part: Expression


@dataclass(frozen=True, slots=True)
class Attribute:
    """A comparison of one attribute, at the end of a path of names (and, into a list, numbers)."""

    path: tuple[str, ...]
    test: Test
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """One of these values, in small letters where case means nothing; None: it is not known."""

    field: Field
    values: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Consent as `domain.consent.judge` has it now, on one of these channels at least."""

    topic: Topic
    channels: tuple[Channel, ...]


Expression: TypeAlias = All | AnyOf | Not | Attribute | Profile | Subscribed


def read(document: object, topics: Mapping[str, Topic], pointer: str) -> Expression:
    """Read a filter.

    Raises:
        InvalidInput: what is wrong in each of its parts, with its place below `pointer` and what to do.

    """
    return _Reader(topics).expression(document, pointer, 1)


_JOINTS = ("all", "any", "not")
_QUESTIONS = ("attribute", "subscribed", *Field)
_BESIDE: Mapping[str, Sequence[str]] = {"attribute": tuple(Test), "subscribed": ("channel",)}


class _TooMuch(InvalidInput):
    """Beyond a limit: what comes after it is not looked at."""


@dataclass(slots=True)
class _Reader:
    topics: Mapping[str, Topic]
    nodes: int = 0
    values: int = 0

    def expression(self, given: object, pointer: str, depth: int) -> Expression:
        self._bound(pointer, depth)
        kinds = [kind for kind in (*_JOINTS, *_QUESTIONS) if kind in given] if isinstance(given, dict) else []
        if not isinstance(given, dict) or len(kinds) != 1:
            known = ", ".join(f"`{kind}`" for kind in (*_JOINTS, *_QUESTIONS))
            _wrong(pointer, f"must be an object with exactly one of {known}; join several with `all`")
        kind = kinds[0]
        _only(given, pointer, (kind, *_BESIDE.get(kind, ())))
        match kind:
            case "all":
                return All(self._parts(given[kind], f"{pointer}/{kind}", depth))
            case "any":
                return AnyOf(self._parts(given[kind], f"{pointer}/{kind}", depth))
            case "not":
                return Not(self.expression(given[kind], f"{pointer}/{kind}", depth + 1))
            case "attribute":
                return self._attribute(given, pointer)
            case "subscribed":
                return self._subscribed(given, pointer)
            case _:
                return self._profile(Field(kind), given[kind], f"{pointer}/{kind}")

    def _parts(self, given: object, pointer: str, depth: int) -> tuple[Expression, ...]:
        return _each(given, pointer, lambda one, place: self.expression(one, place, depth + 1))

    # Attributes -------------------------------------------------------------------------------------------------------

    def _attribute(self, given: Mapping[str, Any], pointer: str) -> Attribute:
        path = _path(given["attribute"], f"{pointer}/attribute")
        tests = [test for test in Test if test in given]
        if len(tests) != 1:
            known = ", ".join(f"`{test}`" for test in Test)
            _wrong(pointer, f"must compare the attribute by exactly one of {known}")
        return Attribute(path, tests[0], self._value(tests[0], given[tests[0]], f"{pointer}/{tests[0]}"))

    def _value(self, test: Test, given: object, pointer: str) -> Scalar | tuple[Scalar, ...]:
        match test:
            case Test.EXISTS:
                return given if isinstance(given, bool) else _wrong(pointer, "must be true or false")
            case Test.IN:
                return _each(given, pointer, self._scalar)
            case Test.BETWEEN:
                return self._ends(given, pointer)
            case Test.STARTS_WITH:
                return self._scalar(given, pointer) if isinstance(given, str) else _wrong(pointer, "must be text")
            case Test.EQUALS | Test.CONTAINS:
                return self._scalar(given, pointer)
            case Test.ABOVE | Test.AT_LEAST | Test.BELOW | Test.AT_MOST:
                return self._ordered(given, pointer)

    def _ends(self, given: object, pointer: str) -> tuple[Scalar, ...]:
        ends = _each(given, pointer, self._ordered)
        if len(ends) != 2 or isinstance(ends[0], str) is not isinstance(ends[1], str):
            _wrong(pointer, "must be a list of two numbers or two texts: the least and the greatest")
        if ends[0] > ends[1]:  # type: ignore[operator]  # both are of one kind
            _wrong(pointer, "is empty: its first end lies above its second; swap them")
        return ends

    def _ordered(self, given: object, pointer: str) -> Scalar:
        if isinstance(given, bool):
            _wrong(pointer, "must be a number or text: true and false have no order; use `equals`")
        return self._scalar(given, pointer)

    def _scalar(self, given: object, pointer: str) -> Scalar:
        self.values += 1
        if self.values > VALUES:
            detail = f"is one value too many: a filter may have {VALUES}; upload a list instead"
            raise _TooMuch([Problem(pointer, detail)])
        if isinstance(given, str):
            return _text(given, pointer)
        if given is None:
            _wrong(pointer, "cannot be null; ask with `exists`")
        if not isinstance(given, bool | int | float):
            _wrong(pointer, "must be text, a number, true or false")
        return given if abs(given) < LARGEST else _wrong(pointer, "is too large a number")

    # The rest of a person ---------------------------------------------------------------------------------------------

    def _profile(self, asked: Field, given: object, pointer: str) -> Profile:
        if isinstance(given, list):
            return Profile(asked, _each(given, pointer, lambda one, place: self._named(asked, one, place)))
        return Profile(asked, (self._named(asked, given, pointer),))

    def _named(self, asked: Field, given: object, pointer: str) -> str | None:
        if given is None:
            return None
        text = str(self._scalar(given, pointer))
        if not (text in _zones() if asked is Field.TIMEZONE else fullmatch(_FORMS[asked], text)):
            _wrong(pointer, _WANTED[asked])
        return text if asked is Field.TIMEZONE else text.lower()

    def _subscribed(self, given: Mapping[str, Any], pointer: str) -> Subscribed:
        key, channel = given["subscribed"], given.get("channel")
        topic = self.topics.get(key) if isinstance(key, str) else None
        if topic is None:
            _wrong(f"{pointer}/subscribed", "no such topic; see topics.toml for all")
        if topic.mandatory:
            _wrong(f"{pointer}/subscribed", "is mandatory, so everybody gets it; leave the question out")
        if channel is None:
            return Subscribed(topic, tuple(topic.defaults))
        if channel not in tuple(topic.defaults):
            known = ", ".join(f"`{one}`" for one in topic.defaults)
            _wrong(f"{pointer}/channel", f"is no channel of this topic; it has {known}")
        return Subscribed(topic, (Channel(channel),))

    def _bound(self, pointer: str, depth: int) -> None:
        self.nodes += 1
        if depth > DEPTH:
            raise _TooMuch([Problem(pointer, f"is nested deeper than {DEPTH} levels; flatten it")])
        if self.nodes > NODES:
            detail = f"is one expression too many: a filter may have {NODES}; use `in`, or upload a list"
            raise _TooMuch([Problem(pointer, detail)])


def _each(given: object, pointer: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
    """Every item of a list, with the mistakes of all of them together."""
    if not isinstance(given, list) or not given:
        _wrong(pointer, "must be a list of at least one")
    found: list[T] = []
    problems: list[Problem] = []
    for n, one in enumerate(given):
        try:
            found.append(read(one, f"{pointer}/{n}"))
        except _TooMuch:
            raise
        except InvalidInput as error:
            problems += error.problems
    if problems:
        raise InvalidInput(problems)
    return tuple(found)


def _path(given: object, pointer: str) -> tuple[str, ...]:
    steps = given.split(".") if isinstance(given, str) else given
    if not isinstance(steps, list) or not all(isinstance(step, str) and step for step in steps):
        _wrong(pointer, "must be a name such as `plan`, a path such as `order.total`, or a list of names")
    if not 1 <= len(steps) <= STEPS:
        _wrong(pointer, f"must have 1 to {STEPS} names")
    return tuple(_text(step, pointer) for step in steps)


def _text(given: str, pointer: str) -> str:
    if len(given) > TEXT:
        _wrong(pointer, f"must have at most {TEXT} characters")
    if "\0" in given or any("\ud800" <= character <= "\udfff" for character in given):
        _wrong(pointer, "holds a character that cannot be stored; remove it")
    return given


def _only(given: Iterable[str], pointer: str, known: Sequence[str]) -> None:
    unknown = [name.replace("~", "~0").replace("/", "~1") for name in given if name not in known]
    if unknown:
        detail = f"is not known beside `{known[0]}`; remove it or mend its spelling"
        raise InvalidInput([Problem(f"{pointer}/{name}", detail) for name in unknown])


def _wrong(pointer: str, detail: str) -> NoReturn:
    raise InvalidInput([Problem(pointer, detail)])


_FORMS = {Field.LANGUAGE: r"[A-Za-z]{2,3}", Field.LOCALE: r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,4}"}
_WANTED = {
    Field.LANGUAGE: "is not a language such as `de`; for one region of it use `locale`",
    Field.LOCALE: "is not a language tag; write it like `de` or `de-AT` (BCP 47)",
    Field.TIMEZONE: "is not an IANA time zone; write it like `Europe/Vienna`",
}


@cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())
