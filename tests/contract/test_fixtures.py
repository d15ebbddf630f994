"""The fixtures that other tests stand on."""

import psycopg
import pytest

from notifier.store.database import Database, rows


def test_a_database_is_migrated_and_fresh(database_url):
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)


@pytest.mark.anyio
@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_a_database_of_its_own(database: Database, turn):
    async with database.connection() as connection:
        assert await rows(connection, "SELECT to_regclass('mine') AS mine") == [{"mine": None}]
        await connection.execute("CREATE TABLE mine ()")


def test_valkey_is_clean(redis_url):
    import redis

    client = redis.Redis.from_url(redis_url)
    assert client.dbsize() == 0
    client.close()
