"""What marketing writes as an audience is read strictly, and each mistake says where it is and what to do."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain import filters
from notifier.domain.audience import EXCLUSIONS, Audience
from notifier.errors import InvalidInput
from notifier.web.guard import MAX_DEPTH
from tests.world import small_templates

TOPICS = small_templates().topics
LIST = "019892f0-1c9a-7c3e-8a7b-3f1f4a0b9c1d"
PLAN = {"attribute": "plan", "equals": "pro"}


def wrong(document: Any) -> dict[str, str]:
    """What is said of each place."""
    with pytest.raises(InvalidInput) as refused:
        Audience.parse(document, TOPICS)
    return {problem.pointer: problem.detail for problem in refused.value.problems}


def wrong_filter(filter_: Any) -> dict[str, str]:
    found = wrong({"filter": filter_})
    return {pointer.removeprefix("/audience/filter"): detail for pointer, detail in found.items()}


def asking(test: str, value: Any) -> dict[str, Any]:
    return {"attribute": "a", test: value}


def nested(depth: int) -> dict[str, Any]:
    return {"not": nested(depth - 1)} if depth > 1 else PLAN


@pytest.mark.parametrize("document", [{}, {"filter": None, "list": None, "exclude": None}, {"exclude": []}])
def test_without_filter_and_list_it_is_everybody(document):
    asked = Audience.parse(document, TOPICS)
    assert (asked.filter, asked.list, asked.exclude) == (None, None, ())
    assert asked.document == {"filter": None, "list": None, "exclude": []}


def test_the_document_says_again_what_was_read():
    document = {"filter": {"all": [PLAN, {"language": "de"}]}, "list": LIST.upper(), "exclude": [LIST, LIST]}
    asked = Audience.parse(document, TOPICS)
    assert asked.document == {"filter": document["filter"], "list": LIST, "exclude": [LIST]}
    assert Audience.parse(asked.document, TOPICS) == asked
    assert asked.lists == {"/list": UUID(LIST), "/exclude/0": UUID(LIST)}


@pytest.mark.parametrize("document", [None, [], "everybody", 7])
def test_what_is_no_object_is_refused(document):
    assert list(wrong(document)) == ["/audience"]


def test_every_mistake_is_told_at_once():
    found = wrong(
        {
            "filters": {},
            "list": "spring",
            "exclude": [LIST, None, 7],
            "filter": {"all": [{"language": "german"}, {"not": {"timezone": ["Europe/Vienna", "Mars"]}}, PLAN, {}]},
        }
    )
    assert list(found) == [
        "/audience/filters",
        "/audience/filter/all/0/language",
        "/audience/filter/all/1/not/timezone/1",
        "/audience/filter/all/3",
        "/audience/list",
        "/audience/exclude/1",
        "/audience/exclude/2",
    ]


def test_lists_to_leave_out_are_bounded():
    assert list(wrong({"exclude": [LIST] * (EXCLUSIONS + 1)})) == ["/audience/exclude"]


@pytest.mark.parametrize(
    ("filter_", "place", "said"),
    [
        ("plan = 'pro'", "", "exactly one of"),
        ([], "", "exactly one of"),
        ({"plan": "pro"}, "", "exactly one of"),
        ({"all": [PLAN], "any": [PLAN]}, "", "join several with `all`"),
        ({"all": []}, "/all", "at least one"),
        ({"any": PLAN}, "/any", "must be a list"),
        ({"not": None}, "/not", "exactly one of"),
        ({"attribute": "a"}, "", "by exactly one of"),
        ({"attribute": "a", "equals": 1, "above": 0}, "", "by exactly one of"),
        ({"attribute": "a", "equal": 1}, "/equal", "mend its spelling"),
        ({"attribute": "a", "equals": 1, "x/y~z": 1}, "/x~1y~0z", "remove it"),
        ({"attribute": "", "exists": True}, "/attribute", "must be a name"),
        ({"attribute": "a..b", "exists": True}, "/attribute", "must be a name"),
        ({"attribute": [], "exists": True}, "/attribute", "1 to 8"),
        ({"attribute": ["a"] * 9, "exists": True}, "/attribute", "1 to 8"),
        ({"attribute": ["a", 1], "exists": True}, "/attribute", "must be a name"),
        ({"attribute": "a\0", "exists": True}, "/attribute", "cannot be stored"),
        (asking("exists", 1), "/exists", "true or false"),
        (asking("equals", None), "/equals", "ask with `exists`"),
        (asking("equals", [1]), "/equals", "text, a number, true or false"),
        (asking("equals", "\ud800"), "/equals", "cannot be stored"),
        (asking("equals", "x" * 201), "/equals", "at most 200"),
        (asking("equals", float("nan")), "/equals", "too large"),
        (asking("equals", 10**400), "/equals", "too large"),
        (asking("in", []), "/in", "at least one"),
        (asking("in", "pro"), "/in", "must be a list"),
        (asking("in", ["pro", {}]), "/in/1", "text, a number, true or false"),
        (asking("above", True), "/above", "no order"),
        (asking("between", [1]), "/between", "two numbers or two texts"),
        (asking("between", [1, "2"]), "/between", "two numbers or two texts"),
        (asking("between", [2, 1]), "/between", "swap them"),
        (asking("starts_with", 1), "/starts_with", "must be text"),
        ({"language": "de-AT"}, "/language", "use `locale`"),
        ({"language": []}, "/language", "at least one"),
        ({"locale": "de_AT"}, "/locale", "BCP 47"),
        ({"locale": 1}, "/locale", "BCP 47"),
        ({"timezone": "CEST"}, "/timezone", "Europe/Vienna"),
        ({"timezone": "../../etc/passwd"}, "/timezone", "Europe/Vienna"),
        ({"timezone": "Europe/Vienna", "channel": "sms"}, "/channel", "not known beside `timezone`"),
        ({"subscribed": "lottery"}, "/subscribed", "no such topic"),
        ({"subscribed": ["newsletter"]}, "/subscribed", "no such topic"),
        ({"subscribed": "security"}, "/subscribed", "everybody gets it"),
        ({"subscribed": "newsletter", "channel": "sms"}, "/channel", "it has `email`"),
        ({"subscribed": "newsletter", "channel": ["email"]}, "/channel", "it has `email`"),
    ],
)
def test_a_mistake_says_where_it_is_and_what_to_do(filter_, place, said):
    found = wrong_filter(filter_)
    assert list(found) == [place]
    assert said in found[place]


def test_depth_nodes_and_values_are_bounded():
    Audience.parse({"filter": nested(filters.DEPTH)}, TOPICS)
    assert "flatten it" in wrong_filter(nested(filters.DEPTH + 1))["/not" * filters.DEPTH]
    Audience.parse({"filter": {"any": [PLAN] * (filters.NODES - 1)}}, TOPICS)
    assert list(wrong_filter({"any": [PLAN] * 5000})) == [f"/any/{filters.NODES - 1}"]
    Audience.parse({"filter": asking("in", ["x"] * filters.VALUES)}, TOPICS)
    two = {"any": [asking("in", ["x"] * filters.VALUES), asking("in", ["y"] * 9)]}
    assert list(wrong_filter(two)) == ["/any/1/in/0"]


def test_the_deepest_filter_passes_the_door_of_the_api():
    """With the body and the audience around it, and a list of values at its bottom."""
    assert filters.DEPTH * 2 + 3 <= MAX_DEPTH


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["all", "any", "not", "attribute", "subscribed", "channel", *filters.Field, *filters.Test, "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(json)
def test_whatever_comes_is_read_or_refused_by_place(document):
    problems = []
    try:
        assert Audience.parse({"filter": document}, TOPICS).document["filter"] == document
    except InvalidInput as error:
        problems = [problem.pointer for problem in error.problems] or ["refused without a reason"]
    assert [pointer for pointer in problems if not pointer.startswith("/audience/filter")] == []
