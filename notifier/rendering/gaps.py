"""What stands around the values of a part, and what becomes of a value between them, exactly as in the whole part.

A whole part has runs of blank lines shortened, its ends trimmed and its line ends made alike. None of that crosses a
character that ends no line. So a gap that may print line ends takes those around it along; any other stands between
them, and a value that would need more is `Odd`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from notifier.errors import TemplateError
from notifier.rendering.plain import few_blank_lines
from notifier_channels.email import forms

_ENDS = "\r\n"
_BEFORE = re.compile(r"[\r\n]*\Z")
_BEHIND = re.compile(r"[\r\n]*")
_BREAK = forms.SOFT_BREAK.decode()
_BLANK_LINES = re.compile(r"(?<!=)\r\n(?:(?:=\r\n)*\r\n){2,}")  # in quoted-printable, in which a soft break is nothing
_LEADING = re.compile(r"\A(?:=?\r\n)+")


class Odd(Exception):
    """This person's mail must be rendered as a whole."""


def encoded(value: str) -> str:
    """In quoted-printable, for a gap that may print line ends. A CR could be one with an LF that follows: `Odd`."""
    if "\r" in value:
        raise Odd
    return forms.encoded_value(value).decode()


@dataclass(frozen=True, slots=True)
class Gap:
    """One place, or several with only line ends between them."""

    tokens: tuple[str | int, ...]  #: line ends, and numbers of slots
    blocks: frozenset[int]  #: the slots that print quoted-printable
    only: int  #: the slot, when it is one that prints no line ends; else -1
    may_be_empty: bool
    is_text: bool
    begins: bool  #: nothing stands before it
    ends: bool  #: nothing stands behind it

    def filled(self, values: Sequence[str]) -> bytes:
        """What a gap that may print line ends shows, and those around it, in quoted-printable."""
        whole = "".join([token if isinstance(token, str) else self._slot(token, values) for token in self.tokens])
        if self.is_text:
            whole = _few_blank_lines(whole)
            whole = _LEADING.sub("", whole, 1) if self.begins else whole
            whole = whole.rstrip(_BREAK) if self.ends else whole  # no other `=` stands at the end
        while whole.endswith(_BREAK):  # the form makes it
            whole = whole.removesuffix(_BREAK)
        if self.ends and not self.is_text:
            whole = whole.removesuffix("\r\n")
        return whole.encode()

    def _slot(self, number: int, values: Sequence[str]) -> str:
        return values[number] if number in self.blocks else encoded(values[number]) + _BREAK


def _few_blank_lines(written: str) -> str:
    """The same as `plain.few_blank_lines`."""
    if "\r\n\r\n\r\n" in written or "\r\n=\r\n" in written:
        return _BLANK_LINES.sub("\r\n\r\n", written)
    return written


@dataclass(frozen=True, slots=True)
class Around:
    """A part: what stands around its places, in turn, ending in a line feed."""

    statics: tuple[str, ...]
    gaps: tuple[Gap, ...]  #: each different one once: a letter shows the same few values in many places
    places: tuple[int, ...]  #: which gap is in each place
    slots: tuple[int, ...]  #: of those gaps that are only one; they are the first

    def filled(self, values: Sequence[str]) -> list[str | bytes]:
        """What each gap shows to a person, in the order of `gaps`; `Odd` where that would change what is around it."""
        shown = [values[slot] for slot in self.slots]
        at_once = "".join(shown)
        if "\n" in at_once or "\r" in at_once:
            raise Odd
        if "" in shown and not all(value or gap.may_be_empty for value, gap in zip(shown, self.gaps, strict=False)):
            raise Odd
        return [*shown, *[gap.filled(values) for gap in self.gaps[len(shown) :]]]

    @classmethod
    def of(cls, tokens: Sequence[str | int], blocks: frozenset[int], *, is_text: bool) -> Around:
        """`tokens` are text and slots in turn; `blocks` are the slots that may print line ends."""
        statics, groups = _grouped(tokens)
        for number, group in enumerate(groups):
            if len(group) > 1 or group[0] in blocks:
                groups[number] = _wide(statics, number, group)
        if is_text:
            statics = [few_blank_lines(static) for static in statics]
            statics[0] = statics[0].lstrip("\n")
            statics[-1] = statics[-1].rstrip("\n") + "\n"
        elif not statics[-1].endswith(("\n", "\r")):
            statics[-1] += "\n"
        gaps = [
            _gap(group, blocks, before, behind, is_text=is_text, begins=number == 0 and not statics[0])
            for number, (group, before, behind) in enumerate(zip(groups, statics, statics[1:], strict=False))
        ]
        different = sorted(dict.fromkeys(gaps), key=lambda gap: gap.only < 0)
        places = tuple([different.index(gap) for gap in gaps])
        return cls(tuple(statics), tuple(different), places, tuple([gap.only for gap in different if gap.only >= 0]))


def _grouped(tokens: Sequence[str | int]) -> tuple[list[str], list[tuple[str | int, ...]]]:
    statics = [str(tokens[0])]
    groups: list[tuple[str | int, ...]] = []
    for slot, static in zip(tokens[1::2], tokens[2::2], strict=True):
        if groups and not statics[-1].strip(_ENDS):
            groups[-1] = (*groups[-1], statics.pop(), slot)
        else:
            groups.append((slot,))
        statics.append(str(static))
    return statics, groups


def _wide(statics: list[str], number: int, group: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Take the line ends around it along; at least two tokens tell that it is wide."""
    before, behind = _BEFORE.search(statics[number]), _BEHIND.match(statics[number + 1])
    if before is None or behind is None:
        raise AssertionError("nothing matches, too")
    statics[number] = statics[number][: before.start()]
    statics[number + 1] = statics[number + 1][behind.end() :]
    return (before.group(), *group, behind.group())


def _gap(
    group: tuple[str | int, ...], blocks: frozenset[int], before: str, behind: str, *, is_text: bool, begins: bool
) -> Gap:
    only = group[0] if len(group) == 1 else -1
    if not isinstance(only, int):
        raise TypeError("a group of one is a slot")
    ends = behind == "\n"
    apart = (before and not before.endswith(("\n", "\r"))) or not behind.startswith(("\n", "\r"))
    if only >= 0:  # what is filled in as it is does not ask for the rest
        return Gap(group, blocks, only, bool(apart), is_text, begins=False, ends=False)
    if any("\r" in token for token in group if isinstance(token, str)):
        raise TemplateError("a line ends in a CR beside what differs: with an LF from there it would be one line end")
    tokens = tuple([token.replace("\n", "\r\n") if isinstance(token, str) else token for token in group])
    return Gap(tokens, blocks, only, bool(apart), is_text, begins, ends)
