"""Who plays: two hundred people with their own ids and addresses in each run, some of them a provider's moods."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

FIRST = (
    "Ada", "Bela", "Chidi", "Dana", "Emre", "Fatou", "Greta", "Hugo", "Ines", "Jonas",
    "Kaya", "Lior", "Mina", "Noor", "Oskar", "Paula", "Quinn", "Rosa", "Samir", "Tilda",
)  # fmt: skip
LAST = ("Adler", "Brandt", "Costa", "Diallo", "Eriksen", "Fischer", "Gupta", "Haas", "Ito", "Jensen")
SIMULATED = {"bounce": 4, "late-bounce": 2, "complaint": 2, "greylist": 4}
ZONES = ("Europe/Lisbon", "Asia/Kolkata", "Asia/Tokyo", "Pacific/Auckland", "Pacific/Honolulu", "America/New_York")
"""So far around the world that it is day in one of them and night in another at any time."""

DAY, NIGHT = range(10, 19), range(23, 29)  #: hours that no pack of quiet hours closes, and hours that all close
EVERY_FOURTH_IS_NO_SUBSCRIBER = 4
EVERY_SIXTH_TAKES_NO_OFFERS = 6

DEAD, OFF, BUSY, DOUBTFUL = "+12025550131", "+12025550133", "+12025550135", "+12025550137"
"""Numbers that play moods (`notifier/sandbox/numbers.py`): unknown; off; told to wait; taken without a word."""

PHONES = range(120, 168)  #: which of the people have one
MOODS = (DEAD, OFF, BUSY, DOUBTFUL)  #: of the first of these
SPEAK_FRENCH = (130, 131)
ASLEEP = (151, 152, 153)  #: it is night where they live; the others with a phone are up
DEVICES = range(156, 186)
TWO_DEVICES = range(156, 166)
WITHOUT_APP = range(162, 166)  #: whose second device has lost the app

AREAS = (204, 226, 236, 250, 289, 306, 403, 416, 506, 519, 587, 604, 613, 647, 705, 709, 780, 902)  #: of Canada
FRENCH_AREAS = (367, 418, 438, 450, 514, 579, 581, 819, 873)  #: of Québec


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom the product knows."""

    id: str
    name: str
    email: str
    locale: str
    timezone: str
    simulator: str | None
    is_subscriber: bool
    phone: str | None = None
    takes_offers: bool = False  #: said yes to product news by text message
    is_asleep: bool = False  #: takes offers, but it is night there
    devices: tuple[str, ...] = ()  #: Firebase installation ids

    def line(self, now: datetime) -> dict[str, Any]:
        """Their line of the import, with each yes that they gave."""
        return {
            "id": self.id,
            "email": self.email,
            "phone": self.phone,
            "locale": self.locale,
            "timezone": self.timezone,
            "attributes": {"name": self.name},
            "grants": list(self._grants((now - timedelta(days=30)).isoformat())),
        }

    def _grants(self, at: str) -> Iterator[dict[str, Any]]:
        if self.is_subscriber:
            proof = {"form": "sign-up page", "wording": "Yes, send me the newsletter once a month."}
            yield {"topic": "newsletter", "granted_at": at, "evidence": proof}
        if self.takes_offers:
            proof = {"form": "checkout", "wording": "Yes, text me about new products."}
            yield {"topic": "product-news", "channel": "sms", "granted_at": at, "evidence": proof}


def fiction(areas: Sequence[int] = (*AREAS, *FRENCH_AREAS)) -> list[str]:
    """The numbers that North America keeps free for fiction: 555-0100 to 0199 of each area."""
    return [f"+1{area}55501{last:02}" for area in areas for last in range(100)]


def cast(run: str, now: datetime, stopped: Collection[str] = ()) -> list[Person]:
    """Two hundred people. Their addresses hold the run, so that each run meets them for the first time.

    `now` decides where it is day. `stopped`: numbers on which somebody said STOP in an earlier run; nobody has them.
    """
    moods = [mood for mood, count in SIMULATED.items() for _ in range(count)]
    names = [f"{first} {last}" for last, first in product(LAST, FIRST)]
    phones = _phones(stopped)
    return [_person(run, now, number, name, moods, phones.get(number)) for number, name in enumerate(names)]


def _phones(stopped: Collection[str]) -> dict[int, str]:
    def some(count: int, areas: Sequence[int]) -> list[str]:
        return secrets.SystemRandom().sample([one for one in fiction(areas) if one not in stopped], count)

    everybody = zip(PHONES, (*MOODS, *some(len(PHONES) - len(MOODS), AREAS)), strict=True)
    french = zip(SPEAK_FRENCH, some(len(SPEAK_FRENCH), FRENCH_AREAS), strict=True)
    return {**dict(everybody), **dict(french)}


def _zone(number: int, now: datetime) -> str:
    """Where somebody lives: with a phone, where its texts may come now, or where they must wait for the morning."""
    if number not in PHONES:
        return ZONES[number % len(ZONES)]
    wanted = NIGHT if number in ASLEEP else DAY
    hours = {zone: now.astimezone(ZoneInfo(zone)).hour for zone in ZONES}
    return next(zone for zone, hour in hours.items() if hour in wanted or hour + 24 in wanted)


def _person(  # all that makes somebody
    run: str, now: datetime, number: int, name: str, moods: Sequence[str], phone: str | None
) -> Person:
    simulator = moods[number] if number < len(moods) else None
    local = name.lower().replace(" ", ".")
    email = f"{simulator}+{run}-{number}@simulator.notifier.test" if simulator else f"{local}@{run}.people.test"
    return Person(
        id=f"{run}-{number:03}",
        name=name,
        email=email,
        locale=_locale(number),
        timezone=_zone(number, now),
        simulator=simulator,
        is_subscriber=simulator != "greylist"
        and (simulator is not None or number % EVERY_FOURTH_IS_NO_SUBSCRIBER != 0),
        phone=phone,
        takes_offers=phone is not None and number % EVERY_SIXTH_TAKES_NO_OFFERS != 0,
        is_asleep=number in ASLEEP,
        devices=tuple(_devices(run, number)),
    )


def _locale(number: int) -> str:
    if number in SPEAK_FRENCH:
        return "fr"
    return "de" if number % 3 == 0 else "en"


def _devices(run: str, number: int) -> Iterator[str]:
    """Installation ids have 22 characters; a name at the front is a mood of the sandbox."""
    if number in DEVICES:
        yield f"phone-{run}-{number:03}".ljust(22, "0")
    if number in TWO_DEVICES:
        mood = "unregistered" if number in WITHOUT_APP else "tablet"
        yield f"{mood}-{run}{number % 100:02}".ljust(22, "0")
