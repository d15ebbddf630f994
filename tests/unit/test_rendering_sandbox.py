"""What trusted templates with untrusted data can do: nothing but show that data."""

import json
import tracemalloc
from pathlib import Path

import pytest

from notifier.errors import TemplateError
from notifier.rendering import Templates
from tests.folders import LETTER, load, look

CANARY = "canary-6b1d8a3f"

EXPRESSIONS = """
''.__class__.__mro__[1].__subclasses__()
x.__class__
x['__class__']
x|attr('__class__')
x|map(attribute='__class__')|list
[x]|map(attribute='__class__')|first
[x]|sum(attribute='__class__')
[x]|sort(attribute='__class__.__mro__')|first
items.__init__.__globals__
items.append(1)
items.items()
items|map('attr', '__class__')|list
x.format(x)
'{0.__class__}'.format(x)
'{0.__class__.__mro__}'.format_map({'0': x})
'{0}'|format(x)
'%s'|format(x)
'%(a)s' % {'a': x}
x.replace.__self__
x.encode()
x.upper()
(1).__class__
(1).real
none.__class__
true.__class__
loop.__class__
self.__init__.__globals__
self._TemplateReference__context
self.__dict__
request.application
config.items()
cycler.__init__.__globals__.os.environ
joiner.__init__.__globals__
namespace.__init__.__globals__.os.popen('id').read()
lipsum.__globals__.os.environ
lipsum.__globals__['os'].popen('env').read()
dict(a=1)
range(10)
get_flashed_messages.__globals__
url_for.__globals__
undefined_name.__class__
x.missing.__init__
environment
context
caller.__globals__
super.__globals__
__import__('os')
open('/etc/passwd').read()
x|tojson
x|pprint
x|xmlattr
{'a': x}|xmlattr
x|forceescape
x|e.__class__
x|escape.__html__()
(x|escape).__class__
(x|escape).format(x)
(x|upper).__init__
[].__class__
{}.__class__
().__class__
{}.get('a')
{}['__class__']
[]|random
x is callable
x is sameas x
x is filter
x|string.__class__
loop
self
""".strip().splitlines()

STATEMENTS = """
{% for a in x.__class__.__mro__ %}{{ a }}{% endfor %}
{% for a in [x] %}{{ loop.__class__ }}{% endfor %}
{% for a in [x] %}{{ loop._iterable }}{% endfor %}
{% for a in [x] %}{{ loop.__init__.__globals__ }}{% endfor %}
{% for a in [x] %}{{ loop.cycle.__globals__ }}{% endfor %}
{% for a in [x] recursive %}{{ loop([x]) }}{% endfor %}
{% set a = x.__class__ %}{{ a }}
{% set a = lipsum %}{{ a.__globals__ }}
{% set ns = namespace() %}{{ ns }}
{% macro m() %}{{ m.__globals__ }}{% endmacro %}{{ m() }}
{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}
{% macro m() %}x{% endmacro %}{{ m.name }}
{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}
{% macro m() %}{{ varargs.__class__ }}{% endmacro %}{{ m() }}
{% macro m() %}{{ kwargs.__class__ }}{% endmacro %}{{ m() }}
{% block content %}{{ self.content }}{% endblock %}
{% block content %}{{ self.content.__globals__ }}{% endblock %}
{% block content %}{{ super.__class__ }}{% endblock %}
{% include "/etc/passwd" %}
{% include "../topics.toml" %}
{% include "letter/en/email.html.j2" %}
{% import "os" as os %}{{ os.environ }}
{% from "os" import environ %}{{ environ }}
{% extends x %}
{% autoescape false %}{{ x }}{% endautoescape %}
{% filter attr('__class__') %}x{% endfilter %}
{% do items.append(1) %}
{% debug %}
{% trans %}x{% endtrans %}
{% set x.y = 1 %}
{% if x is callable %}a{% endif %}
{% if x is filter %}a{% endif %}
{% with a = x.__class__ %}{{ a }}{% endwith %}
""".strip().splitlines()

BOMBS = [
    "{{ 'a' * 100000000 }}",
    "{{ x * 100000000 }}",
    "{{ [x] * 100000000 }}",
    "{{ 100000000 * 'a' }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 2 ** 100 }}",
    "{{ '%1000000d' % 1 }}",
    "{{ '%*d' % (100000000, 1) }}",
    "{{ x.ljust(100000000) }}",
    "{{ x.zfill(100000000) }}",
    "{{ x|center(100000000) }}",
    "{{ x|indent(100000000) }}",
    "{{ x|replace('', 'aaaaaaaaaaaaaaaaaaaaaaaaa') }}",
    "{{ x|format(width=100000000) }}",
    "{{ items|batch(100000000, 'a') }}",
    "{{ items|slice(100000000) }}",
    "{% for a in range(1000000000) %}{% endfor %}",
    "{% for a in items %}{% for b in items %}{% endfor %}{% endfor %}",
    "{% for a in items %}{% for b in items %}{% for c in items %}{{ a }}{% endfor %}{% endfor %}{% endfor %}",
    "{% macro m() %}{% for a in items %}{% for b in items %}aaaaaaaaaa{% endfor %}{% endfor %}{% endmacro %}{{ m() }}",
    "{% macro m(n, s) %}{% if n %}{{ m(n - 1, s ~ s) }}{% endif %}{% endmacro %}{{ m(40, x) }}",
    "{% for a in items recursive %}{% if loop.depth < 3 %}{{ loop(items) }}{% endif %}{% endfor %}",
    "{% for a in items %}{{ items|join(x) }}{% endfor %}",
    "{{ items|join(y) }}",
    "{% for a in items %}{{ y }}{% endfor %}",
    "{{ '1E+999999'|money('EUR') }}",
    "{{ '1E+999999'|number }}",
    "{{ ('9' ~ y)|number }}",
]


def letter(html: str) -> dict[str, str]:
    """A template that has all its data, so that only what is under test can go wrong."""
    return LETTER | {
        "letter/en/email.html.j2": html,
        "letter/schema.json": LETTER["letter/schema.json"].replace('["x"]', '["x", "items", "y"]'),
        "letter/sample.json": '{"x": "world", "items": ["a"], "y": "c"}',
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return load(tmp_path_factory.mktemp("templates"), LETTER)


@pytest.mark.parametrize("source", [*(f"{{{{ {expression} }}}}" for expression in EXPRESSIONS), *STATEMENTS])
def test_a_template_that_reaches_for_more_than_data_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv("NOTIFIER_CANARY", CANARY)
    with pytest.raises(TemplateError) as caught:
        load(tmp_path, letter(source))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("source", [*(f"{{{{ {expression} }}}}" for expression in EXPRESSIONS), *STATEMENTS])
def test_data_that_looks_like_a_template_is_shown_as_it_is(plain: Templates, source: str) -> None:
    seen = look(plain, {"x": source})
    assert " ".join(source.split()) in seen.text
    assert seen.subject == f"Hello {' '.join(source.split())}"


@pytest.mark.parametrize("source", BOMBS)
@pytest.mark.timeout(10)
def test_a_bomb_ends_soon_and_in_little_memory(tmp_path: Path, source: str) -> None:
    text = "t" * 200_000
    data = {"x": text, "items": [str(number) for number in range(10_000)], "y": text}
    tracemalloc.start()
    with pytest.raises(TemplateError):
        look(load(tmp_path, letter(source)), data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000


def test_what_people_write_every_day_still_works(tmp_path: Path) -> None:
    source = """
    {% macro row(name, value="-") %}<b>{{ name }}</b>={{ value }};{% endmacro %}
    {% set greeting = "Hi " ~ x %}{{ greeting|upper }}
    {% for item in items %}{{ loop.index }} {{ loop.length }} {{ row(item.title, item.price * 2) }} {% endfor %}
    {{ items|map(attribute="title")|join(", ") }} {{ items|length }} {{ 7 % 4 }} {{ y|default("nothing") }}
    {% if items and x == "world" and y is not defined %}yes{% endif %} {{ items[0].items }}
    """
    sample = {"x": "world", "items": [{"title": "A&B", "price": 2, "items": "i"}]}
    files = letter(source) | {"letter/sample.json": json.dumps(sample)}
    files["letter/schema.json"] = files["letter/schema.json"].replace('"items", "y"]', '"items"]')
    assert look(load(tmp_path, files), sample).text == "HI WORLD 1 1 A&B=4; A&B 1 3 nothing yes i\n"


def test_a_name_that_jinja_knows_is_only_what_data_says(tmp_path: Path) -> None:
    source = "{% if range is defined %}{% for a in range(3) %}x{% endfor %}{% endif %}"
    files = LETTER | {"letter/en/email.html.j2": source}
    files["letter/schema.json"] = files["letter/schema.json"].replace('"y"', '"range"')
    assert look(load(tmp_path, files), {"x": "a"}).html == ""


@pytest.mark.parametrize("value", [None, True, {"a": 1}, [1]], ids=str)
def test_only_text_and_numbers_are_printed(plain: Templates, value: object) -> None:
    with pytest.raises(TemplateError, match=r"email\.subject\.j2:1: TypeError in `Hello {{ x }}`"):
        look(plain, {"x": value})


def test_an_error_shows_the_templates_line_and_never_the_data(tmp_path: Path) -> None:
    source = "<p>\n{{ x }}</p>\n<p>{{ {'a': 1}[x] }}</p>"
    files = LETTER | {"letter/en/email.html.j2": source, "letter/sample.json": '{"x": "a"}'}
    with pytest.raises(TemplateError) as caught:
        look(load(tmp_path, files), {"x": "secret"})
    assert str(caught.value) == "letter/en/email.html.j2:3: UndefinedError in `<p>{{ {'a': 1}[x] }}</p>`"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_error_in_a_layout_names_the_layouts_line_though_its_styles_were_moved(tmp_path: Path) -> None:
    files = LETTER | {
        "letter/en/email.html.j2": '{% extends "_layouts/a.html.j2" %}',
        "_layouts/a.html.j2": "<style>\n\np {\n color: red }\n</style>\n<p>{{ x.y }}</p>",
        "letter/sample.json": '{"x": {"y": "b"}}',
        "letter/en/email.subject.j2": "Hello",
    }
    templates = load(tmp_path, files)
    with pytest.raises(TemplateError, match=r"^_layouts/a.html.j2:6: UndefinedError in `<p>{{ x.y }}</p>`$"):
        look(templates, {"x": {}})
