"""The reference pages say all that the code knows: settings, commands, routes and reasons. Rows are compared whole."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

import pytest
import typer
from annotated_types import Ge, Le, MaxLen, MinLen
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from notifier import cli
from notifier.app import App
from notifier.domain import explanation, retry
from notifier.domain.consent import Rule, SuppressionReason
from notifier.domain.events import EventType, Position, Removal, told
from notifier.domain.messages import Category
from notifier.settings import Settings, variable
from notifier.web.server import create_app
from notifier_channels import contract
from tests.servers.api import settings_for

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def rows_of(page: str) -> list[str]:
    """Each row of a table that begins with something in code."""
    return re.findall(r"^\| `.*\|$", (REFERENCE / page).read_text(), re.MULTILINE)


# Settings -------------------------------------------------------------------------------------------------------------


def setting_row(name: str, field: FieldInfo) -> str:
    return f"| `{variable(name)}` | {default_of(field)}{bounds_of(field)} | {field.description} |"


def default_of(field: FieldInfo) -> str:
    default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if field.is_required():
        return "required"
    return "none" if default is None else f"`{default}`"


def bounds_of(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return f"; one of {', '.join(f'`{choice}`' for choice in get_args(field.annotation))}"
    lowest = next(
        (m.ge if isinstance(m, Ge) else m.min_length for m in field.metadata if isinstance(m, Ge | MinLen)), None
    )
    highest = next(
        (m.le if isinstance(m, Le) else m.max_length for m in field.metadata if isinstance(m, Le | MaxLen)), None
    )
    if lowest is None and highest is None:
        return ""
    unit = " characters" if any(isinstance(m, MinLen | MaxLen) for m in field.metadata) else ""
    return f"; {lowest} to {highest}{unit}"


def test_every_setting_is_listed_as_it_is() -> None:
    expected = [setting_row(name, field) for name, field in Settings.model_fields.items()]
    assert sorted(rows_of("settings.md")) == sorted(expected)


# Commands -------------------------------------------------------------------------------------------------------------


def commands(group: Any, path: tuple[str, ...] = ("notifier",)) -> Iterator[tuple[str, Any]]:
    if not hasattr(group, "commands"):
        yield " ".join(path), group
        return
    for name, command in group.commands.items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


def parameter_row(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    name = parameter.opts[0] if is_option else parameter.metavar or parameter.name.upper()
    also = f", `{parameter.envvar}`" if parameter.envvar else ""
    default = (
        "required" if parameter.required else "none" if parameter.default in (None, False) else f"`{parameter.default}`"
    )
    return f"| `{name}`{also} | {default} | {parameter.help} |"


def chapters_of_the_commands() -> dict[str, str]:
    text = (REFERENCE / "cli.md").read_text()
    found = re.findall(r"^### `(notifier [^`]+)`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(found) == len(dict(found))
    return dict(found)


def test_every_command_has_a_chapter_and_no_other() -> None:
    assert set(chapters_of_the_commands()) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_chapter_says_what_the_command_says_with_every_option(name: str) -> None:
    chapter, command = chapters_of_the_commands()[name], COMMANDS[name]
    assert chapter.strip().split("\n\n")[0] == command.help
    rows = re.findall(r"^\| `.*\|$", chapter, re.MULTILINE)
    assert rows == [parameter_row(parameter) for parameter in command.params]


# Routes ---------------------------------------------------------------------------------------------------------------


def test_every_route_is_described_somewhere() -> None:
    app = App._build(settings_for("postgresql://nowhere/none", "redis://127.0.0.1:1"))
    app.jobs.close()
    pages = "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))
    paths = {str(route.path).rstrip("/") for route in iter_route_contexts(create_app(app).routes)}
    assert {"/v1/notifications", "/u/{token}", "/health"} <= paths
    assert {path for path in paths if not re.search(rf"{re.escape(path)}(?![\w/{{])", pages)} == set()


# Reasons --------------------------------------------------------------------------------------------------------------


def settled_reasons() -> Iterator[str]:
    """Every reason that the rules of retrying can write."""
    outcomes = [
        contract.Unavailable("c"),
        contract.RateLimited("c", timedelta(1)),
        contract.Ambiguous("c"),
        contract.Rejected("c"),
        contract.BadAddress("c"),
        contract.OptedOut("c"),
        contract.Misconfigured("c"),
        contract.Withheld("c"),
        contract.Receipt(),
    ]
    assert {type(outcome) for outcome in outcomes} == set(get_args(contract.Outcome))
    settlements = [retry.poison(), retry.spoiled("c"), retry.proven_unsent(NOW)]
    for category, channel, tries in product(Category, contract.Channel, (0, retry.MAX_TRIES)):
        message = retry.Tried(category, channel, tries, repeated=False, expires_at=NOW + timedelta(days=1))
        settlements += [retry.settle(outcome, message, NOW, 0.5) for outcome in outcomes]
        settlements.append(retry.in_doubt(message, NOW))
    return (one.reason for one in settlements if one.reason)


def stored_reasons() -> Iterator[str]:
    """Every reason that stands in SQL or is made beside it."""
    for path in (ROOT / "notifier").rglob("*.py"):
        text = path.read_text()
        yield from re.findall(r"\breason = '([a-z_]+)", text)
    yield from re.findall(r'return f?"([a-z_]+)', (ROOT / "notifier/store/events.py").read_text())


def test_every_reason_of_a_message_is_explained() -> None:
    reasons = {reason.partition(":")[0] for reason in [*settled_reasons(), *stored_reasons(), *Rule]}
    assert {"withdrawn", "gave_up", "poison", "cancelled_by_api", "bounced", "worker_died"} <= reasons
    listed = re.findall(r"^\| `([a-z_]+)[:`]", _chapter("Of a message"), re.MULTILINE)
    never = {str(Rule.MANDATORY), str(Rule.GRANTED), str(Rule.OPT_OUT_DEFAULT)}  # what may go has no reason
    assert sorted(listed) == sorted(reasons - never)


def test_every_reason_of_a_suppression_is_explained() -> None:
    listed = re.findall(r"^\| `([a-z_]+)` \|", _chapter("Of a suppressed address"), re.MULTILINE)
    assert listed == [str(reason) for reason in SuppressionReason]


def test_explain_has_words_for_every_reason() -> None:
    reasons = {reason.partition(":")[0] for reason in [*settled_reasons(), *stored_reasons()]}
    assert reasons - set(explanation._REASONS) == set()


def _chapter(title: str) -> str:
    return (REFERENCE / "reasons.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_code_that_is_a_word_is_explained() -> None:
    kinds = "|".join(kind.__name__ for kind in get_args(contract.Outcome))
    said = {"no_code", *(reason.partition(":")[2] for reason in settled_reasons() if "worker_died" in reason)} - {""}
    for path in [*(ROOT / "notifier/dispatch").glob("*.py"), *(ROOT / "channels").rglob("*.py")]:
        said.update(re.findall(rf'\b(?:{kinds})\(f?"([a-z_]+|421)[":]', path.read_text()))
    assert {"cut_off", "certificate", "timeout"} <= said
    assert sorted(re.findall(r"^\| `([a-z_0-9]+)[:`]", _chapter("Codes"), re.MULTILINE)) == sorted(said)


# Events ---------------------------------------------------------------------------------------------------------------


def examples_of_events() -> dict[str, dict[str, Any]]:
    text = (REFERENCE / "events.md").read_text()
    found = re.findall(r"^### `(\S+)`\n(.*?)(?=^###? |\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: json.loads(re.findall(r"```json\n(.*?)```", chapter, re.DOTALL)[0]) for name, chapter in found}


def test_every_type_of_event_has_a_chapter_with_an_example_that_is_one() -> None:
    examples = examples_of_events()
    assert list(examples) == [str(one) for one in EventType]
    for type_, example in examples.items():
        row = dict.fromkeys(("recipient", "channel", "topic", "detail", "granted", "ledger_number"))
        made = told(
            row | {"xid": "1", "number": 1, "type": type_, "subject": UUID(int=1), "notification_id": None}
            | {"occurred_at": NOW, "told_at": NOW}
        ).body  # fmt: skip
        assert example["type"] == type_
        assert list(example) == list(made)
        assert list(example["data"]) == list(made["data"])
        assert Position.parse(example["id"]) == Position(int(example["id"].split("_")[1]), example["sequence"])


def test_every_cause_of_a_devices_removal_is_explained() -> None:
    assert re.findall(r"^\| `(\w+)` \|", _part("events.md", "### `device.removed`"), re.MULTILINE) == list(Removal)


def test_every_code_of_a_webhook_is_explained() -> None:
    codes = set(re.findall(r'Answer\("([a-z_]+)"', (ROOT / "notifier/dispatch/posting.py").read_text()))
    codes |= {"certificate", "connect"}
    page = (ROOT / "docs/how-to/webhooks.md").read_text().split("| code of the last try |")[1].split("\n\n")[0]
    cells = " ".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))
    assert {code for code in re.findall(r"`(\w+)`", cells) if not code.isdigit()} == codes


def _part(page: str, title: str) -> str:
    return (REFERENCE / page).read_text().split(f"\n{title}\n")[1]


# What the log says ----------------------------------------------------------------------------------------------------


def test_every_event_of_the_log_stands_in_the_runbook_with_its_level() -> None:
    logged = {
        (event, level)
        for house in ("notifier", "channels")
        for path in (ROOT / house).rglob("*.py")
        for level, event in re.findall(r'\blog\.(\w+)\(\s*"([a-z_]+\.[a-z_]+)', path.read_text())
    }
    chapter = (ROOT / "docs/operate/runbook.md").read_text().split("\n## What the log says\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (\w+) \|", chapter, re.MULTILINE)
    listed = [(event, level) for names, level in rows for event in re.findall(r"`([^`]+)`", names)]
    assert sorted(listed) == sorted(logged)
