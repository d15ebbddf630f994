"""A text message of one locale: its text, compiled when the template loads, composed and counted for each message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2

from notifier.errors import TemplateError
from notifier.rendering.declaration import TextRules
from notifier.rendering.output import output
from notifier.rendering.plain import visible
from notifier_channels.sms.segments import Segments, count, smart


@dataclass(frozen=True, slots=True)
class PreviewedSms:
    """What a text message would read, and what it would take. No channel takes it."""

    locale: str  #: the one that was chosen
    text: str
    segments: Segments


@dataclass(frozen=True, slots=True)
class Text:
    """The constants are what every render of this template, channel and locale has in common."""

    locale: str
    constants: Mapping[str, Any]
    text: jinja2.Template
    rules: TextRules

    def compose(self, values: dict[str, Any]) -> PreviewedSms:
        """The text as it is sent: what is counted is what is paid for."""
        sent = as_sent(output(self.text, values), self.rules)
        if not sent:
            raise TemplateError(f"{self.text.name}: the text is empty")
        counted = count(sent)
        if counted.segments > self.rules.segments:
            raise TemplateError(
                f"{self.text.name}: takes {counted.segments} segments ({counted.encoding}), allowed are "
                f"{self.rules.segments}; shorten it, or raise sms.segments in template.toml"
            )
        return PreviewedSms(self.locale, sent, counted)


def as_sent(text: str, rules: TextRules) -> str:
    """Without what cannot be seen, and with plain twins for the characters that would double the price."""
    return visible(smart(visible(text))) if rules.smart_encoding else visible(text)


def shows(seen: PreviewedSms, words: str) -> bool:
    """True when these words stand in the text, as they are or in the plain spelling that smart encoding gives them."""
    return visible(words) in seen.text or visible(smart(words)) in seen.text
