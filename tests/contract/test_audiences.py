"""Whom a filter means: SQL and plain Python agree on everybody, nothing of a caller becomes SQL, and a walk misses nobody."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from notifier.domain.audience import Audience
from notifier.domain.consent import ConsentEvent, fold, judge
from notifier.store import audiences
from notifier.store.database import Connection, Database
from tests.world import new_id, small_templates

TOPICS = small_templates().topics
NOW = datetime.now(UTC)
ZONES = ["Europe/Vienna", "Asia/Kolkata"]
LOCALES = ["de", "de-AT", "DE-ch", "en", "den"]


def audience(filter_: Any = None, **more: Any) -> Audience:
    return Audience.parse({"filter": filter_} | more, TOPICS)


# What a filter means, said once more ----------------------------------------------------------------------------------


@dataclass
class Person:
    attributes: dict[str, Any] = field(default_factory=dict)
    locale: str | None = None
    timezone: str | None = None
    events: list[ConsentEvent] = field(default_factory=list)


NOTHING = object()


def holds(asked: dict[str, Any], person: Person) -> bool:
    match asked:
        case {"all": parts}:
            return all(holds(part, person) for part in parts)
        case {"any": parts}:
            return any(holds(part, person) for part in parts)
        case {"not": part}:
            return not holds(part, person)
        case {"language": values}:
            return (person.locale and person.locale.split("-")[0].lower()) in small(values)
        case {"locale": values}:
            return (person.locale and person.locale.lower()) in small(values)
        case {"timezone": values}:
            return person.timezone in (values if isinstance(values, list) else [values])
        case {"subscribed": key}:
            topic = TOPICS[key]
            channels = [asked["channel"]] if "channel" in asked else topic.defaults
            return any(judge(topic, channel, person.events, NOW)[0] for channel in channels)
    [(test, value)] = [(name, value) for name, value in asked.items() if name != "attribute"]
    return compare(at(person.attributes, asked["attribute"]), test, value)


def small(values: Any) -> list[str | None]:
    return [value and value.lower() for value in (values if isinstance(values, list) else [values])]


def at(attributes: Any, path: str | list[str]) -> Any:
    found = attributes
    for step in path.split(".") if isinstance(path, str) else path:
        if isinstance(found, dict) and step in found:
            found = found[step]
        elif isinstance(found, list) and re.fullmatch(r"-?\d+", step) and -len(found) <= int(step) < len(found):
            found = found[int(step)]
        else:
            return NOTHING
    return found


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, int | float) else type(value).__name__


def same(one: Any, other: Any) -> bool:
    return kind(one) == kind(other) and plain(one) == plain(other)


def plain(value: Any) -> Any:
    """A number as it is written: that is how the database keeps it."""
    return Decimal(json.dumps(value)) if kind(value) == "number" else value


def compare(found: Any, test: str, value: Any) -> bool:
    ordered = kind(found) == kind(value[0] if test == "between" else value)
    match test:
        case "exists":
            return (found is not NOTHING and found is not None) is value
        case "equals":
            return same(found, value)
        case "in":
            return any(same(found, one) for one in value)
        case "contains":
            return isinstance(found, list) and any(same(one, value) for one in found)
        case "starts_with":
            return isinstance(found, str) and found.startswith(value)
        case "above":
            return ordered and plain(found) > plain(value)
        case "at_least":
            return ordered and plain(found) >= plain(value)
        case "below":
            return ordered and plain(found) < plain(value)
        case "at_most":
            return ordered and plain(found) <= plain(value)
        case "between":
            return ordered and plain(value[0]) <= plain(found) <= plain(value[1])
    raise AssertionError(test)


# Anything that can be asked, of anybody -------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "x.y", "ä", "0", "' OR true --"])
numbers = st.sampled_from([0, 1, 1.0, 2, -3.5, 1e22, 10**22, 0.1, 2**53 + 1]) | st.floats(-9, 9).map(lambda n: n + 0.0)
texts = st.sampled_from(["", "a", "A", "ab", "ä", "1", "true", "2026-01-01", "😀", "￿", "' OR '1'='1", "%s", "%(f0)s"])
scalars = numbers | texts | st.booleans()
ordered = st.tuples(numbers, numbers) | st.tuples(texts, texts)
stored = st.recursive(
    scalars | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
paths = st.sampled_from(["a", "b", "a.b", "a.0", "b.-1", "b.a.0", "a.0.a"]) | st.lists(names, min_size=1, max_size=3)


def one_test(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(paths, values).map(lambda drawn: {"attribute": drawn[0], name: drawn[1]})


def one_or_several(values: list[str]) -> st.SearchStrategy[Any]:
    one = st.none() | st.sampled_from(values)
    return one | st.lists(one, min_size=1, max_size=3)


TOPIC_KEYS = ["newsletter", "product-news", "orders"]
questions = st.one_of(
    one_test("equals", scalars),
    one_test("in", st.lists(scalars, min_size=1, max_size=3)),
    one_test("exists", st.booleans()),
    one_test("contains", scalars),
    one_test("starts_with", texts),
    *(one_test(name, numbers | texts) for name in ("above", "at_least", "below", "at_most")),
    one_test("between", ordered.map(sorted)),
    st.builds(lambda v: {"language": v}, one_or_several(["de", "EN"])),
    st.builds(lambda v: {"locale": v}, one_or_several(["de", "de-at", "de-CH"])),
    st.builds(lambda v: {"timezone": v}, one_or_several(ZONES)),
    st.sampled_from(TOPIC_KEYS).map(lambda key: {"subscribed": key}),
    st.sampled_from(TOPIC_KEYS).map(lambda key: {"subscribed": key, "channel": "email"}),
    st.sampled_from(TOPIC_KEYS[1:]).map(lambda key: {"subscribed": key, "channel": "sms"}),
)
filters = st.recursive(
    questions,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=6,
)


@st.composite
def ledgers(draw: st.DrawFn) -> list[ConsentEvent]:
    said = st.tuples(
        st.sampled_from(["all", "marketing", *(f"topic:{key}" for key in TOPIC_KEYS)]),
        st.sampled_from(["any", "email", "sms"]),
        st.booleans(),
        st.integers(-4, -1).map(lambda days: NOW + timedelta(days=days)),
        st.sampled_from([None, None, NOW - timedelta(hours=12), NOW + timedelta(days=9)]),
    )
    lines = draw(st.lists(said, max_size=5))
    return [
        ConsentEvent(n, scope, channel, yes, when, ends if yes else None)
        for n, (scope, channel, yes, when, ends) in enumerate(lines, 1)
    ]


people = st.builds(
    Person,
    st.dictionaries(st.sampled_from(["a", "b", "x.y"]), stored, max_size=3),
    st.none() | st.sampled_from(LOCALES),
    st.none() | st.sampled_from(ZONES),
    ledgers(),
)


@dataclass
class Town:
    """One connection for all examples of a property."""

    runner: asyncio.Runner
    connection: Connection

    def fitting(self, asked: Audience, crowd: list[Person]) -> set[int]:
        """Which of these people the database finds, each way in which it can be asked."""
        return self.runner.run(self._fitting(asked, crowd))

    async def _fitting(self, asked: Audience, crowd: list[Person]) -> set[int]:
        c = self.connection
        ids = [new_id() for _ in crowd]
        await c.execute("DELETE FROM consents")
        await c.execute("DELETE FROM recipients")
        await settle(c, dict(zip(ids, crowd, strict=True)))
        walked = await audiences.walk(c, asked, None, 100)
        assert await audiences.count(c, asked) == len(walked) == len(await audiences.sample(c, asked, 100))
        assert sum((await audiences.zones(c, asked)).values()) == len(walked)
        return {ids.index(one) for one in walked}


async def settle(c: Connection, crowd: dict[UUID, Person]) -> None:
    async with c.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO recipients (id, attributes, locale, timezone) VALUES (%s, %s, %s, %s)",
            [(id_, Jsonb(one.attributes), one.locale, one.timezone) for id_, one in crowd.items()],
        )
        await cursor.executemany(
            "INSERT INTO consents VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                (id_, e.number, e.scope, e.channel, e.granted, e.occurred_at, e.expires_at)
                for id_, one in crowd.items()
                for e in fold(one.events)
            ],
        )


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    with asyncio.Runner() as runner:
        connection = runner.run(Database(database_url).connect())
        yield Town(runner, connection)
        runner.run(connection.close())


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(filters, st.lists(people, min_size=1, max_size=5))
def test_the_database_finds_exactly_those_for_whom_the_filter_holds(town: Town, asked, crowd) -> None:
    expected = {n for n, person in enumerate(crowd) if holds(asked, person)}
    assert town.fitting(audience(asked), crowd) == expected
