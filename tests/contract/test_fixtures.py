"""The fixtures that other tests stand on."""

import psycopg
import pytest
from alembic import command

from notifier.store import database as database_module
from notifier.store.database import Database, migrate, rows


def test_a_database_is_migrated_and_fresh(database_url):
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)


@pytest.mark.anyio
@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_a_database_of_its_own(database: Database, turn):
    async with database.connection() as connection:
        assert await rows(connection, "SELECT to_regclass('mine') AS mine") == [{"mine": None}]
        await connection.execute("CREATE TABLE mine ()")


def test_a_migration_that_finds_a_table_held_changes_nothing_and_says_so(postgres, monkeypatch):
    url, upgrade = postgres.url.replace("/postgres?", "/held?"), command.upgrade
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute("CREATE DATABASE held")
        with monkeypatch.context() as older:
            older.setattr(command, "upgrade", lambda config, _: upgrade(config, "0007"))
            migrate(url)
        monkeypatch.setattr(database_module, "MIGRATION_WAITS", "100ms")
        with psycopg.connect(url) as reader:
            reader.execute("SELECT 1 FROM messages")
            with pytest.raises(ConnectionError, match="held for more than 100ms"):
                migrate(url)
            assert reader.execute("SELECT to_regclass('campaigns')").fetchone() == (None,)
        migrate(url)
        with psycopg.connect(url) as reader:
            assert reader.execute("SELECT count(*) FROM campaigns").fetchone() == (0,)
        server.execute("DROP DATABASE held WITH (FORCE)")


@pytest.mark.parametrize(
    ("statement", "user", "said"),
    [
        ("SELECT", "somebody", "may not change the schema"),
        ("ALTER DATABASE other SET default_transaction_read_only = on", "notifier", "takes no writes"),
        (
            "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('9999')",
            "notifier",
            "of a newer version",
        ),
    ],
)
def test_a_database_that_cannot_be_migrated_is_explained(postgres, statement, user, said):
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute("CREATE DATABASE other")
        server.execute("CREATE ROLE somebody LOGIN")
        try:
            with psycopg.connect(postgres.url.replace("/postgres?", "/other?"), autocommit=True) as other:
                other.execute(statement)
            with pytest.raises(ConnectionError, match=said):
                migrate(f"host={postgres.sockets} dbname=other user={user}")
        finally:
            server.execute("DROP DATABASE other WITH (FORCE)")
            server.execute("DROP ROLE somebody")


def test_valkey_is_clean(redis_url):
    import redis

    client = redis.Redis.from_url(redis_url)
    assert client.dbsize() == 0
    client.close()
