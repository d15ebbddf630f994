"""What the preference page says, in one language: names of switches, what has changed, and why a message came."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from babel.dates import format_date, format_time
from markupsafe import Markup

from notifier.dispatch.preferences import Because, Saved, Seen
from notifier.domain.consent import SuppressionReason, Topic
from notifier.domain.messages import Category
from notifier.domain.preferences import Place, Preferences, Switch
from notifier.rendering.locales import pick
from notifier.web.pages import Words

_SOURCES = frozenset({"api", "import", "unsubscribe_page", "preference_page", "sms_keyword", "double_opt_in"})


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something in a form that cannot be."""

    sentence: str  #: its key
    field: str  #: its id on the page


@dataclass(frozen=True, slots=True)
class Group:
    """The topics of one category."""

    category: Category
    topics: Sequence[tuple[str, str, str, Sequence[Switch]]]  #: key, name, description, switches


@dataclass(frozen=True, slots=True)
class Said:
    """What the page says at its top after a form was posted."""

    heading: Markup
    changes: Sequence[Markup] = ()
    mistakes: Sequence[tuple[Markup, str]] = ()  #: and the id of the field that each is about
    held_back: Sequence[tuple[Markup, str]] = ()
    undo: str | None = None


@dataclass(frozen=True, slots=True)
class Sentences:
    """All of it in the language of `words`."""

    words: Words
    languages: Mapping[str, str]  #: the name that each has for itself
    default_locale: str
    default_timezone: str

    def named(self, topic: Topic) -> tuple[str, str]:
        """A topic's name and description, in the page's language if it has them."""
        return self._say(topic.names) or topic.key, self._say(topic.descriptions)

    def name(self, switch: Switch) -> str:
        """What a switch is called, as it is read beside it."""
        if switch.topic is None:
            return self.words.sentences[f"choice.{switch.scope}.any"]
        return f"{self.named(switch.topic)[0]} · {self.words.sentences[f'preferences.{switch.channel}']}"

    def groups(self, shown: Preferences) -> list[Group]:
        """The topics that can be refused, marketing first."""
        groups = [
            Group(
                category,
                [
                    (topic.key, *self.named(topic), switches)
                    for topic, switches in shown.topics
                    if topic.category is category
                ],
            )
            for category in (Category.MARKETING, Category.TRANSACTIONAL)
        ]
        return [group for group in groups if group.topics]

    def note(self, place: Place) -> Markup | None:
        """Why nothing, or no marketing, goes to a place."""
        if not place.blocks:
            return None
        if SuppressionReason.STOP in place.blocks:
            return self.words("preferences.places.stop")
        only_marketing = place.blocks == {SuppressionReason.COMPLAINT}
        return self.words(f"preferences.places.{'complaint' if only_marketing else 'blocked'}")

    def paused_until(self, seen: Seen) -> str | None:
        """When marketing comes again; None when it is not paused."""
        until = seen.preferences.profile.snoozed_until
        return self._when(until, seen.preferences.profile.timezone) if until and until > seen.at else None

    # After a form -----------------------------------------------------------------------------------------------------

    def said(self, saved: Saved, mistakes: Sequence[Mistake]) -> Said:
        """What has changed, and what has not although it was asked for."""
        held_back = [(self._switched(switch, on=True), field_of(switch)) for switch in saved.changes.held_back]
        if saved.is_pause_held_back:
            held_back.append((self.words("preferences.pause.legend"), "pause"))
        return Said(
            heading=self.words("preferences.saved" if saved.says_something else "preferences.nothing"),
            changes=[
                *(self._switched(switch, on=False) for switch in saved.changes.off),
                *(self._switched(switch, on=True) for switch in saved.changes.on),
                *self._chosen(saved),
            ],
            mistakes=[(self.words(mistake.sentence), mistake.field) for mistake in mistakes],
            held_back=held_back,
            undo=saved.undo,
        )

    def data_held_back(self) -> Said:
        """That a person's data needs a fresh link."""
        return Said(self.words("preferences.not_done"), held_back=[(self.words("preferences.data.button"), "data")])

    def _switched(self, switch: Switch, *, on: bool) -> Markup:
        on_off, wide = ("on", "lifted") if on else ("off", "stopped")
        return self.words(f"preferences.change.{on_off if switch.topic else wide}", what=self.name(switch))

    def _chosen(self, saved: Saved) -> list[Markup]:
        before, after = saved.before, saved.seen.preferences.profile
        said = []
        if after.snoozed_until != before.snoozed_until:
            until = self.paused_until(saved.seen)
            key = "preferences.pause.keep" if until else "preferences.pause.ended"
            said.append(self.words(key, **({"when": until} if until else {})))
        if after.locale and after.locale != before.locale:
            said.append(self._set("language", self.languages[after.locale]))
        if after.timezone and after.timezone != before.timezone:
            said.append(self._set("timezone", after.timezone.replace("_", " ")))
        return said

    def _set(self, field: str, value: str) -> Markup:
        what = self.words.sentences[f"preferences.profile.{field}"]
        return self.words("preferences.change.set", what=what, value=value)

    # Why a message came -----------------------------------------------------------------------------------------------

    def because(self, because: Because) -> list[Markup]:
        """When it was sent, by which rule, and the ledger's line; nothing when nobody can say any more."""
        rule = f"why.{because.rule}"
        if because.topic is None or because.sent_at is None or rule not in self.words.sentences:
            return []
        when, (name, _) = self._when(because.sent_at, None), self.named(because.topic)
        said = [self.words("why.sent", when=when, topic=name), self.words(rule)]
        if because.said_at and because.source:
            source = because.source if because.source in _SOURCES else "other"
            how = self.words.sentences[f"why.source.{source}"]
            said.append(self.words("why.line", when=self._when(because.said_at, None), source=how))
        return said

    def _say(self, by_locale: Mapping[str, str]) -> str:
        return pick(by_locale, self.words.language, self.default_locale) or next(iter(by_locale.values()), "")

    def _when(self, moment: datetime, timezone: str | None) -> str:
        zone = _zone(timezone) or _zone(self.default_timezone)
        day = format_date(moment.astimezone(zone), "long", locale=self.words.language)
        return f"{day}, {format_time(moment, 'short', tzinfo=zone, locale=self.words.language)}"


def field_of(switch: Switch) -> str:
    """The id of its field on the page."""
    return f"switch-{switch.key.replace(':', '-').replace('/', '-')}"


def _zone(name: str | None) -> zoneinfo.ZoneInfo | None:
    try:
        return zoneinfo.ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError):
        return None
