"""What commands share: the settings, and a connection to do one thing on. What is wrong is one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from notifier.domain.recipients import Hasher
    from notifier.rendering import Templates
    from notifier.settings import Appearance, Settings
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


def moment(text: str | None, option: str = "--at") -> datetime | None:
    """An instant that was given with its zone, in UTC; another is refused by name."""
    from datetime import UTC, datetime

    if not text:
        return None
    try:
        given = datetime.fromisoformat(text)
        if given.tzinfo is not None:
            return given.astimezone(UTC)
    except (ValueError, OverflowError):  # the last day of the year 9999, further west
        pass
    raise typer.BadParameter("write it with its zone, like 2026-03-01T09:00:00Z", param_hint=option)


def read_appearance() -> Appearance:
    """Read what messages look like; a setting that is wrong is one sentence and exit status 1."""
    from notifier import settings
    from notifier.errors import NotConfigured

    try:
        return settings.load_appearance()
    except NotConfigured as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def read_templates(appearance: Appearance) -> Templates:
    """Load what NOTIFIER_TEMPLATES_DIR points at. What is wrong is listed, one mistake a line, with exit status 1."""
    from notifier.errors import NotConfigured, TemplateError
    from notifier.rendering import Identity, Templates, bundled_directory

    try:
        directory = appearance.templates_dir or bundled_directory()
        return Templates.load(directory, Identity.from_settings(appearance), appearance.default_locale)
    except (NotConfigured, TemplateError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


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
    except psycopg.errors.UndefinedColumn:
        typer.echo("notifier: the database is of another version: run `notifier migrate` first.", err=True)
    except psycopg.errors.InsufficientPrivilege:
        typer.echo("notifier: the user of DATABASE_URL may not do this: name the one that has migrated.", err=True)
    except psycopg.errors.ReadOnlySqlTransaction:
        typer.echo("notifier: DATABASE_URL leads to a server that takes no writes: name the primary.", err=True)
    except (psycopg.DataError, UnicodeEncodeError):
        typer.echo("notifier: what was typed cannot be stored: it is no UTF-8, or too large a number.", err=True)
    except NotifierError as error:
        typer.echo(f"notifier: {error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(2)
