"""What an operator may change of the pages' looks: a picture and a colour, and neither may make them hard to read."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import TypeAlias

from notifier.errors import NotConfigured
from notifier.settings import Appearance, variable
from notifier.web.pages import Brand

Colour: TypeAlias = tuple[int, int, int]

LEAST = 4.5  #: WCAG 2.2, 1.4.3
LARGEST = 64 * 1024  #: bytes of a picture: it travels with every page
KINDS = {
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}

WHITE: Colour = (255, 255, 255)
INK: Colour = (11, 13, 18)
SHEET, DARK_SHEET = WHITE, (25, 29, 36)  #: `--sheet` of style.css


def brand_of(settings: Appearance) -> Brand:
    """Who is speaking, as the settings say.

    Raises:
        NotConfigured: the picture cannot be read or is too large, or a colour cannot be read on the page.

    """
    logo = _picture(settings.brand_logo) if settings.brand_logo else None
    style = colours(settings.brand_accent, settings.brand_accent_dark)
    return Brand(settings.sender_name, settings.postal_address, logo, style)


def colours(accent: str | None, accent_dark: str | None) -> str:
    """The style sheet's colours for these accents; empty when none is given."""
    light = _parse(accent) if accent else None
    dark = _parse(accent_dark) if accent_dark else _lighter(light) if light else None
    style = ""
    if light:
        _refuse(light, SHEET, "brand_accent", "darker")
        style += f":root{{{_variables(light, SHEET, 0.08)}}}"
    if dark:
        _refuse(dark, DARK_SHEET, "brand_accent_dark", "lighter")
        style += f"@media (prefers-color-scheme:dark){{:root{{{_variables(dark, DARK_SHEET, 0.14)}}}}}"
    return style


def contrast(one: Colour, other: Colour) -> float:
    """WCAG 2.2's contrast ratio, from 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _picture(path: Path) -> str:
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise NotConfigured(f"{variable('brand_logo')}: use a file that ends in {', '.join(KINDS)}.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotConfigured(f"{variable('brand_logo')} cannot be read ({type(error).__name__}).") from None
    if len(data) > LARGEST:
        raise NotConfigured(f"{variable('brand_logo')}: {len(data) // 1024} KB are too many; make it at most 64 KB.")
    return f"data:{kind};base64,{b64encode(data).decode()}"


def _refuse(accent: Colour, sheet: Colour, setting: str, remedy: str) -> None:
    if (found := contrast(accent, sheet)) < LEAST:
        raise NotConfigured(
            f"{variable(setting)}: its contrast to the page is {found:.1f}, and 4.5 is the least; make it {remedy}."
        )


def _variables(accent: Colour, sheet: Colour, share: float) -> str:
    on_accent = max((WHITE, INK), key=lambda ink: contrast(ink, accent))
    tint = _mixed(accent, sheet, share)
    return f"--accent:{_written(accent)};--on-accent:{_written(on_accent)};--tint:{_written(tint)}"


def _lighter(accent: Colour) -> Colour:
    """As near to the colour as can be read on a dark page."""
    shades = (_mixed(WHITE, accent, share / 20) for share in range(20))
    return next((shade for shade in shades if contrast(shade, DARK_SHEET) >= LEAST), WHITE)


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a * share + b * (1 - share)) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _luminance(colour: Colour) -> float:
    parts = (part / 255 for part in colour)
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _parse(text: str) -> Colour:
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


def _written(colour: Colour) -> str:
    return f"#{bytes(colour).hex()}"
