"""Every template that ships, in each of its languages, as a person would get it; and the commands that show it."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from notifier.cli import app
from notifier.domain.consent import Topic
from notifier.domain.messages import Category
from notifier.rendering import Template, Templates, bundled_directory, preview
from notifier.rendering.check import PREFERENCES_URL, UNSUBSCRIBE_URL, look_at, sample_of
from notifier.rendering.render import Preview
from notifier_channels.contract import Channel
from tests.folders import IDENTITY, LETTER, NEWS, write

SHIPPED = Templates.load(bundled_directory(), IDENTITY, "en")
MAILS = [pytest.param(one, locale, id=f"{one.key}-{locale}") for one in SHIPPED.all() for locale in one.locales]
GMAIL_CLIPS = 102_000


def test_what_the_service_promises_is_there() -> None:
    keys = {"password-reset", "security-alert", "policy-update", "order-shipped", "newsletter", "product-news"}
    assert {template.key for template in SHIPPED.all()} >= keys
    assert all(set(template.locales) >= {"en", "de"} for template in SHIPPED.all())
    mandatory = {key for key, topic in SHIPPED.topics.items() if topic.mandatory}
    assert mandatory >= {"security", "legal", "confirm-subscription", "manage-link"}
    assert {t.key for t in SHIPPED.all() if t.is_marketing} == {"newsletter", "product-news"}


@pytest.mark.parametrize("topic", SHIPPED.topics.values(), ids=str)
def test_a_topic_is_named_in_each_language(topic: Topic) -> None:
    assert topic.names.keys() == topic.descriptions.keys() >= {"en", "de"}
    assert topic.category is Category.TRANSACTIONAL or not topic.mandatory


@pytest.mark.parametrize(("template", "locale"), MAILS)
def test_a_mail_is_whole(template: Template, locale: str) -> None:
    seen = look_at(template, locale)
    assert template.channels == {Channel.EMAIL}
    assert seen.locale == locale
    assert seen.subject
    assert seen.subject.isprintable() or "\xa0" in seen.subject
    assert len(seen.text.split()) > 20
    assert seen.html is not None
    assert f'<html lang="{locale}" dir="ltr"' in seen.html
    assert len(seen.html.encode()) < GMAIL_CLIPS / 4
    for part in (seen.text, seen.html):
        assert "{{" not in part
        assert "{%" not in part
        assert "\ue000" not in part
        assert PREFERENCES_URL in part
        assert "1 Light Lane" in part
        assert not re.search(r"\b(None|True|False|Undefined)\b", part)


@pytest.mark.parametrize(("template", "locale"), MAILS)
def test_only_marketing_shows_a_way_out_and_it_stands_in_both_parts(template: Template, locale: str) -> None:
    seen = look_at(template, locale)
    assert (UNSUBSCRIBE_URL in seen.text) == (f'href="{UNSUBSCRIBE_URL}"' in (seen.html or "")) == template.is_marketing
    assert (sample_of(template, locale).unsubscribe is not None) == template.is_marketing
    assert (re.search("unsubscribe|abbestellen", seen.text, re.IGNORECASE) is not None) == template.is_marketing


@pytest.mark.parametrize(("template", "locale"), MAILS)
def test_a_mail_works_where_style_sheets_do_not(template: Template, locale: str) -> None:
    html = look_at(template, locale).html or ""
    sheet = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert html.count("<style") == 1
    assert sheet.startswith("@media")
    assert "prefers-color-scheme: dark" in sheet
    assert "max-width: 620px" in sheet
    assert "var(--" not in html
    assert re.search(r'<h1 style="[^"]*font:', html)
    assert '<meta name="color-scheme" content="light dark">' in html
    assert not re.search(r"<(script|link|img|iframe|form)\b", html)


@pytest.mark.parametrize(("template", "locale"), MAILS)
def test_the_tables_and_blocks_of_a_mail_are_closed(template: Template, locale: str) -> None:
    html = look_at(template, locale).html or ""
    for tag in ("html", "head", "body", "table", "tr", "td", "th", "p", "a", "h1", "h2", "div", "span", "strong"):
        assert len(re.findall(rf"<{tag}[\s>]", html)) == html.count(f"</{tag}>"), tag


@pytest.mark.parametrize("event", ["new_sign_in", "password_changed", "email_changed", "two_factor_off"])
@pytest.mark.parametrize("locale", ["en", "de"])
def test_each_security_event_has_words_of_its_own(event: str, locale: str) -> None:
    template = SHIPPED.find("security-alert")
    assert template is not None
    ingredients = sample_of(template, locale)
    data = {**template.sample, "event": event}
    assert template.problems(data) == []
    seen = preview(Preview(), template, type(ingredients)(locale, "UTC", data))
    others = {
        preview(Preview(), template, type(ingredients)(locale, "UTC", {**data, "event": other})).subject
        for other in ("new_sign_in", "password_changed", "email_changed", "two_factor_off")
        if other != event
    }
    assert seen.subject not in others
    assert len(others) == 3


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    for name in ("NOTIFIER_TEMPLATES_DIR", "DATABASE_URL", "REDIS_URL", "NOTIFIER_DEFAULT_LOCALE"):
        monkeypatch.delenv(name, raising=False)
    return CliRunner()


def test_check_lists_every_template_that_holds(run: CliRunner) -> None:
    done = run.invoke(app, ["templates", "check"])
    assert done.exit_code == 0, done.output
    for template in SHIPPED.all():
        assert f"ok  {template.key}" in done.output


def test_check_lists_every_mistake_and_fails(run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LETTER | NEWS | {"letter/en/email.html.j2": "<p>\n{{ x.y }}", "news/en/email.html.j2": "<p>Hello</p>"}
    monkeypatch.setenv("NOTIFIER_TEMPLATES_DIR", str(write(tmp_path, files)))
    done = run.invoke(app, ["templates", "check"])
    assert done.exit_code == 1
    assert "letter/en/email.html.j2:2: UndefinedError in `{{ x.y }}`" in done.output
    assert "news/en: marketing shows unsubscribe_url" in done.output
    assert "Traceback" not in done.output


def test_preview_prints_text_or_writes_files(run: CliRunner, tmp_path: Path) -> None:
    done = run.invoke(app, ["templates", "preview", "password-reset", "--locale", "de-AT"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Subject: Wähle ein neues Passwort\n\nHallo Robin,")
    done = run.invoke(app, ["templates", "preview", "newsletter", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    names = {f"newsletter.{locale}.{kind}" for locale in ("de", "en") for kind in ("html", "txt")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert run.invoke(app, ["templates", "preview", "nothing"]).exit_code == 1
