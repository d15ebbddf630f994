"""Whom a filter means: SQL and plain Python agree, nothing of a caller becomes SQL, and a walk misses nobody."""

from __future__ import annotations

import asyncio
import itertools
import json
import operator
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
from notifier.domain.who import Given, GivenAddress
from notifier.store import audiences, who
from notifier.store.conditions import condition
from notifier.store.database import Connection, Database, rows
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Channel
from tests.world import World, new_id, small_templates

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
        case "between":
            return compare(found, "at_least", value[0]) and compare(found, "at_most", value[1])
    signs = {"above": operator.gt, "at_least": operator.ge, "below": operator.lt, "at_most": operator.le}
    return kind(found) == kind(value) and signs[test](plain(found), plain(value))


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
subscriptions = st.one_of(
    st.sampled_from(TOPIC_KEYS).map(lambda key: {"subscribed": key}),
    st.sampled_from(TOPIC_KEYS).map(lambda key: {"subscribed": key, "channel": "email"}),
    st.sampled_from(TOPIC_KEYS[1:]).map(lambda key: {"subscribed": key, "channel": "sms"}),
)
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
    subscriptions,
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
        ids = [new_id() for _ in crowd]
        c = self.connection
        async with c.transaction(force_rollback=True):
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


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(subscriptions, st.lists(ledgers(), min_size=10, max_size=20))
def test_subscribed_is_what_the_gate_would_say_of_consent(town: Town, asked, said) -> None:
    crowd = [Person(events=lines) for lines in said]
    expected = {n for n, person in enumerate(crowd) if holds(asked, person)}
    assert town.fitting(audience(asked), crowd) == expected


# One by one -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def world(database: Database, tmp_path) -> World:
    return World(database, tmp_path)


async def mark(world: World, people: list[UUID], attributes: dict[str, Any]) -> None:
    await world.execute("UPDATE recipients SET attributes = %s WHERE id = ANY(%s)", Jsonb(attributes), people)


async def a_list(world: World, people: list[UUID]) -> UUID:
    id_ = new_id()
    await world.execute("INSERT INTO lists (id, name, is_ready) VALUES (%s, 'A list', true)", id_)
    await world.execute("INSERT INTO list_members SELECT %s, unnest(%s::uuid[])", id_, people)
    return id_


async def walked(world: World, asked: Audience, limit: int = 1000, zone: str | None = None) -> list[UUID]:
    """Everybody, batch by batch."""
    found: list[UUID] = []
    async with world.database.connection() as c:
        while batch := await audiences.walk(c, asked, found[-1] if found else None, limit, zone):
            assert len(batch) <= limit
            found += batch
    return found


HOSTILE = [
    "'; DROP TABLE recipients; --",
    "' OR true --",
    "') OR (SELECT true) --",
    "%s",
    "%(after)s",
    "%%",
    "{scope}",
    '"}',
    "\\",
    "$1",
    "a,b}",
]


def harmless(test: str, text: str) -> Any:
    return {"in": [text], "between": [text, text]}.get(test, text)


@pytest.mark.anyio
async def test_hostile_text_is_a_value_and_a_name_and_nothing_else(world: World) -> None:
    mine, other = await world.people(2)
    for text, test in itertools.product(HOSTILE, ["equals", "in", "above", "starts_with", "contains", "between"]):
        await mark(world, [mine], {text: [text] if test == "contains" else text + "!" * (test == "above")})
        asked = {"attribute": [text], test: harmless(test, text)}
        plain_one = {"attribute": ["plan"], test: harmless(test, "pro")}
        assert condition(audience(asked)).sql == condition(audience(plain_one)).sql
        assert await walked(world, audience(asked)) == [mine]
        assert await walked(world, audience({"not": asked})) == [other]


@pytest.mark.anyio
@pytest.mark.parametrize(("limit", "page"), [(1, 1), (2, 5), (3, 4), (7, 30), (100, 15), (100, 1000)])
async def test_a_walk_meets_everybody_once_in_order_however_large_its_steps(
    world: World, monkeypatch, limit: int, page: int
) -> None:
    monkeypatch.setattr(audiences, "PAGE", page)
    people = await world.people(30)
    chosen = [people[n] for n in (3, 4, 11, 29)]
    await mark(world, chosen, {"vip": True})
    assert await walked(world, audience(), limit) == sorted(people)
    assert await walked(world, audience({"attribute": "vip", "equals": True}), limit) == sorted(chosen)


@pytest.mark.anyio
async def test_a_list_is_met_less_those_who_are_on_others(world: World) -> None:
    people = await world.people(12)
    listed, left, also_left = people[2:9], people[:4], people[8:]
    asked = audience(
        list=str(await a_list(world, listed)),
        exclude=[str(await a_list(world, left)), str(await a_list(world, also_left))],
    )
    assert await walked(world, asked, 2) == sorted(people[4:8])
    async with world.database.connection() as c:
        assert await audiences.count(c, asked) == 4
        assert await audiences.zones(c, asked) == {"": 4}
        shown = [row["external_id"] for row in await audiences.sample(c, asked, 3)]
    assert set(shown) < {str(one) for one in people[4:8]}
    assert len(shown) == 3


@pytest.mark.anyio
async def test_a_filter_stands_on_top_of_a_list(world: World) -> None:
    people = await world.people(6)
    await mark(world, people[::2], {"plan": "pro"})
    asked = audience({"attribute": "plan", "equals": "pro"}, list=str(await a_list(world, people[:4])))
    assert await walked(world, asked, 1) == [people[0], people[2]]


@pytest.mark.anyio
async def test_each_time_zone_is_walked_for_itself_and_those_without_one(world: World) -> None:
    people = await world.people(9)
    await world.execute("UPDATE recipients SET timezone = 'Asia/Kolkata' WHERE id = ANY(%s)", people[:4])
    await world.execute("UPDATE recipients SET timezone = 'Europe/Vienna' WHERE id = ANY(%s)", people[4:6])
    async with world.database.connection() as c:
        found = await audiences.zones(c, audience())
    assert found == {"": 3, "Asia/Kolkata": 4, "Europe/Vienna": 2}
    parts = {zone: await walked(world, audience(), 2, zone) for zone in found}
    assert {zone: len(part) for zone, part in parts.items()} == found
    assert sorted(itertools.chain(*parts.values())) == sorted(people)


@pytest.mark.anyio
async def test_who_was_adopted_is_met_as_the_adopter_and_stays_left_out(world: World) -> None:
    nameless, named = await world.people(2)
    await world.execute("UPDATE recipients SET external_id = NULL WHERE id = %s", nameless)
    left_out = await a_list(world, [nameless])
    held = await world.one("SELECT address FROM addresses WHERE recipient_id = %s", nameless)
    address = GivenAddress.of(EmailAddress.restore(str(held)), world.hasher)

    async def adopt(c: Connection) -> None:
        await who.settle(c, [Given(str(named), {Channel.EMAIL: address})], new_id, replace=True)

    await world.database.transact(adopt)
    assert await world.one("SELECT merged_into FROM recipients WHERE id = %s", nameless) == named
    assert await walked(world, audience()) == [named]
    assert await walked(world, audience(list=str(left_out))) == [named]
    assert await walked(world, audience(exclude=[str(left_out)])) == []


@pytest.mark.anyio
async def test_a_walk_goes_along_the_primary_key_whatever_is_asked(world: World, monkeypatch) -> None:
    """So that a million are met in one pass: nothing is sorted, and no table is read from end to end."""
    people = await world.people(3000)
    await world.grant(people[::3], "topic:product-news", "sms")
    hard = {"all": [{"subscribed": "product-news"}] + [{"attribute": "a", "equals": n} for n in range(5)]}
    asked = audience(hard, exclude=[str(await a_list(world, people[:1500]))])
    await world.execute("ANALYZE")
    monkeypatch.setattr(audiences, "PAGE", 2000)
    async with await world.database.connect() as c, c.transaction():  # one that has read nothing before
        assert await audiences.walk(c, asked, people[10], 5000) == []
        read = await rows(c, "SELECT relname, seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables")
    counted = {row["relname"]: (row["seq_tup_read"], row["idx_tup_fetch"]) for row in read}
    assert [counted[name][0] for name in ("recipients", "consents", "list_members")] == [0, 0, 0]
    assert len(people) - 11 <= counted["recipients"][1] <= 2 * len(people)  # and once more to find where a page ends
