"""What every test may ask for: real PostgreSQL and Valkey, started once per test process, clean for each test."""

import itertools
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from notifier import embedded
from notifier.store.database import Database, migrate

TEMPLATE = "template_migrated"
numbers = itertools.count(1)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def state_directory() -> Iterator[Path]:
    """A short path that the servers' account may enter; pytest's own directories are closed to it."""
    with tempfile.TemporaryDirectory(prefix="nt-", dir="/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="session")
def postgres(state_directory: Path) -> Iterator[embedded.Postgres]:
    """One server, with a migrated database to copy."""
    with embedded.Postgres(state_directory, durable=False) as server:
        _administer(server, f"CREATE DATABASE {TEMPLATE}")
        migrate(url_of(server, TEMPLATE))
        yield server


@pytest.fixture
def database_url(postgres: embedded.Postgres) -> Iterator[str]:
    """A fresh migrated database of the test's own."""
    name = f"test_{next(numbers)}"
    _administer(postgres, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield url_of(postgres, name)
    _administer(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(anyio_backend: str, database_url: str) -> AsyncIterator[Database]:
    """An open pool on a fresh migrated database."""
    database = Database(database_url)
    await database.open()
    yield database
    await database.close()


@pytest.fixture(scope="session")
def valkey(state_directory: Path) -> Iterator[embedded.Valkey]:
    """One server on a Unix socket; a test that stops it starts its own."""
    with embedded.Valkey(state_directory) as server:
        yield server


@pytest.fixture
def redis_url(valkey: embedded.Valkey) -> Iterator[str]:
    """A clean Valkey."""
    _flush(valkey)
    yield valkey.url
    _flush(valkey)


def url_of(server: embedded.Postgres, name: str) -> str:
    return server.url.replace("/postgres?", f"/{name}?")


def _administer(server: embedded.Postgres, statement: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(statement)


def _flush(server: embedded.Valkey) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(server.url.removeprefix("unix://"))
        client.sendall(b"FLUSHALL\r\n")
        assert client.recv(16) == b"+OK\r\n"
