"""The command line: an operator's way in. Heavy imports stay inside the commands, so that `--help` is instant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from notifier.domain.messages import Lane

if TYPE_CHECKING:
    from notifier.settings import Settings

app = typer.Typer(
    name="notifier",
    help="Sends a product's messages and honours what people want.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def sandbox(
    http_port: Annotated[int, typer.Option(help="The port of the inbox page.")] = 8026,
    smtp_port: Annotated[int, typer.Option(help="The port that catches mail.")] = 1025,
    host: Annotated[str, typer.Option(help="Another than this machine's own: only on a network that you trust.")] = (
        "127.0.0.1"
    ),
) -> None:
    """Catch mail instead of sending it, and show it in an inbox page. Refuses to start in production."""
    import asyncio

    from notifier import settings
    from notifier.errors import NotConfigured
    from notifier.sandbox import server

    def ready(running: server.Running) -> None:
        typer.echo(f"Sandbox: inbox at {running.http_url}, SMTP at {host}:{running.smtp_port}. Nothing leaves it.")

    try:
        environment = settings.load_sandbox()
        asyncio.run(server.serve(environment, host=host, http_port=http_port, smtp_port=smtp_port, ready=ready))
    except NotConfigured as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


@app.command()
def worker(lane: Annotated[Lane, typer.Option(help="Which messages this process brings to an outcome.")]) -> None:
    """Deliver the messages of one lane until told to stop."""
    from notifier.worker import run_worker

    raise typer.Exit(run_worker(_settings(), lane))


@app.command()
def scheduler() -> None:
    """Sweep: put right what dead workers left, and ring for what is due. One runs; a second does no harm."""
    from notifier.worker import run_scheduler

    raise typer.Exit(run_scheduler(_settings()))


@app.command()
def migrate() -> None:
    """Bring the database to the newest version. Safe to run at any time, and from several places at once."""
    from notifier.store.database import migrate as bring_up

    bring_up(_settings().database_url.get_secret_value())


def _settings() -> Settings:
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


if __name__ == "__main__":
    app()
