"""The command line: an operator's way in. Heavy imports stay inside the commands, so that `--help` is instant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.commands.audiences import audiences
from notifier.commands.campaigns import campaigns
from notifier.commands.consent import consent
from notifier.commands.explain import explain
from notifier.commands.lists import lists
from notifier.commands.messages import messages
from notifier.commands.suppressions import suppressions
from notifier.commands.webhooks import webhooks
from notifier.console import on_database, read_appearance, read_settings, read_templates
from notifier.domain.access import Scope
from notifier.domain.messages import Lane
from notifier_channels.contract import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    name="notifier",
    help="Sends a product's messages and honours what people want.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

templates = typer.Typer(help="Check and look at the templates.", no_args_is_help=True)
app.add_typer(templates, name="templates")

keys = typer.Typer(help="Make and revoke the keys that product code shows at the API.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(audiences, name="audiences")
app.add_typer(consent, name="consent")
app.add_typer(lists, name="lists")
app.add_typer(messages, name="messages")
app.add_typer(suppressions, name="suppressions")
app.add_typer(campaigns, name="campaigns")
app.add_typer(webhooks, name="webhooks")
app.command()(explain)

MOST = 65535  #: of a port

StateDir = Annotated[Path, typer.Option(envvar="NOTIFIER_STATE_DIR", help="Where the data, the logs and the keys are.")]
Port = Annotated[
    int, typer.Option(envvar="NOTIFIER_PORT", min=0, max=MOST, help="The port of the API and the public pages.")
]
SandboxPort = Annotated[
    int, typer.Option(envvar="NOTIFIER_SANDBOX_PORT", min=0, max=MOST, help="The port of the sandbox's inbox.")
]
InboundPort = Annotated[
    int, typer.Option(envvar="NOTIFIER_INBOUND_PORT", min=0, max=MOST, help="The port that takes mail that comes back.")
]
SmtpPort = Annotated[
    int, typer.Option(envvar="NOTIFIER_SMTP_PORT", min=0, max=MOST, help="The port where the sandbox catches mail.")
]


@app.command()
def sandbox(
    http_port: Annotated[int, typer.Option(min=0, max=MOST, help="The port of the inbox page.")] = 8026,
    smtp_port: Annotated[int, typer.Option(min=0, max=MOST, help="The port that catches mail.")] = 1025,
    host: Annotated[str, typer.Option(help="Another than this machine's own: only on a network that you trust.")] = (
        "127.0.0.1"
    ),
) -> None:
    """Take mail, texts and pushes instead of sending them, and show them on a page. Refuses to start in production."""
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
def api(
    host: Annotated[str, typer.Option(help="Another than this machine's own: only behind a TLS proxy.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="NOTIFIER_PORT", min=0, max=MOST, help="0 takes a free one.")] = 8025,
) -> None:
    """Serve the API and the public pages until told to stop."""
    from notifier.web.process import run_api

    def serve() -> int:
        run_api(read_settings(), host, port, lambda url: typer.echo(f"API at {url}/docs"))
        return 0

    raise typer.Exit(_told(serve))


@app.command()
def worker(lane: Annotated[Lane, typer.Option(help="Which messages this process brings to an outcome.")]) -> None:
    """Deliver the messages of one lane until told to stop."""
    from notifier.worker import run_worker

    raise typer.Exit(run_worker(read_settings(), lane))


@app.command()
def inbound(
    host: Annotated[str, typer.Option(help="Another than this machine's own: only where no stranger reaches it.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int, typer.Option(envvar="NOTIFIER_INBOUND_PORT", min=0, max=MOST, help="0 takes a free one.")
    ] = 1026,
) -> None:
    """Take mail that comes back, over LMTP or SMTP: bounces, complaints and mailto unsubscribes."""
    from notifier.receiver import run_receiver

    def serve() -> int:
        run_receiver(read_settings(), host, port, lambda address: typer.echo(f"Mail at {address}"))
        return 0

    raise typer.Exit(_told(serve))


@app.command()
def scheduler() -> None:
    """Sweep: put right what dead workers left, and ring for what is due. One runs; a second does no harm."""
    from notifier.scheduler import run_scheduler

    raise typer.Exit(run_scheduler(read_settings()))


@app.command()
def up(
    state_dir: StateDir = Path(".notifier"),
    port: Port = 8025,
    sandbox_port: SandboxPort = 8026,
    smtp_port: SmtpPort = 1025,
    inbound_port: InboundPort = 1026,
) -> None:
    """Run everything on this machine until Ctrl-C: servers, API, workers, scheduler and the sandbox."""
    from rich.console import Console

    from notifier.supervise import Lines, Ports, Supervisor

    ports = Ports(port, sandbox_port, smtp_port, inbound_port)
    supervisor = Supervisor(state_dir, ports, show=Lines(Console()), environment=os.environ)
    raise typer.Exit(_told(supervisor.run))


@app.command()
def demo(
    state_dir: StateDir = Path(".notifier"),
    port: Port = 8025,
    sandbox_port: SandboxPort = 8026,
    smtp_port: SmtpPort = 1025,
    inbound_port: InboundPort = 1026,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="End after the scenario: 0 when its checks hold, else 1.")
    ] = False,
) -> None:
    """Run everything and play a scenario: mail, texts and pushes to many, people who say no, and what that stops."""
    from rich.console import Console

    from notifier.supervise import Ports, Progress, Supervisor

    show = Progress(Console())
    ports = Ports(port, sandbox_port, smtp_port, inbound_port)
    supervisor = Supervisor(state_dir, ports, show=show, environment=os.environ)
    try:
        status = _told(lambda: supervisor.run(["notifier.demo", *(["--once"] if once else [])], once=once))
    finally:
        show.close()
    raise typer.Exit(status)


@app.command()
def migrate() -> None:
    """Bring the database to the newest version. Safe to run from several places at once."""
    from notifier.store.database import migrate as bring_up

    url = read_settings().database_url.get_secret_value()
    try:
        bring_up(url)
    except OSError as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(2) from None


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who uses it, for your own eyes: `shop-backend`.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; give several with several --scope.")],
) -> None:
    """Make a key and show it, this once: only its hash is stored."""
    from notifier.domain.access import ApiKey
    from notifier.store import keys as stored

    key = ApiKey.new()
    on_database(lambda c: stored.create(c, key.id, name, key.secret_hash, sorted(set(scope))))
    typer.echo(str(key))
    typer.echo("Keep it now: it is not shown again.", err=True)


@keys.command("list")
def list_keys() -> None:
    """Show every key there ever was: its id, scopes, and when it was last used."""
    from notifier.store import keys as stored

    for key in on_database(stored.all_keys):
        used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
        state = "revoked" if key.revoked_at else used
        typer.echo(f"{key.id}  {state:<16}  {key.name:<24}  {' '.join(key.scopes)}")


@keys.command("revoke")
def revoke_key(id_: Annotated[str, typer.Argument(metavar="ID", help="The part after `nk_`, as listed.")]) -> None:
    """End a key for good; running processes refuse it within two seconds."""
    from notifier.store import keys as stored

    if not on_database(lambda c: stored.revoke(c, id_)):
        typer.echo(f"notifier: there is no key {id_}; see `notifier keys list`", err=True)
        raise typer.Exit(1)
    typer.echo(f"{id_} is revoked.")


@templates.command()
def check() -> None:
    """Prove every template: each channel and locale renders its sample, and marketing shows how to leave it."""
    from notifier.rendering import showing

    found = read_templates(read_appearance()).all()
    for template in found:
        typer.echo(showing.summary(template))
    if not found:
        typer.echo("notifier: there is no template there: see NOTIFIER_TEMPLATES_DIR.", err=True)
        raise typer.Exit(1)


@templates.command()
def preview(
    key: Annotated[str, typer.Argument(help="The template's folder.")],
    locale: Annotated[str | None, typer.Option(help="Default: every locale it is written in.")] = None,
    channel: Annotated[Channel | None, typer.Option(help="Default: every channel it has content for.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write HTML, text and push files into this folder.")] = None,
    *,
    show: Annotated[bool, typer.Option("--open", help="Show the HTML in the browser.")] = False,
) -> None:
    """Render a template's sample: printed as text, written to a folder, or opened in the browser."""
    import tempfile

    from notifier.rendering import check, showing

    appearance = read_appearance()
    template = read_templates(appearance).find(key)
    if template is None or (channel and channel not in template.channels):
        typer.echo(f"There is no template {key}{f' for {channel}' if channel else ''}.", err=True)
        raise typer.Exit(1)
    folder = out or (Path(tempfile.mkdtemp(prefix="notifier-preview-")) if show else None)
    for one in [channel] if channel else template.variants:
        for tag in [locale] if locale else template.variants[one]:
            seen = check.look_at(template, one, tag)
            if folder is None:
                typer.echo(showing.shown(seen, appearance.sms_segment_price))
                continue
            try:
                files = showing.write(seen, folder, f"{key}.{tag}")
            except OSError as error:
                typer.echo(f"notifier: {error.filename or folder}: {error.strerror}", err=True)
                raise typer.Exit(1) from None
            for file in files:
                typer.echo(str(file))
                if show and file.suffix == ".html":
                    typer.launch(file.resolve().as_uri())


def _told(run: Callable[[], int]) -> int:
    """Run something; what it cannot do is one sentence and exit status 2."""
    from notifier.errors import NotifierError

    try:
        return run()
    except NotifierError as error:
        typer.echo(f"notifier: {error}", err=True)
    except OSError as error:
        typer.echo(f"notifier: {error.filename or 'this machine'}: {error.strerror or error}", err=True)
    return 2


if __name__ == "__main__":
    app()
