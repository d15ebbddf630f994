"""Reads a template's HTML around its Jinja, so that what a value lands in is known when the template loads.

Values may stand in text and in quoted attributes. In links they pass the `url` filter, which is added here: forgetting
it is not possible. In styles, scripts and event handlers they may not stand at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from notifier.errors import TemplateError

_IN_CODE = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^"'])*?"""
JINJA = re.compile(  # in a comment a quote is an apostrophe, and behind `raw` braces are text
    r"(?P<raw>\{%[-+]?\s*raw\s*-?%\})(?P<shown>.*?)(?P<endraw>\{%[-+]?\s*endraw\s*[-+]?%\})"
    rf"|\{{\#.*?\#\}}|\{{\{{{_IN_CODE}\}}\}}|\{{%{_IN_CODE}%\}}",
    re.DOTALL,
)
_OUTPUT = re.compile(r"\{\{([-+]?)(.*?)([-+]?)\}\}", re.DOTALL)
MARK = re.compile(r"\ue000(\d+)\ue001")

STYLE_SHEET = re.compile(r"<style\b[^>]*>(?P<css>.*?)</style\s*>", re.DOTALL | re.IGNORECASE)

# Comments that only some clients read hold markup like any other; `<![endif]-->` closes them.
_CONDITIONAL = r"<!--\[if[^\]]*\]>(?:<!-->)?|(?:<!--)?<!\[endif\]-->"
_SCAN = re.compile(
    rf"(?P<conditional>{_CONDITIONAL})"
    r"|<!--(?P<comment>.*?)-->"
    r"|<style\b[^>]*>(?P<style>.*?)</style\s*>"
    r"|<(?P<name>[A-Za-z][A-Za-z0-9:-]*)(?P<attributes>(?:[^\"'>]|\"[^\"]*\"|'[^']*')*)>"
    r"|</[A-Za-z][A-Za-z0-9:-]*\s*>|<!doctype[^>]*>"
    r"|(?P<stray><)",
    re.DOTALL | re.IGNORECASE,
)
_ATTRIBUTE = re.compile(r"(?P<name>[^\s=>\"'/\ue000]+)(?:\s*=\s*(?P<quoted>\"[^\"]*\"|'[^']*'))?")

_INDENTATION = re.compile(r"\n[ \t]+")

_BRANCH = re.compile(r"\{%[-+]?\s*(if|elif|else|endif|for|endfor)\b")
_IN_ATTRIBUTES = re.compile(rf"\{{\{{|\{{#|{_BRANCH.pattern}")

LINKS = frozenset({"href", "src", "background", "action", "formaction", "cite", "poster", "data", "xlink:href"})
FORBIDDEN_TAGS = frozenset({"script", "iframe", "object", "embed", "base", "form", "link", "meta"})
_SAFE_START = re.compile(r"(https?://|mailto:|tel:|cid:|#)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Tag:
    """A start tag: where it stands, and its attributes with where their quoted values stand."""

    name: str
    start: int
    end: int
    attributes: dict[str, tuple[int, int]]


@dataclass(slots=True)
class Page:
    """One HTML file: its text with each piece of Jinja replaced by a mark, and the pieces."""

    path: str
    text: str
    pieces: list[str]

    @classmethod
    def read(cls, path: str, source: str) -> Page:
        """Put the Jinja aside."""
        if "\ue000" in source or "\ue001" in source:
            raise TemplateError(f"{path}: the characters U+E000 and U+E001 have a use of their own here")
        pieces: list[str] = []

        def mark(piece: str) -> str:
            pieces.append(piece)
            return f"\ue000{len(pieces) - 1}\ue001"

        def aside(match: re.Match[str]) -> str:
            if match["raw"]:
                return f"{mark(match['raw'])}{match['shown']}{mark(match['endraw'])}"
            return mark(match[0])

        return cls(path, JINJA.sub(aside, source), pieces)

    def source(self) -> str:
        """The file again, with the Jinja back in its places and without indentation, which is a fifth of its size."""
        text = self.text if "<pre" in self.text else _INDENTATION.sub("\n", self.text)
        return MARK.sub(lambda match: self.pieces[int(match[1])], text)

    def replace(self, span: tuple[int, int], text: str) -> None:
        """Put other text in a place. A Jinja comment keeps the count of lines for those after it."""
        start, end = span
        self.pieces.append("{#" + "\n" * self.text.count("\n", start, end) + "#}")
        self.text = f"{self.text[:start]}{text}\ue000{len(self.pieces) - 1}\ue001{self.text[end:]}"

    def tags(self) -> Iterator[Tag]:
        """Every start tag.

        Raises:
            TemplateError: when a value stands where it cannot be kept harmless.

        """
        for match in _SCAN.finditer(self.text):
            if match["name"]:
                yield self._tag(match)
            elif match["stray"]:
                self.refuse(match.start(), "a `<` that begins no tag; write &lt;")
            elif MARK.search(match["style"] or ""):
                self.refuse(match.start(), "no Jinja in a style sheet")
            elif any(self._prints(mark) for mark in MARK.finditer(match["comment"] or "")):
                self.refuse(match.start(), "no values in a comment")

    def refuse(self, position: int, why: str) -> None:
        """Name the file and the line."""
        raise TemplateError(f"{self.path}:{self.line(position)}: {why}")

    def line(self, position: int) -> int:
        """The line in the file as its author wrote it."""
        before = MARK.sub(lambda match: self.pieces[int(match[1])], self.text[:position])
        return before.count("\n") + 1

    def _tag(self, match: re.Match[str]) -> Tag:
        attributes: dict[str, tuple[int, int]] = {}
        for found in _ATTRIBUTE.finditer(self.text, match.start("attributes"), match.end("attributes")):
            name = found["name"].lower()
            if name in attributes:
                self.refuse(match.start(), f"`{name}` stands twice in one tag; clients take the first")
            if found["quoted"]:
                attributes[name] = (found.start("quoted") + 1, found.end("quoted") - 1)
        outside = _ATTRIBUTE.sub("", match["attributes"])
        if "\ue000" in outside or "=" in outside:
            self.refuse(match.start(), "attribute values stand in quotes, and Jinja inside a tag only there")
        for mark in MARK.finditer(match["attributes"]):
            if not _IN_ATTRIBUTES.match(self.pieces[int(mark[1])]):
                self.refuse(match.start(), "in an attribute there are values, `if` and `for`, and no other statements")
        return Tag(match["name"].lower(), match.start(), match.end(), attributes)

    def _prints(self, mark: re.Match[str]) -> bool:
        return self.pieces[int(mark[1])].startswith("{{")

    def guard(self) -> None:
        """Refuse what cannot be made safe, and send every value in a link through the `url` filter."""
        for tag in self.tags():
            for name, (start, end) in tag.attributes.items():
                value = self.text[start:end]
                if name in LINKS:
                    self._guard_link(tag, start, end)
                elif (name == "style" or name.startswith("on")) and MARK.search(value):
                    self.refuse(tag.start, f"no Jinja in `{name}`; choose between classes instead")
            if tag.name in FORBIDDEN_TAGS and not (tag.name == "meta" and not self._marked(tag)):
                self.refuse(tag.start, f"no <{tag.name}> in a mail; clients drop it or distrust it")

    def _marked(self, tag: Tag) -> bool:
        return MARK.search(self.text[tag.start : tag.end]) is not None

    def _guard_link(self, tag: Tag, start: int, end: int) -> None:
        ways = _Ways()
        last = start
        for mark in MARK.finditer(self.text, start, end):
            ways.write(self.text[last : mark.start()])
            last = mark.end()
            ways.follow(self.pieces[int(mark[1])])
            if self._prints(mark) and ways.is_bare:
                self.pieces[int(mark[1])] = _OUTPUT.sub(r"{{\1 (\2)|url \3}}", self.pieces[int(mark[1])])
        literal = MARK.sub("", self.text[start:end]).strip()
        begins = MARK.match(self.text[start:end].strip())
        if literal and not begins and not _SAFE_START.match(literal):
            self.refuse(tag.start, "a link begins with https://, http://, mailto: or tel:")


@dataclass(slots=True)
class _Ways:
    """Whether a link may have nothing before it, on any way through the conditions in it."""

    is_bare: bool = True
    _branches: list[tuple[bool, bool, bool]] = field(default_factory=list)
    """Of each open `if` or `for`: whether it was bare before it and behind a branch, and whether one is always taken"""

    def write(self, text: str) -> None:
        """Go on behind what the author wrote."""
        self.is_bare = self.is_bare and not text.strip()

    def follow(self, piece: str) -> None:
        """Go on behind a piece of Jinja."""
        found = _BRANCH.match(piece)
        match found and found[1]:
            case None:
                pass
            case "if" | "for":
                self._branches.append((self.is_bare, False, False))
            case _ if not self._branches:  # it began before the link
                self.is_bare = True
            case "elif" | "else" as word:
                before, behind, _ = self._branches.pop()
                self._branches.append((before, behind or self.is_bare, word == "else"))
                self.is_bare = before
            case _:
                before, behind, is_taken = self._branches.pop()
                self.is_bare = self.is_bare or behind or (before and not is_taken)
