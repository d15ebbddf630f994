"""What makes a folder of templates, and how each mistake in one is named."""

import json
from pathlib import Path

import pytest

from notifier.errors import NotConfigured, TemplateError
from notifier.rendering import Identity, Templates, bundled_directory
from notifier.settings import Appearance
from notifier_channels.contract import Channel
from tests.folders import ANY_DATA, IDENTITY, LETTER, NEWS, TOPICS, load, look, write

MARKETING = 'topic = "news"\nexpires_after = "3d"\ndescription = "News."\n'
WORDS = '[en]\nbye = "{sender} on {topic}"\n[en.why]\ntransactional = "about {topic}"\n'


def test_a_sound_folder_loads_with_its_topics_channels_and_expiry(tmp_path: Path) -> None:
    templates = load(tmp_path, LETTER | NEWS)
    letter = templates.find("letter")
    assert letter is not None
    assert [template.key for template in templates.all()] == ["letter", "news"]
    assert letter.topic.key == "orders"
    assert letter.channels == {Channel.EMAIL}
    assert letter.expires_after.days == 1
    assert letter.locales == ("en",)
    assert templates.find("nothing") is None
    assert set(templates.topics) == {"orders", "news"}


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def guarded(path: Path, *how: str) -> str:
        if path.name == "email.subject.j2":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *how)

    monkeypatch.setattr(Path, "read_text", guarded)
    with pytest.raises(TemplateError, match=r"letter/en/email.subject.j2 cannot be read \(Permission denied\)"):
        load(tmp_path, LETTER)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"letter/en/email.htm.j2": "x"}, ["letter/en/email.htm.j2", "email.html.j2"]),
        ({"letter/notes.txt": "x"}, ["letter/notes.txt"]),
        ({"letter/EN/email.subject.j2": "x"}, ["`EN` is no locale"]),
        ({"letter/sample.json": None}, ["letter/sample.json is missing"]),
        ({"letter/en/email.subject.j2": None}, ["letter/en/email.subject.j2 is missing"]),
        ({"letter/en/email.html.j2": None}, ["letter/en", "email.html.j2 or email.txt.j2"]),
        ({"letter/template.toml": 'topic = "ordres"\nexpires_after = "1d"\ndescription = ""'}, ["'ordres'", "orders"]),
        ({"letter/template.toml": 'topic = "orders"\nexpires_after = "1d"'}, ["description"]),
        (
            {"letter/template.toml": 'topic = "orders"\nexpires_after = "soon"\ndescription = ""'},
            ["expires_after", "24h"],
        ),
        ({"letter/template.toml": "topic = "}, ["letter/template.toml"]),
        ({"letter/sample.json": '{"z": 1, "x": 1}'}, ["letter/sample.json", "/z"]),
        ({"letter/sample.json": "{"}, ["letter/sample.json"]),
        (
            {"letter/en/email.subject.j2": None, "letter/en/email.html.j2": None, "letter/de/email.subject.j2": "x"},
            ["letter", "no en, the default locale"],
        ),
        ({"letter/en/email.html.j2": "<p>\n{{ nmae }}</p>"}, ["letter/en/email.html.j2", "`nmae`", "schema.json"]),
        ({"letter/en/email.html.j2": "<p>\n{% if x %}</p>"}, ["letter/en/email.html.j2:2"]),
        ({"letter/en/email.html.j2": "<p>\n{{ x|safe }}</p>"}, ["letter/en/email.html.j2:2", "`safe`"]),
        ({"letter/en/email.html.j2": "<p>\n{{ x|atr }}</p>"}, ["letter/en/email.html.j2:2", "atr"]),
        ({"letter/en/email.html.j2": '{% extends "_layouts/x.html.j2" %}'}, ["_layouts/x.html.j2 is no file"]),
        ({"letter/en/email.html.j2": '{% include "letter/schema.json" %}'}, ["letter/schema.json is no file"]),
        ({"letter/en/email.html.j2": "{% include x %}"}, ["a computed name is no file"]),
        ({"letter/en/email.html.j2": "{% autoescape false %}{{ x }}{% endautoescape %}"}, ["escaping"]),
        (
            {"letter/en/email.html.j2": "{{ y }}"},
            ["letter/en/email.html.j2:1", "`{{ y }}`"],
        ),  # optional, not in the sample
        ({"topics.toml": TOPICS.replace('"opt_in"', '"ask"')}, ["[news] channels.email", "opt_in, opt_out"]),
        ({"topics.toml": TOPICS.replace("[news]", "[news]\nmandatory = true")}, ["[news]", "transactional"]),
        ({"topics.toml": TOPICS.replace("[news]", "[news]\nowner = 1")}, ["[news]", "owner"]),
        ({"topics.toml": TOPICS.replace("marketing", "advertising")}, ["[news] category", "marketing, transactional"]),
        ({"topics.toml": TOPICS.replace("email =", "sms =", 1)}, ["letter", "orders", "email"]),
        ({"topics.toml": "="}, ["topics.toml"]),
    ],
    ids=str,
)
def test_each_mistake_is_named_with_its_file(tmp_path: Path, changes: dict[str, str | None], names: list[str]) -> None:
    with pytest.raises(TemplateError) as caught:
        load(tmp_path, LETTER | changes)
    for name in names:
        assert name in str(caught.value)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(TemplateError) as caught:
        load(tmp_path, LETTER | NEWS | {"letter/sample.json": "{", "news/sample.json": "["})
    assert "letter/sample.json" in str(caught.value)
    assert "news/sample.json" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["unsubscribe_url", "preferences_url", "sender", "postal_address", "topic", "loop", "subject"]
)
def test_data_cannot_pose_as_what_notifier_fills(tmp_path: Path, name: str) -> None:
    schema = json.dumps(ANY_DATA | {"properties": {"x": {}, name: {}}})
    with pytest.raises(TemplateError, match=f"`{name}` is filled by Notifier"):
        load(tmp_path, LETTER | {"letter/schema.json": schema})


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "array", "additionalProperties": False}, {}])
def test_a_schema_that_lets_unknown_fields_pass_is_refused(tmp_path: Path, schema: dict[str, object]) -> None:
    with pytest.raises(TemplateError, match="additionalProperties"):
        load(tmp_path, LETTER | {"letter/schema.json": json.dumps(schema)})


@pytest.mark.parametrize(
    "part",
    [
        {"news/en/email.html.j2": "<p>Hello</p>"},
        {"news/en/email.html.j2": '<p>Hello</p><!-- <a href="https://x">{# unsubscribe_url #}</a> -->'},
        {"news/en/email.html.j2": '<div style="display: none"><a href="{{ unsubscribe_url }}">Unsubscribe</a></div>'},
        {"news/en/email.html.j2": '{% if x is defined %}<a href="{{ unsubscribe_url }}">Unsubscribe</a>{% endif %}'},
        {"news/en/email.txt.j2": "Hello"},
    ],
    ids=str,
)
def test_marketing_without_a_visible_way_out_does_not_load(tmp_path: Path, part: dict[str, str]) -> None:
    load(tmp_path / "sound", LETTER | NEWS)
    with pytest.raises(TemplateError, match="unsubscribe_url"):
        load(tmp_path / "bad", LETTER | NEWS | part)


def test_a_template_renders_without_its_optional_data_or_does_not_load(tmp_path: Path) -> None:
    files = LETTER | {"letter/sample.json": '{"x": "a", "y": "b"}', "letter/en/email.html.j2": "<p>{{ y }}</p>"}
    with pytest.raises(TemplateError, match=r"letter/en/email.html.j2:1: UndefinedError in `<p>{{ y }}</p>`"):
        load(tmp_path, files)
    load(tmp_path, files | {"letter/en/email.html.j2": "<p>{% if y is defined %}{{ y }}{% endif %}</p>"})


def test_the_layout_speaks_the_templates_language_or_the_template_does_not_load(tmp_path: Path) -> None:
    files = LETTER | {
        "_layouts/words.toml": WORDS,
        "_layouts/email.html.j2": "{% block content %}{% endblock %}<p>{{ words.bye }}: {{ words.why }}</p>",
        "letter/en/email.html.j2": '{% extends "_layouts/email.html.j2" %}{% block content %}{{ x }}{% endblock %}',
    }
    assert look(load(tmp_path / "en", files), {"x": "a"}).text == "a\n\nLamps & Sons on Orders: about Orders\n"
    german = {path.replace("/en/", "/de/"): text for path, text in files.items() if "/en/" in path}
    with pytest.raises(TemplateError, match=r"words.toml: there is no \[de\]"):
        load(tmp_path / "de", files | german)
    with pytest.raises(TemplateError, match=r"\[en.why\] has no `transactional`"):
        load(tmp_path / "why", files | {"_layouts/words.toml": "[en]\nbye = 'x'"})


def test_layouts_that_need_each_other_are_refused(tmp_path: Path) -> None:
    files = {
        "_layouts/a.html.j2": '{% include "_layouts/b.html.j2" %}',
        "_layouts/b.html.j2": '{% include "_layouts/a.html.j2" %}',
    }
    with pytest.raises(TemplateError, match="needs itself"):
        load(tmp_path, LETTER | files | {"letter/en/email.html.j2": '{% include "_layouts/a.html.j2" %}'})


def test_a_folder_that_is_not_there_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="NOTIFIER_TEMPLATES_DIR"):
        Templates.load(tmp_path / "nothing", IDENTITY, "en")


def test_hidden_files_are_no_part_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, {".git/config": "x", "letter/.DS_Store": "x", "README.md": "x"})
    assert load(tmp_path, LETTER).find("letter")


def test_the_sender_is_parsed_once_and_a_bad_one_names_its_setting() -> None:
    appearance = Appearance(sender_address="nobody")  # type: ignore[call-arg]
    with pytest.raises(NotConfigured, match="NOTIFIER_SENDER_ADDRESS") as caught:
        Identity.from_settings(appearance)
    assert "nobody" not in str(caught.value)


def test_the_templates_that_ship_are_found() -> None:
    assert (bundled_directory() / "topics.toml").is_file()
