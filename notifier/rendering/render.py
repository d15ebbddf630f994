"""Between the gate and the wire: a `Permit`, a template and one person's ingredients become content.

Nothing half-rendered leaves: a missing field, a bad link or too much output is a `TemplateError` that names the file
and shows the template's line, never the data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Never
from zoneinfo import ZoneInfo

import jinja2

from notifier.domain.consent import Permit
from notifier.errors import TemplateError
from notifier.rendering import text
from notifier.rendering.filters import Situation, situation
from notifier.rendering.locales import formats_of
from notifier.rendering.template import Template, Variant
from notifier_channels.contract import Channel, Content, EmailContent, ListHeaders

MAX_OUTPUT = 1_000_000
MAX_SUBJECT = 250

_INVISIBLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]+")
"""Besides controls: line separators, and the marks that turn the direction of text and so can disguise it."""
_BLANK_LINES = re.compile(r"\n{3,}")  # where an `if` left nothing


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What one message adds to its template."""

    locale: str
    timezone: str
    data: Mapping[str, Any]
    unsubscribe: ListHeaders | None = None  #: marketing: from `Template.list_headers`; transactional: None
    preferences_url: str | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """The token for looking at a template. What it renders is `Previewed`, which no channel takes."""


@dataclass(frozen=True, slots=True)
class Previewed:
    """What a mail would look like."""

    locale: str  #: the one that was chosen
    subject: str
    text: str
    html: str | None


def render(permit: Permit, template: Template, channel: Channel, ingredients: Ingredients) -> Content:  # noqa: ARG001  # the token
    """The content of a message that may go."""
    if channel is not Channel.EMAIL:
        raise TemplateError(f"{template.key}: has no content for {channel}")
    seen = _render(template, ingredients)
    identity = template.identity
    return EmailContent(
        sender=identity.sender,
        subject=seen.subject,
        text=seen.text,
        html=seen.html,
        reply_to=identity.reply_to,
        subscription=ingredients.unsubscribe,
        feedback_id=_feedback_id(template) if template.is_marketing else None,
    )


def preview(token: Preview, template: Template, ingredients: Ingredients) -> Previewed:  # noqa: ARG001  # the token
    """The same for a person who looks at the template."""
    return _render(template, ingredients)


def _render(template: Template, ingredients: Ingredients) -> Previewed:
    if template.is_marketing != (ingredients.unsubscribe is not None):
        raise TemplateError(f"{template.key}: marketing, and nothing else, is rendered with its unsubscribe link")
    variant = template.variant(ingredients.locale)
    unsubscribe_url = ingredients.unsubscribe.unsubscribe_url if ingredients.unsubscribe else None
    here = Situation(formats_of(ingredients.locale, variant.locale), _zone(ingredients.timezone))
    token = situation.set(here)
    try:
        values = {
            **ingredients.data,
            **variant.constants,
            "unsubscribe_url": unsubscribe_url,
            "preferences_url": ingredients.preferences_url,
        }
        return _parts(variant, values)
    finally:
        situation.reset(token)


def _parts(variant: Variant, values: dict[str, Any]) -> Previewed:
    subject = one_line(_output(variant.subject, values))
    if not subject:
        raise TemplateError(f"{variant.subject.name}: the subject is empty")
    values["subject"] = subject
    html = _output(variant.html, values) if variant.html else None
    plain = _BLANK_LINES.sub("\n\n", _output(variant.text, values)) if variant.text else text.from_html(html or "")
    return Previewed(variant.locale, subject, plain.strip("\n") + "\n", html)


def one_line(subject: str) -> str:
    """Whatever data holds, a header is one line of visible characters."""
    line = _INVISIBLE.sub(" ", subject).strip()
    return line if len(line) <= MAX_SUBJECT else line[: MAX_SUBJECT - 1].rstrip() + "…"


def _output(part: jinja2.Template, values: dict[str, Any]) -> str:
    """Run a compiled template piece by piece, so that a flood ends at the limit and not in memory."""
    pieces: list[str] = []
    size = 0
    try:
        for piece in part.root_render_func(part.new_context(values)):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_OUTPUT:
                raise TemplateError(f"more than {MAX_OUTPUT} characters come out")  # noqa: TRY301  # gets its place below
    except Exception as error:  # noqa: BLE001  # templates can raise anything; the data must not get into a message
        _blame(part, error)
    return "".join(pieces)


def _blame(part: jinja2.Template, error: Exception) -> Never:
    """Where it happened and the template's own line: enough to mend it, and nothing of the data (I5)."""
    name, number = _place(part, error.__traceback__)
    originals: Mapping[str, str] = getattr(part.environment, "originals", {})
    lines = originals.get(name, "").splitlines()
    line = lines[number - 1].strip()[:120] if 0 < number <= len(lines) else ""
    what = str(error) if isinstance(error, TemplateError) else type(error).__name__
    raise TemplateError(f"{name}:{number}: {what} in `{line}`") from None


def _place(part: jinja2.Template, traceback: TracebackType | None) -> tuple[str, int]:
    """The innermost frame that belongs to a template."""
    name, number = part.name or "", 0
    while traceback:
        owner = traceback.tb_frame.f_globals.get("__jinja_template__")
        if isinstance(owner, jinja2.Template):
            name, number = owner.name or "", owner.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
    return name, number


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise TemplateError("the recipient's time zone is not known here") from None


def _feedback_id(template: Template) -> str:
    """At most four fields counted from the right, none twice and none about a person (Gmail, answer 6254652)."""
    fields = (template.key, template.topic.key, str(template.topic.category), template.identity.feedback_sender_id)
    return ":".join(dict.fromkeys(fields))
