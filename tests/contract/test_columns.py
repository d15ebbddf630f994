"""What travels in bulk between the service and PostgreSQL arrives as it was: columns of ids and texts, and JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from notifier.store.database import Connection, Database, tuples

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


class Line:
    """A connection as the service's, for tests that are not asynchronous themselves."""

    def __init__(self, runner: asyncio.Runner, connection: Connection) -> None:
        self._runner, self._connection = runner, connection

    def back(self, expression: str, sent: Any) -> Any:
        """What comes back of what was sent."""
        [(found,)] = self._runner.run(tuples(self._connection, f"SELECT {expression}", (sent,)))
        return found


@pytest.fixture
def line(database_url) -> Iterator[Line]:
    with asyncio.Runner() as runner:
        connection = runner.run(Database(database_url).connect())
        yield Line(runner, connection)
        runner.run(connection.close())


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(texts | st.none(), max_size=6))
def test_a_column_of_texts_arrives_as_it_was(line, column):
    assert line.back("%s::text[]", column) == column


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.uuids() | st.none(), max_size=6))
def test_a_column_of_ids_arrives_as_it_was(line, column):
    assert line.back("%s::uuid[]", column) == column


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values)
def test_json_arrives_as_it_was(line, value):
    assert line.back("%s::jsonb", Jsonb(value)) == value
