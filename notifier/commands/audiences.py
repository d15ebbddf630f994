"""Marketing asks how many people an audience has, and sees some of them, before a campaign is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.console import on_database, read_appearance, read_templates

if TYPE_CHECKING:
    from notifier.domain.audience import Audience
    from notifier.store.database import Connection, Row

audiences = typer.Typer(help="Count whom a campaign would be for.", no_args_is_help=True)


@audiences.callback()
def _several() -> None:
    """Keep `count` a command of its own."""


@audiences.command()
def count(
    file: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help='JSON such as {"filter": {"language": "de"}}.')
    ],
    sample: Annotated[int, typer.Option(min=0, max=100, help="How many people to show.")] = 10,
) -> None:
    """Count the people of an audience and show some of them: id, locale, time zone."""
    from notifier.store import audiences as stored
    from notifier.store import lists

    asked = _read(file)

    async def work(c: Connection) -> tuple[int, list[Row]]:
        await lists.hold(c, asked, "")
        return await stored.count(c, asked), await stored.sample(c, asked, sample)

    people, shown = on_database(work)
    typer.echo(f"{people} people")
    for one in shown:
        typer.echo(f"  {one['external_id'] or '(no id)'}  {one['locale'] or '-'}  {one['timezone'] or '-'}")


def _read(file: Path) -> Audience:
    from pydantic_core import from_json

    from notifier.domain.audience import Audience
    from notifier.errors import InvalidInput

    topics = read_templates(read_appearance()).topics
    try:
        return Audience.parse(from_json(file.read_bytes(), allow_inf_nan=False), topics, "")
    except InvalidInput as error:
        for problem in error.problems:
            typer.echo(f"{problem.pointer or '/'}: {problem.detail}", err=True)
    except ValueError:
        typer.echo("The file is not JSON in UTF-8.", err=True)
    raise typer.Exit(1)
