"""Makes a template out of its files, and refuses one that could go wrong for a recipient."""

from __future__ import annotations

from collections.abc import Mapping

from notifier.domain.consent import Topic
from notifier.errors import TemplateError
from notifier.rendering import declaration, folder, push, routes, syntax, topics
from notifier.rendering.compiling import Workbench
from notifier.rendering.declaration import Declaration
from notifier.rendering.identity import Identity
from notifier.rendering.schema import Schema, parse_object
from notifier.rendering.template import Template, Variant
from notifier.rendering.words import constants
from notifier_channels.contract import Channel

_WORDS_OF_THE_LAYOUT = {"words", "stop_text"}


def gather(key: str, files: Mapping[str, str], declared: Mapping[str, str], default_locale: str) -> dict[str, str]:
    """Everything that takes part in a template: its own files, its topic, and the layouts that it uses."""
    own = folder.own_files(files, key)
    _speaks_by_default(key, own, default_locale)
    topic = declaration.read(own[f"{key}/{folder.DECLARATION}"], f"{key}/{folder.DECLARATION}").topic
    if topic not in declared:
        known = ", ".join(sorted(declared))
        raise TemplateError(f"{key}/{folder.DECLARATION}: topic {topic!r} is not declared; there are {known}")
    return {**own, **_layouts(own, files), folder.TOPIC: declared[topic]}


def build(key: str, sources: Mapping[str, str], identity: Identity, default_locale: str) -> Template:
    """Compile a version from its sources alone.

    Raises:
        TemplateError: names the file, the line where there is one, and the remedy.

    """
    declared = declaration.read(sources[f"{key}/{folder.DECLARATION}"], f"{key}/{folder.DECLARATION}")
    topic = topics.read(sources[folder.TOPIC])
    by_channel = folder.channels(sources, key)
    _topic_has(topic, by_channel, key)
    schema = Schema(sources[f"{key}/{folder.SCHEMA}"], f"{key}/{folder.SCHEMA}")
    sample = parse_object(sources[f"{key}/{folder.SAMPLE}"], f"{key}/{folder.SAMPLE}")
    if problems := schema.problems(sample, ""):
        listed = "; ".join(f"{problem.pointer} {problem.detail}" for problem in problems)
        raise TemplateError(f"{key}/{folder.SAMPLE}: {listed}")
    words = sources.get(folder.WORDS, "")

    def variant(channel: Channel, locale: str) -> Variant:
        shared = constants(words, identity, topic, channel, locale, default_locale)
        return _variant(Workbench(key, sources, schema, shared), channel, declared)

    template = Template(
        key=key,
        topic=topic,
        description=declared.description,
        expires_after=declared.expires_after,
        hash=folder.content_hash(sources),
        sources=dict(sources),
        schema=schema,
        sample=sample,
        variants={c: {locale: variant(c, locale) for locale in locales} for c, locales in by_channel.items()},
        text_rules=declared.text_rules,
        own_route=declared.route,
        identity=identity,
        default_locale=default_locale,
    )
    _route_holds(template)
    return template


def _variant(bench: Workbench, channel: Channel, declared: Declaration) -> Variant:
    match channel:
        case Channel.EMAIL:
            return bench.mail()
        case Channel.SMS:
            return bench.text(declared.text_rules)
        case Channel.PUSH:
            return bench.push()


def _layouts(own: Mapping[str, str], files: Mapping[str, str]) -> dict[str, str]:
    """The shared files that a template needs, and the words when it or they speak them."""
    shared = {path: text for path, text in files.items() if path.startswith(f"{folder.LAYOUTS}/")}
    parts = {path: text for path, text in own.items() if path.endswith(".j2")}
    for path, text in own.items():
        if path.endswith(f"/{folder.PUSH}"):
            parts |= push.parts(text, path)
    used = syntax.closure(parts, {**shared, **parts})
    layouts = {path: shared[path] for path in used if path in shared}
    speaks = any(syntax.read(path, text).names & _WORDS_OF_THE_LAYOUT for path, text in parts.items())
    if (layouts or speaks) and folder.WORDS in shared:
        layouts[folder.WORDS] = shared[folder.WORDS]
    return layouts


def _speaks_by_default(key: str, own: Mapping[str, str], default_locale: str) -> None:
    """Whoever speaks another language gets the default on every channel."""
    by_channel = folder.channels(own, key)
    if not any(default_locale in locales for locales in by_channel.values()):
        raise TemplateError(f"{key}: there is no {default_locale}, the default locale (NOTIFIER_DEFAULT_LOCALE)")
    for channel, locales in by_channel.items():
        if default_locale not in locales:
            names = " and ".join(name for name, its in folder.CHANNELS.items() if its is channel)
            raise TemplateError(
                f"{key}: {locales[0]} has {channel} and {default_locale}, the default locale, has not; "
                f"add {names} there, or remove it from {', '.join(locales)}"
            )


def _topic_has(topic: Topic, channels: Mapping[Channel, object], key: str) -> None:
    for channel in channels:
        if channel not in topic.defaults:
            raise TemplateError(
                f"{key}: its topic {topic.key} does not go by {channel}; add {channel} to the topic's channels, "
                f"or remove the template's files for it"
            )


def _route_holds(template: Template) -> None:
    """A route of its own names what it has content for, and its last turn comes before nobody wants the message."""
    where = f"{template.key}/{folder.DECLARATION}"
    if template.own_route:
        routes.within(template.own_route, template.channels, f"{where} route")
    if template.route.after * (len(template.channels) - 1) >= template.expires_after:
        raise TemplateError(f"{where}: expires before the last channel of its route has its turn; shorten after")
