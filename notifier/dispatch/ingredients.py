"""What one person adds to a template: their language, their zone, their data, and the links that are theirs alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from notifier.domain.campaigns import data_for
from notifier.domain.tokens import FRESH_LINK, Links
from notifier.errors import TemplateError
from notifier.rendering import Ingredients, Template
from notifier.store.database import Row
from notifier_channels.contract import Channel, ListHeaders


@dataclass(frozen=True, slots=True)
class Personal:
    """Finds them in the facts of a message."""

    links: Links
    default_locale: str
    default_timezone: str

    def __call__(self, template: Template, message: UUID, facts: Row, data: Mapping[str, Any]) -> Ingredients:
        """All of it, for one message."""
        locale = facts["locale"] or self.default_locale
        return Ingredients(
            locale=locale,
            timezone=facts["timezone"] or self.default_timezone,
            data=data,
            unsubscribe=self._list_headers(template, locale, message, facts),
            preferences_url=self._preferences_url(template, message, facts),
        )

    def _preferences_url(self, template: Template, message: UUID, facts: Row) -> str:
        """Only the mail that somebody asked for carries a fresh link: any other is passed on as it is."""
        person, now = facts["recipient_id"], facts["now"]
        if template.key == FRESH_LINK:
            return self.links.fresh_url(person, now)
        return self.links.preferences_url(person, message, now)

    def _list_headers(self, template: Template, locale: str, message: UUID, facts: Row) -> ListHeaders | None:
        if not template.is_marketing:
            return None
        person, key = facts["recipient_id"], template.topic.key
        return template.list_headers(
            locale,
            self.links.unsubscribe_url(person, key, Channel(facts["channel"]), message),
            self.links.unsubscribe_mailto(person, key),
        )


def campaign_data(template: Template, facts: Row, given: Mapping[str, Any]) -> dict[str, Any]:
    """A campaign's data, and from the person's own what the template names beyond that.

    Raises:
        TemplateError: it does not fit the template's schema; says where and why, without a value.

    """
    data = data_for(template.schema.properties, facts["attributes"], given)
    if problems := template.problems(data):
        first = problems[0]
        raise TemplateError(f"{template.key}: the person's attributes do not fit it: {first.pointer} {first.detail}")
    return data
