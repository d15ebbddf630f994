"""The same mail for a peer: our template, rendered with the peer's own variables where the data of a person stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from notifier.rendering import Ingredients, Preview, Template, preview
from notifier_channels.contract import Channel

UNSUBSCRIBE, PREFERENCES, ITEM = "unsubscribe_url", "preferences_url", "item"


@dataclass(frozen=True, slots=True)
class Language:
    """How a template engine writes a value, a value of the loop's item, and the loop around it."""

    value: str
    of_item: str
    loop: str
    end: str


HANDLEBARS = Language("{{%s}}", "{{%s}}", "{{#each items}}", "{{/each}}")
JINJA = Language("{{ %s }}", "{{ item.%s }}", "{% for item in items %}", "{% endfor %}")


def body(template: Template, language: Language) -> dict[str, str]:
    """Subject, html and text as templates of the peer's language."""
    once, twice = (_rendered(template, items) for items in (1, 2))
    return {part: _translated(once[part], twice[part], template, language) for part in once}


def _rendered(template: Template, items: int) -> dict[str, str]:
    data = {
        name: [_marks(value[0], f"{ITEM}_")] * items if isinstance(value, list) else _mark(name, value)
        for name, value in template.sample.items()
    }
    url = _mark(UNSUBSCRIBE, "https://")
    headers = template.list_headers("en", url, None)
    seen = preview(
        Preview(), template, Channel.EMAIL, Ingredients("en", "UTC", data, headers, _mark(PREFERENCES, "https://"))
    )
    return {"subject": seen.subject, "html": seen.html or "", "text": seen.text}


def _marks(sample: dict[str, Any], prefix: str) -> dict[str, str]:
    return {name: _mark(prefix + name, value) for name, value in sample.items()}


def _mark(name: str, sample: object) -> str:
    """What no text says by chance, and passes for a link where the sample is one."""
    mark = f"zz{name}zz"
    return f"https://{mark}.example" if str(sample).startswith("https://") else mark


def _translated(once: str, twice: str, template: Template, language: Language) -> str:
    text = _looped(once, twice, language)
    names = [UNSUBSCRIBE, PREFERENCES, *template.sample]
    items = [name for value in template.sample.values() if isinstance(value, list) for name in value[0]]
    forms = {name: language.value % name for name in names}
    forms |= {f"{ITEM}_{name}": language.of_item % name for name in items}
    for name, form in forms.items():
        text = text.replace(_mark(name, "https://"), form).replace(_mark(name, ""), form)
    return text


def _looped(once: str, twice: str, language: Language) -> str:
    """What the second item added is the loop's body: it is put into a loop where it begins to differ."""
    length = len(twice) - len(once)
    if not length:
        return once
    end = next(n for n in range(len(once)) if once[n] != twice[n])
    return once[: end - length] + language.loop + once[end - length : end] + language.end + once[end:]
