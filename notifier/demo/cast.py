"""Who plays: two hundred people with their own ids and addresses in each run, some of them a provider's moods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

FIRST = (
    "Ada", "Bela", "Chidi", "Dana", "Emre", "Fatou", "Greta", "Hugo", "Ines", "Jonas",
    "Kaya", "Lior", "Mina", "Noor", "Oskar", "Paula", "Quinn", "Rosa", "Samir", "Tilda",
)  # fmt: skip
LAST = ("Adler", "Brandt", "Costa", "Diallo", "Eriksen", "Fischer", "Gupta", "Haas", "Ito", "Jensen")
SIMULATED = {"bounce": 4, "late-bounce": 2, "complaint": 2, "greylist": 4}
ZONES = ("Europe/Berlin", "Europe/Lisbon", "America/New_York", "Asia/Tokyo")
EVERY_FOURTH_IS_NO_SUBSCRIBER = 4


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

    def line(self, now: datetime) -> dict[str, Any]:
        """Their line of the import, with the yes to the newsletter where they gave one."""
        grant = {
            "topic": "newsletter",
            "granted_at": (now - timedelta(days=30)).isoformat(),
            "evidence": {"form": "sign-up page", "wording": "Yes, send me the newsletter once a month."},
        }
        return {
            "id": self.id,
            "email": self.email,
            "locale": self.locale,
            "timezone": self.timezone,
            "attributes": {"name": self.name},
            "grants": [grant] if self.is_subscriber else [],
        }


def cast(run: str) -> list[Person]:
    """Two hundred people. Their addresses hold the run, so that each run meets them for the first time."""
    moods = [mood for mood, count in SIMULATED.items() for _ in range(count)]
    names = [f"{first} {last}" for last, first in product(LAST, FIRST)]
    return [_person(run, number, name, moods) for number, name in enumerate(names)]


def _person(run: str, number: int, name: str, moods: Sequence[str]) -> Person:
    simulator = moods[number] if number < len(moods) else None
    local = name.lower().replace(" ", ".")
    email = f"{simulator}+{run}-{number}@simulator.notifier.test" if simulator else f"{local}@{run}.people.test"
    return Person(
        id=f"{run}-{number:03}",
        name=name,
        email=email,
        locale="de" if number % 3 == 0 else "en",
        timezone=ZONES[number % len(ZONES)],
        simulator=simulator,
        is_subscriber=simulator != "greylist"
        and (simulator is not None or number % EVERY_FOURTH_IS_NO_SUBSCRIBER != 0),
    )


def order(person: Person, number: int) -> Mapping[str, Any]:
    """The data of `order-shipped`."""
    return {
        "name": person.name.split()[0],
        "order_number": f"A-{number:05}",
        "items": [
            {"title": "Walnut desk lamp", "detail": "Warm white, 40 cm", "quantity": 1, "price": "89.00"},
            {"title": "Linen notebook", "detail": "A5, dotted", "quantity": 3, "price": "38.70"},
        ],
        "currency": "EUR",
        "shipping": "4.90",
        "total": "132.60",
        "carrier": "DHL",
        "tracking_url": f"https://tracking.example/{number:020}",
        "expected_on": (datetime.now(UTC) + timedelta(days=3)).date().isoformat(),
        "address": [person.name, "Lindenstraße 12", "04107 Leipzig", "Germany"],
    }


def letter(person: Person, title: str) -> Mapping[str, Any]:
    """The data of `newsletter`."""
    return {
        "name": person.name.split()[0],
        "title": title,
        "published_on": datetime.now(UTC).date().isoformat(),
        "opening": ["The days are short, the workshop is warm, and the first walnut lamps are drying on the rack."],
        "stories": [
            {
                "title": "Forty years with one screw",
                "text": "What kept the old bandsaw running was a part that everybody could replace.",
                "url": "https://shop.example/journal/one-screw",
            },
            {
                "title": "Repair evening",
                "text": "Bring what wobbles, flickers or squeaks. There is soup, and the tools are ours.",
                "url": "https://shop.example/evenings",
            },
        ],
        "signature": "Mara and the workshop",
    }
