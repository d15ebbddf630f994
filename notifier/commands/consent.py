"""An operator asks what people have said, or writes down a no: the ledger of consent, and its projection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from notifier.console import moment, on_database, read_hasher, read_settings
from notifier.domain.consent import ALL, ANY, MARKETING
from notifier_channels.contract import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from notifier.dispatch.ledger import Seen
    from notifier.dispatch.refusals import Withdrawn
    from notifier.domain.consent import Topic
    from notifier.store.database import Connection, Row

consent = typer.Typer(
    help="Show what a person said, add their no, and make the projection of the ledger anew.", no_args_is_help=True
)

BATCH = 500
BY = "cli"


@consent.command()
def show(
    recipient: Annotated[str, typer.Argument(help="The product's own id of the recipient.")],
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="As it stood then, like 2026-03-01T09:00:00Z. Default: now.")
    ] = None,
) -> None:
    """Print all that a person said, line by line, and what holds for each topic and channel, in words."""
    from notifier.dispatch.ledger import Look, person_of
    from notifier.store import consent as ledger

    when, look = moment(at), Look(read_hasher(), _topics())

    async def ask(c: Connection) -> tuple[list[Row], Seen]:
        person = await person_of(c, recipient)
        return await ledger.ledger_of(c, person), await look(c, person, when)

    lines, seen = on_database(ask)
    _tell(recipient, [line for line in lines if line["occurred_at"] <= seen.at], seen)


def _tell(recipient: str, lines: list[Row], seen: Seen) -> None:
    from notifier.domain import standing
    from notifier.domain.explanation import Line, in_words, instant

    typer.echo(f"{recipient}, as it stood on {instant(seen.at)}\n\nThe ledger")
    for row in sorted(lines, key=lambda line: (line["occurred_at"], line["number"])):
        line = Line(**{name: row[name] for name in Line.__dataclass_fields__})
        typer.echo(f"  {instant(line.occurred_at)}  {in_words(line)}")
    if not lines:
        typer.echo("  They have said nothing.")
    typer.echo("\nWhat holds")
    for one in seen.standings:
        mark = "yes" if one.allowed else "no "
        lines_it_rests_on = "".join(f" [{number}]" for number in one.decision.numbers)
        typer.echo(f"  {mark}  {one.topic.key}/{one.channel}: {standing.in_words(one)}{lines_it_rests_on}")
    for channel, standing_against in seen.suppressed.items():
        for block in standing_against:
            typer.echo(f"  !    The address for {channel} is suppressed now: {block.reason} [{block.number}]")


@consent.command()
def withdraw(
    recipient: Annotated[str, typer.Argument(help="The product's own id of the recipient.")],
    why: Annotated[str, typer.Option(help="How they said so, for whoever asks later. No address.")],
    topic: Annotated[str | None, typer.Option(help="What they refuse: this topic.")] = None,
    channel: Annotated[Channel | None, typer.Option(help="Only on this channel. Default: on all.")] = None,
    *,
    marketing: Annotated[bool, typer.Option("--marketing", help="What they refuse: all marketing.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="What they refuse: everything that is not mandatory.")
    ] = False,
) -> None:
    """Write down a no that came by phone or letter, and cancel what it stops."""
    from notifier.dispatch.ledger import withdraw_by_hand

    asked = [f"topic:{topic}"] if topic else []
    asked += [scope for scope, is_meant in ((MARKETING, marketing), (ALL, everything)) if is_meant]
    if len(asked) != 1:
        raise typer.BadParameter("say what they refuse: one of --topic, --marketing and --all")
    topics = _topics()

    async def work(c: Connection) -> Withdrawn:
        async with c.transaction():
            return await withdraw_by_hand(c, recipient, asked[0], channel or ANY, topics, why=why, by=BY)

    done = on_database(work)
    typer.echo(f"{asked[0]}/{channel or ANY}: no [{done.numbers[0]}]; {len(done.cancelled)} cancelled.")


@consent.command()
def rebuild(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Report differences and change nothing; 1 if there are any.")
    ] = (False),
) -> None:
    """Make the projection of the ledger anew, a batch of locked people at a time, and report what differed."""
    from notifier.store import consent as ledger
    from notifier.store import recipients

    async def walk(c: Connection) -> tuple[int, list[UUID]]:
        seen, wrong, after = 0, [], None
        while people := await ledger.people_after(c, after, BATCH):
            async with c.transaction():
                await recipients.lock(c, people)
                differing = await ledger.wrong_projections(c, people)
                if differing and not check:
                    await ledger.rebuild(c, differing)
            seen, after = seen + len(people), people[-1]
            wrong += differing
        return seen, wrong

    seen, wrong = on_database(walk)
    for person in wrong:
        typer.echo(f"differs: {person}")
    typer.echo(f"{seen} people, {len(wrong)} {'differ' if check else 'differed and were made anew'}.")
    if check and wrong:
        raise typer.Exit(1)


def _topics() -> Mapping[str, Topic]:
    from notifier.errors import NotConfigured, TemplateError
    from notifier.rendering import bundled_directory, folder, topics

    try:
        files = folder.read(read_settings().templates_dir or bundled_directory())
        declared = topics.declarations(files.get(topics.FILE, ""))
        return {key: topics.read(declaration) for key, declaration in declared.items()}
    except (NotConfigured, TemplateError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
