"""A text message reads as its template says, costs no more than it may, and in marketing says who sends it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.errors import TemplateError
from notifier.rendering import Ingredients, Templates, render
from notifier.rendering.plain import visible
from notifier_channels.contract import Channel, SmsContent
from tests.folders import EVERYWHERE, LETTER, NEWS, UNSUBSCRIBE, WORDS, load, look, read
from tests.unit.test_rendering_versions import PERMIT

SMS = "letter/en/sms.j2"
DECLARED = LETTER["letter/template.toml"]
TEXT = NEWS | {"_layouts/words.toml": WORDS}


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return load(tmp_path_factory.mktemp("templates"), EVERYWHERE)


def only_text(**changes: str) -> dict[str, str | None]:
    """The letter as nothing but a text message."""
    mail = {path: None for path in EVERYWHERE if "email" in path or "push" in path}
    return EVERYWHERE | mail | changes


def test_a_template_may_be_a_text_message_and_nothing_else(tmp_path: Path) -> None:
    letter = load(tmp_path, only_text()).find("letter")
    assert letter is not None
    assert letter.channels == {Channel.SMS}
    with pytest.raises(TemplateError, match="letter: has no content for email"):
        render(PERMIT, letter, Channel.EMAIL, Ingredients("en", "UTC", {"x": "a"}))


def test_a_topic_that_has_no_email_still_says_why(tmp_path: Path) -> None:
    topics = EVERYWHERE["topics.toml"].replace('email = "opt_in", sms = "opt_in"', 'sms = "opt_in"')
    files = {path.replace("letter/", "news/"): text for path, text in only_text().items() if path != "topics.toml"} | {
        "news/template.toml": NEWS["news/template.toml"],
        "topics.toml": topics,
        "_layouts/words.toml": WORDS,
    }
    sms = "{{ sender }} {{ x }}, {{ words.why }}. {{ stop_text }}"
    news = load(tmp_path, files | {"news/en/sms.j2": sms}).find("news")
    assert news is not None
    content = render(PERMIT, news, Channel.SMS, Ingredients("en", "UTC", {"x": "a"}, UNSUBSCRIBE))
    assert content == SmsContent("Lamps & Sons a, because you wanted it. Reply STOP to opt out")


def test_each_channel_falls_back_by_itself(tmp_path: Path) -> None:
    german = {"letter/de-AT/sms.j2": "Servus {{ x }}", "letter/de/email.subject.j2": "S", "letter/de/email.txt.j2": "M"}
    templates = load(tmp_path, EVERYWHERE | german)
    assert read(templates, {"x": "a"}, "de-AT").text == "Servus a"
    assert read(templates, {"x": "a"}, "de-DE").text == "Hello a"
    assert look(templates, {"x": "a"}, "de-AT").subject == "S"
    letter = templates.find("letter")
    assert letter is not None
    assert letter.locales == ("de", "de-AT", "en")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({SMS: None, "letter/de/sms.j2": "Hallo"}, ["de has sms", "en, the default locale", "add sms.j2"]),
        ({"topics.toml": LETTER["topics.toml"]}, ["letter", "orders", "does not go by", "add"]),
        ({SMS: "{{ nmae }}"}, [SMS, "`nmae`", "schema.json"]),
        ({SMS: "\n{{ x.y }}"}, [f"{SMS}:2", "UndefinedError"]),
        ({SMS: "{% if x == 1 %}x{% endif %}"}, [SMS, "the text is empty"]),
        ({SMS: '{% include "_layouts/p.html.j2" %}', "_layouts/p.html.j2": "<p>a</p>"}, ["_layouts/p.html.j2 is HTML"]),
        ({SMS: "{{ stop_text }}"}, [SMS, "stop_text", "_layouts/words.toml", "[en]"]),
        ({"letter/template.toml": DECLARED + "sms = { segments = 0 }"}, ["template.toml sms", "from 1 to 10"]),
        ({"letter/template.toml": DECLARED + "sms = { segments = true }"}, ["template.toml sms", "from 1 to 10"]),
        ({"letter/template.toml": DECLARED + "sms = { segments = 11 }"}, ["template.toml sms", "from 1 to 10"]),
        ({"letter/template.toml": DECLARED + "sms = { smart_encoding = 1 }"}, ["smart_encoding is true or false"]),
        ({"letter/template.toml": DECLARED + "sms = { parts = 1 }"}, ["template.toml sms", "segments = 2"]),
        ({"letter/template.toml": DECLARED + "sms = 2"}, ["template.toml sms", "segments = 2"]),
        ({"letter/template.toml": DECLARED + "push = {}"}, ["template.toml", "description", "route and sms"]),
        ({SMS: "x" * 500}, [SMS, "takes 4 segments (GSM-7)", "allowed are 3", "sms.segments"]),
    ],
    ids=str,
)
def test_each_mistake_is_named_with_its_remedy(
    tmp_path: Path, changes: dict[str, str | None], names: list[str]
) -> None:
    with pytest.raises(TemplateError) as caught:
        load(tmp_path, EVERYWHERE | changes)
    for name in names:
        assert name in str(caught.value)


def test_a_text_that_would_cost_more_than_it_may_is_not_rendered(tmp_path: Path) -> None:
    templates = load(tmp_path, EVERYWHERE | {"letter/template.toml": DECLARED + "sms = { segments = 2 }"})
    assert read(templates, {"x": "y" * 300}).segments.segments == 2
    with pytest.raises(TemplateError, match=r"letter/en/sms.j2: takes 3 segments \(GSM-7\), allowed are 2") as caught:
        read(templates, {"x": "y" * 301})
    assert "yyy" not in str(caught.value)


def test_typographic_signs_do_not_double_the_price_unless_they_are_wanted(tmp_path: Path) -> None:
    signs = {"x": "\u201clamp\u201d \u2013 it\u2019s\u2026" + "y" * 100}
    seen = read(load(tmp_path / "smart", EVERYWHERE), signs)
    assert seen.text.startswith('Hello "lamp" - it\'s...')
    assert (seen.segments.encoding, seen.segments.segments) == ("GSM-7", 1)
    as_is = load(tmp_path / "plain", EVERYWHERE | {"letter/template.toml": DECLARED + "sms = {smart_encoding = false}"})
    seen = read(as_is, signs)
    assert seen.text.startswith("Hello \u201clamp\u201d \u2013 it\u2019s\u2026")
    assert (seen.segments.encoding, seen.segments.segments) == ("UCS-2", 2)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        ("<b>&amp;</b>", "Hello <b>&amp;</b>"),
        ("{{ 7 * 7 }} {% raw %}", "Hello {{ 7 * 7 }} {% raw %}"),
        ("a\x00\x07\x1b[31mb\x7f\x9b", "Hello a[31mb"),
        ("a\r\nb\rc\u2028d\te", "Hello a\nb\nc\nd e"),
        ("a \t \nb", "Hello a\nb"),
        ("a\n\n\n\n\nb", "Hello a\n\nb"),
        ("\u202egnp.exe\u202c \u2066x\u2069\ufeff", "Hello gnp.exe x"),
        ("\u200f\u05d0\u05d1", "Hello \u200f\u05d0\u05d1"),
        ("👩\u200d👧", "Hello 👩\u200d👧"),
        ("https://evil.example/", "Hello https://evil.example/"),
        (17, "Hello 17"),
    ],
)
def test_data_in_a_text_stays_data_and_can_be_seen(letters: Templates, x: object, text: str) -> None:
    assert read(letters, {"x": x}).text == text


@given(st.text())
def test_what_is_visible_stays_as_it_is_and_holds_no_controls(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    assert not any(ord(character) < 32 and character != "\n" for character in shown)
    assert shown == shown.strip()


@pytest.mark.parametrize(
    "sms",
    [
        "{{ sender }}: new lamps. {{ stop_text }}",
        "{{ sender }}: new lamps. {{ unsubscribe_url }}",
        "“{{ sender }}” has new lamps\n{{ words.stop_text }}",
    ],
)
def test_a_marketing_text_with_its_sender_and_a_way_out_loads(tmp_path: Path, sms: str) -> None:
    news = load(tmp_path, EVERYWHERE | TEXT | {"news/en/sms.j2": sms}).find("news")
    assert news is not None
    text = render(PERMIT, news, Channel.SMS, Ingredients("en", "UTC", {}, UNSUBSCRIBE)).text
    assert "Lamps & Sons" in text
    assert ("Reply STOP to opt out" in text) != (UNSUBSCRIBE.unsubscribe_url in text)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"news/en/sms.j2": "New lamps. {{ stop_text }}"}, ["news/en", "who sends it", "{{ sender }}"]),
        ({"news/en/sms.j2": "{{ sender }}: new lamps."}, ["news/en", "how to stop", "{{ stop_text }}"]),
        ({"news/en/sms.j2": "{{ sender }}: new lamps. Reply STOP"}, ["news/en", "how to stop"]),
        (
            {"news/en/sms.j2": "{{ sender }}: {% if x is defined %}{{ stop_text }}{% else %}lamps{% endif %}"},
            ["news/en", "how to stop"],
        ),
        (
            {
                "news/sample.json": '{"x": 1}',
                "news/en/sms.j2": "{{ sender }}: {% if x is defined %}{{ stop_text }}{% else %}lamps{% endif %}",
            },
            ["news/en", "how to stop"],
        ),
        (
            {
                "news/en/sms.j2": "{{ sender }}: lamps. {{ stop_text }}",
                "news/de/sms.j2": "{{ sender }}: Lampen.",
                "_layouts/words.toml": WORDS
                + WORDS.replace("en", "de").replace("Reply STOP to opt out", "Stopp mit STOP"),
            },
            ["news/de", "how to stop"],
        ),
    ],
    ids=str,
)
def test_a_marketing_text_that_hides_its_sender_or_the_way_out_does_not_load(
    tmp_path: Path, changes: dict[str, str], names: list[str]
) -> None:
    with pytest.raises(TemplateError) as caught:
        load(tmp_path, EVERYWHERE | TEXT | changes)
    for name in names:
        assert name in str(caught.value)


def test_a_marketing_text_needs_its_link_even_when_it_shows_none(tmp_path: Path) -> None:
    news = load(tmp_path, EVERYWHERE | TEXT | {"news/en/sms.j2": "{{ sender }}: lamps. {{ stop_text }}"}).find("news")
    assert news is not None
    with pytest.raises(TemplateError, match="unsubscribe link"):
        render(PERMIT, news, Channel.SMS, Ingredients("en", "UTC", {}))
