"""Template folders that tests write: a sound one, and what a test puts in place of its parts."""

import json
from collections.abc import Mapping
from pathlib import Path

from notifier.rendering import (
    Identity,
    Ingredients,
    Preview,
    PreviewedEmail,
    PreviewedPush,
    PreviewedSms,
    Templates,
    preview,
)
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Channel, ListHeaders, Mailbox

IDENTITY = Identity(
    sender=Mailbox("Lamps & Sons", EmailAddress("hello", "lamps.test")),
    reply_to=None,
    postal_address="Lamps & Sons, 1 Light Lane, Leeds",
    list_domain="lists.lamps.test",
    feedback_sender_id="lamps",
)
UNSUBSCRIBE = ListHeaders("news.lists.lamps.test", "News", "https://lamps.test/u/abc")

TOPICS = """
[orders]
category = "transactional"
channels = { email = "opt_out" }
name.en = "Orders"
description.en = "About what you bought."

[news]
category = "marketing"
channels = { email = "opt_in" }
name.en = "News"
description.en = "What is new."
"""
ANY_DATA = {"type": "object", "additionalProperties": False, "properties": {name: {} for name in ("x", "y", "items")}}

LETTER = {
    "topics.toml": TOPICS,
    "letter/template.toml": 'topic = "orders"\nexpires_after = "1d"\ndescription = "A letter."\n',
    "letter/schema.json": json.dumps(ANY_DATA | {"required": ["x"]}),
    "letter/sample.json": '{"x": "world"}',
    "letter/en/email.subject.j2": "Hello {{ x }}\n",
    "letter/en/email.html.j2": "<html><body>\n<p>Hello {{ x }}</p>\n</body></html>\n",
}
"""A transactional template whose text part is derived."""

NEWS = {
    "news/template.toml": 'topic = "news"\nexpires_after = "3d"\ndescription = "News."\n',
    "news/schema.json": json.dumps(ANY_DATA),
    "news/sample.json": "{}",
    "news/en/email.subject.j2": "News",
    "news/en/email.html.j2": '<p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>',
}
"""A marketing template; needs LETTER's topics."""


EVERYWHERE = LETTER | {
    "topics.toml": TOPICS.replace(
        'channels = { email = "opt_out" }',
        'channels = { email = "opt_out", sms = "opt_out", push = "opt_out" }\n'
        'route = { mode = "first", order = ["push", "sms"] }',
    ).replace('{ email = "opt_in" }', '{ email = "opt_in", sms = "opt_in", push = "opt_in" }'),
    "letter/en/sms.j2": "Hello {{ x }}\n",
    "letter/en/push.toml": """title = "Letter"
body = "Hello {{ x }}"
link = "https://lamps.test/letters/{{ x }}"

[data]
letter = "{{ x }}"
""",
}
"""LETTER with content for every channel, which its topic goes by."""

WORDS = """[en]
stop_text = "Reply STOP to opt out"
[en.why]
opt_in = "because you wanted it"
"""
"""What a text message of NEWS may say, as `_layouts/words.toml`."""


def write(directory: Path, files: Mapping[str, str | None]) -> Path:
    """Put files into a folder; None stands for one that is not there."""
    for path, text in files.items():
        if text is not None:
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text, "utf-8")
    return directory


def load(directory: Path, files: Mapping[str, str | None]) -> Templates:
    """Write and load."""
    return Templates.load(write(directory, files), IDENTITY, "en")


def read(templates: Templates, data: Mapping[str, object], locale: str = "en") -> PreviewedSms:
    """Render the letter as a text message."""
    template = templates.find("letter")
    assert template is not None
    return preview(Preview(), template, Channel.SMS, Ingredients(locale, "UTC", data))


def glance(templates: Templates, data: Mapping[str, object], locale: str = "en") -> PreviewedPush:
    """Render the letter as a push."""
    template = templates.find("letter")
    assert template is not None
    return preview(Preview(), template, Channel.PUSH, Ingredients(locale, "UTC", data))


def look(templates: Templates, data: Mapping[str, object], locale: str = "en", timezone: str = "UTC") -> PreviewedEmail:
    """Render the letter with this data."""
    template = templates.find("letter")
    assert template is not None
    return preview(Preview(), template, Channel.EMAIL, Ingredients(locale, timezone, data))
