"""Reads `topics.toml`: what people can subscribe to and refuse. Every template belongs to exactly one topic."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from notifier.domain.caps import Cap
from notifier.domain.consent import Default, Topic
from notifier.domain.messages import Category
from notifier.domain.routing import EVERY_CHANNEL, Route
from notifier.errors import TemplateError
from notifier.rendering import routes
from notifier_channels.contract import Channel

FILE = "topics.toml"
KEY = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
FIELDS = {"category", "channels", "mandatory", "name", "description", "route", "caps"}


def declarations(text: str) -> dict[str, str]:
    """Each topic's declaration in canonical form, by key: what a template version keeps of its topic."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TemplateError(f"{FILE}: {error}") from None
    return {key: json.dumps({"key": key} | _table(key, table), sort_keys=True) for key, table in tables.items()}


def read(declaration: str) -> Topic:
    """A topic from its canonical declaration.

    Raises:
        TemplateError: names the topic, the field and the remedy.

    """
    table = json.loads(declaration)
    key = table.pop("key")
    where = f"{FILE} [{key}]"
    if not KEY.fullmatch(key):
        raise TemplateError(f"{where}: a key is lower case letters, digits and single hyphens")
    if unknown := table.keys() - FIELDS:
        raise TemplateError(f"{where}: unknown field {_listed(unknown)}; a topic has {_listed(FIELDS)}")
    defaults = _channels(table.get("channels"), where)
    topic = Topic(
        key=key,
        category=_one_of(Category, table.get("category"), f"{where} category"),
        defaults=defaults,
        mandatory=table.get("mandatory", False) is True,
        names=_by_locale(table.get("name"), f"{where} name"),
        descriptions=_by_locale(table.get("description"), f"{where} description"),
        route=_route(table, frozenset(defaults), f"{where} route"),
        caps=_caps(table.get("caps", []), key, f"{where} caps"),
    )
    if topic.mandatory and topic.category is not Category.TRANSACTIONAL:
        raise TemplateError(f"{where}: only a transactional topic can be mandatory")
    if topic.caps and topic.category is not Category.MARKETING:
        raise TemplateError(f"{where} caps: only a marketing topic has caps; what somebody waits for is not held back")
    return topic


def _table(key: str, table: object) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise TemplateError(f"{FILE}: `{key}` must be a table, written [{key}]")
    return table


def _channels(table: object, where: str) -> dict[Channel, Default]:
    if not isinstance(table, Mapping) or not table:
        raise TemplateError(f'{where}: say what each channel does, e.g. channels = {{ email = "opt_in" }}')
    return {
        _one_of(Channel, channel, f"{where} channels"): _one_of(Default, default, f"{where} channels.{channel}")
        for channel, default in table.items()
    }


def _route(table: Mapping[str, Any], channels: frozenset[Channel], where: str) -> Route:
    if "route" not in table:
        return EVERY_CHANNEL
    route = routes.read(table["route"], where)
    routes.within(route, channels, where)
    return route


def _caps(texts: object, key: str, where: str) -> tuple[Cap, ...]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TemplateError(f'{where}: a list such as ["1/day", "sms 3/7d"]')
    try:
        return tuple(Cap.read(text, key) for text in texts)
    except ValueError as error:
        raise TemplateError(f"{where}: {error}") from None


def _by_locale(table: object, where: str) -> dict[str, str]:
    if not isinstance(table, Mapping) or not table or not all(isinstance(text, str) for text in table.values()):
        raise TemplateError(f'{where}: write it for each locale, e.g. name.en = "Orders"')
    return dict(table)


def _one_of(kind: type[Any], value: object, where: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise TemplateError(f"{where}: must be one of {_listed(kind)}") from None


def _listed(words: Any) -> str:
    return ", ".join(sorted(str(word) for word in words))
