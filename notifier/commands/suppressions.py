"""An operator asks and mends which addresses must not be used."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.console import on_database, read_hasher, read_settings
from notifier.domain.consent import SuppressionReason
from notifier.domain.messages import Category
from notifier_channels.contract import Channel

if TYPE_CHECKING:
    from notifier.dispatch.block import Blocked
    from notifier.store.database import Connection
    from notifier_channels.contract import Address

suppressions = typer.Typer(help="List, look up, add and lift what blocks addresses.", no_args_is_help=True)

BY = "cli"

Why = Annotated[str, typer.Option(help="The reason, for whoever asks later. No address.")]
Where = Annotated[Channel, typer.Option(help="The channel of the address: email or sms.")]


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
