"""What is wrong with a caller's data is said by place and remedy, and never by value."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.errors import TemplateError
from notifier.rendering.schema import MAX_PROBLEMS, Schema

DOCUMENT: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 9, "pattern": "^[A-Z]"},
        "count": {"type": ["integer", "null"], "minimum": 1, "maximum": 5},
        "kind": {"enum": ["a", "b"]},
        "fixed": {"const": 7},
        "link": {"type": "string", "format": "uri"},
        "items": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"$ref": "#/$defs/item"}},
        "even": {"multipleOf": 2},
    },
    "$defs": {
        "item": {
            "type": "object",
            "additionalProperties": False,
            "required": ["a/b"],
            "properties": {"a/b": {}, "c~d": {"type": "string"}},
        }
    },
}
TOO_DEEP = "is nested too deeply; flatten it"
SCHEMA = Schema(json.dumps(DOCUMENT), "letter/schema.json")


@pytest.mark.parametrize(
    ("data", "pointer", "detail"),
    [
        ({}, "/data/name", "is missing; this template needs it"),
        ({"name": "Ann", "nmae": 1}, "/data/nmae", "is not known to this template; remove it or correct its name"),
        ({"name": "A"}, "/data/name", "must have at least 2 characters"),
        ({"name": "A" * 10}, "/data/name", "must have at most 9 characters"),
        ({"name": "ann"}, "/data/name", "must match the pattern ^[A-Z]"),
        ({"name": 1}, "/data/name", "must be of type string"),
        ({"name": "Ann", "count": "1"}, "/data/count", "must be of type integer or null"),
        ({"name": "Ann", "count": 0}, "/data/count", "must be 1 or more"),
        ({"name": "Ann", "count": 6}, "/data/count", "must be 5 or less"),
        ({"name": "Ann", "kind": "c"}, "/data/kind", 'must be one of ["a", "b"]'),
        ({"name": "Ann", "fixed": 8}, "/data/fixed", "must be 7"),
        ({"name": "Ann", "link": "no link"}, "/data/link", "must be a valid uri"),
        ({"name": "Ann", "even": 3}, "/data/even", "does not keep the schema's rule `multipleOf`"),
        ({"name": "Ann", "items": []}, "/data/items", "must have at least 1 items"),
        ({"name": "Ann", "items": [{}]}, "/data/items/0/a~1b", "is missing; this template needs it"),
        ({"name": "Ann", "items": [{"a/b": 1, "c~d": 1}]}, "/data/items/0/c~0d", "must be of type string"),
        ({"name": "\ud800"}, "/data", "holds half of a surrogate pair; send well-formed Unicode"),
        ({"name": "A\0"}, "/data", "holds a NUL character; remove it"),
        ({"name": "Ann", "items": [{"\0": 1}]}, "/data", "holds a NUL character; remove it"),
        (
            {"name": float("nan")},
            "/data",
            "must be plain JSON: objects, lists, text, finite numbers, true, false and null",
        ),
        ({"name": b"bytes"}, "/data", "must be plain JSON: objects, lists, text, finite numbers, true, false and null"),
    ],
    ids=str,
)
def test_each_mistake_has_its_place_and_a_remedy(data: dict[str, Any], pointer: str, detail: str) -> None:
    problems = SCHEMA.problems(data, "/data")
    assert (pointer, detail) in [(problem.pointer, problem.detail) for problem in problems]


def test_sound_data_has_no_problems() -> None:
    data = {
        "name": "Ann",
        "count": None,
        "kind": "a",
        "fixed": 7,
        "link": "https://x.test/",
        "items": [{"a/b": 1}],
        "even": 4,
    }
    assert SCHEMA.problems(data, "") == []
    assert SCHEMA.problems({"name": "A\\u0000"}, "") == []  # six characters that only look like NUL


def test_of_data_that_is_only_a_part_what_is_missing_at_the_top_is_no_mistake() -> None:
    assert SCHEMA.problems({"count": 1}, "", partly=True) == []
    found = SCHEMA.problems({"items": [{}], "unknown": 1, "count": 9}, "/data", partly=True)
    assert {problem.pointer for problem in found} == {"/data/items/0/a~1b", "/data/unknown", "/data/count"}


def test_nesting_that_would_exhaust_the_stack_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(50_000):
        deep = {"a": deep}
    assert [problem.detail for problem in SCHEMA.problems({"name": deep}, "")] == [TOO_DEEP]
    shallow: dict[str, Any] = {}
    for _ in range(400):
        shallow = {"a": shallow}
    assert [problem.detail for problem in SCHEMA.problems({"name": shallow}, "")] == [TOO_DEEP]


def test_a_flood_of_mistakes_is_cut() -> None:
    assert len(SCHEMA.problems({f"unknown{number}": 1 for number in range(1000)}, "")) == MAX_PROBLEMS


@given(st.text(min_size=6).filter(lambda text: text not in str(DOCUMENT)))
def test_a_value_is_never_repeated(value: str) -> None:
    values = dict.fromkeys(("count", "kind", "fixed", "link", "items", "even"), value)
    for problem in SCHEMA.problems(values | {"name": value * 10}, "/data"):
        assert value not in problem.pointer + problem.detail


@pytest.mark.parametrize(
    "changes",
    [
        {"properties": {"a": {"type": "strong"}}},
        {"properties": {"a": {"$ref": "https://schemas.test/a.json"}}},
        {"properties": {"a": {"$ref": "file:///etc/hostname"}}},
        {"properties": {"a": {"pattern": "("}}},
        {"properties": {"a": {"pattern": "^(a+)\\1$"}}},  # would need a matcher that backtracks
        {"properties": {"Name": {}}},
        {"properties": {"a-b": {}}},
        {"properties": {"__class__": {}}},
    ],
    ids=str,
)
def test_a_schema_that_cannot_be_kept_is_named_at_load_and_nothing_is_fetched(changes: dict[str, Any]) -> None:
    with pytest.raises(TemplateError, match=r"^letter/schema\.json: "):
        Schema(json.dumps(DOCUMENT | changes), "letter/schema.json")


def test_a_schema_stands_alone_even_where_the_other_one_is_there(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    reference = {"properties": {"a": {"$ref": (tmp_path / "other.json").as_uri()}}}
    with pytest.raises(TemplateError, match="may not refer to other documents"):
        Schema(json.dumps(DOCUMENT | reference), "letter/schema.json")


def test_a_pattern_takes_linear_time() -> None:
    schema = Schema(json.dumps(DOCUMENT | {"properties": {"name": {"pattern": "^(a+)+$"}}}), "x")
    assert schema.problems({"name": "a" * 50_000 + "!"}, "") != []
