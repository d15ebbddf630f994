"""Proves a template before anyone gets it: every locale renders its sample, marketing shows its way out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from notifier.errors import TemplateError
from notifier.rendering import text
from notifier.rendering.render import Ingredients, Preview, Previewed, preview
from notifier.rendering.template import Template

UNSUBSCRIBE_URL = "https://notifier.test/u/sample-unsubscribe"
PREFERENCES_URL = "https://notifier.test/p/sample-preferences"


def sample_of(template: Template, locale: str) -> Ingredients:
    """The ingredients that checks and previews use."""
    return Ingredients(
        locale=locale,
        timezone="Europe/Berlin",
        data=template.sample,
        unsubscribe=template.list_headers(locale, UNSUBSCRIBE_URL, None),
        preferences_url=PREFERENCES_URL,
    )


def prove(template: Template) -> Template:
    """The template itself, when all its locales hold.

    Raises:
        TemplateError: names the first that does not.

    """
    for locale in template.locales:
        ingredients = sample_of(template, locale)
        seen = preview(Preview(), template, ingredients)
        if template.is_marketing:
            _shows_the_way_out(template, locale, seen)
        else:
            preview(Preview(), template, replace(ingredients, preferences_url=None))
        preview(Preview(), template, replace(ingredients, data=_bare(template)))
    return template


def look_at(template: Template, locale: str) -> Previewed:
    """What a recipient with this locale would get of the sample."""
    return preview(Preview(), template, sample_of(template, locale))


def write(seen: Previewed, folder: Path, name: str) -> list[Path]:
    """Put a preview into files: `name.html`, when there is HTML, and `name.txt`, which begins with the subject."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / f"{name}.txt": f"Subject: {seen.subject}\n\n{seen.text}"}
    if seen.html is not None:
        files[folder / f"{name}.html"] = seen.html
    for path, content in files.items():
        path.write_text(content, "utf-8")
    return list(files)


def _shows_the_way_out(template: Template, locale: str, seen: Previewed) -> None:
    """CAN-SPAM, Gmail and Yahoo ask for a visible link in the body, and people without HTML need it too."""
    for part, visible in (("HTML", text.from_html(seen.html) if seen.html else None), ("text", seen.text)):
        if visible is not None and UNSUBSCRIBE_URL not in visible:
            raise TemplateError(f"{template.key}/{locale}: marketing shows unsubscribe_url; the {part} part does not")


def _bare(template: Template) -> dict[str, object]:
    """The sample without what the schema calls optional: it must render, too."""
    return {name: value for name, value in template.sample.items() if name in template.schema.required}
