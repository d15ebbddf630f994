"""An operator asks why a message went or not, and whether one would: the command to answer a person who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from notifier.console import moment, on_database, read_appearance, read_hasher, read_settings, read_templates
from notifier_channels.contract import Channel

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from notifier.domain.explanation import Explanation

LATEST = 10  #: messages that are told of, when none is named


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
        _foresee(str(recipient), topic, template, channel, moment(at))


def _foresee(recipient: str, topic: str | None, template: str | None, channel: Channel, at: datetime | None) -> None:
    from rich.console import Console

    from notifier.dispatch.foresee import Asked, Foresee
    from notifier.dispatch.timing import Timing
    from notifier.domain.foresight import foretell

    foresee = Foresee(read_hasher(), read_templates(read_appearance()), Timing.from_settings(read_settings()))
    asked = Asked(recipient, channel, topic, template, at)
    seen = on_database(lambda c: foresee(c, asked))
    _tell(Console(highlight=False, soft_wrap=True), f"Would it be sent? Asked of {channel}", foretell(seen))


def _explain_latest(recipient: str, topic: str | None, template: str | None) -> None:
    from rich.console import Console

    from notifier.dispatch.explain import stories_for
    from notifier.domain import explanation

    hasher = read_hasher()
    stories = on_database(lambda c: stories_for(c, hasher, recipient, topic=topic, template=template, limit=LATEST))
    if not stories:
        typer.echo("Nothing was ever handed over: no message of this kind exists for this person.")
    for story in stories:
        _tell(Console(highlight=False, soft_wrap=True), story.id, explanation.explain(story))


def _explain_message(message: UUID) -> None:
    from rich.console import Console

    from notifier.dispatch.explain import stories_of
    from notifier.domain import explanation

    hasher = read_hasher()
    stories = on_database(lambda c: stories_of(c, hasher, message))
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
