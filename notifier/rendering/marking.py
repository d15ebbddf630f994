"""Finds in a template's syntax tree what differs from person to person, and puts a hole in its place.

A hole is a printed expression, or an `if`, a `for` or a `call` that asks for a person's data. Around the holes a file
runs as ever, once for everybody; in their places it prints marks. Whatever cannot be cut out like this, such as a `set`
made of a person's data, is a `Reason` to render the whole for each person.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Never

from jinja2 import meta, nodes, pass_context
from jinja2.runtime import Context as JinjaContext
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

from notifier.errors import TemplateError
from notifier.rendering import syntax
from notifier.rendering.environment import Unkept

MAX_MARKS = 500
_OF_A_PLACE = frozenset({"super", "self", "caller", "loop"})
_READERS = (nodes.Include, nodes.Import, nodes.FromImport)
_NOT_INSIDE = (nodes.Extends, nodes.Block, *_READERS, nodes.Assign, nodes.AssignBlock, nodes.Macro)
_BUFFERS = (nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock, nodes.Macro)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is rendered for each person; `str()` of it is for the template's author."""

    path: str
    line: int
    source: str  #: the template's own line
    why: str  #: empty when the line says it all

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: `{self.source}`" + (f": {self.why}" if self.why else "")


class Unmarkable(TemplateError):
    """No hole can be cut here."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Hole:
    """One place in a file."""

    node: nodes.Node  #: a statement, printed expressions among them
    value: nodes.Node  #: what tells whether two holes always print the same: links are printed as they are
    captured: tuple[str, ...]  #: names of the invariant values that it uses
    is_block: bool  #: may print any number of lines
    is_escaped: bool
    place: Reason


@dataclass(frozen=True, slots=True)
class Mark:
    """A hole where it was met in a run, with the values around it."""

    hole: Hole
    captured: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Varying:
    """What differs: `given` are a person's names, of which `solid` are texts that are never empty."""

    given: frozenset[str]
    solid: frozenset[str]


class Marking(Unkept):
    """The sandbox in which a template runs once for everybody. Not to be shared between threads."""

    def __init__(self, prepared: Mapping[str, str], originals: Mapping[str, str], varying: Varying) -> None:
        super().__init__(prepared, originals)
        self.varying = varying
        self.holes: list[Hole] = []
        self.marks: list[Mark] = []  #: of the last run
        nonce = secrets.token_hex(8)  # no data can pose as a mark
        self._mark = f"\ue000{nonce}-%d\ue001"
        self._pattern = re.compile(f"\ue000{nonce}-([0-9]+)\ue001")
        self.filters["hole"] = self._hole

    def split(self, printed: str) -> list[str]:
        """What stands around the marks and, in every second place, the number of a mark."""
        return self._pattern.split(printed)

    def mark(self, number: int) -> str:
        """What is printed in the place of a hole."""
        return self._mark % number

    @pass_context  # so that it is no constant to Jinja
    def _hole(self, _context: JinjaContext, captured: Mapping[str, Any], number: int) -> Markup:
        if len(self.marks) == MAX_MARKS:
            raise TemplateError(f"more than {MAX_MARKS} places differ from person to person")
        self.marks.append(Mark(self.holes[number], captured))
        return Markup(self.mark(len(self.marks) - 1))  # noqa: S704  # a mark is no data

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        return _Surgeon(self, name or "").operated(tree)


@dataclass(slots=True)
class _Surgeon:
    """Works on one file."""

    environment: Marking
    path: str
    given: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.given = self.environment.varying.given

    def operated(self, tree: nodes.Template) -> nodes.Template:
        _Settled(self.environment.varying).visit(tree)
        self._refuse_shadows(tree)
        self._refuse_readers(tree)
        self._refuse_strangers(tree)
        tree.body = self._all(tree.body)
        tree.set_environment(self.environment)
        return tree

    def _all(self, statements: Sequence[nodes.Node]) -> list[nodes.Node]:
        return [self._one(statement) for statement in statements]

    def _one(self, node: nodes.Node) -> nodes.Node:
        """A statement as it runs for everybody."""
        match node:
            case nodes.Output():
                return nodes.Output([self._printed(child) for child in node.nodes], lineno=node.lineno)
            case nodes.If() if self._asks([node.test, *(other.test for other in node.elif_)]):
                return self._statement(node)
            case nodes.For() if self._asks([node.iter, node.test]):
                return self._statement(node)
            case nodes.If():
                node.elif_ = [self._one(other) for other in node.elif_]  # type: ignore[misc]  # of an If comes an If
                node.body, node.else_ = self._all(node.body), self._all(node.else_)
            case nodes.For():
                node.body, node.else_ = self._all(node.body), self._all(node.else_)
            case nodes.Block():
                node.body = self._all(node.body)
            case nodes.With() if not self._asks(node.values):
                node.body = self._all(node.body)
            case nodes.CallBlock() | nodes.FilterBlock() if self._asks([node]):
                return self._statement(node)
            case _ if self._asks([node]):
                self._refuse(node, "what it makes differs from person to person")
        return node

    def _printed(self, node: nodes.Expr) -> nodes.Expr:
        if not self._asks([node]):
            return node
        calls = isinstance(node, nodes.Call) or next(node.find_all(nodes.Call), None) is not None
        return self._cut(nodes.Output([node], lineno=node.lineno), _unlinked(node), is_block=calls)

    def _statement(self, node: nodes.Node) -> nodes.Node:
        for inner in node.find_all(_NOT_INSIDE):
            self._refuse(inner, "this stands where it may differ from person to person")
        return nodes.Output([self._cut(node, node, is_block=True)], lineno=node.lineno)

    def _cut(self, node: nodes.Node, value: nodes.Node, *, is_block: bool) -> nodes.Expr:
        names = self._expected(node)
        if strange := names & _OF_A_PLACE:
            self._refuse(node, f"`{min(strange)}` stands beside what differs from person to person")
        captured = tuple(sorted(names - self.given))
        place = self._place(node, "")
        is_escaped = self.path.endswith(".html.j2")
        self.environment.holes.append(Hole(node, value, captured, is_block, is_escaped, place))
        pairs = [nodes.Pair(nodes.Const(name), nodes.Name(name, "load")) for name in captured]
        number = nodes.Const(len(self.environment.holes) - 1)
        return nodes.Filter(nodes.Dict(pairs), "hole", [number], [], None, None, lineno=node.lineno)

    def _asks(self, several: Iterable[nodes.Node | None]) -> bool:
        """Whether any of them expects a name of a person's."""
        return any(node is not None and not self.given.isdisjoint(self._expected(node)) for node in several)

    def _expected(self, node: nodes.Node) -> set[str]:
        """The names that it takes from outside."""
        if isinstance(node, nodes.Expr):  # it makes no names
            own = {node.name} if isinstance(node, nodes.Name) else set()
            return own | {name.name for name in node.find_all(nodes.Name)}
        alone = nodes.Template([node], lineno=node.lineno)
        alone.set_environment(self.environment)
        return meta.find_undeclared_variables(alone)

    def _refuse_readers(self, tree: nodes.Template) -> None:
        """Nothing may look at what a block has printed: there may be marks in it."""
        printed = (child for output in tree.find_all(nodes.Output) for child in output.nodes)
        as_it_is = {id(name) for node in printed if _prints_a_block(node) for name in node.find_all(nodes.Name)}
        reads = (name for name in tree.find_all(nodes.Name) if name.name == "super" and id(name) not in as_it_is)
        kept = (node for buffer in tree.find_all(_BUFFERS) for node in buffer.find_all((nodes.Block, nodes.Include)))
        calls = (
            call for buffer in tree.find_all(_BUFFERS) for call in buffer.find_all(nodes.Call) if _prints_a_block(call)
        )
        for node in (*reads, *kept, *calls):
            self._refuse(node, "what is printed there is used here, and it may differ from person to person")

    def _refuse_strangers(self, tree: nodes.Template) -> None:
        """A file that is read without what is around it finds no person's data, and an imported one prints nothing."""
        for node in tree.find_all(_READERS):
            if isinstance(node, nodes.Include) and node.with_context:
                continue
            names = [name for name in meta.find_referenced_templates(nodes.Template([node])) if name]
            files = self.environment.prepared
            if any(self.given & syntax.read(path, files[path]).names for path in syntax.closure(names, files)):
                self._refuse(node, "a file that is read there asks for what differs from person to person")

    def _refuse_shadows(self, tree: nodes.Template) -> None:
        """One name with two meanings: what it stands for could not be told."""
        in_macros = {id(name) for macro in tree.find_all(nodes.Macro) for name in macro.find_all(nodes.Name)}
        for name in tree.find_all(nodes.Name):
            if name.ctx != "load" and name.name in self.given and id(name) not in in_macros:
                self._refuse(name, f"`{name.name}` is also the name of something that differs from person to person")
        for node in tree.find_all((nodes.Macro, nodes.Import, nodes.FromImport)):
            if shadows := self.given.intersection(_made_by(node)):
                self._refuse(node, f"`{min(shadows)}` is also the name of something that differs from person to person")

    def _place(self, node: nodes.Node, why: str) -> Reason:
        lines = self.environment.originals.get(self.path, "").splitlines()
        line = node.lineno or 0
        return Reason(self.path, line, lines[line - 1].strip()[:120] if 0 < line <= len(lines) else "", why)

    def _refuse(self, node: nodes.Node, why: str) -> Never:
        raise Unmarkable(self._place(node, why))


class _Settled(NodeTransformer):
    """Answers what is the same for everybody although it asks for a person's data: whether it is there at all."""

    def __init__(self, varying: Varying) -> None:
        self._varying = varying

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:  # noqa: N802  # Jinja's names
        """A macro's names may be its own."""
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        """`name is defined`."""
        if node.name in ("defined", "undefined") and _is_name(node.node, self._varying.given):
            return nodes.Const(node.name == "defined", lineno=node.lineno)
        return self.generic_visit(node)

    def visit_If(self, node: nodes.If) -> nodes.Node:  # noqa: N802
        """`{% if unsubscribe_url %}`."""
        node.test = self._truth(node.test)
        return self.generic_visit(node)

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:  # noqa: N802
        """`a if unsubscribe_url else b`."""
        node.test = self._truth(node.test)
        return self.generic_visit(node)

    def _truth(self, node: Any) -> Any:
        match node:
            case nodes.And() | nodes.Or():
                node.left, node.right = self._truth(node.left), self._truth(node.right)
            case nodes.Not():
                node.node = self._truth(node.node)
            case nodes.Name() if node.name in self._varying.solid:
                return nodes.Const(True, lineno=node.lineno)
        return node


def _is_name(node: nodes.Node, names: frozenset[str]) -> bool:
    return isinstance(node, nodes.Name) and node.name in names


def _made_by(node: nodes.Node) -> set[str]:
    match node:
        case nodes.Macro():
            return {node.name}
        case nodes.Import():
            return {node.target}
        case nodes.FromImport():
            return {name if isinstance(name, str) else name[1] for name in node.names}
        case _:
            return set()


def _prints_a_block(node: nodes.Node) -> bool:
    """`{{ super() }}`: printed as it is, marks and all."""
    return isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "super"


def _unlinked(node: nodes.Expr) -> nodes.Expr:
    """`url` refuses, but changes nothing."""
    while isinstance(node, nodes.Filter) and node.name == "url" and node.node is not None:
        node = node.node
    return node
