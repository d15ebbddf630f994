"""Presses a mail for a campaign: everything that its people have in common runs once, and a form with gaps is left.

What is left to do for a person is in `Pressed.letter`: to print the values of the holes and to fill them in.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import jinja2
from jinja2 import nodes
from markupsafe import escape

from notifier.errors import TemplateError
from notifier.rendering import syntax, text
from notifier.rendering.environment import Sandbox, Unkept, escaped, printable
from notifier.rendering.filters import PLAIN_LINK, Situation, situation, url
from notifier.rendering.gaps import Around, Odd
from notifier.rendering.mail import Mail
from notifier.rendering.marking import Hole, Mark, Marking, Reason, Unmarkable, Varying
from notifier.rendering.output import MAX_OUTPUT, output, pieces
from notifier.rendering.plain import one_line
from notifier.rendering.writing import Writing
from notifier_channels.contract import EmailContent, ListHeaders, WrittenEmail
from notifier_channels.email.forms import Form

Tokens: TypeAlias = Sequence[str | int]  #: text and numbers of slots in turn

_OPEN_REFERENCE = re.compile(r"&#?[A-Za-z0-9]*\Z")
_HIDES = re.compile(r"aria-hidden\s*=\s*(?:\"[^\"]*|'[^']*)\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Slots:
    """What is printed for each person in one part: every value once, however often it is shown."""

    names: tuple[tuple[str, bool], ...]  #: printed as they are, and whether as links; this needs no Jinja
    values: jinja2.Template | None  #: prints one piece for each of the next slots
    count: int  #: of slots that print no line ends by themselves: names and values
    blocks: tuple[jinja2.Template, ...]  #: the other slots: those of bodies print quoted-printable
    captured: Mapping[str, Any]
    shown: int  #: how often the one that is shown most is shown
    is_escaped: bool

    def printed(self, data: dict[str, Any]) -> list[str]:
        """One text for each slot."""
        found: list[str] = []
        try:
            for name, is_link in self.names:
                value = data[name]
                kind = value.__class__
                if kind is str and (PLAIN_LINK.fullmatch(value) if is_link else value.isalnum() or not self.is_escaped):
                    found.append(value)
                elif kind is int and not is_link:
                    found.append(str(value))
                else:
                    found.append(self._named(value, is_link=is_link))
        except (TypeError, ValueError):
            raise Odd from None
        if self.values or self.blocks:
            everything = {**self.captured, **data} if self.captured else data
            found += map(str, pieces(self.values, everything)) if self.values else ()  # Markup escapes itself no more
            if len(found) != self.count:
                raise Odd
            found += ["".join(pieces(block, everything)) for block in self.blocks]
        return found

    def _named(self, value: Any, *, is_link: bool) -> str:
        """As Jinja would print it in this sandbox."""
        shown = url(value) if is_link else printable(value)
        return str(escaped(shown) if self.is_escaped else shown)


@dataclass(frozen=True, slots=True)
class Part:
    """One part after its run: what it printed, with slots where people differ."""

    tokens: Tokens
    slots: Slots
    size: int  #: characters that are the same for all

    @property
    def blocks(self) -> frozenset[int]:
        """The slots that may print line ends."""
        return frozenset(range(self.slots.count, self.slots.count + len(self.slots.blocks)))

    def printed(self, data: dict[str, Any], here: Situation) -> list[str]:
        """A person's values. What might be too much as a whole is `Odd`: there it is counted."""
        before = here.iterations
        values = self.slots.printed(data)
        if self.size + sum(map(len, values)) * self.slots.shown > MAX_OUTPUT:
            raise Odd
        here.iterations -= (before - here.iterations) * (self.slots.shown - 1)
        if here.iterations < 0:
            raise Odd
        return values


@dataclass(frozen=True, slots=True)
class Derived:
    """A text part that is made of the HTML's visible text, with the same slots."""

    around: Around
    seen: frozenset[int]  #: slots that stand in the text, or decide about it
    links: tuple[tuple[Tokens, Tokens], ...]  #: targets and labels that could be the same for somebody

    def values(self, printed: Sequence[str]) -> list[str]:
        """The HTML's values as they are read. Blanks at the ends, say, would melt into those around: `Odd`."""
        read = [_as_read(value) for value in printed]
        for slot in self.seen:
            value = read[slot]
            if not value.isprintable() or not value or value != value.strip() or "  " in value:
                raise Odd
        for target, label in self.links:
            if text.says(_filled(target, read), _filled(label, read)):
                raise Odd
        return read


@dataclass(frozen=True, slots=True)
class Pressed:
    """A mail for people who have the same names, language, formats and, if the template shows times, the same clock."""

    form: Form
    subject: Part | str
    text: tuple[Around, Part | Derived]
    html: tuple[Around, Part] | None
    iterations: int  #: turns of loops that are left for a person

    def letter(self, data: dict[str, Any], subscription: ListHeaders | None, here: Situation) -> WrittenEmail:
        """One person's mail.

        Raises:
            Odd, TemplateError: it is to be rendered as a whole, which tells what is wrong, if anything is.

        """
        here.iterations = self.iterations
        token = situation.set(here)
        try:
            subject = data["subject"] = self._subject(data, here)
            around, part = self.text
            in_html = self.html[1].printed(data, here) if self.html else []
            in_text = part.values(in_html) if isinstance(part, Derived) else part.printed(data, here)
        finally:
            situation.reset(token)
        values = around.filled(in_text)
        if self.html:
            values += self.html[0].filled(in_html)
        return self.form.fill(subject, subscription, values)

    def _subject(self, data: dict[str, Any], here: Situation) -> str:
        if isinstance(self.subject, str):
            return self.subject
        subject = one_line(_filled(self.subject.tokens, self.subject.printed(data, here)))
        if not subject:
            raise Odd
        return subject


@dataclass(slots=True)
class Press:
    """One mail and what differs in it. Compiles once; runs for each set of formats and each clock."""

    mail: Mail
    varying: Varying
    sources: Sandbox  #: of what it is made
    files: Sequence[str]  #: all that take part
    _ready: dict[frozenset[str], Marking] = field(default_factory=dict)

    @classmethod
    def of(cls, mail: Mail, varying: Varying) -> Press:
        """Nothing is compiled yet."""
        sources = mail.subject.environment
        if not isinstance(sources, Sandbox):
            raise TypeError("a mail is compiled in a Sandbox")
        parts = [str(part.name) for part in (mail.subject, mail.html, mail.text) if part is not None]
        return cls(mail, varying, sources, syntax.closure(parts, sources.prepared))

    @property
    def filters(self) -> frozenset[str]:
        """All that any file uses."""
        return frozenset().union(*(syntax.read(path, self.sources.prepared[path]).filters for path in self.files))

    def pressed(self, values: Mapping[str, Any], here: Situation, content: EmailContent) -> Pressed:
        """Run it once. `content` has all but subject and bodies.

        Raises:
            TemplateError: it cannot be pressed, and why, or it cannot be rendered for anybody.

        """
        token = situation.set(here)
        try:
            return self._pressed(dict(values), here, content)
        finally:
            situation.reset(token)

    def survey(self) -> list[Reason]:
        """The places that are rendered for each person beside the printed values; raises `Unmarkable`."""
        marking = self._marking(self.varying.given | ({"subject"} if self._subject_varies() else set()))
        for path in self.files:
            marking.get_template(path)
        blocks = [hole.place for hole in marking.holes if hole.is_block]
        if blocks and self.mail.text is None:
            raise Unmarkable(replace(blocks[0], why=_NO_TEXT))
        return blocks

    def _subject_varies(self) -> bool:
        marking = self._marking(self.varying.given)
        marking.get_template(str(self.mail.subject.name))
        return bool(marking.holes)

    def _marking(self, given: frozenset[str]) -> Marking:
        """Where `subject` differs, it is a name like others in the bodies."""
        if given not in self._ready:
            solid = self.varying.solid | (given & {"subject"})
            self._ready[given] = Marking(self.sources.prepared, self.sources.originals, Varying(given, solid))
        return self._ready[given]

    def _pressed(self, values: dict[str, Any], here: Situation, content: EmailContent) -> Pressed:
        given = self.varying.given
        part = self._part(self.mail.subject, given, values, self._marking(given))
        subject = part if part.slots.shown else one_line(_filled(part.tokens, []))
        if isinstance(subject, str):
            if not subject:
                raise TemplateError(f"{self.mail.subject.name}: the subject is empty")
            values["subject"] = subject
        else:
            given |= {"subject"}
        writing = Writing(self.sources.prepared, self.sources.originals)
        page = self._part(self.mail.html, given, values, writing) if self.mail.html else None
        around_html = Around.of(page.tokens, page.blocks, is_text=False) if page else None
        if self.mail.text:
            written = self._part(self.mail.text, given, values, writing)
            in_text: tuple[Around, Part | Derived] = (Around.of(written.tokens, written.blocks, is_text=True), written)
        else:
            derived = _derived(page, self._marking(given))
            in_text = (derived.around, derived)
        form = Form(
            replace(content, subject=subject if isinstance(subject, str) else ""),
            in_text[0].statics,
            around_html.statics if around_html else None,
            _places(in_text[0], around_html),
            subject_varies=not isinstance(subject, str),
        )
        in_html = (around_html, page) if around_html and page else None
        return Pressed(form, subject, in_text, in_html, here.iterations)

    def _part(
        self, original: jinja2.Template, given: frozenset[str], values: dict[str, Any], for_blocks: Unkept
    ) -> Part:
        marking = self._marking(given)
        marking.marks.clear()
        printed = marking.split(output(marking.get_template(str(original.name)), values))
        numbers, slots = _slots(marking, str(original.name), for_blocks)
        tokens = [numbers[int(token)] if place % 2 else token for place, token in enumerate(printed)]
        return Part(tokens, slots, sum(map(len, printed[::2])))


_NO_TEXT = "the text is derived from the HTML, which differs here in more than a value; write email.txt.j2"


def _slots(marking: Marking, name: str, for_blocks: Unkept) -> tuple[list[int], Slots]:
    """The number of each mark's slot. Marks that always print the same share one."""
    kinds: list[list[Mark]] = []
    of_mark: list[int] = []
    for mark in marking.marks:
        number = next((n for n, kind in enumerate(kinds) if _same(kind[0], mark)), len(kinds))
        if number == len(kinds):
            kinds.append([])
        kinds[number].append(mark)
        of_mark.append(number)
    order = sorted(range(len(kinds)), key=lambda number: _rank(kinds[number][0]))
    ranks = [_rank(kinds[number][0]) for number in order]
    names, count = ranks.count(0), len(ranks) - ranks.count(2)
    captured: dict[str, Any] = {}
    bodies = [_body(kinds[number], position, captured) for position, number in enumerate(order)]
    is_escaped = name.endswith(".html.j2")
    for mark in marking.marks:
        if mark.hole.is_escaped != is_escaped:
            raise Unmarkable(replace(mark.hole.place, why="it stands in a file of another kind"))
    slots = Slots(
        names=tuple(_name(kinds[number]) for number in order[:names]),
        values=_compiled(marking, name, bodies[names:count]) if count > names else None,
        count=count,
        blocks=tuple(_compiled(for_blocks, name, [body]) for body in bodies[count:]),
        captured=captured,
        shown=max((len(kind) for kind in kinds), default=0),
        is_escaped=is_escaped,
    )
    return [order.index(number) for number in of_mark], slots


def _rank(mark: Mark) -> int:
    """Names, values, blocks: the order of slots."""
    return 2 if mark.hole.is_block else 1 if not isinstance(mark.hole.value, nodes.Name) else 0


def _name(kind: Sequence[Mark]) -> tuple[str, bool]:
    hole = _strictest(kind)
    if not isinstance(hole.value, nodes.Name):
        raise TypeError("only a name is printed by its name")
    return hole.value.name, _checks_link(hole)


def _strictest(kind: Sequence[Mark]) -> Hole:
    """Of marks that print the same, one whose link is checked."""
    return max((mark.hole for mark in kind), key=_checks_link)


def _checks_link(hole: Hole) -> bool:
    return isinstance(hole.node, nodes.Output) and hole.node.nodes[0] is not hole.value


def _same(one: Mark, other: Mark) -> bool:
    alike = one.hole is other.hole or one.hole.value == other.hole.value
    return alike and all(one.captured[name] is other.captured[name] for name in one.captured)


def _body(kind: Sequence[Mark], position: int, captured: dict[str, Any]) -> nodes.Node:
    """The hole's statement with its captured values at hand."""
    hole = _strictest(kind)
    if not hole.captured:
        return hole.node
    outer = {name: f"L{position}_{name}" for name in hole.captured}  # no name of a schema begins like that
    captured.update({outer[name]: kind[0].captured[name] for name in hole.captured})
    targets: list[nodes.Node] = [nodes.Name(name, "param") for name in outer]
    return nodes.With(targets, [nodes.Name(name, "load") for name in outer.values()], [hole.node])


def _compiled(environment: Unkept, name: str, body: list[nodes.Node]) -> jinja2.Template:
    tree = nodes.Template(body, lineno=1)
    tree.set_environment(environment)
    return jinja2.Template.from_code(environment, environment.compile(tree, name), {})


def _derived(page: Part | None, marking: Marking) -> Derived:
    """Read the HTML with marks in it: a mark is a word like any other, as long as its value is one, too."""
    if page is None:
        raise AssertionError("a mail has a text or HTML")
    if page.blocks:
        block = next(mark.hole for mark in marking.marks if mark.hole.is_block)
        raise Unmarkable(replace(block.place, why=_NO_TEXT))
    for before in page.tokens[:-1:2]:
        if _OPEN_REFERENCE.search(str(before)) or _HIDES.search(str(before)):
            raise TemplateError("a value behind an `&`, or one that hides an element, and no email.txt.j2")
    marked = "".join(token if isinstance(token, str) else marking.mark(token) for token in page.tokens)
    shown, links = text.read(marked)
    around = Around.of(_numbered(shown, marking), frozenset(), is_text=True)
    open_links = tuple(
        (_numbered(target, marking), _numbered(label, marking))
        for target, label in links
        if not text.says(target, label)
    )
    differing = tuple(pair for pair in open_links if len(pair[0]) > 1 or len(pair[1]) > 1)
    seen = {token for gap in around.gaps for token in gap.tokens if isinstance(token, int)}
    seen |= {token for pair in differing for tokens in pair for token in tokens if isinstance(token, int)}
    return Derived(around, frozenset(seen), differing)


def _places(text: Around, html: Around | None) -> list[int]:
    """Which gap is in each place of the mail: the HTML's are counted behind the text's."""
    return [*text.places, *([len(text.gaps) + number for number in html.places] if html else ())]


def _numbered(marked: str, marking: Marking) -> Tokens:
    return [int(token) if place % 2 else token for place, token in enumerate(marking.split(marked))]


def _filled(tokens: Tokens, values: Sequence[str]) -> str:
    return "".join([token if isinstance(token, str) else values[token] for token in tokens])


def _as_read(printed: str) -> str:
    """What a reader makes of a value in HTML; `Odd` for more than escaped text."""
    value = html.unescape(printed) if "&" in printed else printed
    if escape(value) != printed:
        raise Odd
    return value
