"""A message is rendered from the version it pinned; only a Permit makes content that a channel takes."""

import ast
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import notifier
import notifier_channels
from notifier.domain.consent import Decision, Permit, Rule
from notifier.errors import TemplateError
from notifier.rendering import Ingredients, Preview, Templates, preview, render
from notifier.rendering.folder import content_hash
from notifier_channels.contract import Channel
from tests.folders import IDENTITY, LETTER, NEWS, TOPICS, UNSUBSCRIBE, load, look

PERMIT = Permit(UUID(int=1), Decision(Rule.GRANTED, datetime(2026, 1, 1, tzinfo=UTC)))
ROOT = Path(notifier.__file__).parents[1]
LAYOUT = {
    "_layouts/words.toml": '[en.why]\ntransactional = "because"\nopt_in = "because"\n',
    "_layouts/a.html.j2": "<p>{% block content %}{% endblock %}</p>",
    "_layouts/unused.html.j2": "<p></p>",
    "letter/en/email.html.j2": '{% extends "_layouts/a.html.j2" %}{% block content %}{{ x }}{% endblock %}',
}


def test_the_same_content_is_the_same_version_wherever_it_lies(tmp_path: Path) -> None:
    one, other = (load(tmp_path / name, LETTER | LAYOUT).find("letter") for name in ("one", "other"))
    assert one is not None
    assert other is not None
    assert one.hash == other.hash
    assert one.sources == other.sources


@pytest.mark.parametrize("path", [*(path for path in (LETTER | LAYOUT) if "unused" not in path)])
def test_another_character_in_any_file_that_takes_part_is_another_version(tmp_path: Path, path: str) -> None:
    files = LETTER | LAYOUT
    one = load(tmp_path / "one", files).find("letter")
    changed = files[path].replace("About what", "All about what") if path == "topics.toml" else files[path] + "\n"
    other = load(tmp_path / "other", files | {path: changed}).find("letter")
    assert one is not None
    assert other is not None
    assert one.hash != other.hash


@pytest.mark.parametrize(
    "changes",
    [
        {"_layouts/unused.html.j2": "<p>changed</p>"},
        {"topics.toml": TOPICS.replace("What is new.", "What is newer.")},
        {"topics.toml": "# a comment\n" + TOPICS},
        NEWS,
    ],
)
def test_what_takes_no_part_makes_no_new_version(tmp_path: Path, changes: dict[str, str]) -> None:
    one = load(tmp_path / "one", LETTER | LAYOUT).find("letter")
    other = load(tmp_path / "other", LETTER | LAYOUT | changes).find("letter")
    assert one is not None
    assert other is not None
    assert one.hash == other.hash


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()))
def test_only_equal_sources_have_equal_hashes(one: dict[str, str], other: dict[str, str]) -> None:
    try:
        assert (content_hash(one) == content_hash(other)) == (one == other)
    except UnicodeEncodeError:  # half a surrogate pair cannot come out of a file
        return


def test_a_pinned_version_renders_its_own_words_though_files_layout_and_topic_are_gone(tmp_path: Path) -> None:
    old = load(tmp_path / "old", LETTER | LAYOUT).find("letter")
    assert old is not None
    stored = dict(old.sources)
    now = load(tmp_path / "now", NEWS | {"topics.toml": TOPICS.replace("[orders]", "[parcels]")})
    assert now.find("letter") is None
    assert now.version(old.hash) is None
    pinned = now.pinned("letter", stored)
    assert pinned.hash == old.hash
    assert pinned.topic == old.topic
    assert pinned.expires_after == old.expires_after
    assert preview(Preview(), pinned, Ingredients("en", "UTC", {"x": "a"})).html == "<p>a</p>"
    assert now.pinned("letter", stored) is pinned
    assert now.version(old.hash) is pinned


def test_the_current_version_is_not_compiled_again(tmp_path: Path) -> None:
    templates = load(tmp_path, LETTER)
    letter = templates.find("letter")
    assert letter is not None
    assert templates.pinned("letter", dict(letter.sources)) is letter
    assert templates.version(letter.hash) is letter


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return load(tmp_path_factory.mktemp("templates"), LETTER | NEWS)


def test_marketing_carries_its_list_and_transactional_none(both: Templates) -> None:
    letter, news = both.all()
    content = render(PERMIT, letter, Channel.EMAIL, Ingredients("en", "UTC", {"x": "a"}))
    assert (content.subscription, content.feedback_id) == (None, None)
    assert (content.sender, content.reply_to, content.subject) == (IDENTITY.sender, None, "Hello a")
    headers = news.list_headers("en-GB", "https://lamps.test/u/1", "u-1@in.lamps.test")
    assert headers is not None
    assert (headers.list_id, headers.list_name) == ("news.lists.lamps.test", "News")
    assert letter.list_headers("en", "https://lamps.test/u/1", None) is None
    content = render(PERMIT, news, Channel.EMAIL, Ingredients("en", "UTC", {}, headers))
    assert content.subscription is headers
    assert content.feedback_id == "news:marketing:lamps"
    assert "https://lamps.test/u/1" in content.text
    assert 'href="https://lamps.test/u/1"' in (content.html or "")


def test_marketing_without_its_link_and_transactional_with_one_are_refused(both: Templates) -> None:
    letter, news = both.all()
    with pytest.raises(TemplateError, match="unsubscribe"):
        render(PERMIT, news, Channel.EMAIL, Ingredients("en", "UTC", {}))
    with pytest.raises(TemplateError, match="unsubscribe"):
        render(PERMIT, letter, Channel.EMAIL, Ingredients("en", "UTC", {"x": "a"}, UNSUBSCRIBE))


def test_a_link_that_data_brings_never_stands_for_the_real_one(both: Templates) -> None:
    _, news = both.all()
    forged = Ingredients("en", "UTC", {"unsubscribe_url": "https://evil.example/"}, UNSUBSCRIBE)
    assert "evil" not in (render(PERMIT, news, Channel.EMAIL, forged).html or "")


def test_only_the_consent_rule_makes_a_permit() -> None:
    makers = set()
    for package in (notifier, notifier_channels):
        for path in Path(package.__file__ or "").parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                match node:
                    case ast.Call(func=ast.Name(id="Permit") | ast.Attribute(attr="Permit")):
                        makers.add("/".join(path.parts[-2:]))
    assert makers == {"domain/consent.py"}


CONTENTS = "EmailContent | SmsContent | PushContent"
WRONG = """
from notifier.domain.consent import Permit, Refusal
from notifier.rendering import Ingredients, Preview, Previewed, Template, preview, render
from notifier_channels.contract import Channel, Content

def send(content: Content) -> None: ...

def right(permit: Permit, template: Template, with_: Ingredients) -> None:
    send(render(permit, template, Channel.EMAIL, with_))

def previewed(template: Template, with_: Ingredients) -> None:
    send(preview(Preview(), template, with_))

def previewing(template: Template, with_: Ingredients) -> None:
    send(render(Preview(), template, Channel.EMAIL, with_))

def refused(refusal: Refusal, template: Template, with_: Ingredients) -> None:
    send(render(refusal, template, Channel.EMAIL, with_))
"""


def test_the_type_checker_stops_what_was_not_permitted(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    mypy = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path)]
    done = subprocess.run([*mypy, str(tmp_path / "wrong.py")], cwd=ROOT, capture_output=True, text=True, check=False)
    found = [line.split(": ", 1)[1].split("  [")[0] for line in done.stdout.splitlines() if "wrong.py" in line]
    assert found == [
        f'error: Argument 1 to "send" has incompatible type "Previewed"; expected "{CONTENTS}"',
        'error: Argument 1 to "render" has incompatible type "Preview"; expected "Permit"',
        'error: Argument 1 to "render" has incompatible type "Refusal"; expected "Permit"',
    ], done.stdout + done.stderr


def test_nothing_looks_at_a_letter_without_the_token(tmp_path: Path) -> None:
    assert look(load(tmp_path, LETTER), {"x": "a"}).text == "Hello a\n"
