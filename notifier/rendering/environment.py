"""The sandbox that templates run in: trusted files, untrusted data, and nothing in reach but the two."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextvars import Context
from types import CodeType
from typing import Any

from jinja2 import DictLoader, StrictUndefined, Undefined, nodes, pass_eval_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.environment import TemplateModule
from jinja2.exceptions import SecurityError, TemplateAssertionError
from jinja2.nodes import EvalContext
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup, escape

from notifier.rendering import filters

TESTS = ("defined", "undefined", "none", "divisibleby", "even", "odd", "eq", "ne", "lt", "le", "gt", "ge", "in")
_DATA = (dict, list, str)
_PRINTED = frozenset({str, int, float, Markup})
_ESCAPED = re.compile("[&<>\"']")
MAX_COMPILED = 5_000
_compiled: dict[tuple[str, str], CodeType] = {}


class Printing(CodeGenerator):
    """Escapes what is printed with one call, where Jinja's own makes three and an object for each value.

    And a field of data, as nearly every `x.name` is one, takes none.
    """

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:  # noqa: N802  # Jinja's name
        """Anything else is left to `Sandbox.getattr`."""
        held, name = self.temporary_identifier(), repr(node.attr)
        self.write(f"({held}[{name}] if ({held} := ")
        self.visit(node.node, frame)
        self.write(f").__class__ is dict and {name} in {held} else environment.getattr({held}, {name}))")

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        if frame.eval_ctx.autoescape:
            self.write("environment.escaped(")
        else:
            super()._output_child_pre(node, frame, finalize)

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        if frame.eval_ctx.autoescape:
            self.write(")")
        else:
            super()._output_child_post(node, frame, finalize)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja without globals, methods, attributes, `safe` and size bombs.

    Data has fields, never attributes: `order.items` is the field `items`, and `name.__class__` is nothing at all.
    """

    intercepted_binops = frozenset({"*", "**", "%"})
    code_generator_class = Printing

    def __init__(
        self,
        prepared: Mapping[str, str],
        originals: Mapping[str, str],
        finalize: Callable[[Any], Any] | None = None,
    ) -> None:
        """The files as they run, and as their author wrote them, which errors quote.

        `finalize` sees what is printed where nothing is escaped.

        What is compiled is kept by its name and text: a name is always compiled with the same `finalize`.
        """
        self.prepared = prepared
        self.originals = originals
        super().__init__(
            loader=DictLoader(prepared),
            undefined=StrictUndefined,
            autoescape=_escapes,
            finalize=finalize or printable,
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # a filter's result depends on the recipient's locale: fold nothing at load
            cache_size=-1,
            auto_reload=False,
        )
        self.escaped = escaped
        self.globals = {}
        self.filters = {**filters.ALLOWED, "made": _made}
        self.tests = {name: self.tests[name] for name in TESTS}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`x.name`: a field of data, or what `loop` and imported macros offer."""
        if isinstance(obj, LoopContext | TemplateModule):
            return super().getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`x[name]`: a field or an element of data."""
        if isinstance(obj, _DATA):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                pass
        elif isinstance(obj, Undefined):
            obj._fail_with_undefined_error()  # noqa: SLF001  # Jinja's own way to raise it
        return self.undefined("no such field")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic is for numbers: `"a" * n` and `"%99999d" % n` are bombs, and so is any power."""
        numeric = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" or not numeric:
            raise SecurityError(f"`{operator}` is for numbers only, and `**` for none")
        return super().call_binop(context, operator, left, right)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _restrict(tree, name)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "each", [], [], None, None, lineno=loop.lineno)
        for made in tree.find_all(nodes.AssignBlock):
            if made.filter is not None:  # Jinja forgets the names in it
                made.body = [nodes.FilterBlock(made.body, made.filter, lineno=made.lineno)]
                made.filter = None
        for block in tree.find_all(nodes.FilterBlock):
            block.filter = nodes.Filter(block.filter, "made", [], [], None, None, lineno=block.lineno)
        return tree

    def compile(self, source: Any, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """A layout serves many templates: the same text is compiled once."""
        key = (name or "", str(source))
        if key not in _compiled:
            if len(_compiled) >= MAX_COMPILED:
                _compiled.clear()
            _compiled[key] = super().compile(source, name, *args, **kwargs)
        return _compiled[key]


class Unkept(Sandbox):
    """A sandbox for what depends on more than its text."""

    def compile(self, source: Any, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """Not kept. And compiled for nobody: Jinja evaluates constants on the way."""
        return Context().run(super(Sandbox, self).compile, source, name, *args, **kwargs)


def _escapes(name: str | None) -> bool:
    return name is not None and name.endswith(".html.j2")


def printable(value: Any) -> Any:
    """`Hello None` and `{'a': 1}` are bugs that people would read: only text and numbers are printed."""
    if value.__class__ in _PRINTED or isinstance(value, Undefined):  # which raises by itself, and says what is missing
        return value
    raise TypeError("only text and numbers can be printed")


@pass_eval_context
def _made(context: EvalContext, value: Any) -> str:
    """Wrapped around the filter of every block at load, for Jinja prints what comes out of it as it is."""
    return escaped(value) if context.autoescape else str(printable(value))


def escaped(value: Any) -> str:
    """A value as it stands in HTML; most hold nothing to escape."""
    if value.__class__ is str and not _ESCAPED.search(value):
        return value
    return escape(printable(value))


def _restrict(tree: nodes.Template, name: str | None) -> None:
    """Refuse what a template could switch its own protection off with."""
    for scope in tree.find_all((nodes.EvalContextModifier, nodes.ScopedEvalContextModifier)):
        raise TemplateAssertionError("escaping cannot be switched off", scope.lineno, name)
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise TemplateAssertionError("loops cannot be recursive", loop.lineno, name)
    for macro in tree.find_all(nodes.Macro):
        if any(
            isinstance(call.node, nodes.Name) and call.node.name == macro.name for call in macro.find_all(nodes.Call)
        ):
            raise TemplateAssertionError("macros cannot call themselves", macro.lineno, name)
    for used in tree.find_all(nodes.Filter):
        if used.name == "safe":
            raise TemplateAssertionError("there is no `safe`: data is always escaped", used.lineno, name)
