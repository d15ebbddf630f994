"""What a phone number says of where its owner is: country, area, and every time zone that it may be in."""

from __future__ import annotations

from functools import lru_cache

import phonenumbers
from phonenumbers import timezone

from notifier.domain.timing import NOWHERE, Place

_UNKNOWN = "Etc/Unknown"


@lru_cache(maxsize=65_536)
def place_of(number: str) -> Place:
    """The place of a number in E.164. It takes 60 us, and a person is written to more than once."""
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return NOWHERE
    zones = tuple(zone for zone in timezone.time_zones_for_number(parsed) if zone != _UNKNOWN)
    country = phonenumbers.region_code_for_number(parsed)
    return Place(number, country, phonenumbers.is_number_geographical(parsed), zones)


def calling_code(prefix: str) -> str:
    """The country's calling code that a number in E.164, or its first four characters, begins with; '' for none."""
    codes = (prefix[: length + 1] for length in (1, 2, 3))  # none is the beginning of another (E.164 6.2.1)
    known = phonenumbers.COUNTRY_CODE_TO_REGION_CODE
    return next((code for code in codes if code.startswith("+") and code[1:].isdigit() and int(code[1:]) in known), "")
