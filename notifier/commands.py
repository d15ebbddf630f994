"""An operator asks and mends what people have said: the ledger of consent, and the addresses that must not be used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.console import on_database, read_hasher, read_settings
from notifier.domain.consent import SuppressionReason
from notifier.domain.messages import Category
from notifier_channels.contract import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from notifier.dispatch.block import Blocked
    from notifier.dispatch.ledger import Seen
    from notifier.domain.consent import Topic
    from notifier.store.database import Connection, Row
    from notifier_channels.contract import Address

consent = typer.Typer(help="Show what a person said, and make the projection of the ledger anew.", no_args_is_help=True)
suppressions = typer.Typer(help="List, look up, add and lift what blocks addresses.", no_args_is_help=True)

BATCH = 500
BY = "cli"

Why = Annotated[str, typer.Option(help="The reason, for whoever asks later. No address.")]
Where = Annotated[Channel, typer.Option(help="The channel of the address: email or sms.")]


# The ledger -----------------------------------------------------------------------------------------------------------


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

    moment, look = _moment(at), Look(read_hasher(), _topics())

    async def ask(c: Connection) -> tuple[list[Row], Seen]:
        person = await person_of(c, recipient)
        return await ledger.ledger_of(c, person), await look(c, person, moment)

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


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        moment = datetime.min  # noqa: DTZ901  # refused below, as it has no zone
    if moment is not None and moment.tzinfo is None:
        raise typer.BadParameter("write it with its zone, like 2026-03-01T09:00:00Z", param_hint="--at")
    return moment.astimezone(UTC) if moment else None


# Suppressions ---------------------------------------------------------------------------------------------------------


@suppressions.command("list")
def list_all(
    channel: Annotated[Channel | None, typer.Option(help="Only of this channel.")] = None,
    reason: Annotated[SuppressionReason | None, typer.Option(help="Only for this reason.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 100,
    before: Annotated[int | None, typer.Option(help="Only smaller numbers: the next page.")] = None,
    *,
    lifted: Annotated[bool, typer.Option("--lifted", help="Also those that were lifted.")] = False,
) -> None:
    """Show what blocks addresses, the newest first. No addresses: they are looked up one by one."""
    from notifier.dispatch.block import page_of

    found = on_database(lambda c: page_of(c, before=before, limit=limit, channel=channel, reason=reason, lifted=lifted))
    for one in found:
        typer.echo(_line(one))


@suppressions.command()
def lookup(
    address: Annotated[str, typer.Argument(help="An email address, or a phone number like +4930123456.")],
    channel: Where = Channel.EMAIL,
) -> None:
    """Show everything that ever stood against an address, lifted or not."""
    from notifier.dispatch.block import Block

    asked, block = _address(channel, address), Block(read_hasher())
    found = on_database(lambda c: block.look_up(c, channel, asked))
    for one in found:
        typer.echo(_line(one))
    if not found:
        typer.echo("Nothing ever stood against it.")


@suppressions.command()
def add(
    address: Annotated[str, typer.Argument(help="An email address, or a phone number like +4930123456.")],
    why: Why,
    channel: Where = Channel.EMAIL,
    *,
    marketing: Annotated[bool, typer.Option("--marketing", help="Block marketing only.")] = False,
) -> None:
    """Block an address by hand, for everything or for marketing only."""
    from notifier.dispatch.block import Block

    asked, block = _address(channel, address), Block(read_hasher())
    only = Category.MARKETING if marketing else None

    async def work(c: Connection) -> Blocked:
        async with c.transaction():
            return await block.add(c, channel, asked, only=only, why=why, by=BY)

    typer.echo(_line(on_database(work)))


@suppressions.command()
def lift(
    number: Annotated[int, typer.Argument(help="As listed.")],
    why: Why,
    despite: Annotated[
        SuppressionReason | None, typer.Option(help="To lift stop or erased, which is not ours to decide: repeat it.")
    ] = None,
) -> None:
    """End what blocks an address. What the person refused stays refused."""
    from notifier.dispatch.block import Block

    block = Block(read_hasher())

    async def work(c: Connection) -> Blocked:
        async with c.transaction():
            return await block.lift(c, number, why=why, by=BY, despite=despite)

    typer.echo(_line(on_database(work)))


def _address(channel: Channel, text: str) -> Address:
    from notifier.dispatch.block import parse
    from notifier_channels.addresses import InvalidAddress

    if channel is Channel.PUSH:
        raise typer.BadParameter("a device is removed, not blocked: DELETE it", param_hint="--channel")
    try:
        return parse(channel, text, allow_test=not read_settings().is_production)
    except InvalidAddress as error:
        raise typer.BadParameter(f"cannot be used: {error}", param_hint="ADDRESS") from None


def _line(one: Blocked) -> str:
    since = f"{one.created_at.astimezone(UTC):%Y-%m-%d %H:%M}"
    end = f"  lifted {one.lifted_at.astimezone(UTC):%Y-%m-%d %H:%M}: {one.lifted_why}" if one.lifted_at else ""
    why = f"  {one.evidence['why']}" if "why" in one.evidence else ""
    return f"{one.number:>8}  {one.channel:<5}  {one.reason:<11}  {one.blocks:<9}  {since}{why}{end}"
