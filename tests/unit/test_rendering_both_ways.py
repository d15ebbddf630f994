"""Over random templates, data and people, both ways to render a campaign's mail give the same."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifier.errors import TemplateError
from notifier.rendering import Specialised
from tests.both_ways import NAMES, both, made, person

everywhere = [
    *(
        "word ",
        "word",
        "\n",
        "\n\n\n\n",
        ".",
        "\n.dot",
        "\n..\n",
        "end  \n",
        "\t\n",
        "=",
        "=_",
        "x" * 75,
        "y" * 90,
        "grün 🏳️‍🌈 ",
    ),
    *(
        "&amp;",
        "&copy",
        "&#6",
        "{{ p }}",
        "{{ q }}",
        "{{ p }}{{ q }}",
        "{{ p }}\n{{ q }}",
        "\n{{ p }}\n",
        "{{ p|upper }}",
        "{{ p ~ q }}",
    ),
    *(
        "{{ person.name }}",
        "{{ person['name']|truncate(5) }}",
        "{{ tags|join(', ') }}",
        "{{ tags|first }}",
        "{{ when|datetime }}",
    ),
    *(
        "{{ when|date }}",
        "{{ total|money('EUR') }}",
        "{{ total|number }}",
        "{{ p if flag else q }}",
        "{{ q|default('-') }}",
    ),
    *(
        "{{ box(p) }}",
        "{{ box('1') }}",
        "{{ box(q)|trim }}",
        "{{ subject }}",
        "{{ sender }}",
        "{{ super() }}",
    ),
    *(
        "{{ super()|upper }}",
        "{% set z = p %}{{ z }}",
        "{% set z = 1 %}{{ z }}{{ p }}",
        "{% for p in tags %}{{ p }}{% endfor %}",
    ),
    *(
        "{% for tag in tags %}{{ loop.index }} {{ tag }}{% if not loop.last %},{% endif %}\n{% endfor %}",
        "{{ items|length }}",
    ),
    *(
        "{% for i in items %}{{ loop.index }}{{ p }} {{ i }}\n{% endfor %}",
        "{% for i in items %}{{ i ~ loop.index ~ p }}{% endfor %}",
    ),
    *(
        "{% include '_layouts/piece.KIND.j2' %}",
        "{% with y = p %}{{ y }}{% endwith %}",
        "{% with y = 2 %}{{ y }}{{ q }}{% endwith %}",
    ),
    "{% macro own(p) %}{{ p }}{% endmacro %}{{ own(q) }}",
    *(
        "{% set some = items|reject('eq', 'Ann') %}{% if p %}{{ some|join(q) }}{% endif %}",
        "{{ [when]|map('datetime')|join }}",
        "{{ [total]|map('number')|first }}",
    ),
    *(
        "{% include '_layouts/piece.KIND.j2' without context %}",
        "{% import '_layouts/piece.KIND.j2' as piece with context %}{{ piece|string|upper }}",
    ),
    *(
        "{% filter default(p, true) %}{% endfilter %}",
        "{% filter title %}{{ p }} & so{% endfilter %}",
        "{% filter list %}{{ q }}{% endfilter %}",
        "{% set made | join(q) %}ab{% endset %}{{ made }}",
    ),
    *("{{ '\\r\\n' }}", "{{ '\\r' }}", "{{ '' }}", "\x0b", "\x85", "\u2028", " =\n", "x" * 74 + "="),
]
html_only = [
    *(
        '<a href="{{ link }}">go</a>',
        '<a href="{{ link }}">{{ link }}</a>',
        '<a href="https://x.test/?a={{ p }}&amp;b=1">{{ q }}</a>',
        '<a href="{% if flag %}https://x.test/{{ p }}{% else %}{{ link }}{% endif %}">{{ q }}</a>',
    ),
    *(
        '<p title="{{ p }}">',
        "</p>",
        "<br>",
        "<div>",
        "</div>",
        "<style>p { color: red; }</style>",
        "<li>",
        '<img alt="{{ p }}">',
    ),
    *(
        "<p hidden>{{ p }}</p>",
        '<p style="display:none">{{ q }}</p>',
        '<p aria-hidden="{{ p }}">a</p>',
        "<title>{{ p }}</title>",
    ),
]


def bodies(leaves: list[str]) -> st.SearchStrategy[str]:
    def wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        frames = st.sampled_from(
            [
                *(
                    "{% if p %}A{% else %}B{% endif %}",
                    "{% if plan is defined %}A{% endif %}",
                    "{% if flag %}\nA\n{% endif %}B",
                ),
                *(
                    "{% if plan == 'gold' %}A{% elif flag %}B{% endif %}",
                    "{% for tag in tags %}A{% else %}B{% endfor %}",
                ),
                *(
                    "{% for i in items %}A{% endfor %}B",
                    "{% filter upper %}A{% endfilter %}",
                    "{% call frame() %}A{% endcall %}",
                ),
                *(
                    "{% if unsubscribe_url and not preferences_url %}A{% else %}B{% endif %}",
                    "{% set s %}A{% endset %}{{ s }}",
                ),
            ]
        )
        return st.builds(lambda frame, a, b: frame.replace("A", a).replace("B", b), frames, inner, inner)

    return st.recursive(st.sampled_from(leaves), wrapped, max_leaves=4)


def parts(kind: str, leaves: list[str]) -> st.SearchStrategy[str]:
    head = f'{{% extends "_layouts/base.{kind}.j2" %}}{{% from "_layouts/parts.{kind}.j2" import box, frame %}}\n'
    block = st.lists(bodies(leaves), max_size=8).map("".join)
    content = block.map(lambda inner: f"{{% block content %}}{inner}{{% endblock %}}")
    foot = st.just("") | block.map(lambda inner: f"{{% block foot %}}{{{{ super() }}}}{inner}{{% endblock %}}")
    whole = st.tuples(content, foot).map(lambda both: head + both[0] + both[1])
    bare = bodies([leaf for leaf in leaves if "super" not in leaf and "self" not in leaf])
    alone = st.lists(bare, max_size=8).map(
        lambda inner: f'{{% from "_layouts/parts.{kind}.j2" import box, frame %}}' + "".join(inner)
    )
    return (whole | alone).map(lambda text: text.replace("KIND", kind))


SUBJECTS = [
    *(
        "News",
        "{{ p }}",
        "Hello {{ p }}, {{ q }}",
        "{{ q|upper }}\n",
        "{% if plan is defined %}{{ plan }}{% endif %}!",
        "grün {{ p }}",
    ),
    *(
        "{% for tag in tags %}{{ tag }} {% endfor %}.",
        "{{ p|default('x') }}" + "long " * 30,
        "{{ total|money('EUR') }} 100%",
    ),
]
odd = st.lists(
    st.sampled_from(
        [
            *(
                "",
                " ",
                "a",
                "Ann",
                "b c",
                ".",
                "..",
                "\r\n",
                "\r",
                "\n",
                "\n\n\n",
                "&",
                "<b>",
                '"',
                "'",
                "grün",
                "🏳️‍🌈",
                "z" * 80,
                "w" * 74,
            ),
            *(
                "=",
                "=_",
                "--=_",
                "\t",
                "\ue0000\ue001",
                "\xa0",
                "\x0b",
                "&amp;",
                "https://x.test/",
                "  ",
                "\u2028",
                "copy",
                ";",
                "\ud800",
            ),
            *("=20", "=\r\n", "\n.\n", "\x1c", "\x85", "%(to)s", "\x00", " " * 76, "é" * 25),
        ]
    ),
    max_size=3,
).map("".join)
words = st.sampled_from(["Ann", "gold", "plain words", "Grüße", "a & b", "1.5"])
mostly = st.one_of(words, words, words, odd)
values = {
    **dict.fromkeys(("p", "q", "plan"), mostly),
    "tags": st.lists(mostly, max_size=3),
    "items": st.lists(mostly, max_size=3),
    "person": st.fixed_dictionaries({"name": mostly}),
    "link": st.sampled_from(
        ["https://x.test/a?b=1&c=2", "mailto:a@x.test", "https://x.test/"] * 3 + ["script:", "", "https://x.test/\nb"]
    ),
    "when": st.sampled_from(["2026-03-12T23:30:00Z", "2026-03-12"] * 4 + ["yesterday"]),
    "total": st.sampled_from(["1999.50", 199900] * 4 + ["much"]),
    "flag": st.booleans(),
}
some_names = st.sets(st.sampled_from(NAMES))
few_names = st.just(frozenset[str]()) | st.sets(st.sampled_from(NAMES), max_size=2)
attributes = st.builds(
    lambda all_, missing: {k: v for k, v in all_.items() if k not in missing}, st.fixed_dictionaries(values), few_names
)
campaigns = st.builds(
    lambda all_, names: {k: v for k, v in all_.items() if k in names}, st.fixed_dictionaries(values), some_names
)


loops = st.lists(
    st.sampled_from(
        [
            *(
                "{{ t }}",
                "{{ t }}",
                "{{ t }}{{ t }}",
                "{{ t|upper }}",
                "{{ loop.index }}",
                "\n",
                "\n\n",
                "\n\n\n",
                " ",
                "\t",
            ),
            *(
                ".",
                "=",
                "x",
                "x" * 74,
                "x" * 75,
                "grün",
                "{% if t %}{{ t }}{% endif %}",
                "{% if t %}\n{% endif %}",
                "\n.\n",
            ),
            *(
                "{% filter upper %}\n{{ t }} {% endfilter %}",
                "{% filter title %}{{ t }} & so{% endfilter %}",
                "{% filter join('<') %}{{ t }}{% endfilter %}",
                "{% filter length %}{{ t }}{% endfilter %}",
                "{% call frame() %}{{ t }}\n{% endcall %}",
                "{{ box(t) }}",
            ),
        ]
    ),
    max_size=7,
).map(lambda inner: "{% for t in tags %}" + "".join(inner) + "{% endfor %}")
around_loops = st.lists(st.one_of(loops, st.sampled_from(["\n", "\n\n\n", "a", " ", "{{ p }}", ".", "="])), max_size=4)


def with_loops(kind: str) -> st.SearchStrategy[str]:
    imported = f'{{% from "_layouts/parts.{kind}.j2" import box, frame %}}'
    return around_loops.map(lambda inner: imported + "".join(inner))


random_files = st.fixed_dictionaries(
    {"subject": st.sampled_from(SUBJECTS), "html": parts("html", everywhere + html_only)},
    optional={"txt": parts("txt", everywhere)},
) | st.fixed_dictionaries({"subject": st.sampled_from(SUBJECTS), "txt": parts("txt", everywhere)})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    files=st.fixed_dictionaries({"subject": st.just("News"), "html": with_loops("html"), "txt": with_loops("txt")}),
    own=st.fixed_dictionaries({"p": mostly, "tags": st.lists(mostly, max_size=3)}),
)
def test_both_ways_print_the_same_loops(files, own):
    both(made(files), {}, person(own))


@settings(
    max_examples=300,
    report_multiple_bugs=False,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(
    files=random_files,
    campaign=campaigns,
    people=st.lists(
        st.tuples(
            attributes,
            st.sampled_from(["en", "en-GB", "de"]),
            st.sampled_from(["UTC", "Asia/Tokyo", "No/Where"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
    marketing=st.booleans(),
)
def test_both_ways_give_the_same(files, campaign, people, marketing):
    try:
        template = made(files, marketing=marketing)
    except TemplateError:
        return
    special = Specialised.of(template, campaign)
    for own, locale, timezone, prefers in people:
        both(template, campaign, person(own, locale, timezone, marketing=marketing, prefers=prefers), special)
