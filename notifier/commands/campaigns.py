"""An operator draws up a campaign, looks at what would happen, lets it go, and stops it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from notifier.commands.campaign_reports import report
from notifier.commands.campaign_watch import watch
from notifier.console import on_database, read_appearance, read_hasher, read_settings, read_templates
from notifier.domain.campaigns import CampaignState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from pydantic import BaseModel

    from notifier.dispatch.campaigns import Campaigns
    from notifier.domain.who import Given
    from notifier.store.campaigns import Campaign, Plan
    from notifier.store.database import Connection

campaigns = typer.Typer(help="Send one template to many, and stop it at any moment.", no_args_is_help=True)
campaigns.command()(watch)
campaigns.command()(report)

T = TypeVar("T")
B = TypeVar("B", bound="BaseModel")

LOOK = 0.5  #: seconds between two looks at a dry-run

Id = Annotated[UUID, typer.Argument(metavar="ID", help="Of the campaign, as listed.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="JSON as the API takes it; `-` reads standard input.")]


@campaigns.command()
def create(file: File) -> None:
    """Draw up a campaign: a draft, of which nothing is sent."""
    from notifier.domain.access import OPERATOR
    from notifier.web.campaign_bodies import CampaignBody

    body = _read(CampaignBody, file)
    use = _campaigns()
    made, _ = _changing(lambda c: use.create(c, body.content, OPERATOR))
    typer.echo(str(made.id))
    if open_ := use.from_attributes(made):
        typer.echo(f"From each recipient's attributes: {', '.join(open_)}.", err=True)


@campaigns.command("list")
def list_all(
    state: Annotated[CampaignState | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 50,
    before: Annotated[UUID | None, typer.Option(help="Only those made before this one: the next page.")] = None,
) -> None:
    """Show the campaigns, the newest first."""
    from notifier.store import campaigns as stored

    for one in on_database(lambda c: stored.page(c, before=before, limit=limit, state=state)):
        typer.echo(_line(one))


@campaigns.command()
def show(id_: Id) -> None:
    """Show all that is known of a campaign."""
    from notifier.dispatch import steering

    campaign = on_database(lambda c: steering.current(c, id_))
    content = {name: getattr(campaign.content, name) for name in campaign.content.__slots__}
    rest = {name: getattr(campaign, name) for name in campaign.__slots__ if name != "content"}
    for line in _lines({**content, **rest}):
        typer.echo(line)


@campaigns.command()
def edit(id_: Id, file: File) -> None:
    """Change what the file mentions. Of a campaign that is sent, its name, rate and expires_at can change."""
    from notifier.domain.access import OPERATOR
    from notifier.web.campaign_bodies import EditBody

    body = _read(EditBody, file)
    use = _campaigns()
    typer.echo(_line(_changing(lambda c: use.edit(c, id_, body.said, OPERATOR))))


@campaigns.command()
def preview(id_: Id) -> None:
    """Let the scheduler reckon what would happen, and show it: who would get it and who not, why, and when."""
    from rich.console import Console

    from notifier.commands import plans
    from notifier.domain.access import OPERATOR

    use = _campaigns()
    _changing(lambda c: use.preview(c, id_, OPERATOR))
    console = Console(stderr=True)
    with console.status("The scheduler reckons it. Ctrl-C leaves it to that.") as status:
        plan = on_database(lambda c: _reckoned(c, id_, lambda progress: status.update(_words(progress))))
    if plan.problem:
        typer.echo(f"notifier: {plan.problem}", err=True)
        raise typer.Exit(1)
    for line in plans.lines(plan.plan or {}):
        typer.echo(line)
    typer.echo(f"\nTo approve it: notifier campaigns schedule {id_} --plan {plan.hash}")


@campaigns.command()
def schedule(
    id_: Id, plan: Annotated[str, typer.Option(help="The hash of the dry-run that is approved, as preview shows it.")]
) -> None:
    """Approve a dry-run: the campaign, as it was then, goes out when its time comes."""
    from notifier.domain.access import OPERATOR

    use = _campaigns()
    typer.echo(_line(_changing(lambda c: use.schedule(c, id_, plan, OPERATOR))))


@campaigns.command()
def unschedule(id_: Id) -> None:
    """Make a scheduled campaign a draft again."""
    from notifier.dispatch import steering
    from notifier.domain.access import OPERATOR

    typer.echo(_line(_changing(lambda c: steering.unschedule(c, id_, OPERATOR))))


@campaigns.command()
def pause(
    id_: Id, why: Annotated[str, typer.Option(help="The reason, for whoever asks later. No address.")] = "asked"
) -> None:
    """Hold a campaign up: what a worker has in hand goes out, and nothing after it."""
    from notifier.dispatch import steering
    from notifier.domain.access import OPERATOR

    typer.echo(_line(_changing(lambda c: steering.pause(c, id_, OPERATOR, why))))


@campaigns.command()
def resume(id_: Id) -> None:
    """Let a paused campaign go on."""
    from notifier.dispatch import steering
    from notifier.domain.access import OPERATOR

    typer.echo(_line(_followed(lambda c: steering.resume(c, id_, OPERATOR))))


@campaigns.command()
def cancel(id_: Id) -> None:
    """End a campaign for good: what nobody has in hand is never sent."""
    from notifier.dispatch import steering
    from notifier.domain.access import OPERATOR

    typer.echo(_line(_followed(lambda c: steering.cancel(c, id_, OPERATOR))))


@campaigns.command("test")
def send_test(
    id_: Id,
    email: Annotated[list[str] | None, typer.Option(help="To this address; several with several --email.")] = None,
    recipient: Annotated[
        list[str] | None, typer.Option(help="To whom the product calls so; several with several --recipient.")
    ] = None,
) -> None:
    """Send a campaign to a few who are named, marked as a test. Their consent counts, as always."""
    from notifier.dispatch.rehearse import MOST, Rehearse
    from notifier.domain.access import OPERATOR
    from notifier.providers import channels_of

    people = _people(email or [], recipient or [])
    if not 0 < len(people) <= MOST:
        raise typer.BadParameter(f"name 1 to {MOST} people with --email and --recipient")
    rehearse = Rehearse(read_templates(read_appearance()), channels_of(read_settings()))
    _, sent = _changing(lambda c: rehearse(c, id_, people, OPERATOR))
    for one in sent:
        typer.echo(f"{one.id}  {one.channel}")
    typer.echo("See what becomes of one: notifier explain ID", err=True)


def _people(emails: list[str], ids: list[str]) -> list[Given]:
    from notifier.domain.who import Given, GivenAddress
    from notifier_channels.addresses import EmailAddress, InvalidAddress
    from notifier_channels.contract import Channel

    hasher, allow_test = read_hasher(), not read_settings().is_production
    try:
        addresses = [EmailAddress.parse(text, allow_test_domains=allow_test) for text in emails]
    except InvalidAddress as error:
        raise typer.BadParameter(f"cannot be used: {error}", param_hint="--email") from None
    found = [Given(addresses={Channel.EMAIL: GivenAddress.of(address, hasher)}) for address in addresses]
    return found + [Given(id_) for id_ in ids]


def _campaigns() -> Campaigns:
    from notifier.dispatch.campaigns import Campaigns
    from notifier.providers import channels_of

    return Campaigns(read_templates(read_appearance()), channels_of(read_settings()))


def _changing(work: Callable[[Connection], Awaitable[T]]) -> T:
    async def transact(c: Connection) -> T:
        async with c.transaction():
            return await work(c)

    return on_database(transact)


def _followed(work: Callable[[Connection], Awaitable[Campaign]]) -> Campaign:
    """The move holds when it is committed; then comes what is queued, in pieces."""
    from notifier.dispatch import steering

    async def moved(c: Connection) -> Campaign:
        async with c.transaction():
            campaign = await work(c)
        await steering.follow(c, campaign)
        return campaign

    return on_database(moved)


def _read(form: type[B], file: Path) -> B:
    """What a file says, in a form of the API's."""
    from pydantic import ValidationError

    from notifier.web.problems import explain

    try:
        text = typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text()
        return form.model_validate_json(text)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            problem = explain({**one, "loc": ("body", *one["loc"])})
            typer.echo(f"notifier: {problem.pointer or 'the file'}: {problem.detail}", err=True)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        typer.echo(f"notifier: {file}: {reason}", err=True)
    raise typer.Exit(1)


async def _reckoned(c: Connection, id_: UUID, tell: Callable[[Mapping[str, Any]], None]) -> Plan:
    from notifier.store import campaigns as stored

    while (plan := await stored.latest_plan(c, id_)) is None or not (plan.hash or plan.problem):
        tell(plan.progress if plan else {})
        await asyncio.sleep(LOOK)
    return plan


def _words(progress: Mapping[str, Any]) -> str:
    said = ", ".join(f"{name} {value}" for name, value in progress.items())
    return f"The scheduler reckons it: {said}" if said else "The scheduler reckons it. Ctrl-C leaves it to that."


def _line(one: Campaign) -> str:
    why = f" ({one.pause_reason})" if one.pause_reason else ""
    when = f"  starts {one.starts_at:%Y-%m-%d %H:%M}" if one.starts_at else ""
    return f"{one.id}  {one.state}{why}  {one.content.template}{when}  {one.content.name}"


def _lines(what: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Names and values, one a line, what is inside another one below it."""
    for name, value in what.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{name}"
            yield from _lines(value, indent + "  ")
        elif value not in (None, {}, []):
            yield f"{indent}{name}: {value}"
