"""Moves style sheets onto the elements, since mail clients drop them, and leaves every line where its author wrote it.

The page is put together from layout and template only to learn which style each tag gets; what runs is the files
themselves with `style` attributes added, so Jinja is never touched and errors name the author's line.
"""

from __future__ import annotations

import html as htmllib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TypeAlias

import css_inline

from notifier.rendering.markup import MARK, STYLE_SHEET, Page, Tag

_STATEMENT = re.compile(r"\{%[-+]?\s*(block|endblock|extends|include|from|import)\b\s*(?:[\"']?([\w./-]+))?")
_SUPER = re.compile(r"\{\{[-+]?\s*super\(\)\s*[-+]?\}\}")
_OUTLOOK_ONLY = re.compile(r"<!--\[if[^\]]*\]>(?!<!-->).*?<!\[endif\]-->", re.DOTALL)
_PLACE = "data-at"
_PLACES = re.compile(rf'{_PLACE}="([\d-]+)"')

_INLINER = css_inline.CSSInliner(
    keep_at_rules=True, load_remote_stylesheets=False, resolve_css_variables=True, minify_css=True
)


@dataclass(slots=True)
class _Block:
    """A `{% block %}` and what stands in it: text, blocks, and None for `{{ super() }}`."""

    name: str
    content: list[_Node] = field(default_factory=list)


_Node: TypeAlias = "str | _Block | None"


def inline(pages: dict[str, Page], path: str) -> None:
    """Give each tag of these files the style that it has on the page which the file `path` makes."""
    tags = {f"{number}-{tag.start}": (page, tag) for number, page in enumerate(pages.values()) for tag in page.tags()}
    assembled = _Assembly(pages).page(path)
    found = _Styles(_INLINER.inline(assembled))
    for place in _PLACES.findall(assembled):
        if place not in found.by_place:
            page, tag = tags[place]
            page.refuse(tag.start, f"<{tag.name}> cannot stand here; table parts belong into a table of the same block")
    for number, page in enumerate(pages.values()):
        _add(page, {tag: found.by_place.get(f"{number}-{tag.start}", "") for tag in page.tags()})
    _keep(list(pages.values()), found.at_rules)


def _add(page: Page, styles: dict[Tag, str]) -> None:
    """From the end to the beginning, so that positions stay true."""
    for tag, style in sorted(styles.items(), key=lambda item: -item[0].start):
        if not style:
            continue
        value = htmllib.escape(style.replace('"', "'"), quote=False)
        if span := tag.attributes.get("style"):
            page.text = page.text[: span[0]] + value + page.text[span[1] :]
        else:
            after_name = tag.start + 1 + len(tag.name)
            page.text = f'{page.text[:after_name]} style="{value}"{page.text[after_name:]}'


def _keep(pages: list[Page], at_rules: str) -> None:
    """What cannot be moved, such as media queries, stays in the first style sheet."""
    rest = f"<style>{' '.join(at_rules.split())}</style>" if at_rules.strip() else ""
    for page in pages:  # layouts come first
        outlook = [hidden.span() for hidden in _OUTLOOK_ONLY.finditer(page.text)]
        sheets = [
            sheet
            for sheet in STYLE_SHEET.finditer(page.text)
            if not any(start < sheet.start() < end for start, end in outlook)
        ]
        for sheet in reversed(sheets):
            page.replace(sheet.span(), rest if sheet is sheets[0] else "")
        if sheets:
            rest = ""


class _Assembly:
    """Resolves extends, block, include and import as far as styles need it."""

    def __init__(self, pages: dict[str, Page]) -> None:
        self._pages = pages
        self._numbers = {path: number for number, path in enumerate(pages)}
        self._imported: list[str] = []

    def page(self, path: str) -> str:
        """The whole page, each tag marked with its place."""
        chain: list[_Block] = []
        parent: str | None = path
        while parent:
            root, parent = self._read(parent)
            chain.append(root)
        blocks: dict[str, list[_Block]] = {}
        for root in chain:
            for block in _within(root):
                blocks.setdefault(block.name, []).append(block)
        text = _flat(chain[-1], blocks, 0)
        imported = "".join(_flat(self._read(name)[0], {}, 0) for name in self._imported)
        return text.replace("</body>", f"{imported}</body>") if "</body>" in text else text + imported

    def _read(self, path: str) -> tuple[_Block, str | None]:
        page = self._pages[path]
        parent: str | None = None
        open_blocks = [_Block("")]
        for number, text in enumerate(MARK.split(self._placed(path))):
            here = open_blocks[-1].content
            if number % 2 == 0:
                here.append(text)
                continue
            piece = page.pieces[int(text)]
            statement = _STATEMENT.match(piece)
            match statement.groups() if statement else (None, None):
                case "block", str(name):
                    here.append(block := _Block(name))
                    open_blocks.append(block)
                case "endblock", _:
                    open_blocks.pop()
                case "extends", name:
                    parent = name
                case "include", str(name):
                    here.append(self._read(name)[0])
                case (("from" | "import"), str(name)):
                    self._imported.append(name)
                case _:
                    here.append(None if _SUPER.fullmatch(piece) else "<!---->")
        return open_blocks[0], parent

    def _placed(self, path: str) -> str:
        """The file with every tag marked, and without the Jinja inside tags."""
        page = self._pages[path]
        pieces: list[str] = []
        last = 0
        for tag in page.tags():
            after_name = tag.start + 1 + len(tag.name)
            place = f' {_PLACE}="{self._numbers[path]}-{tag.start}"'
            pieces += [page.text[last:after_name], place, MARK.sub("", page.text[after_name : tag.end])]
            last = tag.end
        return "".join(pieces) + page.text[last:]


def _within(block: _Block) -> Iterator[_Block]:
    for node in block.content:
        if isinstance(node, _Block) and node.name:
            yield node
        if isinstance(node, _Block):
            yield from _within(node)


def _flat(block: _Block, blocks: dict[str, list[_Block]], depth: int) -> str:
    """The block's text, with what templates put in place of the layout's blocks."""
    parts: list[str] = []
    for node in block.content:
        match node:
            case str():
                parts.append(node)
            case None:
                inherited = blocks[block.name][depth + 1 :]
                parts += [_flat(inherited[0], blocks, depth + 1)] if inherited else []
            case _Block(name=name):
                own = blocks.get(name, [node])
                parts.append(_flat(own[0], blocks, 0))
    return "".join(parts)


class _Styles(HTMLParser):
    """Reads back which style each marked tag got, and what remained in style sheets."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.by_place: dict[str, str] = {}
        self.at_rules = ""
        self._in_sheet = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._in_sheet = tag == "style"
        if place := values.get(_PLACE):
            self.by_place[place] = values.get("style") or ""

    def handle_comment(self, data: str) -> None:
        """What only Outlook reads (`<!--[if mso]>`) gets no styles."""
        for place in _PLACES.findall(data):
            self.by_place.setdefault(place, "")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # a style sheet holds no elements
        self._in_sheet = False

    def handle_data(self, data: str) -> None:
        if self._in_sheet:
            self.at_rules += data
