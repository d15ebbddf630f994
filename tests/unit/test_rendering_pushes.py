"""A push shows text as it is and leads where its author meant, whatever data says."""

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.errors import TemplateError
from notifier.rendering import Ingredients, Templates, render
from notifier.rendering.links import finished, marked
from notifier_channels.contract import Channel
from tests.folders import EVERYWHERE, NEWS, UNSUBSCRIBE, glance, load
from tests.unit.test_rendering_versions import PERMIT

PUSH = "letter/en/push.toml"
SOUND = 'title = "T"\nbody = "B"\n'


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return load(tmp_path_factory.mktemp("templates"), EVERYWHERE)


def leading(link: str, key: str = "link") -> dict[str, str]:
    """The letter with a push that leads there; its sample is a whole address."""
    return EVERYWHERE | {
        PUSH: f"{SOUND}{key} = '''{link}'''\n",
        "letter/sample.json": '{"x": "https://lamps.test/x", "y": "y"}',
        "letter/schema.json": EVERYWHERE["letter/schema.json"].replace('["x"]', '["x", "y"]'),
    }


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("title = ", [PUSH]),
        ('title = "T"', [PUSH, "body is missing"]),
        (SOUND + 'sound = "S"', [PUSH, "unknown sound", "body, data, image, link, title"]),
        ("title = 1\nbody = 'B'", [PUSH, "title must be text"]),
        (SOUND + 'data = "d"', [PUSH, "[data]"]),
        (SOUND + "[data]\na = 1", [PUSH, "data.a must be text"]),
        (SOUND + "[data.a]\nb = 'c'", [PUSH, "data.a must be text"]),
        (SOUND + '[data]\n"google.x" = "1"', [PUSH, "data.google.x"]),
        (SOUND + '[data]\nfrom = "1"', [PUSH, "data.from"]),
        (SOUND + '[data]\nlink = "1"', [PUSH, "data.link"]),
        (SOUND + '[data]\na = "{{ nmae }}"', [f"{PUSH} data.a", "`nmae`", "schema.json"]),
        ('title = "{{ x }"\nbody = "B"', [f"{PUSH} title:1"]),
        ('title = "T"\nbody = "{{ x.y }}"', [f"{PUSH} body:1", "UndefinedError in `{{ x.y }}`"]),
        ('title = "T"\nbody = "{{ x|safe }}"', [f"{PUSH} body:1", "`safe`"]),
        ('title = "{% if x == 1 %}T{% endif %}"\nbody = "B"', [f"{PUSH} title", "is empty"]),
        (f'title = "T"\nbody = "{"b" * 4100}"', [f"{PUSH}: takes", "4096"]),
        (SOUND + 'link = "https://lamps.test/{{ x|urlencode }}"', [f"{PUSH} link", "leave out urlencode"]),
        (SOUND + "link = '{% filter default(x, true) %}{% endfilter %}'", [f"{PUSH} link", "behind the value"]),
        (SOUND + """link = '{% include "_layouts/x.txt.j2" %}'""", [f"{PUSH} link", "is no file"]),
        (SOUND + 'link = "lamps.test/x"', [f"{PUSH} link", "begins with https"]),
        (SOUND + 'link = "https://lamps.test/a b\u202e"', [f"{PUSH} link", "a character"]),
        (SOUND + 'link = "http://lamps.test/"', [f"{PUSH} link", "begins with https"]),
        (SOUND + 'link = "JavaScript:alert(1)"', [f"{PUSH} link", "begins with https"]),
        (SOUND + 'link = "data:text/html,x"', [f"{PUSH} link", "begins with https"]),
        (SOUND + 'link = "file:///etc/passwd"', [f"{PUSH} link", "begins with https"]),
        (SOUND + 'link = "{{ x }}://y"', [f"{PUSH} link", "a whole one"]),
        (SOUND + 'link = "https://{{ x }}/"', [f"{PUSH} link", "before the path"]),
        (SOUND + 'link = "https://lamps.test{{ x }}"', [f"{PUSH} link", "before the path"]),
        (SOUND + 'image = "lamps://x"', [f"{PUSH} image", "begins with https"]),
        (SOUND + 'image = "lamps://{{ x }}"', [f"{PUSH} image", "before the path"]),
    ],
)
def test_each_mistake_is_named_with_its_file_and_key(tmp_path: Path, text: str, names: list[str]) -> None:
    with pytest.raises(TemplateError) as caught:
        load(tmp_path, EVERYWHERE | {PUSH: text})
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("x", "title", "body"),
    [
        ("<b>&amp;", "<b>&amp;", "<b>&amp;"),
        ("a\r\nb\x00\x1b\u202ec", "a b c", "a\nbc"),
        ("{{ 7 * 7 }}", "{{ 7 * 7 }}", "{{ 7 * 7 }}"),
        ("x" * 300, "x" * 249 + "…", "x" * 300),
    ],
)
def test_data_in_a_push_stays_data_and_a_title_is_one_line(tmp_path: Path, x: str, title: str, body: str) -> None:
    text = 'title = "{{ x }}"\nbody = "{{ x }}"\n[data]\nx = "{{ x }}"'
    seen = glance(load(tmp_path, EVERYWHERE | {PUSH: text}), {"x": x})
    assert (seen.title, seen.body, seen.data) == (title, body, {"x": body})


def test_a_push_is_urgent_when_it_is_no_marketing(tmp_path: Path) -> None:
    letter, news = load(tmp_path, EVERYWHERE | NEWS | {"news/en/push.toml": SOUND}).all()
    assert render(PERMIT, letter, Channel.PUSH, Ingredients("en", "UTC", {"x": "a"})).is_urgent
    assert not render(PERMIT, news, Channel.PUSH, Ingredients("en", "UTC", {}, UNSUBSCRIBE)).is_urgent


def test_a_push_that_is_too_large_for_fcm_is_not_rendered(letters: Templates) -> None:
    assert glance(letters, {"x": "ä" * 100}).payload > 400
    with pytest.raises(TemplateError, match=rf"{PUSH}: takes \d+ bytes, a push has 4096") as caught:
        glance(letters, {"x": "ä" * 1000})
    assert "ä" not in str(caught.value)


@pytest.mark.parametrize(
    ("link", "y", "leads"),
    [
        ("https://lamps.test/o/{{ y }}", "a/b?c=d#e&f", "https://lamps.test/o/a%2Fb%3Fc%3Dd%23e%26f"),
        ("https://lamps.test?q={{ y }}&r=1", "a&b=c d", "https://lamps.test?q=a%26b%3Dc%20d&r=1"),
        ("lamps://orders/{{ y }}", "../x\n", "lamps://orders/..%2Fx%0A"),
        ("lamps:{{ y }}", 17, "lamps:17"),
        ("{{ x }}", "", "https://lamps.test/x"),
        ("{{ x }}?from={{ y }}", "push&x", "https://lamps.test/x?from=push%26x"),
        ("{% if y == 'y' %}{{ x }}{% else %}lamps://{{ y }}{% endif %}", "b", "lamps://b"),
        ("{% if y == 'y' %}lamps://{{ y }}{% else %}{{ x }}{% endif %}", "b", "https://lamps.test/x"),
        ("{% if y == 'y' %}{{ x }}{% endif %}", "b", None),
        ("\n  https://lamps.test/\n{{ y }}\n", "ä", "https://lamps.test/%C3%A4"),
    ],
)
def test_a_value_stays_the_part_of_the_link_where_it_was_put(
    tmp_path: Path, link: str, y: object, leads: str | None
) -> None:
    seen = glance(load(tmp_path, leading(link)), {"x": "https://lamps.test/x", "y": y})
    assert seen.link == leads


@pytest.mark.parametrize("key", ["link", "image"])
@pytest.mark.parametrize(
    "x",
    [
        "http://lamps.test/",
        "javascript:alert(1)",
        " javascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "lamps://own",
        "intent://x#Intent;end",
        "//evil.example",
        "evil.example",
        "https://",
        "https:///x",
        "https://localhost/x",
        "https://lamps.test@evil.example/",
        "https://lamps.test\\@evil.example/",
        "https://lamps.test/a b",
        "https://lamps.test/\nSet-Cookie: x",
        "https://lamps.test/a/../b",
        "https://lämps.test/",
        "https://lamps.test/\ue000\ue001javascript:",
        "",
        "\ue001javascript:alert(1)\ue000",
        17,
    ],
)
def test_a_link_that_data_brings_is_a_whole_https_address_or_nothing_is_sent(
    tmp_path: Path, key: str, x: object
) -> None:
    templates = load(tmp_path, leading("{{ x }}", key))
    with pytest.raises(TemplateError, match=rf"{re.escape(PUSH)} {key}") as caught:
        glance(templates, {"x": x, "y": ""})
    assert "evil" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "leads"),
    [
        ("https://lamps.test/ü?q=%20é&a[]=1", "https://lamps.test/%C3%BC?q=%20%C3%A9&a[]=1"),
        ('https://lamps.test/"><script>', "https://lamps.test/%22%3E%3Cscript%3E"),
        ("https://lamps.test/\u202ex", "https://lamps.test/%E2%80%AEx"),
    ],
)
def test_what_no_link_has_is_encoded_in_an_address_that_data_brings(tmp_path: Path, x: str, leads: str) -> None:
    assert glance(load(tmp_path, leading("{{ x }}")), {"x": x, "y": ""}).link == leads


@given(st.text(alphabet=st.characters(exclude_characters="\ue000\ue001", exclude_categories=["Cs"])))
def test_no_value_however_odd_changes_where_a_link_leads(value: str) -> None:
    link = finished(f"https://lamps.test/o?a={marked(value)}&b=1#c", web_only=True)
    assert link is not None
    parts = urlsplit(link)
    assert (parts.scheme, parts.netloc, parts.path, parts.fragment) == ("https", "lamps.test", "/o", "c")
    assert parse_qs(parts.query, keep_blank_values=True) == {"a": [value], "b": ["1"]}


@given(st.text(), st.booleans())
def test_no_address_that_data_brings_leads_anywhere_but_to_a_named_host(value: str, web_only: bool) -> None:  # noqa: FBT001  # hypothesis gives it
    try:
        link = finished(str(marked(value)), web_only=web_only)
    except ValueError:
        return
    assert link is None or re.match(r"https://[a-z0-9-]+\.[a-z0-9.-]+", link, re.IGNORECASE)
