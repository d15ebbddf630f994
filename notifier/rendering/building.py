"""Makes a template out of its files, and refuses one that could go wrong for a recipient."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import jinja2
from jinja2 import meta, nodes

from notifier.errors import TemplateError
from notifier.rendering import folder, topics
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
    used = _closure([path for path in own if path.endswith(".j2")], {**shared, **own})
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
    used = _closure([path for path in paths.values() if path in sources], sources)
    environment = Sandbox(_prepared(paths[folder.HTML], used, sources), sources)
    _check_names(environment, used, schema)
    subject, html, text = (environment.get_template(path) if path in sources else None for path in paths.values())
    assert subject is not None  # noqa: S101  # for the type checker: refused above
    return Variant(locale, subject, html, text, shared)


def _prepared(html: str, used: Iterable[str], sources: Mapping[str, str]) -> dict[str, str]:
    """The files as they run: values in links guarded, styles moved onto the elements. Lines stay where they were."""
    pages = {path: Page.read(path, sources[path]) for path in used if path.endswith(".html.j2")}
    for page in pages.values():
        page.guard()
    if html in pages:
        inline(pages, html)
    plain = {path: sources[path] for path in used if path not in pages}
    return plain | {path: page.source() for path, page in pages.items()}


def _closure(paths: list[str], files: Mapping[str, str]) -> list[str]:
    """These files and all that they extend, include or import, which stands in `_layouts/`."""
    environment = jinja2.Environment(autoescape=True)  # parses only
    reached: dict[str, None] = {}
    waiting = list(paths)
    while waiting:
        path = waiting.pop(0)
        if path in reached:
            continue
        reached[path] = None
        try:
            named = meta.find_referenced_templates(environment.parse(files[path]))
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"{path}:{error.lineno}: {error.message}") from None
        for name in named:
            if name is None or not name.startswith(f"{folder.LAYOUTS}/") or name not in files:
                raise TemplateError(f"{path}: {name or 'a computed name'} is no file in {folder.LAYOUTS}/")
            waiting.append(name)
    return list(reached)


def _check_names(environment: Sandbox, used: Iterable[str], schema: Schema) -> None:
    """A misspelt name is found when the template loads, not when the first person gets it."""
    for path in used:
        try:
            tree = environment.parse(environment.prepared[path], path)
            environment.compile(environment.prepared[path], path)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"{path}:{error.lineno}: {error.message}") from None
        if unknown := meta.find_undeclared_variables(tree) - _defined(tree) - schema.properties - RESERVED:
            names = ", ".join(f"`{name}`" for name in sorted(unknown))
            raise TemplateError(f"{path}: {names} stands neither in {folder.SCHEMA} nor among the names that are given")


def _defined(tree: nodes.Template) -> set[str]:
    """What the file itself makes at its top, which its blocks then see."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case nodes.FromImport():
                names |= {name if isinstance(name, str) else name[1] for name in node.names}
            case nodes.Import():
                names.add(node.target)
            case nodes.Macro():
                names.add(node.name)
            case nodes.Assign(target=nodes.Name(name=name)):
                names.add(name)
    return names


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
