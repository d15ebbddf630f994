"""An operator sees what became of a campaign, and takes the proof of it along."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from notifier.console import on_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import TextIO

    from notifier.domain.messages import AttemptState, State
    from notifier.domain.reports import ChannelReport, Place, Report
    from notifier.store.database import Connection

Id = Annotated[UUID, typer.Argument(metavar="ID", help="Of the campaign, as listed.")]


def report(
    id_: Id,
    csv: Annotated[
        Path | None, typer.Option(help="Write a line for each person and channel to this file; `-`: to the terminal.")
    ] = None,
) -> None:
    """Show what became of a campaign: people, states and reasons, hours, domains, and what came back."""
    from notifier.dispatch import reporting

    if csv is not None:
        _write(id_, csv)
        return
    for line in _lines(on_database(lambda c: reporting.report(c, id_))):
        typer.echo(line)


def _write(id_: UUID, file: Path) -> None:
    if str(file) == "-":
        on_database(lambda c: _pour(c, id_, lambda: nullcontext(sys.stdout)))
        return
    try:
        on_database(lambda c: _pour(c, id_, lambda: file.open("w", encoding="utf-8", newline="")))
    except OSError as error:
        typer.echo(f"notifier: {file}: {error.strerror}", err=True)
        raise typer.Exit(1) from None


async def _pour(c: Connection, id_: UUID, opened: Callable[[], AbstractContextManager[TextIO]]) -> None:
    from notifier.dispatch import reporting

    pieces = reporting.table(lambda: nullcontext(c), id_)
    first = await anext(pieces)  # a file is not emptied for a campaign that is not there
    with opened() as into:
        into.write(first)
        async for piece in pieces:
            into.write(piece)


def _lines(report: Report) -> Iterator[str]:
    head, people = report.headline, report.people
    why = f" ({head.pause_reason})" if head.pause_reason else ""
    yield f"{head.name}: {head.state}{why}, as of {head.now:%Y-%m-%d %H:%M:%S} UTC"
    yield f"\n{people.audience:>10,}  people"
    left_out = {f"left out, {reason}": count for reason, count in people.left_out.items()}
    rest = {"not planned": people.not_planned, "waiting": people.waiting, "unreachable": people.unreachable}
    yield from _counts({str(state): count for state, count in people.states.items()} | left_out | rest)
    for channel in report.channels:
        yield f"\n{channel.decided:>10,}  people by {channel.channel}"
        yield from _outcomes(channel)
    yield from _section(
        "attempts by hour (UTC)",
        (f"{_in_words(one.attempts)}  {one.hour:%Y-%m-%d %H}h  {one.channel}" for one in report.hours),
    )
    yield from _section("domains", map(_place, report.domains))
    yield from _section("languages", map(_place, report.locales))
    yield from _section("calling codes", map(_place, report.calling_codes))
    yield from _section("came back, messages", _counts({**report.caused.events}))
    yield from _section("noes that name a message", _counts({**report.caused.withdrawals}))
    yield from _section(
        "in doubt",
        (f"{one.message}  {one.channel}  {one.attempted_at:%Y-%m-%d %H:%M:%S}  {one.reason}" for one in report.unknown),
    )


def _outcomes(channel: ChannelReport) -> Iterator[str]:
    for one in channel.outcomes:
        yield f"{one.messages:>10,}  {one.state}{f'  {one.reason}' if one.reason else ''}"
    yield from _counts({"unreachable": channel.unreachable})


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield f"\n{title}"
        yield from found


def _place(one: Place) -> str:
    name = "all others" if one.name is None else one.name or "not known"
    return f"{one.messages:>10,}  {name}  ({_in_words(one.states)})"


def _counts(counts: Mapping[str, int]) -> Iterator[str]:
    return (f"{count:>10,}  {name}" for name, count in counts.items() if count)


def _in_words(counts: Mapping[State, int] | Mapping[AttemptState, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
