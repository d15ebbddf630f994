"""Renders a campaign's mail both ways, and holds them to the same."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from typing import Any
from uuid import UUID

from notifier.domain.consent import Decision, Permit, Rule
from notifier.errors import TemplateError
from notifier.rendering import Ingredients, Specialised, Template, building, render, topics
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Channel, Email, ListHeaders, Outgoing
from notifier_channels.email.mail import Mail, write
from tests.folders import IDENTITY, TOPICS

AT = datetime(2026, 11, 3, 9, 5, 7, tzinfo=UTC)
PERMIT = Permit(UUID("018f0000-0000-7000-8000-0123456789ab"), Decision(Rule.GRANTED, AT, (1,)))
ANN = EmailAddress("ann", "example.net")
NAMES = ("p", "q", "plan", "tags", "person", "link", "when", "total", "flag", "items")

LAYOUTS = {
    "_layouts/base.html.j2": '<html lang="{{ locale }}"><body>\n<h1 title="{{ subject }}">{{ subject }}</h1>\n'
    "{% block content %}{% endblock %}\n<p>{% block foot %}Sent to {{ q|default('you') }}.{% endblock %}</p>\n"
    '{% if unsubscribe_url %}<a href="{{ unsubscribe_url }}">Unsubscribe</a>{% endif %}\n'
    '{% if preferences_url %}<a href="{{ preferences_url }}">{{ preferences_url }}</a>{% endif %}\n</body></html>\n',
    "_layouts/base.txt.j2": "{% block content %}{% endblock %}\n\n-- \n"
    "{% block foot %}Sent to {{ q|default('you') }}.{% endblock %}\n"
    "{% if unsubscribe_url %}Unsubscribe: {{ unsubscribe_url }}{% endif %}\n\n\n\n{{ postal_address }}\n\n",
    "_layouts/parts.html.j2": "{% macro box(x) %}\n<b>{{ x }}</b>\n{% endmacro %}"
    "{% macro frame() %}<i>{{ caller() }}</i>{% endmacro %}",
    "_layouts/parts.txt.j2": "{% macro box(x) %}\n[{{ x }}]\n{% endmacro %}"
    "{% macro frame() %}({{ caller() }}){% endmacro %}",
    "_layouts/said.txt.j2": "{% set said = 'Hi' if p is defined else 'Hello' %}{{ p|default('none') }}",
    "_layouts/bare.txt.j2": "<{% block content %}{% endblock %}>\n",
    "_layouts/piece.html.j2": "<em>{{ p|default('none') }}</em>\n",
    "_layouts/piece.txt.j2": "{{ p|default('none') }}\n",
}


def made(files: Mapping[str, str], *, marketing: bool = True) -> Template:
    """A template without proof: one that fails for its data is as welcome."""
    properties = {name: {} for name in NAMES}
    own = {
        "t/template.toml": f'topic = "{"news" if marketing else "orders"}"\nexpires_after = "1d"\ndescription = "A."\n',
        "t/schema.json": json.dumps({"type": "object", "additionalProperties": False, "properties": properties}),
        "t/sample.json": "{}",
        **{f"t/en/email.{name}.j2": text for name, text in files.items()},
    }
    declared = topics.declarations(TOPICS)
    return building.build("t", building.gather("t", own | LAYOUTS, declared, "en"), IDENTITY, "en")


def person(
    own: Mapping[str, Any], locale: str = "en", timezone: str = "UTC", *, marketing: bool = True, prefers: bool = True
) -> Ingredients:
    out = ListHeaders("news.lists.lamps.test", "News", "https://lamps.test/u/abc?x=1&y=2", "u.1@in.lamps.test")
    url = "https://lamps.test/p/abc" if prefers else None
    return Ingredients(locale, timezone, own, out if marketing else None, url)


def sent(content: Email) -> Mail:
    message = Outgoing(PERMIT.message, 1, ANN, content, AT, AT + timedelta(days=1), reference_header="X-Reference: 1.2")
    mail = write(message, "lists.lamps.test")
    assert isinstance(mail, Mail)
    return mail


def read(mail: Mail) -> tuple[list[tuple[str, str]], list[tuple[str, bytes]]]:
    """Headers and decoded bodies; on the way, what every mail keeps."""
    assert mail.data.isascii()
    assert mail.data.endswith(b"\r\n.\r\n")
    lines = mail.data.removesuffix(b".\r\n").split(b"\r\n")
    assert all(len(line.removeprefix(b".")) <= 76 for line in lines if not line.startswith((b"List-Un", b" <")))
    assert all(line.startswith(b"..") for line in lines if line.startswith(b"."))
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert not any(line.endswith((b" ", b"\t")) for line in lines)
    raw = b"\r\n".join(line.removeprefix(b".") for line in lines)
    assert len(raw) == mail.size
    parsed = message_from_bytes(raw, policy=policy.default)
    assert not any(part.defects for part in parsed.walk())
    headers = [(name, value) for name, value in parsed.items() if name != "Content-Type"]
    return headers, [
        (part["Content-Type"], part.get_payload(decode=True)) for part in parsed.walk() if not part.is_multipart()
    ]


def outcome(work: Any) -> Any:
    try:
        content = work()
    except TemplateError as error:
        return type(error), str(error)
    return read(sent(content))


def both(
    template: Template, campaign: Mapping[str, Any], one: Ingredients, special: Specialised | None = None
) -> Email | None:
    """Hold both ways to the same, and give what the quick one gave; None for an error."""
    special = special or Specialised.of(template, campaign)
    whole = Ingredients(one.locale, one.timezone, {**one.data, **campaign}, one.unsubscribe, one.preferences_url)
    assert outcome(lambda: special.render(PERMIT, one)) == outcome(
        lambda: render(PERMIT, template, Channel.EMAIL, whole)
    )
    try:
        return special.render(PERMIT, one)
    except TemplateError:
        return None
