"""Makes a template out of its files, and refuses one that could go wrong for a recipient."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import jinja2

from notifier.errors import TemplateError
from notifier.rendering import folder, syntax, topics
from notifier.rendering.environment import Sandbox
from notifier.rendering.identity import Identity
from notifier.rendering.markup import Page
from notifier.rendering.schema import RESERVED, Schema, parse_object
from notifier.rendering.styles import inline
from notifier.rendering.template import Template, Variant
from notifier.rendering.words import constants
from notifier_channels.contract import Channel

_FIELDS = frozenset({"topic", "expires_after", "description"})
_DURATION = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def gather(key: str, files: Mapping[str, str], declared: Mapping[str, str], default_locale: str) -> dict[str, str]:
    """Everything that takes part in a template: its own files, its topic, and the layouts that it uses."""
    own = folder.own_files(files, key)
    if default_locale not in folder.locales(own, key):
        raise TemplateError(f"{key}: there is no {default_locale}, the default locale (NOTIFIER_DEFAULT_LOCALE)")
    topic = _declaration(own[f"{key}/{folder.DECLARATION}"], key)["topic"]
    if topic not in declared:
        known = ", ".join(sorted(declared))
        raise TemplateError(f"{key}/{folder.DECLARATION}: topic {topic!r} is not declared; there are {known}")
    shared = {path: text for path, text in files.items() if path.startswith(f"{folder.LAYOUTS}/")}
    used = syntax.closure([path for path in own if path.endswith(".j2")], {**shared, **own})
    layouts = {path: shared[path] for path in used if path in shared}
    if layouts and folder.WORDS in shared:
        layouts[folder.WORDS] = shared[folder.WORDS]
    return {**own, **layouts, folder.TOPIC: declared[topic]}


def build(key: str, sources: Mapping[str, str], identity: Identity, default_locale: str) -> Template:
    """Compile a version from its sources alone.

    Raises:
        TemplateError: names the file, the line where there is one, and the remedy.

    """
    declaration = _declaration(sources[f"{key}/{folder.DECLARATION}"], key)
    topic = topics.read(sources[folder.TOPIC])
    if Channel.EMAIL not in topic.defaults:
        raise TemplateError(f"{key}: its topic {topic.key} does not go by email; add the channel to the topic")
    schema = Schema(sources[f"{key}/{folder.SCHEMA}"], f"{key}/{folder.SCHEMA}")
    sample = parse_object(sources[f"{key}/{folder.SAMPLE}"], f"{key}/{folder.SAMPLE}")
    if problems := schema.problems(sample, ""):
        listed = "; ".join(f"{problem.pointer} {problem.detail}" for problem in problems)
        raise TemplateError(f"{key}/{folder.SAMPLE}: {listed}")
    words = sources.get(folder.WORDS, "")
    variants = {
        locale: _variant(key, sources, schema, constants(words, identity, topic, locale, default_locale))
        for locale in folder.locales(sources, key)
    }
    return Template(
        key=key,
        topic=topic,
        description=declaration["description"],
        expires_after=_duration(declaration["expires_after"], key),
        hash=folder.content_hash(sources),
        sources=dict(sources),
        schema=schema,
        sample=sample,
        variants=variants,
        identity=identity,
        default_locale=default_locale,
    )


def _variant(key: str, sources: Mapping[str, str], schema: Schema, shared: Mapping[str, Any]) -> Variant:
    locale = shared["locale"]
    paths = {name: f"{key}/{locale}/{name}" for name in (folder.SUBJECT, folder.HTML, folder.TEXT)}
    if paths[folder.SUBJECT] not in sources:
        raise TemplateError(f"{paths[folder.SUBJECT]} is missing")
    if paths[folder.HTML] not in sources and paths[folder.TEXT] not in sources:
        raise TemplateError(f"{key}/{locale}: needs {folder.HTML} or {folder.TEXT}")
    used = syntax.closure([path for path in paths.values() if path in sources], sources)
    _check_names(used, sources, schema)
    environment = Sandbox(_prepared(paths[folder.HTML], used, sources), sources)
    ready = {path: _compiled(environment, path) for path in used}
    html, text = ready.get(paths[folder.HTML]), ready.get(paths[folder.TEXT])
    return Variant(locale, ready[paths[folder.SUBJECT]], html, text, shared)


def _prepared(html: str, used: Iterable[str], sources: Mapping[str, str]) -> dict[str, str]:
    """The files as they run: values in links guarded, styles moved onto the elements. Lines stay where they were."""
    pages = {path: Page.read(path, sources[path]) for path in used if path.endswith(".html.j2")}
    for page in pages.values():
        page.guard()
    if html in pages:
        inline(pages, html)
    plain = {path: sources[path] for path in used if path not in pages}
    return plain | {path: page.source() for path, page in pages.items()}


def _check_names(used: Iterable[str], sources: Mapping[str, str], schema: Schema) -> None:
    """A misspelt name is found when the template loads, not when the first person gets it."""
    for path in used:
        if unknown := syntax.read(path, sources[path]).names - schema.properties - RESERVED:
            names = ", ".join(f"`{name}`" for name in sorted(unknown))
            raise TemplateError(f"{path}: {names}: neither in {folder.SCHEMA} nor among the names that Notifier fills")


def _compiled(environment: Sandbox, path: str) -> jinja2.Template:
    try:
        return environment.get_template(path)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"{error.name}:{error.lineno}: {error.message}") from None


def _declaration(text: str, key: str) -> dict[str, str]:
    path = f"{key}/{folder.DECLARATION}"
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TemplateError(f"{path}: {error}") from None
    if table.keys() != _FIELDS or not all(isinstance(value, str) for value in table.values()):
        raise TemplateError(f"{path}: write exactly {', '.join(sorted(_FIELDS))}, each as text")
    return table


def _duration(text: str, key: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise TemplateError(f'{key}/{folder.DECLARATION}: expires_after is written like "15m", "24h" or "3d"')
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
