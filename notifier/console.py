"""What commands share: the settings, and a connection to do one thing on. What is wrong is one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from notifier.domain.recipients import Hasher
    from notifier.settings import Settings
    from notifier.store.database import Connection

T = TypeVar("T")


def read_settings() -> Settings:
    """Read the settings and set up the log; a missing setting is one sentence and exit status 2."""
    from notifier import settings, telemetry
    from notifier.errors import NotConfigured

    try:
        read = settings.load()
    except NotConfigured as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    telemetry.configure(read.log_level)
    return read


def read_hasher() -> Hasher:
    """The keyed hash under which addresses are stored."""
    from notifier.domain.recipients import Hasher

    return Hasher({name: secret.get_secret_value().encode() for name, secret in read_settings().hash_keys.items()})


def on_database(work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do one thing on a connection of its own; a database that does not answer is one sentence and exit status 2.

    What is refused, or is not there, is one sentence and exit status 1.
    """
    import asyncio

    import psycopg

    from notifier.errors import NotifierError

    async def connected(url: str) -> T:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            return await work(connection)

    try:
        return asyncio.run(connected(read_settings().database_url.get_secret_value()))
    except psycopg.OperationalError as error:
        typer.echo(f"notifier: PostgreSQL does not answer ({type(error).__name__}): see DATABASE_URL.", err=True)
    except psycopg.errors.UndefinedTable:
        typer.echo("notifier: the database is empty: run `notifier migrate` first.", err=True)
    except NotifierError as error:
        typer.echo(f"notifier: {error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(2)
