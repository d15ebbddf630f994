"""What operators type about campaigns, on a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import Result
from psycopg.types.json import Jsonb

from notifier.domain.plans import Findings
from notifier.store.database import rows
from tests.servers.api import NEWS
from tests.servers.campaigns import NOTICE, a_campaign

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_templates")]

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def run(typed: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("NOTIFIER_SENDERS", "shop=The Shop <shop@example.test>")
    return partial(typed, "campaigns")


@pytest.fixture
def create(run: Run, tmp_path: Path) -> Callable[..., Awaitable[str]]:
    async def typed(**changes: Any) -> str:
        file = tmp_path / "campaign.json"
        file.write_text(json.dumps(a_campaign(**changes)))
        made = await run("create", str(file))
        assert made.exit_code == 0, made.output
        return str(UUID(made.stdout.strip()))

    return typed


async def asked(database, query: str, *parameters: object) -> list[dict[str, Any]]:
    async with database.connection() as c:
        return await rows(c, query, parameters)


def _plan() -> dict[str, Any]:
    definition = {"template": "newsletter", "template_hash": "0123456789abcdef", "topic": "newsletter", "rate": 7}
    now = datetime.now(UTC)
    found = Findings(audience=3, now=now, expires_at=now, default_timezone="UTC", channels={})
    return found.document(definition | {"sender": None, "expires_at": None})


async def reckon(database, hash_: str | None, problem: str | None = None) -> None:
    """What the scheduler does, once somebody asks."""
    while True:
        async with database.connection() as c:
            done = await c.execute(
                "UPDATE campaign_plans SET hash = %s, problem = %s, plan = %s WHERE plan IS NULL AND problem IS NULL",
                (hash_, problem, Jsonb(_plan()) if hash_ else None),
            )
        if done.rowcount:
            return
        await asyncio.sleep(0.01)


async def test_a_campaign_is_drawn_up_from_a_file_listed_and_shown(database, run, create) -> None:
    id_ = await create(sender="shop", rate=50)
    notice = await create(name="New terms", **NOTICE)
    listed = (await run("list")).stdout.splitlines()
    assert [line.split()[:3] for line in listed] == [[notice, "draft", "policy-update"], [id_, "draft", "newsletter"]]
    assert (await run("list", "--state", "sending")).stdout == ""
    assert (await run("list", "--before", notice, "--limit", "1")).stdout.startswith(id_)
    shown = (await run("show", id_)).stdout
    assert {"state: draft", "sender: shop", "rate: 50.0", "created_by: operator"} <= set(shown.splitlines())
    assert "  title: News" in shown


async def test_it_is_read_from_standard_input_and_says_what_comes_from_attributes(run) -> None:
    made = await run("create", "-", given=json.dumps(a_campaign(data={})))
    assert (made.exit_code, "opening, published_on, stories, title" in made.stderr) == (0, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ('{"name": "x", "template": "newsletter", "sendr": "y"}', "/sendr: is not a known field"),
        ('{"name": "x"}', "/template: is missing"),
        (json.dumps(a_campaign(template="newslettr")), "did you mean `newsletter`"),
        (json.dumps(a_campaign(sender="nobody")), "choose of: shop"),
        (json.dumps(a_campaign(schedule={"at": "tomorrow"})), "/schedule/at"),
    ],
)
async def test_a_wrong_file_is_refused_by_its_fields(database, run, text, says) -> None:
    refused = await run("create", "-", given=text)
    assert (refused.exit_code, says in refused.output) == (1, True), refused.output
    assert await asked(database, "SELECT 1 FROM campaigns") == []


async def test_a_file_that_is_not_there_is_one_sentence(run) -> None:
    refused = await run("create", "/nowhere/campaign.json")
    assert (refused.exit_code, refused.output) == (1, "notifier: /nowhere/campaign.json: No such file or directory\n")


async def test_it_is_foreseen_approved_and_steered(database, run, create) -> None:
    id_ = await create()
    assert "newsletter" in (await run("edit", id_, "-", given='{"rate": 7}')).stdout
    foreseen, _ = await asyncio.gather(run("preview", id_), reckon(database, "abc123"))
    assert foreseen.exit_code == 0, foreseen.output
    assert "Nobody would get it." in foreseen.stdout
    assert f"notifier campaigns schedule {id_} --plan abc123" in foreseen.stdout
    refused = await run("schedule", id_, "--plan", "other")
    assert (refused.exit_code, "/plan: no finished dry-run" in refused.output) == (1, True)
    assert "scheduled" in (await run("schedule", id_, "--plan", "abc123")).stdout
    assert "draft" in (await run("unschedule", id_)).stdout
    await run("schedule", id_, "--plan", "abc123")
    [approved] = await asked(database, "SELECT approved_by, approved_at FROM campaign_plans")
    assert (approved["approved_by"], approved["approved_at"] is not None) == ("operator", True)
    await asked(database, "UPDATE campaigns SET state = 'sending' RETURNING 1")
    assert "paused (Wrong price)" in (await run("pause", id_, "--why", "Wrong price")).stdout
    assert "sending" in (await run("resume", id_)).stdout
    assert "paused (asked)" in (await run("pause", id_)).stdout
    assert "cancelled" in (await run("cancel", id_)).stdout
    refused = await run("resume", id_)
    assert (refused.exit_code, "The campaign is `cancelled`; only one that is `paused`" in refused.output) == (1, True)


async def test_a_dry_run_that_cannot_be_reckoned_says_why(database, run, create) -> None:
    id_ = await create()
    foreseen, _ = await asyncio.gather(run("preview", id_), reckon(database, None, "the list is gone"))
    assert (foreseen.exit_code, "the list is gone" in foreseen.output) == (1, True)


async def test_progress_is_shown_in_words() -> None:
    from notifier.commands.campaigns import _words

    assert _words({"seen": 3, "of": 9}) == "The scheduler reckons it: seen 3, of 9"
    assert "Ctrl-C" in _words({})


async def test_a_test_goes_to_those_who_are_named(database, run, create) -> None:
    id_ = await create()
    sent = await run("test", id_, "--email", "ann@example.test", "--email", "bob@example.test")
    assert sent.exit_code == 0, sent.output
    found = await asked(database, "SELECT id, is_test, campaign_id FROM messages ORDER BY id")
    assert sent.stdout == "".join(f"{row['id']}  email\n" for row in found)
    assert [(row["is_test"], str(row["campaign_id"])) for row in found] == [(True, id_)] * 2
    assert "example.test" not in sent.output
    unknown = await run("test", id_, "--recipient", "nobody")
    assert (unknown.exit_code, "/recipients/0/id" in unknown.output) == (1, True)


@pytest.mark.parametrize("words", [(), ("--email", "nonsense"), ("--email", "a@example.test") * 21])
async def test_a_test_to_nobody_to_too_many_or_to_no_address_is_refused(run, create, words) -> None:
    assert (await run("test", await create(), *words)).exit_code == 2


async def test_what_is_not_there_is_one_sentence(run) -> None:
    nobody = str(UUID(int=7))
    for words in (("show",), ("pause",), ("resume",), ("cancel",), ("unschedule",), ("preview",)):
        refused = await run(*words, nobody)
        assert (refused.exit_code, refused.output) == (1, "notifier: There is no campaign with this id.\n"), words


async def test_a_sender_must_be_one_of_those_that_are_set(run, create) -> None:
    id_ = await create(sender="shop", schedule={"at": f"{datetime.now(UTC).year + 1}-01-01T00:00:00Z"})
    assert "schedule\n  at:" in (await run("show", id_)).stdout
    refused = await run("edit", id_, "-", given=json.dumps({"sender": "nobody", "data": NEWS}))
    assert (refused.exit_code, "NOTIFIER_SENDERS" in refused.output) == (1, True)
