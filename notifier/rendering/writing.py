"""What a block prints for each person of a campaign is in quoted-printable already when it is printed.

The file's own text is encoded once, when the block is compiled; only the values are encoded for a person, and most of
them stand in it as they are. Each piece begins where a line of the mail begins, and ends there: so none depends on
what stands around it. This is the same as `Form` does for a whole mail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Any

from jinja2 import nodes
from jinja2.compiler import Frame

from notifier.rendering.environment import Printing, Unkept, escaped, printable
from notifier.rendering.gaps import encoded
from notifier_channels.email import forms

_BREAK = forms.SOFT_BREAK.decode()
_PLAIN = r"[ -<>-~]{0,75}+(?<! )"  # in quoted-printable as it is, at the end of a line, too
_PLAIN_HTML = r"[ !#-%(-;?-~]{0,75}+(?<! )"  # and with nothing to escape


class _Encoding(Printing):
    """Prints in one piece what stands between two statements."""

    def visit_Output(self, node: nodes.Output, frame: Frame) -> None:  # noqa: N802  # Jinja's name
        """What goes to a buffer is only a part of something, which is encoded as a whole."""
        if frame.buffer is not None:
            super().visit_Output(node, frame)
            return
        pieces = _pieces(node.nodes)
        names = iter(self._encoded([piece for piece in pieces if isinstance(piece, nodes.Expr)], node, frame))
        shown = [repr(piece) if isinstance(piece, str) else next(names) for piece in pieces]
        self.writeline(f"yield concat(({', '.join(shown)},))")

    def _encoded(self, values: Sequence[nodes.Expr], node: nodes.Node, frame: Frame) -> list[str]:
        """All of them at once, which takes half the time. Gives the names of what comes out."""
        if not values:
            return []
        names = [self.temporary_identifier() for _ in values]
        self.writeline(f"{', '.join(names)}, = environment.{_encoder(frame)}((", node)
        for value in values:
            self.visit(value, frame)
            self.write(", ")
        self.write("))")
        return names

    def start_write(self, frame: Frame, node: nodes.Node | None = None) -> None:
        """What the filter or the call of a block has made of its text is printed as it is, escaped or not."""
        super().start_write(frame, node)
        if frame.buffer is None:
            self.write("environment.as_made(")

    def end_write(self, frame: Frame) -> None:
        """Behind it."""
        if frame.buffer is None:
            self.write(")")
        super().end_write(frame)


def _encoder(frame: Frame) -> str:
    return "in_html" if frame.eval_ctx.autoescape else "in_text"


class Writing(Unkept):
    """The sandbox for the blocks of a mail's bodies."""

    code_generator_class = _Encoding

    def __init__(self, prepared: Mapping[str, str], originals: Mapping[str, str]) -> None:
        super().__init__(prepared, originals)
        self.in_html = _in_html
        self.in_text = _in_text
        self.as_made = _as_made


def _in_html(values: Sequence[Any]) -> Sequence[str]:
    if _are_plain(values, _PLAIN_HTML):
        return values
    return [_html(value) if _is_short(value) else encoded(str(escaped(value))) for value in values]


def _in_text(values: Sequence[Any]) -> Sequence[str]:
    if _are_plain(values, _PLAIN):
        return values
    return [_text(value) if _is_short(value) else encoded(str(printable(value))) for value in values]


def _is_short(value: Any) -> bool:
    """A text as names and prices are: the same ones come again and again."""
    return value.__class__ is str and len(value) <= forms.ROOM


@lru_cache(maxsize=4096)
def _html(value: str) -> str:
    return encoded(str(escaped(value)))


@lru_cache(maxsize=4096)
def _text(value: str) -> str:
    return encoded(printable(value))


def _as_made(value: str) -> str:
    return f"{value if _are_plain((value,), _PLAIN) else encoded(str(value))}{_BREAK}"


def _are_plain(values: Sequence[Any], plain: str) -> bool:
    """Whether each is a text that is printed as it is, as most are. None of them is when one has a line end."""
    try:
        return _several(plain, len(values)).fullmatch("\n".join(values)) is not None
    except TypeError:  # one is a number, or what `printable` refuses
        return False


@lru_cache
def _several(plain: str, count: int) -> re.Pattern[str]:
    return re.compile("\n".join([plain] * count))


def _pieces(children: Sequence[nodes.Expr]) -> list[str | nodes.Expr]:
    """Text as it is printed, line breaks behind values included, and values."""
    pieces: list[str | nodes.Expr] = []
    for child, behind in zip_longest(children, children[1:]):
        if isinstance(child, nodes.TemplateData):
            text = forms.encoded_static(child.data).decode()
            pieces.append(f"{pieces.pop()}{text}" if pieces and isinstance(pieces[-1], str) else text)
        else:
            pieces.append(child)
            if not (isinstance(behind, nodes.TemplateData) and behind.data.startswith("\n")):
                pieces.append(_BREAK)
    return pieces
