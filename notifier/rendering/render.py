"""Between the gate and the wire: a `Permit`, a template and one person's ingredients become content.

Nothing half-rendered leaves: a missing field, a bad link or too much output is a `TemplateError` that names the file
and shows the template's line, never the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, overload
from zoneinfo import ZoneInfo

from notifier.domain.consent import Permit
from notifier.errors import TemplateError
from notifier.rendering.filters import Situation, situation
from notifier.rendering.locales import formats_of
from notifier.rendering.mail import PreviewedEmail
from notifier.rendering.push import PreviewedPush
from notifier.rendering.sms import PreviewedSms
from notifier.rendering.template import Template
from notifier_channels.contract import Channel, Content, EmailContent, ListHeaders, PushContent, SmsContent

Previewed: TypeAlias = PreviewedEmail | PreviewedSms | PreviewedPush
"""What a message would look like. No channel takes any of them."""


class Ingredients(NamedTuple):
    """What one message adds to its template."""

    locale: str
    timezone: str
    data: Mapping[str, Any]
    unsubscribe: ListHeaders | None = None  #: marketing: from `Template.list_headers`; transactional: None
    preferences_url: str | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """The token for looking at a template. What it renders is `Previewed`, which no channel takes."""


Email: TypeAlias = Literal[Channel.EMAIL]
Sms: TypeAlias = Literal[Channel.SMS]
Push: TypeAlias = Literal[Channel.PUSH]


@overload
def render(permit: Permit, template: Template, channel: Email, ingredients: Ingredients) -> EmailContent: ...
@overload
def render(permit: Permit, template: Template, channel: Sms, ingredients: Ingredients) -> SmsContent: ...
@overload
def render(permit: Permit, template: Template, channel: Push, ingredients: Ingredients) -> PushContent: ...
@overload
def render(permit: Permit, template: Template, channel: Channel, ingredients: Ingredients) -> Content: ...
def render(permit: Permit, template: Template, channel: Channel, ingredients: Ingredients) -> Content:  # noqa: ARG001  # the token
    """The content of a message that may go."""
    match _compose(template, channel, ingredients):
        case PreviewedEmail() as seen:
            return letter(template, seen, ingredients.unsubscribe)
        case PreviewedSms(text=text):
            return SmsContent(text)
        case PreviewedPush() as seen:
            urgent = not template.is_marketing
            return PushContent(seen.title, seen.body, seen.link, seen.image, seen.data, is_urgent=urgent)


@overload
def preview(token: Preview, template: Template, channel: Email, ingredients: Ingredients) -> PreviewedEmail: ...
@overload
def preview(token: Preview, template: Template, channel: Sms, ingredients: Ingredients) -> PreviewedSms: ...
@overload
def preview(token: Preview, template: Template, channel: Push, ingredients: Ingredients) -> PreviewedPush: ...
@overload
def preview(token: Preview, template: Template, channel: Channel, ingredients: Ingredients) -> Previewed: ...
def preview(token: Preview, template: Template, channel: Channel, ingredients: Ingredients) -> Previewed:  # noqa: ARG001  # the token
    """The same for a person who looks at the template."""
    return _compose(template, channel, ingredients)


def _compose(template: Template, channel: Channel, ingredients: Ingredients) -> Previewed:
    if template.is_marketing != (ingredients.unsubscribe is not None):
        raise TemplateError(f"{template.key}: marketing, and nothing else, is rendered with its unsubscribe link")
    variant = template.variant(channel, ingredients.locale)
    unsubscribe_url = ingredients.unsubscribe.unsubscribe_url if ingredients.unsubscribe else None
    here = Situation(formats_of(ingredients.locale, variant.locale), zone(ingredients.timezone))
    token = situation.set(here)
    try:
        return variant.compose(
            {
                **ingredients.data,
                **variant.constants,
                "unsubscribe_url": unsubscribe_url,
                "preferences_url": ingredients.preferences_url,
            }
        )
    finally:
        situation.reset(token)


def letter(template: Template, seen: PreviewedEmail, subscription: ListHeaders | None) -> EmailContent:
    """What was seen, with all that the installation adds to it."""
    identity = template.identity
    return EmailContent(
        sender=identity.sender,
        subject=seen.subject,
        text=seen.text,
        html=seen.html,
        reply_to=identity.reply_to,
        subscription=subscription,
        feedback_id=_feedback_id(template) if template.is_marketing else None,
    )


def zone(name: str) -> ZoneInfo:
    """Raise `TemplateError` for one that is unknown."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise TemplateError("the recipient's time zone is not known here") from None


def _feedback_id(template: Template) -> str:
    """At most four fields counted from the right, none twice and none about a person (Gmail, answer 6254652)."""
    fields = (template.key, template.topic.key, str(template.topic.category), template.identity.feedback_sender_id)
    return ":".join(dict.fromkeys(fields))
