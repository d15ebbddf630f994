"""The text part of a mail whose template has only HTML: what a person reads, with the targets of its links."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_HIDDEN = frozenset({"style", "script", "title", "head", "template"})
_PARAGRAPHS = frozenset({"p", "h1", "h2", "h3", "h4", "ul", "ol", "table", "blockquote", "hr"})
_LINES = frozenset({"br", "li", "tr"})
_VOID = frozenset({"br", "hr", "img", "meta", "input", "link", "col", "wbr"})
_SPACE = re.compile(r"[ \t\n\r\f]+")


def from_html(html: str) -> str:
    """Readable plain text. Hidden elements (`display:none`, `hidden`, `aria-hidden`) stay out."""
    return read(html)[0]


def read(html: str) -> tuple[str, list[tuple[str, str]]]:
    """The text, and of each link its target and its label, which decide whether the target is shown, too."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = (_SPACE.sub(" ", line).strip() for line in "".join(reader.parts).split("\v"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n", reader.links


class _Reader(HTMLParser):
    """Collects text; a vertical tab stands for a line break, so that the source's own line ends can be told apart."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.links: list[tuple[str, str]] = []  # target and label
        self._hidden: list[str] = []  # open elements from the outermost hidden one inwards
        self._links: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if self._hidden or _is_hidden(tag, values):
            if tag not in _VOID:
                self._hidden.append(tag)
            return
        self._break(tag)
        if tag in _LINES:
            self.parts.append("\v")
        if tag == "a":
            self._links.append((values.get("href", ""), len(self.parts)))
        elif tag == "img":
            self.parts.append(values.get("alt", ""))
        elif tag == "li":
            self.parts.append("- ")
        elif tag in ("td", "th"):
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag in self._hidden:
                while self._hidden.pop() != tag:
                    pass
            return
        if tag == "a" and self._links:
            self._end_link(*self._links.pop())
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)

    def _break(self, tag: str) -> None:
        """Blocks stand alone: their beginning and their end are breaks."""
        if tag in _PARAGRAPHS:
            self.parts.append("\v\v")
        elif tag == "div":
            self.parts.append("\v")

    def _end_link(self, target: str, start: int) -> None:
        label = _SPACE.sub(" ", "".join(self.parts[start:])).strip()
        self.links.append((target, label))
        if not says(target, label):
            self.parts.append(f" ({target})" if label else target)


def says(target: str, label: str) -> bool:
    """Whether the label tells already where a link leads."""
    return target in ("", label, f"mailto:{label}", f"tel:{label}")


def _is_hidden(tag: str, attributes: dict[str, str]) -> bool:
    style = attributes.get("style", "").replace(" ", "").lower()
    return (
        tag in _HIDDEN or "display:none" in style or "hidden" in attributes or attributes.get("aria-hidden") == "true"
    )
