"""An operator uploads lists of people for campaigns, looks at what came of them, and removes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from notifier.console import on_database, read_hasher, read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import TypeVar

    from notifier.store.database import Connection, Row

    T = TypeVar("T")

lists = typer.Typer(help="Upload, list, show and remove lists of people for campaigns.", no_args_is_help=True)

PIECE = 64 * 1024  #: bytes read at once

Id = Annotated[UUID, typer.Argument(help="As listed.")]


@lists.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV with a column id, email or phone.")],
    name: Annotated[str | None, typer.Option(help="For people's eyes; else the file's name.")] = None,
) -> None:
    """Read a list and look up whom each line means: it creates nobody. Says what came of the lines, by number."""
    from notifier.dispatch.lists import Lists
    from notifier.web.uploads import Upload

    hasher, allow_test = read_hasher(), not read_settings().is_production

    async def work(c: Connection) -> Row:
        async def transact(part: Callable[[Connection], Awaitable[T]]) -> T:
            async with c.transaction():
                return await part(c)

        return await Upload(Lists(hasher), transact, allow_test).take((name or file.name)[:200], _pieces(file))

    _show(on_database(work))


@lists.command("list")
def list_all(limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 100) -> None:
    """Show the lists, the newest first."""
    from notifier.store import lists as stored

    for one in on_database(lambda c: stored.page(c, None, limit)):
        people = f"{one['report']['people']:>9} people" if one["is_ready"] else "       not ready"
        typer.echo(f"{one['id']}  {one['created_at']:%Y-%m-%d %H:%M}  {people}  {one['name']}")


@lists.command()
def show(list_id: Id) -> None:
    """Show one list and what came of its lines."""
    from notifier.dispatch.lists import get

    _show(on_database(lambda c: get(c, list_id)))


@lists.command()
def remove(list_id: Id) -> None:
    """Remove a list. Refused while a campaign that is not over names it."""
    from notifier.dispatch.lists import remove as removed

    async def work(c: Connection) -> None:
        async with c.transaction():
            await removed(c, list_id)

    on_database(work)
    typer.echo("Removed.")


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(PIECE):
            yield piece


def _show(one: Row) -> None:
    typer.echo(f"{one['id']}  {one['name']}")
    if not one["is_ready"]:
        typer.echo("Not ready: its upload is under way, or broke off. Then remove it and upload again.")
        return
    report = one["report"]
    typer.echo(f"{report['people']} people, out of {report['lines']} lines.")
    if report["doubled"]:
        typer.echo(f"{report['doubled']} lines name only people whom an earlier line has named.")
    if report["unknown"]:
        first = ", ".join(map(str, report["unknown_lines"]))
        typer.echo(f"{report['unknown']} lines name nobody who is stored here, the first of them: {first}")
    if report["unreadable"]:
        typer.echo(f"{report['unreadable']} lines cannot be read, the first of them:")
        for line in report["unreadable_lines"]:
            typer.echo(f"  line {line['line']}: {line['detail']}")
