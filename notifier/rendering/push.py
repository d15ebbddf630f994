"""A push of one locale: the strings of its `push.toml`, compiled when the template loads, composed for each message."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2

from notifier.errors import TemplateError
from notifier.rendering import links
from notifier.rendering.output import output
from notifier.rendering.plain import one_line, visible
from notifier_channels.contract import PushContent
from notifier_channels.push.payload import MOST_BYTES, payload_bytes

TITLE, BODY, LINK, IMAGE = "title", "body", "link", "image"
_NEEDED, _OPTIONAL = frozenset({TITLE, BODY}), frozenset({LINK, IMAGE, "data"})
_DATA_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_TAKEN = re.compile(r"link|from|message_type|collapse_key|(google|gcm).*")  # by the link, and by FCM itself


@dataclass(frozen=True, slots=True)
class PreviewedPush:
    """What a push would look like. No channel takes it."""

    locale: str  #: the one that was chosen
    title: str
    body: str
    link: str | None
    image: str | None
    data: Mapping[str, str]
    payload: int  #: bytes of what reaches a device


@dataclass(frozen=True, slots=True)
class Push:
    """The constants are what every render of this template, channel and locale has in common."""

    locale: str
    constants: Mapping[str, Any]
    parts: Mapping[str, jinja2.Template]  #: by key; what stands in the table is called `data.<key>`

    def compose(self, values: dict[str, Any]) -> PreviewedPush:
        """Text that is shown as it is, and links that lead where their author meant."""
        said = {key: output(part, values) for key, part in self.parts.items()}
        content = PushContent(
            title=self._shown(TITLE, one_line(said[TITLE])),
            body=self._shown(BODY, visible(said[BODY])),
            link=self._link(LINK, said, web_only=False),
            image=self._link(IMAGE, said, web_only=True),
            data={key.removeprefix("data."): visible(text) for key, text in said.items() if key.startswith("data.")},
        )
        return self._measured(content)

    def _measured(self, content: PushContent) -> PreviewedPush:
        """FCM refuses what is too large, on every attempt: better here, where the template can be named."""
        size = payload_bytes(content)
        if size > MOST_BYTES:
            name = (self.parts[BODY].name or "").removesuffix(f" {BODY}")
            raise TemplateError(f"{name}: takes {size} bytes, a push has {MOST_BYTES}; shorten the body or the data")
        return PreviewedPush(
            self.locale, content.title, content.body, content.link, content.image, content.data, payload=size
        )

    def _shown(self, key: str, text: str) -> str:
        if not text:
            raise TemplateError(f"{self.parts[key].name}: is empty")
        return text

    def _link(self, key: str, said: Mapping[str, str], *, web_only: bool) -> str | None:
        try:
            return links.finished(said[key], web_only=web_only) if key in said else None
        except ValueError as error:
            raise TemplateError(f"{self.parts[key].name}: {error}") from None


def parts(text: str, path: str) -> dict[str, str]:
    """The strings of a `push.toml` as if each were a file of its own, called `order-shipped/en/push.toml title`.

    Raises:
        TemplateError: names the key and the remedy.

    """
    strings = _strings(_table(text, path), path)
    for key, value in strings.items():
        if not isinstance(value, str):
            raise TemplateError(f"{path}: {key} must be text; put quotes around it")
    return {f"{path} {key}": string for key, string in strings.items()}


def key_of(name: str) -> str:
    """The key of such a part."""
    return name.rpartition(" ")[2]


def _table(text: str, path: str) -> dict[str, Any]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TemplateError(f"{path}: {error}") from None
    if missing := _NEEDED - table.keys():
        raise TemplateError(f"{path}: {', '.join(sorted(missing))} is missing")
    if unknown := table.keys() - _NEEDED - _OPTIONAL:
        known = ", ".join(sorted(_NEEDED | _OPTIONAL))
        raise TemplateError(f"{path}: unknown {', '.join(sorted(unknown))}; a push has {known}")
    return table


def _strings(table: dict[str, Any], path: str) -> dict[str, Any]:
    """What the table says and what its data says, as one."""
    data = table.get("data", {})
    if not isinstance(data, Mapping):
        raise TemplateError(f"{path}: data is a table, written [data]")
    for key in data:
        if not _DATA_KEY.fullmatch(key) or _TAKEN.fullmatch(key):
            raise TemplateError(f"{path}: data.{key} is no key for data, or taken already; use letters, digits and _")
    said = {key: value for key, value in table.items() if key != "data"}
    return said | {f"data.{key}": value for key, value in data.items()}
