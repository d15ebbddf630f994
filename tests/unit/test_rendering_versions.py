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
from notifier_channels.contract import Channel, PushContent, SmsContent
from tests.folders import EVERYWHERE, IDENTITY, LETTER, NEWS, TOPICS, UNSUBSCRIBE, load, look

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
    assert preview(Preview(), pinned, Channel.EMAIL, Ingredients("en", "UTC", {"x": "a"})).html == "<p>a</p>"
    assert now.pinned("letter", stored) is pinned
    assert now.version(old.hash) is pinned


@pytest.mark.parametrize("path", ["letter/en/sms.j2", "letter/en/push.toml", "topics.toml", "letter/template.toml"])
def test_texts_pushes_and_routes_take_part_in_the_version(tmp_path: Path, path: str) -> None:
    changes = {
        "letter/en/sms.j2": "Hi {{ x }}",
        "letter/en/push.toml": EVERYWHERE["letter/en/push.toml"].replace("Letter", "Post"),
        "topics.toml": EVERYWHERE["topics.toml"].replace('order = ["push", "sms"]', 'order = ["sms", "push"]'),
        "letter/template.toml": LETTER["letter/template.toml"] + "sms = { segments = 2 }\n",
    }
    one = load(tmp_path / "one", EVERYWHERE).find("letter")
    other = load(tmp_path / "other", EVERYWHERE | {path: changes[path]}).find("letter")
    assert one is not None
    assert other is not None
    assert EVERYWHERE[path] != changes[path]
    assert one.hash != other.hash


def test_a_pinned_version_keeps_its_text_its_push_and_its_route(tmp_path: Path) -> None:
    old = load(tmp_path / "old", EVERYWHERE).find("letter")
    assert old is not None
    now = load(tmp_path / "now", LETTER | {"topics.toml": TOPICS})
    pinned = now.pinned("letter", dict(old.sources))
    ingredients = Ingredients("en", "UTC", {"x": "a"})
    assert pinned.channels == {Channel.EMAIL, Channel.SMS, Channel.PUSH}
    assert pinned.route == old.route
    assert pinned.route.order == (Channel.PUSH, Channel.SMS)
    assert render(PERMIT, pinned, Channel.SMS, ingredients) == SmsContent("Hello a")
    assert render(PERMIT, pinned, Channel.PUSH, ingredients) == PushContent(
        "Letter", "Hello a", "https://lamps.test/letters/a", data={"letter": "a"}, is_urgent=True
    )


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


WRONG = """
from notifier.domain.consent import Permit, Refusal
from notifier.rendering import Ingredients, Preview, Template, preview, render
from notifier_channels.contract import Channel, Content, EmailContent, PushContent, SmsContent

def mail(content: EmailContent) -> None: ...
def text(content: SmsContent) -> None: ...
def push(content: PushContent) -> None: ...
def any_of_them(content: Content) -> None: ...

def right(permit: Permit, template: Template, channel: Channel, with_: Ingredients) -> None:
    mail(render(permit, template, Channel.EMAIL, with_))
    text(render(permit, template, Channel.SMS, with_))
    push(render(permit, template, Channel.PUSH, with_))
    any_of_them(render(permit, template, channel, with_))

def previewed(template: Template, channel: Channel, with_: Ingredients) -> None:
    mail(preview(Preview(), template, Channel.EMAIL, with_))
    text(preview(Preview(), template, Channel.SMS, with_))
    push(preview(Preview(), template, Channel.PUSH, with_))
    any_of_them(preview(Preview(), template, channel, with_))

def crossed(permit: Permit, template: Template, with_: Ingredients) -> None:
    mail(render(permit, template, Channel.SMS, with_))

def not_permitted(refusal: Refusal, template: Template, channel: Channel, with_: Ingredients) -> None:
    render(Preview(), template, channel, with_)
    render(refusal, template, channel, with_)
    render(refusal, template, Channel.SMS, with_)
"""


def test_the_type_checker_stops_what_was_not_permitted(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    mypy = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path)]
    done = subprocess.run([*mypy, str(tmp_path / "wrong.py")], cwd=ROOT, capture_output=True, text=True, check=False)
    found = [line.split(": ", 1)[1].split("  [")[0] for line in done.stdout.splitlines() if "wrong.py" in line]
    unusable = 'error: Argument 1 to "{}" has incompatible type "{}"; expected "{}"'
    errors = [line for line in found if line.startswith("error: ")]
    assert errors == [
        unusable.format("mail", "PreviewedEmail", "EmailContent"),
        unusable.format("text", "PreviewedSms", "SmsContent"),
        unusable.format("push", "PreviewedPush", "PushContent"),
        unusable.format(
            "any_of_them",
            "PreviewedEmail | PreviewedSms | PreviewedPush",
            "EmailContent | WrittenEmail | SmsContent | PushContent",
        ),
        unusable.format("mail", "SmsContent", "EmailContent"),
        'error: No overload variant of "render" matches argument types "Preview", "Template", "Channel", "Ingredients"',
        'error: No overload variant of "render" matches argument types "Refusal", "Template", "Channel", "Ingredients"',
        'error: No overload variant of "render" matches argument types "Refusal", "Template", "Channel", "Ingredients"',
    ], done.stdout + done.stderr


def test_nothing_looks_at_a_letter_without_the_token(tmp_path: Path) -> None:
    assert look(load(tmp_path, LETTER), {"x": "a"}).text == "Hello a\n"
