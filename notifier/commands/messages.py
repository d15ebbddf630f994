"""An operator looks at what has failed, and queues it once more when the cause is mended."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from notifier.console import moment, on_database
from notifier_channels.contract import Channel

if TYPE_CHECKING:
    from notifier.dispatch.replay import Replayed
    from notifier.store.replays import Which

messages = typer.Typer(help="Count what has failed, and replay it.", no_args_is_help=True)

NAMED = 20  #: messages that were left for one reason: more are only counted

Template = Annotated[str | None, typer.Option(help="Only of this template.")]
Where = Annotated[Channel | None, typer.Option("--channel", help="Only on this channel.")]
Reason = Annotated[str | None, typer.Option(help="Only for this reason, written as `messages failed` shows it.")]


@messages.command()
def failed(
    since: Annotated[str, typer.Option(help="Of messages made at this instant or later, such as 2026-03-01T09:00Z.")],
    template: Template = None,
    channel: Where = None,
    reason: Reason = None,
) -> None:
    """Count what has failed, by template, channel and reason, and how much of it has expired: a replay leaves that."""
    from notifier.store.replays import counted

    which = _which(since, template, channel, reason)
    found = on_database(lambda c: counted(c, which))
    width = max((len(one["template"]) for one in found), default=0)
    for one in found:
        expired = f"  ({one['expired']} expired)" if one["expired"] else ""
        typer.echo(f"{one['messages']:>9}  {one['channel']:<5}  {one['template']:<{width}}  {one['reason']}{expired}")
    if not found:
        typer.echo("Nothing of this kind has failed.")


@messages.command()
def replay(
    ids: Annotated[list[UUID] | None, typer.Argument(metavar="ID", help="Of messages; else name --since.")] = None,
    since: Annotated[str | None, typer.Option(help="All that `messages failed` counts with the same options.")] = None,
    template: Template = None,
    channel: Where = None,
    reason: Reason = None,
    rate: Annotated[
        float, typer.Option(min=0.1, max=100_000, help="How many a second become due: what is new must not wait long.")
    ] = 50,
) -> None:
    """Queue what has failed once more. The gate decides anew: who has said no meanwhile gets nothing."""
    from notifier.dispatch.replay import replay as these
    from notifier.dispatch.replay import replay_all

    if bool(ids) == (since is not None) or (ids and (template or channel or reason)):
        typer.echo("notifier: name messages, or --since with what narrows it; `messages failed` shows what.", err=True)
        raise typer.Exit(2)
    if since is None:
        named = list(dict.fromkeys(ids or ()))
        _tell(on_database(lambda c: these(c, named, rate)), rate)
    else:
        which = _which(since, template, channel, reason)
        _tell(on_database(lambda c: replay_all(c, which, rate)), rate)


def _which(since: str, template: str | None, channel: Channel | None, reason: str | None) -> Which:
    from datetime import UTC, datetime

    from notifier.store.replays import Which

    first = moment(since, "--since")
    if first is None:
        raise typer.BadParameter("write an instant, like 2026-03-01T09:00:00Z", param_hint="--since")
    return Which(first, datetime.now(UTC), template, channel, reason)


def _tell(done: Replayed, rate: float) -> None:
    during = f", over {done.queued / rate:.0f} seconds" if done.queued > rate else ""
    typer.echo(f"{done.queued} queued{during}.")
    for why, count in Counter(done.left.values()).most_common():
        typer.echo(f"{count} left: {why}.")
        for id_ in (id_ for id_, of in done.left.items() if of is why and count <= NAMED):
            typer.echo(f"  {id_}")
    for id_ in done.unheard_of:
        typer.echo(f"notifier: there is no message {id_}.", err=True)
    if done.unheard_of or (done.left and not done.queued):
        raise typer.Exit(1)
