"""What every test may ask for: real PostgreSQL and Valkey, started once per test process, clean for each test."""

import itertools
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
import structlog

from notifier import embedded
from notifier.domain import campaigns, messages
from notifier.store.database import Database, migrate
from tests.places import place_for_servers

TEMPLATE = "template_migrated"
numbers = itertools.count(1)
NOT_RUN = pytest.StashKey[list[str]]()

hypothesis.settings.register_profile("notifier", deadline=None)  # a busy machine is no mistake of the code
hypothesis.settings.load_profile("notifier")


def pytest_addoption(parser):
    parser.addoption("--system", action="store_true", help="also run the tests that need Debian's packages or root")


def pytest_configure(config):
    config.stash[NOT_RUN] = []


def pytest_collection_modifyitems(config, items):
    """Tests marked `system` run when they are asked for, else they are named; the heavy ones keep to one process."""
    for item in items:
        if {"chaos", "system"} & set(item.nodeid.split("::")[0].split("/")) or item.get_closest_marker("system"):
            item.add_marker(pytest.mark.xdist_group("one at a time"))
    if config.option.system or "system" in config.option.markexpr:
        return
    left = [item for item in items if item.get_closest_marker("system")]
    config.stash[NOT_RUN] += [item.nodeid for item in left]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["not_run"] = session.config.stash[NOT_RUN]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """A process of xdist collected them all; each names the same."""
    node.config.stash[NOT_RUN] = getattr(node, "workeroutput", {}).get("not_run", []) or node.config.stash[NOT_RUN]


def pytest_terminal_summary(terminalreporter, config):
    if not_run := sorted(config.stash[NOT_RUN]):
        terminalreporter.section(f"{len(not_run)} not run: they need Debian's packages or root (run.py test --system)")
        for name in not_run:
            terminalreporter.write_line(f"not run: {name}")


@pytest.fixture(autouse=True)
def _log_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that sets up the log writes to its own captured output; the next test must not write there."""
    configure, root = structlog.configure, logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(
        structlog, "configure", lambda **given: configure(**given | {"cache_logger_on_first_use": False})
    )
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def state_directory() -> Iterator[Path]:
    with place_for_servers() as place:
        yield place


@pytest.fixture(scope="session")
def postgres(state_directory: Path) -> Iterator[embedded.Postgres]:
    """One server, with a migrated database to copy."""
    with embedded.Postgres(state_directory, durable=False) as server:
        _administer(server, f"CREATE DATABASE {TEMPLATE}")
        migrate(url_of(server, TEMPLATE))
        _hold_to_next(url_of(server, TEMPLATE))
        yield server


@pytest.fixture
def database_url(postgres: embedded.Postgres) -> Iterator[str]:
    """A fresh migrated database of the test's own."""
    name = f"test_{next(numbers)}"
    _administer(postgres, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
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


def _hold_to_next(url: str) -> None:
    """Every test, whatever it is about, fails at a move of a message or a campaign that `NEXT` does not allow."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(NEXT_ONLY)
        for table, allowed in (("messages", messages.NEXT), ("campaigns", campaigns.NEXT)):
            moves = [f"{before}>{after}" for before, following in allowed.items() for after in following]
            connection.execute(HOLD.format(table=table, moves=",".join(moves)))


NEXT_ONLY = """
CREATE FUNCTION next_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT OLD.state || '>' || NEW.state = ANY (string_to_array(TG_ARGV[0], ',')) THEN
        RAISE EXCEPTION 'NEXT does not allow % > %', OLD.state, NEW.state;
    END IF;
    RETURN NULL;
END $$;
"""
HOLD = """
CREATE TRIGGER next_only AFTER UPDATE OF state ON {table}
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION next_only('{moves}');
"""


def _administer(server: embedded.Postgres, statement: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(statement)


def _flush(server: embedded.Valkey) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(server.url.removeprefix("unix://"))
        client.sendall(b"FLUSHALL\r\n")
        assert client.recv(16) == b"+OK\r\n"
