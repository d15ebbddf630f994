import re
from pathlib import Path

import pytest

from notifier.app import App
from notifier.domain.access import Scope
from notifier.domain.campaigns import NEXT
from notifier.web import reference
from notifier.web.problems import Kinds
from notifier.web.server import create_app
from tests.servers.api import settings_for

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def document() -> dict:
    app = App._build(settings_for("postgresql://nowhere/none", "redis://127.0.0.1:1"))
    try:
        return create_app(app).openapi()
    finally:
        app.jobs.close()


def test_the_page_names_every_route_and_no_other(document) -> None:
    text = (REFERENCE / "api.md").read_text()
    described = re.findall(r"^## (?:(GET|POST|PUT|PATCH|DELETE) )(/\S+)$", text, re.MULTILINE)
    served = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert set(described) == served


def test_the_page_explains_every_scope(document) -> None:
    text = (REFERENCE / "api.md").read_text()
    assert re.findall(r"^\| `([a-z:]+)` \|", text, re.MULTILINE) == [str(scope) for scope in Scope]


def test_the_page_shows_every_move_of_a_campaign_and_no_other() -> None:
    table = (REFERENCE / "api.md").read_text().split("| state | may become | by |")[1].split("\n\n")[0]
    shown: dict[str, set[str]] = {}
    for first, following in re.findall(r"^\| ([a-z, ]*?) ?\| (.*?) ?\|", table, re.MULTILINE):
        states = first.split(", ") if first else [next(reversed(shown))]
        for state in states:
            shown.setdefault(state, set()).update(re.findall(r"`([a-z]+)`", following))
    assert shown == {str(state): set(map(str, following)) for state, following in NEXT.items()}


def test_the_errors_are_those_that_there_are() -> None:
    text = (REFERENCE / "errors.md").read_text()
    listed = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", text, re.MULTILINE)
    assert listed == [(kind.value.name, str(kind.value.status)) for kind in Kinds]


def test_the_docs_page_shows_every_route_and_brings_nothing_from_elsewhere(document) -> None:
    page = reference.page(document)
    for path in document["paths"]:
        assert path in page
    assert not re.search(r"<script|src=|@import|url\(", page)


def test_what_a_description_says_cannot_become_markup(document) -> None:
    assert "<b>" not in reference._prose("a <b> `<b>`")
