"""The API of a fresh installation."""

from collections.abc import AsyncIterator

import pytest

from notifier.rendering import Templates
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
