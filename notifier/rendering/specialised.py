"""A campaign's mail for its people: what they have in common is rendered once, and each gets the rest.

Both ways give the same mail. Whatever the quick one cannot do exactly, be it of a template or of one person's data,
takes the full one of `render` by itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import babel

from notifier.domain.consent import Permit
from notifier.errors import TemplateError
from notifier.rendering.filters import Situation
from notifier.rendering.gaps import Odd
from notifier.rendering.locales import formats_of
from notifier.rendering.mail import Mail, PreviewedEmail
from notifier.rendering.marking import Reason, Unmarkable, Varying
from notifier.rendering.pressing import Press, Pressed
from notifier.rendering.render import Ingredients, letter, render, zone
from notifier.rendering.template import Template
from notifier_channels.contract import Channel, Email, ListHeaders, WrittenEmail

MAX_CAMPAIGNS = 16
MAX_KEPT = 2_000  #: of what people of one locale, clock and set of names have in common
_FORMATTED = frozenset({"money", "number", "plural"})
_TIMED = frozenset({"date", "datetime", "map"})  # `map` names another filter when it runs
_LINKS = ("unsubscribe_url", "preferences_url")

Way: TypeAlias = tuple[Pressed, babel.Locale, ZoneInfo]


@dataclass(slots=True)
class Specialised:
    """One version of a template with a campaign's data. Kept for as long as the campaign; for one thread."""

    template: Template
    data: Mapping[str, Any]  #: the campaign's: the same for everybody
    wanted: tuple[str, ...]  #: names of the template's data that a person's attributes bring
    _ways: dict[tuple[object, ...], Way | None] = field(default_factory=dict)
    _pressed: dict[tuple[object, ...], Pressed | None] = field(default_factory=dict)
    _presses: dict[tuple[object, ...], Press] = field(default_factory=dict)

    @classmethod
    def of(cls, template: Template, data: Mapping[str, Any]) -> Specialised:
        """Cheap: nothing is rendered before the first person."""
        return cls(template, data, tuple(sorted(template.schema.properties - data.keys())))

    def render(self, permit: Permit, ingredients: Ingredients) -> Email:
        """The mail of one person, whose attributes are the ingredients' data.

        Of these only what is `wanted` counts: what the campaign's data says, it says to everybody.

        Raises:
            TemplateError: as `rendering.render` would.

        """
        attributes = ingredients.data
        own = {name: attributes[name] for name in self.wanted if name in attributes}
        written = self._written(own, ingredients)
        if written is not None:
            return written
        return render(permit, self.template, Channel.EMAIL, ingredients._replace(data={**self.data, **own}))

    def _written(self, own: dict[str, Any], ingredients: Ingredients) -> WrittenEmail | None:
        """None: it must be rendered as a whole."""
        out = ingredients.unsubscribe
        key = (
            ingredients.locale,
            ingredients.timezone,
            tuple(own),
            ingredients.preferences_url is None,
            out and (out.list_id, out.list_name),
        )
        try:
            way = self._ways[key]
        except KeyError:
            way = self._kept(key, self._way(own, ingredients))
        if way is None or ingredients.preferences_url == "" or (out and not out.unsubscribe_url):
            return None
        pressed, formats, clock = way
        values = {
            **own,
            "unsubscribe_url": out and out.unsubscribe_url,
            "preferences_url": ingredients.preferences_url,
        }
        try:
            return pressed.letter(values, out, Situation(formats, clock))
        except (Odd, TemplateError):
            return None

    def _way(self, own: Mapping[str, Any], ingredients: Ingredients) -> Way | None:
        try:
            if self.template.is_marketing != (ingredients.unsubscribe is not None):
                return None
            mail = mail_of(self.template, ingredients.locale)
            formats, clock = formats_of(ingredients.locale, mail.locale), zone(ingredients.timezone)
            pressed = self._press(mail, own, ingredients, Situation(formats, clock))
        except TemplateError:
            return None
        return None if pressed is None else (pressed, formats, clock)

    def _press(self, mail: Mail, own: Mapping[str, Any], ingredients: Ingredients, here: Situation) -> Pressed | None:
        """What these people share with others whose formats and clock give the same."""
        out = ingredients.unsubscribe
        links = tuple(name for name, value in zip(_LINKS, (out, ingredients.preferences_url), strict=True) if value)
        varying = Varying(frozenset((*own, *links)), frozenset(links))
        press = self._presses.setdefault((mail.locale, varying), Press.of(mail, varying))
        key = (
            *(mail.locale, varying),
            here.formats if press.filters & (_FORMATTED | _TIMED) else None,
            here.timezone if press.filters & _TIMED else None,
            out and (out.list_id, out.list_name),
        )
        if key not in self._pressed:
            self._pressed[key] = self._try(press, mail, out, here)
        return self._pressed[key]

    def _try(self, press: Press, mail: Mail, out: ListHeaders | None, here: Situation) -> Pressed | None:
        absent = {name: None for name in _LINKS if name not in press.varying.given}
        content = letter(self.template, PreviewedEmail(mail.locale, "", "", None), out)
        try:
            return press.pressed({**self.data, **mail.constants, **absent}, here, content)
        except TemplateError:
            return None

    def _kept(self, key: tuple[object, ...], way: Way | None) -> Way | None:
        if len(self._ways) >= MAX_KEPT:
            self._ways.clear()
            self._pressed.clear()
            self._presses.clear()
        self._ways[key] = way
        return way


@dataclass(frozen=True, slots=True)
class Specialisations:
    """The campaigns that a process has in hand; the one that was not asked for longest is forgotten first."""

    _kept: OrderedDict[Hashable, Specialised] = field(default_factory=OrderedDict)

    def of(self, campaign: Hashable, template: Template, data: Mapping[str, Any]) -> Specialised:
        """The same one for a campaign until its template or its data change."""
        found = self._kept.pop(campaign, None)
        if found is None or found.template is not template or found.data != data:
            found = Specialised.of(template, data)
        self._kept[campaign] = found
        if len(self._kept) > MAX_CAMPAIGNS:
            self._kept.popitem(last=False)
        return found


def mail_of(template: Template, locale: str) -> Mail:
    """The mail of a template in the best language for a locale."""
    variant = template.variant(Channel.EMAIL, locale)
    if not isinstance(variant, Mail):
        raise TypeError("what goes by email is a Mail")
    return variant


@dataclass(frozen=True, slots=True)
class Outlook:
    """What becomes of a template in campaigns whose data brings nothing: what it brings is the same for everybody."""

    whole: Reason | None  #: why each mail is rendered as a whole; None: it is not
    blocks: tuple[Reason, ...]  #: the places that are rendered for each person beside the printed values


def outlook(template: Template, locale: str) -> Outlook:
    """The way that a campaign's mail in one of the template's languages takes, and why."""
    mail = mail_of(template, locale)
    links = frozenset(_LINKS if template.is_marketing else _LINKS[1:])
    press = Press.of(mail, Varying(template.schema.properties | links, links))
    try:
        return Outlook(None, tuple(press.survey()))
    except Unmarkable as unmarkable:
        return Outlook(unmarkable.reason, ())
