"""How many segments a text takes: what is billed, paced and capped."""

# ruff: noqa: RUF001 -- look-alike characters are what is tested

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier_channels.sms.segments import BASIC, EXTENDED, SMART, Segments, count, is_gsm7, smart

GSM7_TABLE = (  # 3GPP TS 23.038 6.2.1, row by row, 0x00 to 0x7F; 0x1B is the escape
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM7_ESCAPED = {
    "\f": 0x0A,
    "^": 0x14,
    "{": 0x28,
    "}": 0x29,
    "\\": 0x2F,
    "[": 0x3C,
    "~": 0x3D,
    "]": 0x3E,
    "|": 0x40,
    "€": 0x65,
}

gsm7 = st.text(st.sampled_from(sorted(BASIC | EXTENDED)), max_size=700)
mixed = st.text(st.one_of(st.sampled_from("aé€[😜\u200d中"), st.characters()), max_size=400)


def by_the_bytes(text: str) -> tuple[str, int, int]:
    """An oracle that encodes for real and cuts the units backwards, from a position that may not be cut."""
    septets = encoded_in_gsm7(text)
    if septets is not None:
        return "GSM-7", len(septets), pieces(septets, 160, 153, lambda unit: unit == 0x1B)
    raw = text.encode("utf-16-be", "surrogatepass")
    units = [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]
    return "UCS-2", len(units), pieces(units, 70, 67, lambda unit: 0xD800 <= unit < 0xDC00)


def encoded_in_gsm7(text: str) -> list[int] | None:
    septets = []
    for character in text:
        if character in GSM7_ESCAPED:
            septets += [0x1B, GSM7_ESCAPED[character]]
        elif character in GSM7_TABLE and character != "\x1b":
            septets.append(GSM7_TABLE.index(character))
        else:
            return None
    return septets


def pieces(units: list[int], alone: int, joined: int, opens) -> int:
    if len(units) <= alone:
        return min(len(units), 1)
    start = number = 0
    while start < len(units):
        end = start + joined
        if end < len(units) and opens(units[end - 1]):
            end -= 1
        start, number = end, number + 1
    return number


def test_the_alphabet_is_that_of_the_standard():
    assert frozenset(GSM7_TABLE) - {"\x1b"} == BASIC
    assert frozenset(GSM7_ESCAPED) == EXTENDED
    assert len(GSM7_TABLE) == 128


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Segments("GSM-7", 0, 0, 160)),
        ("a" * 160, Segments("GSM-7", 160, 1, 0)),
        ("a" * 161, Segments("GSM-7", 161, 2, 145)),
        ("a" * 306, Segments("GSM-7", 306, 2, 0)),
        ("a" * 307, Segments("GSM-7", 307, 3, 152)),
        ("€" * 80, Segments("GSM-7", 160, 1, 0)),
        ("€" * 81, Segments("GSM-7", 162, 2, 143)),  # 76 euros fill 152 of 153: the 77th is not split
        ("а" * 70, Segments("UCS-2", 70, 1, 0)),  # Cyrillic
        ("а" * 71, Segments("UCS-2", 71, 2, 63)),
        ("😜" + "a" * 68, Segments("UCS-2", 70, 1, 0)),
        ("😜" + "a" * 69, Segments("UCS-2", 71, 2, 63)),
        ("😜" * 35, Segments("UCS-2", 70, 1, 0)),
        ("😜" * 36, Segments("UCS-2", 72, 2, 61)),  # 33 pairs fill 66 of 67
        ("🏳️‍🌈", Segments("UCS-2", 6, 1, 64)),
        ("a" * 152 + "€" + "a" * 152, Segments("GSM-7", 306, 3, 152)),  # 306 units, and yet no room for the pair
        ("ç", Segments("UCS-2", 1, 1, 69)),  # only the capital is in the alphabet
    ],
)
def test_known_lengths(text: str, expected: Segments):
    assert count(text) == expected


@given(st.one_of(gsm7, mixed))
def test_it_agrees_with_an_encoder_that_cuts_real_units(text: str):
    counted = count(text)
    assert (counted.encoding, counted.units, counted.segments) == by_the_bytes(text)


@given(st.one_of(gsm7, mixed))
def test_what_is_left_can_be_written_and_one_more_cannot(text: str):
    counted = count(text)
    filler = "a"
    full = count(text + filler * counted.left)
    assert (full.encoding, full.segments, full.left) == (counted.encoding, max(counted.segments, 1), 0)
    assert count(text + filler * (counted.left + 1)).segments > counted.segments


@given(st.one_of(gsm7, mixed), st.one_of(gsm7, mixed))
def test_more_text_never_takes_fewer_segments(text: str, more: str):
    assert count(text + more).segments >= count(text).segments


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("“Ann’s” – 5 – €…", '"Ann\'s" - 5 - €...'),
        ("10\u00a0000\u202f€", "10 000 €"),
        ("e\u0301te\u0301", "été"),  # written with combining accents, as macOS does
        ("a\u200bb\ufeffc", "abc"),
        ("‹x›", "'x'"),
    ],
)
def test_typography_is_made_plain(text: str, plain: str):
    assert smart(text) == plain
    assert count(plain).encoding == "GSM-7"


@pytest.mark.parametrize("text", ["«Привет»", "“中文”", "Ann’s 👩\u200d💻", "façade – ok"])
def test_a_text_that_needs_ucs2_anyway_keeps_its_typography(text: str):
    assert smart(text) == text


@given(st.one_of(gsm7, mixed))
def test_smart_encoding_is_idempotent_and_leaves_plain_text_alone(text: str):
    assert smart(smart(text)) == smart(text)
    if is_gsm7(text) and not set(text) & {chr(sign) for sign in SMART}:
        assert smart(text) == text


def test_every_replacement_is_in_the_alphabet_and_replaces_what_is_not():
    for sign, plain in SMART.items():
        assert is_gsm7(plain)
        assert chr(sign) not in BASIC | EXTENDED
