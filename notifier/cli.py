"""The command line: an operator's way in. Heavy imports stay inside the commands, so that `--help` is instant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer

from notifier.domain.access import Scope
from notifier.domain.messages import Lane
from notifier_channels.contract import Channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from rich.console import Console

    from notifier.domain.explanation import Explanation
    from notifier.domain.recipients import Hasher
    from notifier.rendering import Templates
    from notifier.settings import Appearance, Settings
    from notifier.store.database import Connection, Row
    from notifier.store.webhooks import Standing

T = TypeVar("T")

LATEST = 10  #: messages that `explain` tells of, when none is named

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

webhooks = typer.Typer(help="Say where product code is told what happened.", no_args_is_help=True)
app.add_typer(webhooks, name="webhooks")

StateDir = Annotated[Path, typer.Option(envvar="NOTIFIER_STATE_DIR", help="Where the data, the logs and the keys are.")]
Port = Annotated[int, typer.Option(envvar="NOTIFIER_PORT", help="The port of the API and the public pages.")]
SandboxPort = Annotated[int, typer.Option(envvar="NOTIFIER_SANDBOX_PORT", help="The port of the sandbox's inbox.")]
SmtpPort = Annotated[int, typer.Option(envvar="NOTIFIER_SMTP_PORT", help="The port where the sandbox catches mail.")]


@app.command()
def sandbox(
    http_port: Annotated[int, typer.Option(help="The port of the inbox page.")] = 8026,
    smtp_port: Annotated[int, typer.Option(help="The port that catches mail.")] = 1025,
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
    port: Annotated[int, typer.Option(envvar="NOTIFIER_PORT", help="0 takes a free one.")] = 8025,
) -> None:
    """Serve the API and the public pages until told to stop."""
    from notifier.web.process import run_api

    def serve() -> int:
        run_api(_settings(), host, port, lambda url: typer.echo(f"API at {url}/docs"))
        return 0

    raise typer.Exit(_told(serve))


@app.command()
def worker(lane: Annotated[Lane, typer.Option(help="Which messages this process brings to an outcome.")]) -> None:
    """Deliver the messages of one lane until told to stop."""
    from notifier.worker import run_worker

    raise typer.Exit(run_worker(_settings(), lane))


@app.command()
def scheduler() -> None:
    """Sweep: put right what dead workers left, and ring for what is due. One runs; a second does no harm."""
    from notifier.scheduler import run_scheduler

    raise typer.Exit(run_scheduler(_settings()))


@app.command()
def up(
    state_dir: StateDir = Path(".notifier"),
    port: Port = 8025,
    sandbox_port: SandboxPort = 8026,
    smtp_port: SmtpPort = 1025,
) -> None:
    """Run everything on this machine until Ctrl-C: servers, API, workers, scheduler and the sandbox."""
    from rich.console import Console

    from notifier.supervise import Lines, Ports, Supervisor

    supervisor = Supervisor(
        state_dir, Ports(port, sandbox_port, smtp_port), show=Lines(Console()), environment=os.environ
    )
    raise typer.Exit(_told(supervisor.run))


@app.command()
def demo(
    state_dir: StateDir = Path(".notifier"),
    port: Port = 8025,
    sandbox_port: SandboxPort = 8026,
    smtp_port: SmtpPort = 1025,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="End after the scenario: 0 when its checks hold, else 1.")
    ] = False,
) -> None:
    """Run everything and play a scenario: two kinds of mail to many, a click on unsubscribe, and what it stops."""
    from rich.console import Console

    from notifier.supervise import Ports, Progress, Supervisor

    show = Progress(Console())
    supervisor = Supervisor(state_dir, Ports(port, sandbox_port, smtp_port), show=show, environment=os.environ)
    try:
        status = _told(lambda: supervisor.run(["notifier.demo", *(["--once"] if once else [])], once=once))
    finally:
        show.close()
    raise typer.Exit(status)


@app.command()
def migrate() -> None:
    """Bring the database to the newest version. Safe to run at any time, and from several places at once."""
    from notifier.store.database import migrate as bring_up

    url = _settings().database_url.get_secret_value()
    try:
        bring_up(url)
    except OSError as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(2) from None


@app.command()
def explain(
    message: Annotated[UUID | None, typer.Argument(help="The id of a message, or of a notification.")] = None,
    recipient: Annotated[str | None, typer.Option(help="The product's id of a person, in place of a message.")] = None,
    topic: Annotated[str | None, typer.Option(help="With --recipient: what about.")] = None,
    template: Annotated[str | None, typer.Option(help="With --recipient: which template.")] = None,
    channel: Annotated[Channel | None, typer.Option(help="Ask whether it would be sent on this channel.")] = None,
    at: Annotated[
        str | None, typer.Option(help="With --channel: when, such as 2026-03-01T09:00Z. Default: now.")
    ] = None,
) -> None:
    """Say what became of a message, or would, and why, in words to read aloud: rule, consent, attempts, reports."""
    if (message is None) == (recipient is None) or (recipient is not None and (topic is None) == (template is None)):
        typer.echo("notifier: name a message, or --recipient with one of --topic and --template.", err=True)
        raise typer.Exit(2)
    if message is not None:
        _explain_message(message)
    elif channel is None:
        _explain_latest(str(recipient), topic, template)
    else:
        _foresee(str(recipient), topic, template, channel, _moment(at))


def _moment(text: str | None) -> datetime | None:
    from datetime import datetime

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        typer.echo("notifier: --at wants an instant with its zone, such as 2026-03-01T09:00Z.", err=True)
        raise typer.Exit(2)
    return moment


def _hasher() -> Hasher:
    from notifier.domain.recipients import Hasher

    return Hasher({name: secret.get_secret_value().encode() for name, secret in _settings().hash_keys.items()})


def _foresee(recipient: str, topic: str | None, template: str | None, channel: Channel, at: datetime | None) -> None:
    from rich.console import Console

    from notifier.dispatch.foresee import Asked, Foresee
    from notifier.domain.foresight import foretell

    foresee = Foresee(_hasher(), _templates(_appearance()))
    asked = Asked(recipient, channel, topic, template, at)
    seen = _refusing(lambda: _on_database(lambda c: foresee(c, asked)))
    _tell(Console(highlight=False, soft_wrap=True), f"Would it be sent? Asked of {channel}", foretell(seen))


def _explain_latest(recipient: str, topic: str | None, template: str | None) -> None:
    from rich.console import Console

    from notifier.dispatch.explain import stories_for
    from notifier.domain import explanation

    hasher = _hasher()
    stories = _refusing(
        lambda: _on_database(lambda c: stories_for(c, hasher, recipient, topic=topic, template=template, limit=LATEST))
    )
    if not stories:
        typer.echo("Nothing was ever handed over: no message of this kind exists for this person.")
    for story in stories:
        _tell(Console(highlight=False, soft_wrap=True), story.id, explanation.explain(story))


def _refusing(run: Callable[[], T]) -> T:
    """What is refused is one sentence and exit status 1."""
    from notifier.errors import NotifierError

    try:
        return run()
    except NotifierError as error:
        typer.echo(f"notifier: {error}", err=True)
        raise typer.Exit(1) from None


def _explain_message(message: UUID) -> None:
    from rich.console import Console

    from notifier.dispatch.explain import stories_of
    from notifier.domain import explanation

    hasher = _hasher()
    stories = _on_database(lambda c: stories_of(c, hasher, message))
    if not stories:
        typer.echo(f"notifier: there is no message {message}.", err=True)
        raise typer.Exit(1)
    console = Console(highlight=False, soft_wrap=True)
    for story in stories:
        _tell(console, story.id, explanation.explain(story))


def _tell(console: Console, title: UUID | str, said: Explanation) -> None:
    from rich.markup import escape

    from notifier.domain.explanation import instant

    console.print(f"[bold]{title}[/]\n{escape(said.about)}\n\n[bold]{escape(said.answer)}[/]")
    for reason in said.why:
        console.print(escape(reason))
    for heading, facts in (("What happened", said.happened), ("What was said and known", said.consent)):
        if facts:
            console.print(f"\n[bold]{heading}[/]")
        for fact in facts:
            mark = "[bold yellow]>[/]" if fact.decides else " "
            console.print(f"{mark} [dim]{instant(fact.at)}[/]  {escape(fact.text)}")
    if any(fact.decides for fact in said.consent):
        console.print("\n[dim]> marks what decided.[/]")
    console.print()


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who uses it, for your own eyes: `shop-backend`.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; give several with several --scope.")],
) -> None:
    """Make a key and show it, this once: only its hash is stored."""
    from notifier.domain.access import ApiKey
    from notifier.store import keys as stored

    key = ApiKey.new()
    _on_database(lambda c: stored.create(c, key.id, name, key.secret_hash, sorted(set(scope))))
    typer.echo(str(key))
    typer.echo("Keep it now: it is not shown again.", err=True)


@keys.command("list")
def list_keys() -> None:
    """Show every key there ever was: its id, scopes, and when it was last used."""
    from notifier.store import keys as stored

    for key in _on_database(stored.all_keys):
        used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
        state = "revoked" if key.revoked_at else used
        typer.echo(f"{key.id}  {state:<16}  {key.name:<24}  {' '.join(key.scopes)}")


@keys.command("revoke")
def revoke_key(id_: Annotated[str, typer.Argument(metavar="ID", help="The part after `nk_`, as listed.")]) -> None:
    """End a key for good; running processes refuse it within two seconds."""
    from notifier.store import keys as stored

    if not _on_database(lambda c: stored.revoke(c, id_)):
        typer.echo(f"notifier: there is no key {id_}; see `notifier keys list`", err=True)
        raise typer.Exit(1)
    typer.echo(f"{id_} is revoked.")


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

    endpoints = endpoints_of(_settings())
    added = _refusing(lambda: _on_database(lambda c: endpoints.add(c, url, types or ())))
    typer.echo(added.secret)
    typer.echo(f"Endpoint {added.id}. Keep the secret now: it is not shown again.", err=True)


@webhooks.command("list")
def list_webhooks() -> None:
    """Show every endpoint: how it stands, what waits for it, and what was given up in the last 30 days."""
    from notifier.domain.events import Position
    from notifier.store import webhooks as stored

    async def look(c: Connection) -> list[tuple[Standing, list[Row]]]:
        return [(one, await stored.given_up(c, one.endpoint.id, LATEST)) for one in await stored.standing(c)]

    for one, lost in _on_database(look):
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

    endpoints = endpoints_of(_settings())
    _refusing(lambda: _on_database(lambda c: endpoints.remove(c, id_)))
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

    endpoints = endpoints_of(_settings())
    _refusing(lambda: _on_database(lambda c: endpoints.replay(c, id_, event=event, after=after)))
    typer.echo("It will be sent again.")


@templates.command()
def check() -> None:
    """Prove every template: each channel and locale renders its sample, and marketing shows how to leave it."""
    from notifier.rendering import showing

    for template in _templates(_appearance()).all():
        typer.echo(showing.summary(template))


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

    appearance = _appearance()
    template = _templates(appearance).find(key)
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
            for file in showing.write(seen, folder, f"{key}.{tag}"):
                typer.echo(str(file))
                if show and file.suffix == ".html":
                    typer.launch(file.resolve().as_uri())


def _appearance() -> Appearance:
    """Read what messages look like; a setting that is wrong is one sentence and exit status 1."""
    from notifier import settings
    from notifier.errors import NotConfigured

    try:
        return settings.load_appearance()
    except NotConfigured as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _templates(appearance: Appearance) -> Templates:
    """Load what NOTIFIER_TEMPLATES_DIR points at. What is wrong is listed, one mistake a line, with exit status 1."""
    from notifier.errors import NotConfigured, TemplateError
    from notifier.rendering import Identity, Templates, bundled_directory

    try:
        directory = appearance.templates_dir or bundled_directory()
        return Templates.load(directory, Identity.from_settings(appearance), appearance.default_locale)
    except (NotConfigured, TemplateError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _on_database(work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do one thing on a connection of its own; a database that does not answer is one sentence and exit status 2."""
    import asyncio

    import psycopg

    async def connected(url: str) -> T:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            return await work(connection)

    try:
        return asyncio.run(connected(_settings().database_url.get_secret_value()))
    except psycopg.OperationalError as error:
        typer.echo(f"notifier: PostgreSQL does not answer ({type(error).__name__}): see DATABASE_URL.", err=True)
    except psycopg.errors.UndefinedTable:
        typer.echo("notifier: the database is empty: run `notifier migrate` first.", err=True)
    raise typer.Exit(2)


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
