"""What a file's syntax tells before it runs: the files it needs and the names it expects to be given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import jinja2
from jinja2 import meta, nodes

from notifier.errors import TemplateError
from notifier.rendering import folder
from notifier.rendering.environment import Sandbox


@dataclass(frozen=True, slots=True)
class Syntax:
    """One file."""

    needed: tuple[str | None, ...]  #: the files it extends, includes or imports; None: a name that it would compute
    names: frozenset[str]
    filters: frozenset[str]


@lru_cache(maxsize=4096)
def read(path: str, text: str) -> Syntax:
    """Parse a file. A layout stands in many templates and is parsed once."""
    try:
        tree = Sandbox({}, {}).parse(text, path)
        names = meta.find_undeclared_variables(tree) - _defined(tree)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"{path}:{error.lineno}: {error.message}") from None
    filters = frozenset(node.name for node in tree.find_all(nodes.Filter))
    return Syntax(tuple(meta.find_referenced_templates(tree)), frozenset(names), filters)


def closure(paths: Iterable[str], files: Mapping[str, str]) -> list[str]:
    """These files and all that they need, which stands in `_layouts/`."""
    reached: dict[str, None] = {}
    for path in paths:
        _visit(path, files, reached, ())
    return list(reached)


def _visit(path: str, files: Mapping[str, str], reached: dict[str, None], trail: tuple[str, ...]) -> None:
    if path in trail:
        raise TemplateError(f"{path} needs itself: {' -> '.join((*trail, path))}")
    if path in reached:
        return
    for name in read(path, files[path]).needed:
        if name is None or not name.startswith(f"{folder.LAYOUTS}/") or name not in files:
            raise TemplateError(f"{path}: {name or 'a computed name'} is no file in {folder.LAYOUTS}/")
        _visit(name, files, reached, (*trail, path))
    reached[path] = None


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
