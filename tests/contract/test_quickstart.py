"""Every command of the quickstart does what the page says, in the order in which it stands there."""

import json
import re
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from notifier import client
from notifier.cli import app
from notifier.rendering import bundled_directory
from tests.servers.api import Api, serving, settings_for

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs/quickstart.md").read_text()
COMMANDS = [
    command
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for command in [shlex.split(block.replace("\\\n", " "))]
]


@dataclass
class Curl:
    method: str
    path: str
    headers: dict[str, str]
    body: dict

    @classmethod
    def read(cls, words: list[str]) -> "Curl":
        words = words[1:]
        options: dict[str, list[str]] = {"-X": [], "-H": [], "-d": []}
        (url,) = (word for word in words if word.startswith("http"))
        for option, value in pairwise(words):
            if option in options:
                options[option].append(value)
        headers = dict(header.split(": ", 1) for header in options["-H"])
        assert headers.pop("Authorization") == "Bearer $KEY"
        assert url.startswith("http://127.0.0.1:8025/")
        return cls((options["-X"] or ["POST"])[0], urlsplit(url).path, headers, json.loads(options["-d"][0]))


CURLS = [Curl.read(words) for words in COMMANDS if words[0] == "curl"]


@pytest.fixture
async def api(anyio_backend: str, database_url: str, redis_url: str, quick_templates: None) -> AsyncIterator[Api]:
    """With the templates that ship."""
    settings = settings_for(database_url, redis_url, templates_dir=bundled_directory())
    async with serving(settings) as api:
        yield api


async def ask(api: Api, curl: Curl):
    return await api.client.request(curl.method, curl.path, headers=curl.headers, json=curl.body)


async def test_every_request_is_taken_and_may_be_repeated(api: Api) -> None:
    assert len(CURLS) == 6
    for curl in CURLS:
        first, second = await ask(api, curl), await ask(api, curl)
        assert first.is_success, first.text
        if curl.method == "POST":
            assert first.status_code == 202
            assert first.json().keys() == {"id", "created_at", "messages"}
            assert second.json() == first.json()
    assert await api.count("messages") == 5


async def test_the_answer_looks_as_it_is_shown(api: Api) -> None:
    (shown,) = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
    answer = (await ask(api, CURLS[0])).json()
    assert answer.keys() == shown.keys()
    assert [message.keys() for message in answer["messages"]] == [message.keys() for message in shown["messages"]]


async def test_the_key_that_is_made_may_do_all_of_it(api: Api) -> None:
    (create,) = [words for words in COMMANDS if "keys" in words]
    scopes = {create[place + 1] for place, word in enumerate(create) if word == "--scope"}
    api.client.headers.update(await api.key(*scopes))
    for curl in CURLS:
        assert (await ask(api, curl)).is_success


def test_every_command_of_ours_exists() -> None:
    ours = {words[2] for words in COMMANDS if words[:2] == ["python3", "run.py"]}
    assert ours == {"demo", "up", "keys", "explain"}
    for name in ours:
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


def test_the_python_example_calls_what_the_client_has() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    compile(example, "quickstart", "exec")
    for name in re.findall(r"notifier\.(\w+)\(", example):
        assert callable(getattr(client.Notifier, name))
    assert {"notifier.send(", "notifier.message("} <= set(re.findall(r"notifier\.\w+\(", example))
