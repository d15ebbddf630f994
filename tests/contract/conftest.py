"""A fresh installation: its API, and its command line."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from click.testing import Result
from typer.testing import CliRunner

from notifier.cli import app
from notifier.rendering import Templates
from notifier.store.database import Database
from tests.servers.api import Api, serving, settings_for

_loaded: dict[tuple, Templates] = {}


@pytest.fixture
def quick_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading proves every template; once for each test process is enough."""
    load = Templates.load.__func__

    def kept(cls, directory, identity, default_locale):
        key = (directory, identity, default_locale)
        if key not in _loaded:
            _loaded[key] = load(cls, directory, identity, default_locale)
        return _loaded[key]

    monkeypatch.setattr(Templates, "load", classmethod(kept))


@pytest.fixture
async def api(anyio_backend: str, database_url: str, redis_url: str, quick_templates: None) -> AsyncIterator[Api]:
    """The application on a fresh database, and a client whose key has every scope."""
    async with serving(settings_for(database_url, redis_url)) as one:
        yield one


@pytest.fixture
def typed(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[Result]]:
    """What becomes of the words that an operator types; `given` is what the command reads from standard input."""
    for name, value in {
        "DATABASE_URL": database.url,
        "REDIS_URL": "unix:///nowhere",
        "NOTIFIER_LINK_KEYS": "k1:" + "k" * 32,
        "NOTIFIER_HASH_KEYS": "h1:" + "h" * 32,
    }.items():
        monkeypatch.setenv(name, value)

    async def run(*words: object, given: str | None = None) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words], input=given)

    return run
