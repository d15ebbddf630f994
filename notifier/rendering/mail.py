"""An email of one locale: its parts, compiled when the template loads, and composed for each message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2

from notifier.errors import TemplateError
from notifier.rendering import text
from notifier.rendering.output import output
from notifier.rendering.plain import few_blank_lines, one_line


@dataclass(frozen=True, slots=True)
class PreviewedEmail:
    """What a mail would look like. No channel takes it."""

    locale: str  #: the one that was chosen
    subject: str
    text: str
    html: str | None


@dataclass(frozen=True, slots=True)
class Mail:
    """The constants are what every render of this template, channel and locale has in common."""

    locale: str
    constants: Mapping[str, Any]
    subject: jinja2.Template
    html: jinja2.Template | None
    text: jinja2.Template | None

    def compose(self, values: dict[str, Any]) -> PreviewedEmail:
        """Subject first, since the bodies may show it."""
        subject = one_line(output(self.subject, values))
        if not subject:
            raise TemplateError(f"{self.subject.name}: the subject is empty")
        values["subject"] = subject
        html = output(self.html, values) if self.html else None
        plain = few_blank_lines(output(self.text, values)) if self.text else text.from_html(html or "")
        return PreviewedEmail(self.locale, subject, plain.strip("\n") + "\n", html)
