"""From the gate to the wire: each permitted message is rendered and given all that its channel needs to send it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import structlog

from notifier.dispatch.gate import Permitted
from notifier.dispatch.ingredients import Personal, campaign_data
from notifier.dispatch.shelf import Shelf
from notifier.domain import retry
from notifier.domain.retry import Settlement
from notifier.errors import TemplateError
from notifier.journal import Journal
from notifier.rendering import Ingredients, Specialisations, Template, render
from notifier.telemetry import where
from notifier_channels.addresses import Platform
from notifier_channels.contract import Channel, Content, EmailContent, Outgoing, PushContent, SmsContent, WrittenEmail

log = structlog.get_logger(__name__)

TEST = "[Test] "  #: before the subject, the text or the title of what is sent to named addresses before a campaign


@dataclass(frozen=True, slots=True)
class Composer:
    """Renders what one worker sends."""

    shelf: Shelf
    personal: Personal
    journal: Journal
    specialisations: Specialisations = field(default_factory=Specialisations)
    _signed: dict[tuple[int, str], Template] = field(default_factory=dict)

    def __call__(self, permitted: Sequence[Permitted]) -> tuple[list[Outgoing[Content]], dict[UUID, Settlement]]:
        """Content for each; one that cannot be rendered fails alone."""
        outgoing: list[Outgoing[Content]] = []
        spoiled: dict[UUID, Settlement] = {}
        for one in permitted:
            self.journal.rendering(one.permit.message)
            try:
                outgoing.append(self._outgoing(one))
            except TemplateError as error:
                log.error("message.not_rendered", message=str(one.permit.message), error=str(error))
                spoiled[one.permit.message] = retry.spoiled("template")
            except Exception as error:  # noqa: BLE001  # whatever data provoked, its neighbours go on
                log.error(
                    "message.not_rendered", message=str(one.permit.message), error=type(error).__name__, at=where(error)
                )
                spoiled[one.permit.message] = retry.spoiled(type(error).__name__)
        if permitted:
            self.journal.rendered()
        return outgoing, spoiled

    def _outgoing(self, one: Permitted) -> Outgoing[Content]:
        facts, message, channel = one.facts, one.permit.message, one.attempt.channel
        template, links = self._template(one), self.personal.links
        ingredients = self.personal(template, message, facts, _data(one, template))
        content = self._content(one, template, ingredients)
        is_email = channel is Channel.EMAIL
        return Outgoing(
            id=message,
            attempt=one.attempt.n,
            to=one.address,
            content=_marked(content) if facts["is_test"] else content,
            first_attempted_at=one.first_attempted_at,
            expires_at=facts["expires_at"],
            return_path=links.return_path(message, one.attempt.n) if is_email else None,
            callback_url=links.report_url(channel, message, one.attempt.n),
            reference_header=links.reference_header(message, one.attempt.n) if is_email else None,
            platform=Platform(facts["platform"]) if facts["platform"] else None,
        )

    def _template(self, one: Permitted) -> Template:
        """The version that the message pinned, in the name of the campaign's sender."""
        template = self.shelf[one.facts["template_version"]]
        name = one.campaign.sender if one.campaign else None
        if name is None:
            return template
        if (sender := template.identity.senders.get(name)) is None:
            raise TemplateError(f"the campaign's sender `{name}` is no longer among NOTIFIER_SENDERS")
        key = (one.facts["template_version"], name)
        if key not in self._signed:  # the same object each time: what is specialised hangs on it
            self._signed[key] = replace(template, identity=replace(template.identity, sender=sender))
        return self._signed[key]

    def _content(self, one: Permitted, template: Template, ingredients: Ingredients) -> Content:
        """A campaign's mails have most of their content in common: that is rendered once."""
        campaign, channel = one.campaign, one.attempt.channel
        if campaign is None or channel is not Channel.EMAIL or one.facts["is_test"]:
            return render(one.permit, template, channel, ingredients)
        return self.specialisations.of(campaign.id, template, campaign.data).render(one.permit, ingredients)


def _data(one: Permitted, template: Template) -> Mapping[str, Any]:
    """A caller's data, or a campaign's."""
    if one.campaign is None:
        data: Mapping[str, Any] = one.facts["data"] or {}
        return data
    return campaign_data(template, one.facts, one.campaign.data)


def _marked(content: Content) -> Content:
    match content:
        case EmailContent(subject=subject):
            return replace(content, subject=TEST + subject)
        case SmsContent(text=text):
            return SmsContent(TEST + text)
        case PushContent(title=title):
            return replace(content, title=TEST + title)
        case WrittenEmail():
            raise AssertionError("a test is rendered by itself")
