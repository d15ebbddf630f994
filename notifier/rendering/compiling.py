"""Compiles the parts of one template, channel and locale, and refuses what could go wrong for a recipient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from notifier.errors import TemplateError
from notifier.rendering import folder, links, push, syntax
from notifier.rendering.declaration import TextRules
from notifier.rendering.environment import Sandbox
from notifier.rendering.mail import Mail
from notifier.rendering.markup import Page
from notifier.rendering.push import Push
from notifier.rendering.schema import RESERVED, Schema
from notifier.rendering.sms import Text
from notifier.rendering.styles import inline


@dataclass(frozen=True, slots=True)
class Workbench:
    """All that a variant is made of: a template's sources, and the constants of one channel and locale."""

    key: str
    sources: Mapping[str, str]
    schema: Schema
    constants: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Where the files of this locale stand."""
        return f"{self.key}/{self.constants['locale']}"

    def mail(self) -> Mail:
        """The email."""
        subject, html, text = (f"{self.folder}/{name}" for name in (folder.SUBJECT, folder.HTML, folder.TEXT))
        if subject not in self.sources:
            raise TemplateError(f"{subject} is missing")
        if html not in self.sources and text not in self.sources:
            raise TemplateError(f"{self.folder}: needs {folder.HTML} or {folder.TEXT}")
        used = syntax.closure([path for path in (subject, html, text) if path in self.sources], self.sources)
        self._check_names(used, self.sources)
        ready = _compiled(Sandbox(_prepared(html, used, self.sources), self.sources), used)
        return Mail(self._locale, self.constants, ready[subject], ready.get(html), ready.get(text))

    def text(self, rules: TextRules) -> Text:
        """The text message."""
        path = f"{self.folder}/{folder.SMS}"
        return Text(self._locale, self.constants, self._plain({"text": path}, self.sources)["text"], rules)

    def push(self) -> Push:
        """The push: each of its strings is a template by itself."""
        path = f"{self.folder}/{folder.PUSH}"
        strings = push.parts(self.sources[path], path)
        names = {push.key_of(name): name for name in strings}
        linking = {key: name for key, name in names.items() if key in (push.LINK, push.IMAGE)}
        telling = {key: name for key, name in names.items() if key not in linking}
        files = {**self.sources, **strings}
        parts = self._plain(telling, files) | self._links(linking, strings)
        return Push(self._locale, self.constants, parts)

    @property
    def _locale(self) -> str:
        return str(self.constants["locale"])

    def _plain(self, names: Mapping[str, str], files: Mapping[str, str]) -> dict[str, jinja2.Template]:
        """Parts that are shown as they are: nothing in them is escaped, so nothing of HTML may take part."""
        used = syntax.closure(names.values(), files)
        if pages := [path for path in used if path.endswith(".html.j2")]:
            raise TemplateError(f"{self.folder}: {pages[0]} is HTML, and texts and pushes are not")
        self._check_names(used, files)
        ready = _compiled(Sandbox({path: files[path] for path in used}, files), used)
        return {key: ready[name] for key, name in names.items()}

    def _links(self, names: Mapping[str, str], strings: Mapping[str, str]) -> dict[str, jinja2.Template]:
        used = syntax.closure(names.values(), strings)
        self._check_names(used, strings)
        for path in used:
            filters = syntax.read(path, strings[path]).filters
            if "urlencode" in filters:
                raise TemplateError(f"{path}: values in a link are encoded already; leave out urlencode")
            if "made" in filters:  # which hides what data brought
                raise TemplateError(f"{path}: no filter around a part of a link; write it behind the value")
        ready = _compiled(Sandbox(strings, strings, links.marked), used)
        return {key: ready[name] for key, name in names.items()}

    def _check_names(self, used: Iterable[str], files: Mapping[str, str]) -> None:
        """A misspelt name is found when the template loads, not when the first person gets it."""
        for path in used:
            expected = syntax.read(path, files[path]).names
            if unknown := expected - self.schema.properties - RESERVED:
                names = ", ".join(f"`{name}`" for name in sorted(unknown))
                raise TemplateError(
                    f"{path}: {names}: neither in {folder.SCHEMA} nor among the names that Notifier fills"
                )
            if "stop_text" in expected and "stop_text" not in self.constants:
                raise TemplateError(
                    f'{path}: stop_text needs its words in {folder.WORDS}, e.g. [{self._locale}] stop_text = "..."'
                )


def _prepared(html: str, used: Iterable[str], sources: Mapping[str, str]) -> dict[str, str]:
    """The files as they run: values in links guarded, styles moved onto the elements. Lines stay where they were."""
    for path in syntax.closure([html], sources) if html in sources else ():
        if not path.endswith(".html.j2"):
            raise TemplateError(f"{html}: {path} takes part, in which nothing is escaped; name it .html.j2")
    pages = {path: Page.read(path, sources[path]) for path in used if path.endswith(".html.j2")}
    for page in pages.values():
        page.guard()
    if html in pages:
        inline(pages, html)
    plain = {path: sources[path] for path in used if path not in pages}
    return plain | {path: page.source() for path, page in pages.items()}


def _compiled(environment: Sandbox, paths: Sequence[str]) -> dict[str, jinja2.Template]:
    try:
        return {path: environment.get_template(path) for path in paths}
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"{error.name}:{error.lineno}: {error.message}") from None
