"""A colour that cannot be read is refused; one that is taken can be read in every place where it stands."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.errors import NotConfigured
from notifier.settings import Appearance
from notifier.web.pages import Pages
from notifier.web.pages.brand import LARGEST, LEAST, _parse, brand_of, colours, contrast

COLOURS = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")
SHEETS = {"light": ("#ffffff", "#15181e", "#555d6b"), "dark": ("#191d24", "#eef0f4", "#a6aebb")}  #: sheet, ink, soft


def test_the_sheets_are_those_of_the_style_sheet():
    style = Pages(brand_of(Appearance())).render("notice", Pages(brand_of(Appearance())).words(["en"]), part="invalid",
                                                 topic="", again=None, back=False)  # fmt: skip
    for name, position in (("--sheet", 0), ("--ink", 1), ("--soft", 2)):
        found = [_long(value) for value in re.findall(rf"{name}:(#[0-9a-f]+)", style)][:2]
        assert found == [SHEETS["light"][position], SHEETS["dark"][position]]


def _long(value: str) -> str:
    return value if len(value) == 7 else "#" + "".join(2 * digit for digit in value[1:])


@given(COLOURS, st.none() | COLOURS)
def test_whatever_is_taken_can_be_read(accent, dark):
    try:
        style = colours(accent, dark)
    except NotConfigured:
        return
    for (sheet, ink, soft), block in zip(SHEETS.values(), re.findall(r":root{([^}]*)}", style), strict=True):
        found = dict(re.findall(r"--([a-z-]+):(#[0-9a-f]{6})", block))
        pairs = [("accent", sheet), ("on-accent", found["accent"])]
        assert all(contrast(_parse(found[one]), _parse(other)) >= LEAST for one, other in pairs)
        assert all(contrast(_parse(text), _parse(found["tint"])) >= LEAST for text in (ink, soft))


def test_a_pale_colour_is_refused_with_the_settings_name():
    with pytest.raises(NotConfigured, match=r"NOTIFIER_BRAND_ACCENT: its contrast .* make it darker"):
        brand_of(Appearance(brand_accent="#ffdd00"))
    with pytest.raises(NotConfigured, match=r"NOTIFIER_BRAND_ACCENT_DARK.* make it lighter"):
        brand_of(Appearance(brand_accent_dark="#111111"))


def test_a_logo_stands_in_the_page_and_nothing_is_fetched(tmp_path):
    logo = tmp_path / "logo.svg"
    logo.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    pages = Pages(brand_of(Appearance(brand_logo=logo)))
    html = pages.render("notice", pages.words(["en"]), part="invalid", topic="", again=None, back=False)
    assert '<img class="logo" src="data:image/svg+xml;base64,' in html
    assert "img-src data:;" in pages.headers["Content-Security-Policy"]
    assert "img-src" not in Pages(brand_of(Appearance())).headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["logo.gif", "missing.png", "large.png"])
def test_a_picture_that_will_not_do_is_refused(tmp_path, name):
    (tmp_path / "logo.gif").write_bytes(b"GIF89a")
    (tmp_path / "large.png").write_bytes(b"x" * (LARGEST + 1))
    with pytest.raises(NotConfigured, match="NOTIFIER_BRAND_LOGO"):
        brand_of(Appearance(brand_logo=tmp_path / name))
