"""Languages, formats and the text part: what a person reads is written as they write."""

import json
from pathlib import Path

import babel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.errors import TemplateError
from notifier.rendering import Templates, pick
from notifier.rendering import text as derived
from notifier.rendering.locales import chain, formats_of
from tests.folders import LETTER, load, look

INSTANT = "2026-03-12T23:30:00Z"


def speaking(expression: str) -> dict[str, str]:
    """A letter that only says the expression, in English and German."""
    letter = {"letter/schema.json": LETTER["letter/schema.json"], "letter/sample.json": json.dumps({"x": "1"})}
    parts = {"email.subject.j2": "s", "email.html.j2": f"{{% if y is defined %}}{{{{ {expression} }}}}{{% endif %}}"}
    return (
        LETTER | letter | {f"letter/{locale}/{name}": part for locale in ("en", "de") for name, part in parts.items()}
    )


@pytest.mark.parametrize(
    ("locale", "tags"),
    [
        ("de-AT", ("de-AT", "de", "en")),
        ("de", ("de", "en")),
        ("zh-Hant-TW", ("zh-Hant-TW", "zh-Hant", "zh", "en")),
        ("de_AT", ("de-AT", "de", "en")),
        ("en", ("en",)),
        ("", ("", "en")),
    ],
)
def test_a_locale_falls_back_to_its_language_and_then_to_the_default(locale: str, tags: tuple[str, ...]) -> None:
    assert chain(locale, "en") == tags


def test_the_best_known_language_is_picked() -> None:
    assert pick({"en": 1, "de": 2}, "de-AT", "en") == 2
    assert pick({"en": 1, "de": 2}, "fr", "en") == 1
    assert pick({"de": 2}, "fr", "en") is None


@given(st.text(max_size=12))
def test_no_locale_however_odd_breaks_a_render(locale: str) -> None:
    assert formats_of(locale, "en").language == "en"


def test_a_text_never_mixes_two_languages() -> None:
    assert formats_of("de-AT", "de") == babel.Locale("de", "AT")
    assert formats_of("pt-BR", "en") == babel.Locale("en")
    assert formats_of("en-XX", "en") == babel.Locale("en")


@pytest.mark.parametrize(
    ("expression", "y", "locale", "says"),
    [
        ("y|money('EUR')", "1999.5", "en", "€1,999.50"),
        ("y|money('EUR')", "1999.5", "de", "1.999,50\xa0€"),
        ("y|money('EUR')", "1999.5", "de-AT", "€\xa01.999,50"),
        ("y|money('EUR')", 199950, "en", "€1,999.50"),
        ("y|money('JPY')", 1999, "en", "¥1,999"),
        ("y|money('KWD')", 1999, "en", "KWD1.999"),
        ("y|money('EUR')", "-0.01", "en", "-€0.01"),
        ("y|number", 1234567, "de", "1.234.567"),
        ("y|number", 0.1 + 0.2, "en", "0.3"),
        ("y|date", "2026-03-12", "en", "March 12, 2026"),
        ("y|date", "2026-03-12", "en-GB", "12 March 2026"),
        ("y|date('full')", "2026-03-12", "de", "Donnerstag, 12. März 2026"),
        ("y|date", INSTANT, "de", "13. März 2026"),
        ("y|datetime", INSTANT, "de", "13. März 2026, 00:30 MEZ"),
        ("y|datetime", INSTANT, "en-GB", "13 March 2026, 00:30 CET"),
        ("y|datetime", INSTANT, "en", "March 13, 2026, 12:30\u202fAM GMT+01:00"),
        ("y|datetime('short')", "2026-07-01T12:00:00+00:00", "de", "01.07.26, 14:00 MESZ"),
        ("y|plural(one='# day', other='# days')", 1, "en", "1 day"),
        ("y|plural(one='# day', other='# days')", 1000, "en", "1,000 days"),
        ("y|plural(one='one day', other='# days')", 1, "en", "one day"),
    ],
)
def test_numbers_and_days_are_written_as_the_recipient_writes_them(
    tmp_path: Path, expression: str, y: object, locale: str, says: str
) -> None:
    seen = look(load(tmp_path, speaking(expression)), {"x": "1", "y": y}, locale, "Europe/Berlin")
    assert seen.html == says


@pytest.mark.parametrize(
    ("expression", "y"),
    [
        ("y|money('EUR')", 19.99),
        ("y|money('EUR')", True),
        ("y|money('EUR')", "1E+999999"),
        ("y|money('EUR')", "NaN"),
        ("y|money('EUR')", "٣"),
        ("y|money('eur')", "1"),
        ("y|money('EURO')", "1"),
        ("y|number", "1" * 16),
        ("y|number", float("inf")),
        ("y|date", "12.03.2026"),
        ("y|date", 20260312),
        ("y|datetime", "2026-03-12T23:30:00"),
        ("y|datetime", "2026-03-12"),
        ("y|plural(one='a', other='b')", "many"),
    ],
)
def test_what_is_no_amount_number_or_day_is_refused(tmp_path: Path, expression: str, y: object) -> None:
    templates = load(tmp_path, speaking(expression))
    look(templates, {"x": "1"})
    with pytest.raises(TemplateError, match=r"letter/en/email\.html\.j2:1: \w+Error in "):
        look(templates, {"x": "1", "y": y})


def test_a_time_zone_that_is_not_known_is_a_reason_and_no_crash(tmp_path: Path) -> None:
    templates = load(tmp_path, LETTER)
    for zone in ("Mars/Olympus", "../../etc/passwd", ""):
        with pytest.raises(TemplateError, match="time zone"):
            look(templates, {"x": "a"}, timezone=zone)


@pytest.fixture(scope="module")
def bilingual(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    german = {"letter/de/email.subject.j2": "Hallo", "letter/de/email.txt.j2": "Hallo {{ x }}\n\n\n\n\nEnde\n\n"}
    return load(tmp_path_factory.mktemp("templates"), LETTER | german)


@pytest.mark.parametrize(
    ("locale", "subject"), [("de-CH", "Hallo"), ("de", "Hallo"), ("en-GB", "Hello w"), ("fr", "Hello w")]
)
def test_a_person_gets_the_best_language_there_is(bilingual: Templates, locale: str, subject: str) -> None:
    assert look(bilingual, {"x": "w"}, locale).subject == subject


def test_text_alone_is_a_mail_and_its_blank_lines_are_tidied(bilingual: Templates) -> None:
    seen = look(bilingual, {"x": "<w>"}, "de")
    assert seen.text == "Hallo <w>\n\nEnde\n"
    assert seen.html is None


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a</p><p>b</p>", "a\n\nb\n"),
        ("<p>a  \n b<br>c</p>", "a b\nc\n"),
        ("<a href='https://x.test/'>go</a>", "go (https://x.test/)\n"),
        ("<a href='https://x.test/'>https://x.test/</a>", "https://x.test/\n"),
        ("<a href='mailto:a@x.test'>a@x.test</a>", "a@x.test\n"),
        ("<a href='https://x.test/'><img src='x' alt='A lamp'></a>", "A lamp (https://x.test/)\n"),
        ("<a href='https://x.test/'></a>", "https://x.test/\n"),
        ("<a name='x'>a</a>", "a\n"),
        ("<ul><li>a</li><li>b</li></ul>", "- a\n- b\n"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc\n"),
        ("<title>t</title><style>p{}</style><p>a</p>", "a\n"),
        ("<div style='display: none'>x<p>y</p><br></div>a", "a\n"),
        ("<p hidden>x</p><p aria-hidden='true'>y</p>a", "a\n"),
        ("&lt;b&gt; &amp; &euro; &nbsp;x", "<b> & € \xa0x\n"),
        ("<p>a</p><!-- c --><!--[if mso]><p>o</p><![endif]--><p>b</p>", "a\n\nb\n"),
        ("a<div>b</div>c", "a\nb\nc\n"),
        ("", "\n"),
    ],
)
def test_html_reads_as_text(html: str, text: str) -> None:
    assert derived.from_html(html) == text


@given(st.text())
def test_text_can_be_derived_from_anything(html: str) -> None:
    assert derived.from_html(html).endswith("\n")
