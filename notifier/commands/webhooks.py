"""An operator says where product code is told what happened, and sends again what was lost on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from notifier.console import on_database, read_settings

if TYPE_CHECKING:
    from notifier.store.database import Connection, Row
    from notifier.store.webhooks import Standing

webhooks = typer.Typer(help="Say where product code is told what happened.", no_args_is_help=True)

LISTED = 10  #: given-up deliveries that are shown of each endpoint


@webhooks.command("add")
def add_webhook(
    url: Annotated[str, typer.Argument(help="Where to; https in production.")],
    types: Annotated[
        list[str] | None,
        typer.Option(help="Which events, such as `message.*`; several with several --types. Default: all."),
    ] = None,
) -> None:
    """Tell a URL what happens from now on, and show the secret that verifies it, this once: it is not stored."""
    from notifier.app import endpoints_of

    endpoints = endpoints_of(read_settings())
    added = on_database(lambda c: endpoints.add(c, url, types or ()))
    typer.echo(added.secret)
    typer.echo(f"Endpoint {added.id}. Keep the secret now: it is not shown again.", err=True)


@webhooks.command("list")
def list_webhooks() -> None:
    """Show every endpoint: how it stands, what waits for it, and what was given up in the last 30 days."""
    from notifier.domain.events import Position
    from notifier.store import webhooks as stored

    async def look(c: Connection) -> list[tuple[Standing, list[Row]]]:
        return [(one, await stored.given_up(c, one.endpoint.id, LISTED)) for one in await stored.standing(c)]

    for one, lost in on_database(look):
        endpoint = one.endpoint
        working = "failing" if endpoint.failures else "ok"
        state = f"disabled: {endpoint.disabled_why}" if endpoint.disabled_why else working
        typer.echo(f"{endpoint.id}  {state:<14}  waiting {one.waiting}  given up {one.given_up}  {endpoint.url}")
        typer.echo(f"    {' '.join(sorted(endpoint.types))}")
        for row in lost:
            at = Position(int(row["xid"]), row["number"])
            typer.echo(f"    given up: {at} after {row['tries']} tries, the last one {row['code']}")


@webhooks.command("remove")
def remove_webhook(id_: Annotated[UUID, typer.Argument(metavar="ID", help="Of the endpoint, as listed.")]) -> None:
    """Tell an endpoint nothing any more, and forget what waits for it."""
    from notifier.app import endpoints_of

    endpoints = endpoints_of(read_settings())
    on_database(lambda c: endpoints.remove(c, id_))
    typer.echo(f"{id_} is removed.")


@webhooks.command("replay")
def replay_webhook(
    id_: Annotated[UUID, typer.Argument(metavar="ID", help="Of the endpoint, as listed.")],
    event: Annotated[str | None, typer.Option(help="Send this one event again.")] = None,
    after: Annotated[
        str | None, typer.Option(help="Send everything after this event again, also after a disabling.")
    ] = None,
) -> None:
    """Send again what the endpoint has lost, under the same ids: exactly one of --event and --after."""
    from notifier.app import endpoints_of

    endpoints = endpoints_of(read_settings())
    on_database(lambda c: endpoints.replay(c, id_, event=event, after=after))
    typer.echo("It will be sent again.")
