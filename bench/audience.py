"""Whom a benchmark's campaign is for: people in bulk, with what their template needs, a tenth without consent."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from notifier.domain.messages import Ids
from notifier.domain.recipients import Hasher
from notifier_channels.addresses import EmailAddress

TOPIC = "offers"
FIRST = 20_000  #: people of whom `settle` tells: as many as a peer may be given
ITEMS = 10  #: of each person, in the template `loops`
NAMES = ("Ann", "Ben", "Chioma", "Dario", "Elif", "Fatima", "Goran", "Hanna", "Ivo", "Jana", "Karim", "Lotte")
CITIES = ("Berlin", "Chemnitz", "Dakar", "Genoa", "Halifax", "Izmir", "Kraków", "Lyon", "Osaka", "Zürich")
PLANS = ("Basic", "Family", "Studio", "Workshop")
THINGS = ("lamp", "shade", "stool", "shelf", "bowl", "clock", "hook", "bench", "tray", "mirror", "rug", "vase", "desk")
WOODS = ("Walnut", "Oak", "Ash", "Cherry", "Maple", "Linden", "Elm", "Birch")

# A person is one row here, and the service's tables are filled from it.
_PEOPLE = """
CREATE TEMPORARY TABLE people (
    id uuid, address text, digest bytea, attributes jsonb, said_yes boolean, said_no boolean
) ON COMMIT DROP
"""
_RECIPIENTS = """
INSERT INTO recipients (id, external_id, locale, timezone, attributes)
SELECT id, id::text, 'en', 'UTC', attributes FROM people
"""
_ADDRESSES = """
INSERT INTO addresses (id, recipient_id, channel, address, address_hash, hash_key)
SELECT id, id, 'email', address, digest, 'k1' FROM people
"""
_YES = """
INSERT INTO consent_events (recipient_id, scope, channel, granted, occurred_at, source)
SELECT id, %s, 'email', true, now() - interval '90 days', 'import' FROM people WHERE said_yes
"""
_NO = """
INSERT INTO consent_events (recipient_id, scope, channel, granted, occurred_at, source)
SELECT id, %s, 'email', false, now() - interval '30 days', 'one_click' FROM people WHERE said_no
"""
_PROJECTION = """
INSERT INTO consents (number, recipient_id, scope, channel, granted, occurred_at, expires_at)
SELECT number, e.recipient_id, scope, channel, granted, occurred_at, expires_at
FROM consent_events e JOIN people ON people.id = e.recipient_id
"""
_STATISTICS = "VACUUM (ANALYZE) recipients, addresses, consent_events, consents"


@dataclass(frozen=True, slots=True)
class Person:
    """One recipient to be."""

    id: UUID
    address: EmailAddress
    attributes: dict[str, Any]
    granted: bool  #: has said yes at some time
    withdrawn: bool  #: and no later

    @property
    def consents(self) -> bool:
        """Whether a campaign may reach them."""
        return self.granted and not self.withdrawn


def people(count: int, template: str, cohort: str) -> Iterator[Person]:
    """Of twenty, one has never said yes and one has taken it back. The same people each time, but for their ids."""
    ids, dice, attributes = Ids(), random.Random(cohort), ATTRIBUTES[template]
    for n in range(count):
        address = EmailAddress(f"{cohort}-{n}", "example.test")
        yield Person(
            ids.new(time.time_ns() // 1_000_000),
            address,
            {"cohort": cohort, **attributes(dice)},
            granted=n % 20 != 7,
            withdrawn=n % 20 == 13,
        )


def settle(database_url: str, everybody: Iterator[Person], hasher: Hasher, topic: str = TOPIC) -> list[Person]:
    """Store them and what they said of this topic, and let PostgreSQL know how many there are now.

    Returns the first `FIRST` of them.
    """
    scope = f"topic:{topic}"
    first: list[Person] = []
    with psycopg.connect(database_url, autocommit=True) as c:
        with c.transaction():
            c.execute(_PEOPLE)
            with c.cursor().copy("COPY people FROM STDIN") as copy:
                for one in everybody:
                    copy.write_row(_row(one, hasher))
                    if len(first) < FIRST:
                        first.append(one)
            c.execute(_RECIPIENTS)
            c.execute(_ADDRESSES)
            c.execute(_YES, (scope,))
            c.execute(_NO, (scope,))
            c.execute(_PROJECTION)
        c.execute(_STATISTICS)
        c.execute("CHECKPOINT")  # what follows finds the log's segments made, as on a server that has run for a while
    return first


def _row(one: Person, hasher: Hasher) -> tuple[Any, ...]:
    attributes = json.dumps(one.attributes)
    digest = hasher.current(one.address).digest
    return one.id, str(one.address), digest, attributes, one.granted, one.withdrawn


def _fields(dice: random.Random) -> dict[str, Any]:
    return {
        "first_name": dice.choice(NAMES),
        "city": dice.choice(CITIES),
        "plan": dice.choice(PLANS),
        "points": dice.randrange(10_000),
        "member_since": dice.randrange(2005, 2026),
    }


def _loops(dice: random.Random) -> dict[str, Any]:
    things = [(dice.choice(WOODS), thing) for thing in dice.sample(THINGS, ITEMS)]
    return {
        "first_name": dice.choice(NAMES),
        "city": dice.choice(CITIES),
        "items": [
            {
                "name": f"{wood} {thing}",
                "price": f"{dice.randrange(5, 300)}.{dice.randrange(100):02} EUR",
                "url": f"https://shop.example/p/{wood.lower()}-{thing}",
            }
            for wood, thing in things
        ],
    }


def _news(dice: random.Random) -> dict[str, Any]:
    return {"name": dice.choice(NAMES)}


ATTRIBUTES: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "fields": _fields,
    "loops": _loops,
    "product-news": _news,  # it ships with the service
}
