"""What a text message takes before it leaves: carriers count, bill and pace segments, not messages.

Source: 3GPP TS 23.038 6.2.1 (the GSM 7 bit default alphabet and its extension table) and 3GPP TS 23.040 9.2.3.24.1 (a
message of several segments spends 6 octets of each on the header that joins them). Read in November 2026.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Encoding: TypeAlias = Literal["GSM-7", "UCS-2"]

BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENDED = frozenset("\f^{}\\[~]|€")  #: an escape and a character: two units that stay together
ALPHABET = BASIC | EXTENDED

ALONE: dict[Encoding, int] = {"GSM-7": 160, "UCS-2": 70}  #: units in a message of one segment
JOINED: dict[Encoding, int] = {"GSM-7": 153, "UCS-2": 67}  #: units in each segment of a longer one

# Typographic signs and what says the same in GSM-7. The signs are those of Twilio's smart encoding (`SmartEncodingMap`
# of its message-segment-calculator, November 2026) that people and word processors write. Where its table changes
# what is read (a space becomes two, quotes and accents become other signs), this one does not follow.
_SAME: dict[str, str] = {
    '"': "\u201c\u201d\u201e\u201f\u00ab\u00bb\u02ba\u02ee\u2033\u275d\u275e\u301d\u301e\uff02",
    "'": "\u2018\u2019\u201a\u201b\u2039\u203a`\u00b4\u02b9\u02bb\u02bc\u02bd\u02c8\u02ca\u02cb\u2032\u275b\u275c",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2022\u2043\u2212\ufe63\uff0d",
    " ": "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t",
    "\n": "\u2028\u2029",
    "": "\u00ad\u200b\u2060\ufeff",
    "...": "\u2026",
    "!!": "\u203c",
    "/": "\u2044\u2215\uff0f",
    "*": "\u2217",
    "~": "\u02dc\u223c",
    ",": "\uff0c",
    ":": "\uff1a",
    "1/4": "\u00bc",
    "1/2": "\u00bd",
    "3/4": "\u00be",
}
SMART = str.maketrans({sign: plain for plain, signs in _SAME.items() for sign in signs})


@dataclass(frozen=True, slots=True)
class Segments:
    """How one text goes over the air."""

    encoding: Encoding
    units: int  #: septets or UTF-16 code units, without the headers that join segments
    segments: int  #: none for an empty text
    left: int  #: units that still fit into the last segment, if what is added keeps the number and the encoding


def count(text: str) -> Segments:
    """Count as a carrier does: nothing that is two units wide is cut in half between two segments."""
    if len(text) <= ALONE["GSM-7"] and BASIC.issuperset(text):  # nearly every text: no character needs a look
        return Segments("GSM-7", len(text), int(bool(text)), ALONE["GSM-7"] - len(text))
    encoding: Encoding = "GSM-7" if is_gsm7(text) else "UCS-2"
    widths = [_width(character, encoding) for character in text]
    units = sum(widths)
    if units <= ALONE[encoding]:
        return Segments(encoding, units, int(units > 0), ALONE[encoding] - units)
    segments, used = _pack(widths, JOINED[encoding])
    return Segments(encoding, units, segments, JOINED[encoding] - used)


def smart(text: str) -> str:
    """The text with plain quotes, dashes and spaces, if that is all it takes for GSM-7; otherwise as it is."""
    if is_gsm7(text):
        return text
    plain = unicodedata.normalize("NFC", text).translate(SMART)
    return plain if is_gsm7(plain) else text


def is_gsm7(text: str) -> bool:
    """One character outside the alphabet, and the whole message needs UCS-2."""
    return ALPHABET.issuperset(text)


def _width(character: str, encoding: Encoding) -> int:
    if encoding == "GSM-7":
        return 2 if character in EXTENDED else 1
    return 2 if ord(character) > 0xFFFF else 1  # a surrogate pair


def _pack(widths: Iterable[int], size: int) -> tuple[int, int]:
    """How many segments, and the units used in the last."""
    segments, used = 1, 0
    for width in widths:
        if used + width > size:
            segments, used = segments + 1, 0
        used += width
    return segments, used
