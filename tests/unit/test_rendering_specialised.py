"""A campaign's mail: what is rendered once, what for each person, and that nobody could tell."""

import pytest

from notifier.errors import TemplateError
from notifier.rendering import Ingredients, Specialisations, Specialised, Templates, bundled_directory
from notifier.rendering.check import sample_of
from notifier.rendering.specialised import outlook
from notifier_channels.contract import Channel, EmailContent, WrittenEmail
from tests.both_ways import NAMES, PERMIT, both, made, person, read, sent
from tests.folders import IDENTITY

SHIPPED = Templates.load(bundled_directory(), IDENTITY, "en")
LETTER = {"subject": "Hello", "html": "<p>{{ p }}</p>\n", "txt": "{{ p }}\n"}


def test_a_marked_value_is_filled_into_what_was_written_once():
    template = made(
        {
            "subject": "Hello {{ p }}",
            "html": '<h1 title="{{ subject }}">{{ p }}</h1>',
            "txt": "{{ p|upper }}, {{ plan }}",
        }
    )
    special = Specialised.of(template, {"plan": "gold"})
    for name in ("Ann", "Bob & Söhne", "z" * 100):
        written = both(template, {"plan": "gold"}, person({"p": name}), special)
        assert isinstance(written, WrittenEmail)
        assert written.subject == f"Hello {name}"
    headers, bodies_ = read(sent(special.render(PERMIT, person({"p": "Bob & Söhne"}))))
    assert ("Subject", "Hello Bob & Söhne") in headers
    assert [body.decode() for _, body in bodies_] == [
        "BOB & SÖHNE, gold\r\n",
        '<h1 title="Hello Bob &amp; Söhne">Bob &amp; Söhne</h1>\r\n',
    ]


ONCE = [
    ("a name", LETTER, {}, {"p": "Ann"}),
    ("a name that begins with a dot", LETTER, {}, {"p": ".ann"}),
    ("a dot at the beginning of a line of the template", LETTER | {"txt": ".\n..x\n{{ p }}\n.\n"}, {}, {"p": "Ann"}),
    ("a name of many lines in quoted-printable", LETTER, {}, {"p": "ü. " * 90}),
    ("a name that ends in a blank", LETTER | {"txt": "{{ p }}"}, {}, {"p": "Ann "}),
    ("blanks before a value", LETTER | {"txt": "a   {{ p }}   \n  b"}, {}, {"p": "Ann"}),
    ("nothing, where something stands beside it", LETTER | {"txt": "Hello {{ p }}\n\n\nb"}, {}, {"p": ""}),
    (
        "a condition on whether it is there",
        LETTER | {"txt": "{% if q is defined %}a{% endif %}{{ p }}"},
        {},
        {"p": "Ann"},
    ),
    ("a condition on the way out", LETTER | {"txt": "{{ 'a' if unsubscribe_url else 'b' }}{{ p }}"}, {}, {"p": "Ann"}),
    (
        "a macro's argument of the same name",
        LETTER | {"txt": "{% macro m(p) %}{{ p }}{% endmacro %}{{ m(1) }}{{ p }}"},
        {},
        {"p": "Ann"},
    ),
    (
        "a macro that is given a person's value",
        LETTER | {"txt": '{% from "_layouts/parts.txt.j2" import box %}a{{ box(p) }}\n\n{{ p }}'},
        {},
        {"p": "Ann"},
    ),
    (
        "a loop over what is a person's",
        LETTER | {"txt": "a\n\n{% for t in tags %}\n{{ loop.index }}{{ t }}\n\n{% endfor %}\n\nb"},
        {},
        {"p": "A", "tags": [".x", "", "y "]},
    ),
    (
        "a loop that prints nothing at the end",
        LETTER | {"txt": "a\n\n{% for t in tags %}{{ t }}{% endfor %}"},
        {},
        {"p": "A", "tags": []},
    ),
    (
        "a loop at the beginning",
        LETTER | {"txt": "\n{% for t in tags %}\n{{ t }}{% endfor %}\n\n\n"},
        {},
        {"p": "A", "tags": ["a"]},
    ),
    (
        "a loop in HTML that ends in line ends",
        LETTER | {"html": "{% for t in tags %}{{ t }}\n{% endfor %}"},
        {},
        {"p": "A", "tags": ["a\n", "b"]},
    ),
    (
        "a loop whose values are encoded",
        LETTER
        | {
            "txt": "{% for t in tags %}{{ t }} = {{ t }}\n.{{ t }}.  \n{% endfor %}{{ p }}",
            "html": '{% for t in tags %}<a title="{{ t }}">ü{{ t }}</a>{% if loop.last %}{{ loop.index }}{% endif %}'
            "{% endfor %}<p>{{ p }}</p>\n",
        },
        {},
        {
            "p": "A",
            "tags": ["a=20b", "a&b", "<b>", "a ", "grün\t", "w" * 75, "w" * 76, "w" * 74 + " ", "ü" * 40, ".", "a\nb"],
        },
    ),
    (
        "blank lines where a loop's values and conditions leave nothing",
        LETTER
        | {"txt": "\n{% for t in tags %}\n{{ t }}{{ t }}\n{% if t %}\n\n\n{{ t }}{% endif %}\n\n{{ t }}{% endfor %}"},
        {},
        {"p": "A", "tags": ["", "a", "", "", "b\n\n\n", "\n", ""]},
    ),
    (
        "blank lines with nothing but empty values between them",
        LETTER | {"txt": "a{% for t in tags %}\n\n{{ t }}{% endfor %}b{{ p }}"},
        {},
        {"p": "A", "tags": ["", "", "", ""]},
    ),
    (
        "a loop of empty values at the beginning",
        LETTER | {"txt": "{% for t in tags %}{{ t }}{% endfor %}\n\n\nb{{ p }}"},
        {},
        {"p": "A", "tags": ["", ""]},
    ),
    (
        "a loop at the end of HTML whose last value ends in a line end",
        LETTER | {"html": "{% for t in tags %}{{ t }}{% endfor %}"},
        {},
        {"p": "A", "tags": ["a\n", ""]},
    ),
    (
        "what a loop changes as a whole",
        LETTER
        | {
            "txt": '{% from "_layouts/parts.txt.j2" import box, frame %}{% for t in tags %}{% filter upper %}\n=a '
            "{{ t }}{% endfilter %}{% call frame() %}.={{ t }}\n{% endcall %}{{ box(t) }}\n\n{% endfor %}"
        },
        {},
        {"p": "A", "tags": ["a=", "ü "]},
    ),
    (
        "a person's value in a campaign's loop",
        LETTER | {"txt": "{% for i in items %}{{ i ~ p }}\n{% endfor %}"},
        {"items": ["a", "b"]},
        {"p": "Ann"},
    ),
    (
        "a link, and its target as its label",
        {"subject": "a", "html": '<a href="{{ link }}">{{ link }}</a>'},
        {},
        {"link": "https://x.test/?a=1&b=2"},
    ),
    (
        "a derived text",
        {"subject": "a", "html": "<title>{{ q }}</title><p>Hello {{ p }}, <b>{{ p }}</b></p>"},
        {},
        {"p": "Tom & Jerry", "q": "  "},
    ),
    (
        "an HTML with a U+E000 in its data",
        LETTER | {"html": "<p>{{ q }}{{ p }}</p>"},
        {"q": "\ue0000\ue001"},
        {"p": "\ue0001\ue001"},
    ),
    ("a percent sign in what all headers share", LETTER | {"subject": "100 % {{ q }}"}, {"q": "%(at)s"}, {"p": "Ann"}),
    (
        "a constant that is written as the recipient writes it",
        LETTER | {"txt": "{{ '1999.50'|number }} {{ p }}"},
        {},
        {"p": "Ann"},
    ),
]


@pytest.mark.parametrize(("files", "campaign", "own"), [case[1:] for case in ONCE], ids=[case[0] for case in ONCE])
def test_what_is_rendered_once(files, campaign, own):
    assert isinstance(both(made(files), campaign, person(own)), WrittenEmail)


WHOLE = [
    ("a line end in a value", LETTER, {"p": "a\nb"}),
    ("a carriage return in a value", LETTER, {"p": "a\r"}),
    ("nothing between two line ends", LETTER | {"txt": "a\n\n{{ p }}\n\nb"}, {"p": ""}),
    ("nothing at the end of HTML that ends in a line end", LETTER | {"html": "<p>\n{{ q }}"}, {"p": "a", "q": ""}),
    (
        "a carriage return in a loop",
        LETTER | {"html": "{% for t in tags %}{{ t }}\n{% endfor %}"},
        {"p": "A", "tags": ["a\r"]},
    ),
    ("a value set in the template", LETTER | {"txt": "{% set x = p %}{{ x }}"}, {"p": "a"}),
    ("a default set in the template", LETTER | {"txt": "{% set x = p|default('-') %}{{ x }}"}, {"p": "a"}),
    ("a loop's name that is a person's", LETTER | {"txt": "{% for p in 'ab' %}{{ p }}{% endfor %}"}, {"p": "a"}),
    (
        "a loop's number beside a value",
        LETTER | {"txt": "{% for i in 'ab' %}{{ p ~ loop.index }}{% endfor %}"},
        {"p": "a"},
    ),
    (
        "a block whose text is changed",
        LETTER | {"txt": '{% extends "_layouts/base.txt.j2" %}{% block foot %}{{ super()|upper }}{% endblock %}'},
        {"p": "a", "q": "b"},
    ),
    (
        "a block in a filter",
        LETTER | {"txt": "{% filter upper %}{% block a %}{% endblock %}{% endfilter %}{{ p }}"},
        {"p": "a"},
    ),
    (
        "a macro that takes a person's value by itself",
        LETTER | {"txt": "{% macro m() %}{{ p }}{% endmacro %}{{ m() }}"},
        {"p": "a"},
    ),
    (
        "a set in a condition",
        LETTER | {"txt": "{% if p %}{% set plan = 1 %}{% endif %}{{ plan|default(2) }}"},
        {"p": "a"},
    ),
    ("a derived text with a loop", {"subject": "a", "html": "{% for t in tags %}{{ t }}{% endfor %}"}, {"tags": ["a"]}),
    ("a derived text with an open reference", {"subject": "a", "html": "<p>&#6{{ p }}</p>"}, {"p": "5;"}),
    (
        "a derived text with a value that hides",
        {"subject": "a", "html": '<p aria-hidden="{{ p }}">x</p>'},
        {"p": "true"},
    ),
    (
        "a derived text with tags in a value",
        {"subject": "a", "html": "{% set s %}<br>{% endset %}<p>{{ s ~ p }}</p>"},
        {"p": "a"},
    ),
    ("a derived text with blanks at a value's end", {"subject": "a", "html": "<p>a {{ p }} b</p>"}, {"p": " x "}),
    ("a derived text with two blanks in a value", {"subject": "a", "html": "<p>{{ p }}</p>"}, {"p": "x  y"}),
    ("a derived text with a vertical tab in a value", {"subject": "a", "html": "<p>{{ p }}</p>"}, {"p": "x\vy"}),
    (
        "a derived text with a label that happens to be its target",
        {"subject": "a", "html": '<a href="{{ link }}">{{ p }}</a>'},
        {"p": "https://x.test/", "link": "https://x.test/"},
    ),
    (
        "a file that is imported and asks whether a value is there",
        LETTER | {"txt": "{% from '_layouts/said.txt.j2' import said %}{{ said }} {{ p }}"},
        {"p": "a"},
    ),
    (
        "what an imported file has printed",
        LETTER | {"txt": "{% import '_layouts/piece.txt.j2' as m with context %}{{ m|string|upper }} {{ p }}"},
        {"p": "a"},
    ),
    (
        "a file that is included without what is around it",
        LETTER | {"txt": "{% include '_layouts/piece.txt.j2' without context %} {{ p }}"},
        {"p": "a"},
    ),
    (
        "a layout for some",
        LETTER | {"txt": "{% if p %}{% extends '_layouts/bare.txt.j2' %}{% endif %}{% block content %}a{% endblock %}"},
        {"p": "a"},
    ),
    (
        "a CRLF of the campaign's before a block",
        LETTER | {"txt": "{{ '\\r\\n' }}{% if p %}word {% endif %}"},
        {"p": "a"},
    ),
    (
        "a CR of the campaign's behind a block",
        LETTER | {"html": "<p>{% if p %}\n{% endif %}{{ '\\r' }}</p>"},
        {"p": "a"},
    ),
    ("a CR of the campaign's between values", LETTER | {"txt": "{{ p }}{{ '\\r' }}{{ p }}"}, {"p": "a"}),
    ("more than 500 places", LETTER | {"txt": "{% for a in '" + "a" * 501 + "' %}{{ p ~ a }}{% endfor %}"}, {"p": "a"}),
]


@pytest.mark.parametrize(("files", "own"), [case[1:] for case in WHOLE], ids=[case[0] for case in WHOLE])
def test_what_is_rendered_for_each_person_as_a_whole(files, own):
    assert isinstance(both(made(files), {}, person(own)), EmailContent)


REFUSED = [
    ("a default that is a person's", LETTER | {"txt": "{% macro m(p=p) %}{{ p }}{% endmacro %}{{ m() }}"}, {"p": "a"}),
    ("a value that is missing", LETTER, {}),
    ("a field that is missing", LETTER | {"txt": "{{ person.x }}"}, {"p": "a", "person": {}}),
    ("a value that is no text", LETTER, {"p": None}),
    ("a number that Python does not write down", LETTER, {"p": 10**5000}),
    ("a link that is none", LETTER | {"html": '<a href="{{ link }}">a</a>'}, {"p": "a", "link": "javascript:alert(1)"}),
    (
        "a link that is none beside one that is shown",
        LETTER | {"html": '{{ link }}<a href="{{ link }}">a</a>'},
        {"p": "a", "link": "x"},
    ),
    ("an empty subject", {"subject": "{{ p }}", "txt": "Hello"}, {"p": " \n"}),
    ("a subject of which no mail can show anything", {"subject": "{{ p }}", "txt": "Hello"}, {"p": "\ud800"}),
    ("too much", LETTER | {"txt": "{{ p }}{{ p }}"}, {"p": "x" * 600_000}),
    ("too many turns", LETTER | {"txt": "{{ tags|join }}{{ p }}"}, {"p": "x", "tags": [""] * 100_001}),
    (
        "too many turns of several",
        LETTER | {"html": "<p>{{ tags|join }}</p>", "txt": "{{ tags|join }}{{ tags|join }}"},
        {"p": "x", "tags": [""] * 34_000},
    ),
]


@pytest.mark.parametrize(("files", "own"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_neither_way_renders(files, own):
    assert both(made(files), {}, person(own)) is None


def test_a_time_zone_that_nobody_knows_is_refused_although_no_time_is_shown():
    assert both(made(LETTER), {}, person({"p": "a"}, timezone="No/Where")) is None


def test_what_is_formatted_is_shared_only_by_those_who_write_it_alike():
    template = made(LETTER | {"txt": "{{ when|datetime }} {{ '2026-03-12'|date }} {{ total|money('EUR') }} {{ p }}"})
    campaign = {"when": "2026-03-12T23:30:00Z", "total": "1999.50"}
    special = Specialised.of(template, campaign)
    texts = set()
    for locale, timezone in (("en-GB", "UTC"), ("en-US", "UTC"), ("en-GB", "Asia/Tokyo"), ("pt-BR", "Asia/Tokyo")):
        written = both(template, campaign, person({"p": "Ann"}, locale, timezone), special)
        assert isinstance(written, WrittenEmail)
        texts.add(read(sent(written))[1][0][1])
    assert len(texts) == 4


def test_a_time_that_a_mapped_filter_shows_is_shared_only_by_those_of_one_clock():
    template = made(LETTER | {"txt": "{{ items|map('datetime')|join }} {{ p }}"})
    campaign = {"items": ["2026-03-12T23:30:00Z"]}
    special = Specialised.of(template, campaign)
    for locale, timezone in (("en-GB", "UTC"), ("en-US", "UTC"), ("en-GB", "Asia/Tokyo")):
        assert isinstance(both(template, campaign, person({"p": "Ann"}, locale, timezone), special), WrittenEmail)


@pytest.mark.parametrize(
    "chosen",
    [
        "items|reject('eq', 'b')",
        "items|map('upper')",
        "items|reverse",
        "items|unique",
        "(items|select('ne', 'b'), 1)|first",
        "{'all': items|select('ne', 'b')}.all",
    ],
)
def test_a_list_that_is_chosen_once_is_there_for_the_second_person_too(chosen):
    template = made(LETTER | {"txt": "{% set some = " + chosen + " %}{% if p %}{{ some|join(',') }}{% endif %}"})
    campaign = {"items": ["a", "b", "c"]}
    special = Specialised.of(template, campaign)
    for name in ("Ann", "Bob"):
        written = both(template, campaign, person({"p": name}), special)
        assert isinstance(written, WrittenEmail)
        assert b"," in read(sent(written))[1][0][1]


def test_people_of_any_clock_share_what_shows_no_time():
    special = Specialised.of(made(LETTER), {})
    bodies_ = [special.render(PERMIT, person({"p": "Ann"}, "en", clock)) for clock in ("UTC", "Asia/Tokyo")]
    first, second = (one.letterhead for one in bodies_ if isinstance(one, WrittenEmail))
    assert first is second


def test_a_person_without_what_others_have_gets_the_same_as_without_the_campaign():
    template = made(LETTER | {"txt": "{% if plan is defined %}Plan {{ plan }}{% else %}No plan{% endif %} {{ p }}"})
    special = Specialised.of(template, {})
    for own in ({"p": "a"}, {"p": "a", "plan": "gold"}, {"plan": "gold"}, {"p": "b", "plan": "x"}):
        both(template, {}, person(own), special)


def test_a_person_with_a_link_to_the_settings_gets_it_although_another_had_none():
    template = made(LETTER | {"txt": "{% if preferences_url %}Settings: {{ preferences_url }}{% endif %} {{ p }}"})
    special = Specialised.of(template, {})
    for prefers in (False, True, False):
        assert isinstance(both(template, {}, person({"p": "a"}, prefers=prefers), special), WrittenEmail)


def test_what_the_campaign_says_it_says_to_everybody():
    template = made(LETTER)
    special = Specialised.of(template, {"p": "all"})
    assert special.wanted == tuple(sorted(set(NAMES) - {"p"}))
    both(template, {"p": "all"}, person({"p": "me", "stranger": 1}), special)
    assert b"all" in read(sent(special.render(PERMIT, person({"p": "me"}))))[1][0][1]


def test_marketing_without_its_link_is_refused():
    with pytest.raises(TemplateError, match="unsubscribe"):
        Specialised.of(made(LETTER), {}).render(PERMIT, person({"p": "a"}, marketing=False))


def test_a_campaign_is_kept_until_its_template_or_its_data_change():
    kept, template = Specialisations(), made(LETTER)
    first = kept.of("spring", template, {"q": "1"})
    assert kept.of("spring", template, {"q": "1"}) is first
    assert kept.of("autumn", template, {"q": "1"}) is not first
    second = kept.of("spring", template, {"q": "2"})
    assert second.data == {"q": "2"}
    for number in range(20):
        kept.of(number, template, {})
    assert kept.of("spring", template, {"q": "2"}) is not second


@pytest.mark.parametrize("template", [t for t in SHIPPED.all() if Channel.EMAIL in t.channels], ids=lambda one: one.key)
def test_what_ships_is_the_same_both_ways(template):
    for locale in template.variants[Channel.EMAIL]:
        sample = sample_of(template, locale)
        for named in ({}, {"name"}, set(template.sample) - {"name"}, set(template.sample)):
            own = {name: value for name, value in template.sample.items() if name in named}
            campaign = {name: value for name, value in template.sample.items() if name not in named}
            one = Ingredients(locale, "Europe/Berlin", own, sample.unsubscribe, sample.preferences_url)
            written = both(template, campaign, one)
            if not named or outlook(template, locale).whole is None:
                assert isinstance(written, WrittenEmail)
