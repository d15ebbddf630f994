"""Data in HTML, in links and in headers stays data; styles move onto the elements and nothing else moves."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.errors import TemplateError
from notifier.rendering import Templates
from notifier.rendering.plain import MAX_LINE, one_line
from tests.folders import LETTER, load, look

PAGE = """<html><head><title>{{ x }}</title></head><body>
<p title="{{ x }}" class='{{ x }}'>{{ x }}</p>
<table>{% for item in items %}<tr><td>{{ item }}</td></tr>{% endfor %}</table>
<p><a href="https://lamps.test/?q={{ x }}">{{ x|upper }}</a> {{ x|truncate(10) }} {{ items|join(", ") }}</p>
</body></html>"""

NASTY = st.text() | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "--></style><b>",
        "</td></tr></table><p>",
        "<!--",
        "&lt;b&gt;",
        "]]>",
        "{{ 7 * 7 }}",
        "\x00\x0b<b\x0c>",
        "\uff1cb\uff1e",
    ]
)


class Shape(HTMLParser):
    """The elements of a page and the names of their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[object] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, [name for name, _ in attrs]))

    def handle_endtag(self, tag: str) -> None:
        self.elements.append(tag)

    def handle_comment(self, data: str) -> None:
        self.elements.append(("comment", data))


def files(html: str) -> dict[str, str]:
    return LETTER | {
        "letter/en/email.html.j2": html,
        "letter/schema.json": LETTER["letter/schema.json"].replace('"required": ["x"]', '"required": ["x", "items"]'),
        "letter/sample.json": '{"x": "https://lamps.test/", "items": ["a"]}',
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return load(tmp_path_factory.mktemp("templates"), files(PAGE))


@given(NASTY, NASTY)
def test_no_data_changes_the_shape_of_the_page(page: Templates, one: str, other: str) -> None:
    harmless = look(page, {"x": "a", "items": ["b", "c"]})
    seen = look(page, {"x": "a" + one, "items": [other, "c"]})
    assert seen.html is not None
    assert harmless.html is not None
    assert Shape(seen.html).elements == Shape(harmless.html).elements


@given(NASTY)
def test_no_data_breaks_the_subject_into_two_lines(page: Templates, text: str) -> None:
    subject = look(page, {"x": f"{text}\r\nBcc: eve@example.com\x00{text}", "items": []}).subject
    assert subject == subject.strip()
    assert len(subject.splitlines()) == 1
    assert all(character.isprintable() or character > "\x9f" for character in subject)
    assert len(subject) <= MAX_LINE


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\r\nb", "a b"),
        ("a\x00\x1b[31m", "a [31m"),
        ("a\u2028b\u2029c\x85d", "a b c d"),
        ("pay \u202eeuros\u2066 now", "pay euros now"),
        ("  a  ", "a"),
        ("x" * 300, "x" * 249 + "…"),
    ],
)
def test_a_subject_is_one_visible_line(text: str, line: str) -> None:
    assert one_line(text) == line


@pytest.mark.parametrize(
    "block",
    [
        "{% filter default(x, true) %}{% endfilter %}",
        "{% filter join(x) %}ab{% endfilter %}",
        "{% filter int(x) %}ab{% endfilter %}",
        "{% set y | default(x, true) %}{% endset %}{{ y }}",
        "{% set y | join(x) %}ab{% endset %}{{ y }}",
        "{% filter title %}{{ x }}{% endfilter %}",
    ],
)
def test_what_the_filter_of_a_block_takes_from_data_is_escaped(tmp_path: Path, block: str) -> None:
    html = look(load(tmp_path, files(f"<p>{block}</p>")), {"x": "<b title='x'>"}).html
    assert html is not None
    assert Shape(html).elements == [("p", []), "p"]


def test_the_filter_of_a_block_changes_its_text_and_not_its_markup(tmp_path: Path) -> None:
    page = "<p><b>{% filter title %}{{ x }} &amp; so{% endfilter %}</b>{% filter length %}<i>{% endfilter %}</p>"
    assert look(load(tmp_path, files(page)), {"x": "tom & jerry"}).html == "<p><b>Tom &amp; Jerry &amp; So</b>3</p>"


@pytest.mark.parametrize("block", ["{% filter list %}ab{% endfilter %}", "{% set y | list %}ab{% endset %}{{ y }}"])
@pytest.mark.parametrize("name", ["email.html.j2", "email.txt.j2"])
def test_the_filter_of_a_block_that_makes_no_text_is_named_with_its_line(tmp_path: Path, block: str, name: str) -> None:
    with pytest.raises(TemplateError, match=rf"letter/en/{name}:2: TypeError in"):
        load(tmp_path, LETTER | {f"letter/en/{name}": f"<p>\n{block}</p>"})


def test_an_empty_subject_is_refused(page: Templates, tmp_path: Path) -> None:
    templates = load(tmp_path, LETTER | {"letter/en/email.subject.j2": "{{ x }}"})
    with pytest.raises(TemplateError, match="the subject is empty"):
        look(templates, {"x": "\r\n"})


LINK = '<p><a href="{{ x }}">x</a></p>'
CHOSEN = '<p><a href="{% if x %} {{ x }}{% else %}{{ y }}{% endif %}">x</a></p>'
MACRO = "{% macro link(to) %}<a href='{{ to }}'>x</a>{% endmacro %}<p>{{ link(x) }}</p>"
OUTLOOK = '<!--[if mso]><a href="{{ x }}">x</a><![endif]-->'
ELSE = '<a href="{% if y is defined %}https://lamps.test/{{ y }}{% else %}{{ x }}{% endif %}">x</a>'
BEHIND = '<a href="{% if y is defined %}https://lamps.test/{% endif %}{{ x }}">x</a>'
TURNS = '<a href="{% for a in items %}https://lamps.test/{{ a }}{% endfor %}{{ x }}">x</a>'
COMMENT = """{# it's theirs #}<a href="{{ x }}">don't</a> {{ items|length }}"""
REMARK = """<a href="{# it's #}{{ x }}{# theirs, isn't it #}">x</a>"""
SHOWN = """{% raw %}{{ '{% endraw %}<a href="{{ x }}">x</a> {{ items|length }} it's"""
IMAGE = '<img alt="" src="{{ x|trim }}">'


@pytest.mark.parametrize("html", [LINK, CHOSEN, MACRO, OUTLOOK, ELSE, BEHIND, TURNS, COMMENT, REMARK, SHOWN, IMAGE])
@pytest.mark.parametrize(
    "target",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\nscript:alert(1)",
        " javascript:alert(1)",
        "\x01javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "//evil.example/",
        "/relative",
        "https:/evil",
        "https://evil.example/ x",
        "",
    ],
)
def test_a_link_from_data_that_is_no_web_address_is_never_sent(tmp_path: Path, html: str, target: str) -> None:
    templates = load(tmp_path, files(html))
    with pytest.raises(TemplateError) as caught:
        look(templates, {"x": target, "items": []})
    assert "evil" not in str(caught.value)


def test_a_page_that_shows_braces_loads_whatever_stands_behind_them(tmp_path: Path) -> None:
    row = '<td class="a">it\'s</td>'
    shown = f"<p>{{% raw %}}{{{{ x {{% endraw %}}</p><table><tr>{row * 50}</tr></table>"
    html = look(load(tmp_path, files(shown)), {"x": "1", "items": []}).html
    assert html is not None
    assert ("{{ x " in html, html.count("it's")) == (True, 50)


@pytest.mark.parametrize(
    "link",
    [
        "{% if items %}https://lamps.test/{% else %}https://lamps.example/{% endif %}{{ x }}",
        "{% if items %}https://a.test/{{ items|first }}{% elif x %}tel:{{ x }}{% else %}#{{ x }}{% endif %}",
        "https://lamps.test/{% if items %}a{% endif %}{{ x }}",
    ],
)
def test_a_value_behind_the_beginning_of_a_link_is_any_text(tmp_path: Path, link: str) -> None:
    html = look(load(tmp_path, files(f'<p><a href="{link}">x</a></p>')), {"x": "1", "items": []}).html
    assert html is not None
    assert '1">x' in html


@pytest.mark.parametrize(
    "target",
    [
        "https://lamps.test/a?b=c&d=%20#e",
        "http://127.0.0.1:8025/u/x",
        "mailto:ann@lamps.test",
        "tel:+49301234",
        "HTTPS://ü.test/|",
    ],
)
def test_a_link_from_data_that_is_one_is_kept(tmp_path: Path, target: str) -> None:
    html = look(load(tmp_path, files(LINK)), {"x": target}).html
    assert html == f'<p><a href="{target.replace("&", "&amp;")}">x</a></p>'


@pytest.mark.parametrize(
    "html",
    [
        '<p style="color: {{ x }}">x</p>',
        "<p onclick=\"go('{{ x }}')\">x</p>",
        "<p title={{ x }}>x</p>",
        "<p {{ x }}>x</p>",
        "<p {% if x %}title='a'{% endif %}>x</p>",
        '<a href="{% include "_layouts/u.html.j2" %}">x</a>',
        '<a href="{% block a %}{{ x }}{% endblock %}">x</a>',
        "<{{ x }}>x</p>",
        "<style>p { color: {{ x }} }</style>",
        "<!-- {{ x }} -->",
        "<script>let a = '{{ x }}'</script>",
        "<script src='https://lamps.test/a.js'></script>",
        "<iframe src='https://lamps.test/'></iframe>",
        "<form action='https://lamps.test/'></form>",
        "<meta http-equiv='refresh' content='{{ x }}'>",
        "<base href='https://lamps.test/'>",
        "<a href=\"javascript:go('{{ x }}')\">x</a>",
        "<a href='/relative'>x</a>",
        "<a href=https://lamps.test/>x</a>",
        "<a href='{{ x }}' href='https://lamps.test/'>x</a>",
        "<p>{% include ['_layouts/u.txt.j2'] %}</p>",
        "<p>{% include '_layouts/u.txt.j2' %}</p>",
        "<p>1 < 2</p>",
        "<p>\ue000</p>",
    ],
)
def test_a_place_where_no_value_can_be_kept_harmless_is_refused_at_load(tmp_path: Path, html: str) -> None:
    layouts = {"_layouts/u.html.j2": "{{ x }}", "_layouts/u.txt.j2": "{{ x }}"}
    with pytest.raises(TemplateError, match=r"letter/en/email\.html\.j2(:2)?: "):
        load(tmp_path, files(f"<p>x</p>\n{html}") | layouts)


LAYOUT = """<html><head><style>
:root { --ink: #123456 } td { color: var(--ink) }
.big { font-size: 2em }
@media print { td { color: red } }
</style>{% block style %}{% endblock %}</head><body>
<table>{% block rows %}<tr><td>first</td></tr>{% endblock %}</table>
{% block after %}<p>nothing</p>{% endblock %}
</body></html>"""
BUTTON = """{% macro button(to) %}<a class="big" href="{{ to }}">go</a>{% endmacro %}"""
STYLED = """{% extends "_layouts/a.html.j2" %}
{% from "_layouts/b.html.j2" import button %}
{% block style %}<style>.own { margin: 0 }</style>{% endblock %}
{% block rows %}{{ super() }}{% for item in items %}<tr class='own'>
<td>{{ item }}</td></tr>{% endfor %}{% endblock %}
{% block after %}{{ button(x) }}<b class="{% if x %}own{% endif %} own" style="top: 0">b</b>{% endblock %}"""


def test_styles_move_onto_the_elements_of_layout_template_and_macros(tmp_path: Path) -> None:
    templates = load(tmp_path, files(STYLED) | {"_layouts/a.html.j2": LAYOUT, "_layouts/b.html.j2": BUTTON})
    html = look(templates, {"x": "https://lamps.test/", "items": ["one"]}).html
    assert html is not None
    assert html.splitlines() == [
        "<html><head><style>@media print { td { color: red } }</style></head><body>",
        """<table><tr><td style="color:#123456">first</td></tr><tr style="margin:0" class='own'>""",
        '<td style="color:#123456">one</td></tr></table>',
        (
            '<a style="font-size:2em" class="big" href="https://lamps.test/">go</a>'
            '<b class="own own" style="margin:0;top:0">b</b></body></html>'
        ),
    ]


def test_a_row_outside_a_table_is_named_since_no_client_would_show_it(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"email\.html\.j2:3: <tr> cannot stand here"):
        load(tmp_path, files("<style>td { color: red }</style>\n<p>x</p>\n<tr><td>{{ x }}</td></tr>"))
