"""What the product writes: the data of each template that the scenario sends."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from notifier.demo.cast import Person

VALID_MINUTES = 10


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
        "tracking_url": f"https://tracking.example/{number:012}",
        "order_url": f"https://shop.example/orders/A-{number:05}",
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


def code() -> Mapping[str, Any]:
    """The data of `sign-in-code`: another code each time."""
    return {"code": f"{secrets.randbelow(10**6):06}", "valid_minutes": VALID_MINUTES, "domain": "shop.example"}


def offer(person: Person, headline: str) -> Mapping[str, Any]:
    """The data of `product-news`."""
    return {
        "name": person.name.split()[0],
        "headline": headline,
        "lead": "The new walnut lamp knows three sentences: brighter, softer, good night.",
        "features": [{"title": "It can be mended", "text": "Four screws, one cable, parts for fifteen years."}],
        "action": {"label": "See the new lamp", "url": "https://shop.example/lamps/walnut"},
    }
