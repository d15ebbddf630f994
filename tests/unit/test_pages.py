"""Whatever stands in a name, the page's shape stays its own; and every language says everything."""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.dispatch.opt_out import Choice, Sight
from notifier.domain.consent import Default, Topic
from notifier.domain.messages import Category
from notifier.web.pages import LOCALES, Brand, Pages, accepted_languages
from notifier.web.preferences import Beside
from notifier_channels.contract import Channel

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "<!--",
    "]]><x>",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "{topic.__class__}",
    "{0}",
    "{}",
    "%s",
    "javascript:alert(1)",
    '" autofocus onfocus="alert(1)',
    "\u202e\u2066evil",
    "&lt;script&gt;&#x3c;b&#x3e;",
    "<a href=//evil.example>click</a>",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content=0>",
    "\x00<b>\x00",
    "a" * 5000,
]


class Shape(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(sorted(name for name, _ in attrs))))

    def handle_comment(self, _data):
        self.tags.append(("comment", ()))

    def handle_data(self, data):
        self.text.append(data)


def pages_with(text: str) -> list[str]:
    pages = Pages(Brand(text, text))
    topic = Topic("t", Category.MARKETING, {Channel.EMAIL: Default.OPT_OUT}, names={"en": text})
    sight = Sight(topic, "email", text, "en")
    words = pages.words(["en"])
    given = {"sight": sight, "topic": text, "about": text}
    return [
        pages.render(
            "ask", words, part="ask", choices=list(Choice), beside=Beside([words("done.topic", topic=text)]), **given
        ),
        pages.render("done", words, part="done", choice="topic", undo=text, back=True, **given),
        pages.render("notice", words, part="mandatory", again=None, back=False, **given),
        pages.render("notice", words, part="unavailable", again=[("scope", text)], back=False, **given),
        pages.render("confirm", words, part="confirm", masked=text, **given),
        pages.render("confirmed", words, part="confirmed", **given),
    ]


def shapes(text: str) -> list[Shape]:
    found = []
    for html in pages_with(text):
        shape = Shape()
        shape.feed(html)
        shape.close()
        found.append(shape)
    return found


PLAIN = [shape.tags for shape in shapes("Newsletter")]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(text):
    for shape, plain in zip(shapes(text), PLAIN, strict=True):
        assert shape.tags == plain
        assert text.replace("\x00", "") in "".join(shape.text).replace("\x00", "").replace("\ufffd", "")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_no_name_at_all_changes_the_pages_shape(text):
    assert [shape.tags for shape in shapes(text)] == PLAIN


def sentences(path) -> dict[str, str]:
    def flat(table, prefix=""):
        for key, value in table.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    return dict(flat(tomllib.loads(path.read_text())))


@pytest.mark.parametrize("path", sorted(LOCALES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_language_says_everything_with_the_same_blanks(path):
    english, own = sentences(LOCALES / "en.toml"), sentences(path)
    assert own.keys() == english.keys()
    for key, sentence in own.items():
        assert set(re.findall(r"{.*?}", sentence)) == set(re.findall(r"{.*?}", english[key])), key
    assert own["direction"] in ("ltr", "rtl")


@pytest.mark.parametrize(
    ("wanted", "language"),
    [
        (["de-AT"], "de"),
        (["DE_at"], "de"),
        (["pt", "de"], "de"),
        (["pt-BR", "fr-CA"], "fr"),
        (["", "xx"], "en"),
        ([], "en"),
        (["ar-EG"], "ar"),
    ],
)
def test_the_nearest_language_is_spoken(wanted, language):
    assert Pages(Brand("", "")).words(wanted).language == language


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ("de-CH, en;q=0.8, *;q=0.1", ["de-CH", "en"]),
        ("en;q=0.1,de;q=0.9", ["de", "en"]),
        ("en;q=0", []),
        ("", []),
        (";;;,q=,de;q=x", ["q="]),
    ],
)
def test_accept_language_is_read_by_weight(header, tags):
    assert accepted_languages(header) == tags


@given(st.text())
def test_no_accept_language_is_too_odd(header):
    accepted_languages(header)
