"""Template folders that tests write: a sound one, and what a test puts in place of its parts."""

import json
from collections.abc import Mapping
from pathlib import Path

from notifier.rendering import Identity, Ingredients, Preview, Previewed, Templates, preview
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import ListHeaders, Mailbox

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


def look(templates: Templates, data: Mapping[str, object], locale: str = "en", timezone: str = "UTC") -> Previewed:
    """Render the letter with this data."""
    template = templates.find("letter")
    assert template is not None
    return preview(Preview(), template, Ingredients(locale, timezone, data))
