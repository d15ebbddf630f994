"""Every template that ships, in each of its languages, as a person would get it; and the commands that show it."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from notifier.cli import app
from notifier.domain.consent import Topic
from notifier.domain.messages import Category
from notifier.domain.routing import Mode
from notifier.rendering import (
    Ingredients,
    Preview,
    PreviewedEmail,
    PreviewedPush,
    PreviewedSms,
    Template,
    Templates,
    bundled_directory,
    preview,
)
from notifier.rendering.check import PREFERENCES_URL, UNSUBSCRIBE_URL, sample_of
from notifier_channels.contract import Channel
from tests.folders import IDENTITY, LETTER, NEWS, write

SHIPPED = Templates.load(bundled_directory(), IDENTITY, "en")
MAILS = [pytest.param(one, locale, id=f"{one.key}-{locale}") for one in SHIPPED.all() for locale in one.locales]
TEXTS, PUSHES = (
    [
        pytest.param(one, locale, id=f"{one.key}-{locale}")
        for one in SHIPPED.all()
        for locale in one.variants.get(channel, ())
    ]
    for channel in (Channel.SMS, Channel.PUSH)
)

TAKEN = {"ar": ("UCS-2", 2)}  #: what stands in no GSM alphabet costs twice as much
GMAIL_CLIPS = 102_000
LOCK_SCREEN = 178  #: about four lines on an iPhone; the rest is cut off


def direction_of(locale: str) -> str:
    return "rtl" if locale == "ar" else "ltr"


def look_at(template: Template, locale: str) -> PreviewedEmail:
    return preview(Preview(), template, Channel.EMAIL, sample_of(template, locale))


def test_what_the_service_promises_is_there() -> None:
    channels = {template.key: {str(channel) for channel in template.channels} for template in SHIPPED.all()}
    assert channels == {
        "password-reset": {"email"},
        "security-alert": {"email", "sms", "push"},
        "policy-update": {"email"},
        "order-shipped": {"email", "sms", "push"},
        "newsletter": {"email"},
        "product-news": {"email", "sms", "push"},
        "sign-in-code": {"email", "sms"},
        "manage-link": {"email", "sms"},
        "confirm-subscription": {"email", "sms"},
    }
    assert all(set(by_locale) >= {"en", "de"} for one in SHIPPED.all() for by_locale in one.variants.values())
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
    assert seen.locale == locale
    assert seen.subject
    assert seen.subject.isprintable() or "\xa0" in seen.subject
    assert len(seen.text.split()) > 20
    assert seen.html is not None
    assert f'<html lang="{locale}" dir="{direction_of(locale)}"' in seen.html
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


@pytest.mark.parametrize(("template", "locale"), TEXTS)
def test_a_text_message_is_one_segment_and_names_its_sender(template: Template, locale: str) -> None:
    seen = preview(Preview(), template, Channel.SMS, sample_of(template, locale))
    assert seen.locale == locale
    assert seen.text.startswith("Lamps & Sons: ")
    most = 2 if template.key == "confirm-subscription" else 1  # a signed link alone takes more than half of one
    assert (seen.segments.encoding, seen.segments.segments) == TAKEN.get(locale, ("GSM-7", most)), seen.segments
    assert not re.search(r"[{}<>]|\b(None|True|False|Undefined)\b|  ", seen.text)
    assert ("STOP" in seen.text) == template.is_marketing


@pytest.mark.parametrize(("template", "locale"), PUSHES)
def test_a_push_fits_on_a_lock_screen_and_leads_somewhere(template: Template, locale: str) -> None:
    seen = preview(Preview(), template, Channel.PUSH, sample_of(template, locale))
    assert seen.locale == locale
    assert 0 < len(seen.title) <= 60
    assert 0 < len(seen.body) <= LOCK_SCREEN
    assert "\n" not in seen.body
    assert (seen.link or "").startswith("https://shop.example/")


EVENTS = ["new_sign_in", "password_changed", "email_changed", "two_factor_off"]


def security_alert(channel: Channel, locale: str, event: str, **changes: object) -> str:
    template = SHIPPED.find("security-alert")
    assert template is not None
    data = {**template.sample, "event": event, **changes}
    assert template.problems(data) == []
    seen = preview(Preview(), template, channel, Ingredients(locale, "Europe/Berlin", data))
    match seen:
        case PreviewedEmail(subject=subject):
            return subject
        case PreviewedSms(text=text):
            return text
        case PreviewedPush(title=title):
            return title


@pytest.mark.parametrize("locale", ["en", "de"])
@pytest.mark.parametrize("channel", Channel)
def test_each_security_event_has_words_of_its_own(channel: Channel, locale: str) -> None:
    assert len({security_alert(channel, locale, event) for event in EVENTS}) == len(EVENTS)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("locale", ["en", "de"])
def test_a_security_alert_by_text_message_holds_no_link_and_is_never_too_long(event: str, locale: str) -> None:
    text = security_alert(Channel.SMS, locale, event, device="d" * 100, place="p" * 100, name="n" * 100)
    assert "://" not in text
    assert len(text) <= 160


def test_a_sign_in_code_goes_by_text_message_first_and_names_where_it_belongs() -> None:
    template = SHIPPED.find("sign-in-code")
    assert template is not None
    assert template.route.mode is Mode.THEN
    assert template.route.steps(template.channels) == {Channel.SMS: 0, Channel.EMAIL: 1}
    bound = preview(Preview(), template, Channel.SMS, sample_of(template, "en"))
    assert bound.text.endswith(".\n\n@shop.example #493027")
    free = Ingredients("en", "UTC", {"code": "493027", "valid_minutes": 1})
    assert preview(Preview(), template, Channel.SMS, free).text == (
        "Lamps & Sons: 493027 is your sign-in code, valid for one minute. We will never ask you for it."
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    for name in (
        "NOTIFIER_TEMPLATES_DIR",
        "DATABASE_URL",
        "REDIS_URL",
        "NOTIFIER_DEFAULT_LOCALE",
        "NOTIFIER_SMS_SEGMENT_PRICE",
    ):
        monkeypatch.delenv(name, raising=False)
    return CliRunner()


def test_check_lists_every_template_that_holds(run: CliRunner) -> None:
    done = run.invoke(app, ["templates", "check"])
    assert done.exit_code == 0, done.output
    for template in SHIPPED.all():
        assert f"ok  {template.key}" in done.output
    assert "\n    email, route: all\n" in done.output
    assert "\n    email push sms, 1 segment, route: all\n" in done.output
    assert "\n    email sms, 1 segment, route: sms, then after 2m email\n" in done.output


def test_check_tells_which_way_a_campaign_takes_and_why(
    run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "{{ unsubscribe_url }}\n"
    files = (
        LETTER | NEWS | {"news/en/email.txt.j2": text, "news/de/email.txt.j2": text + "\n{% if x %}{{ y }}{% endif %}"}
    )
    files |= {f"news/de/email.{name}.j2": NEWS[f"news/en/email.{name}.j2"] for name in ("subject", "html")}
    monkeypatch.setenv(
        "NOTIFIER_TEMPLATES_DIR", str(write(tmp_path, files | {"news/sample.json": '{"x": "", "y": ""}'}))
    )
    (tmp_path / "news/schema.json").write_text(
        json.dumps(json.loads(files["news/schema.json"]) | {"required": ["x", "y"]})
    )
    done = run.invoke(app, ["templates", "check"])
    assert done.exit_code == 0, done.output
    assert done.output.count("campaign") == 2
    assert "\n    campaign en: specialised\n" in done.output
    place = "        news/de/email.txt.j2:3: `{% if x %}{{ y }}{% endif %}`\n"
    assert f"\n    campaign de: specialised, but for each person\n{place}" in done.output
    (tmp_path / "news/de/email.txt.j2").write_text(text + "{% set z = x %}{{ z }}")
    done = run.invoke(app, ["templates", "check"])
    reason = "news/de/email.txt.j2:2: `{% set z = x %}{{ z }}`: what it makes differs from person to person"
    assert f"\n    campaign de: rendered for each person: {reason}\n" in done.output


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
    assert done.output.startswith("email de\n\nSubject: Wähle ein neues Passwort\n\nHallo Robin,")
    done = run.invoke(app, ["templates", "preview", "newsletter", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    names = {f"newsletter.{locale}.{kind}" for locale in ("de", "en") for kind in ("html", "txt")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert run.invoke(app, ["templates", "preview", "nothing"]).exit_code == 1


def test_preview_shows_every_channel_or_the_one_that_is_asked_for(run: CliRunner, tmp_path: Path) -> None:
    done = run.invoke(app, ["templates", "preview", "product-news", "--locale", "en"])
    assert done.exit_code == 0, done.output
    assert "email en\n\nSubject: " in done.output
    assert "\nsms en: 1 segment, GSM-7, 100 units\n\nNotifier: Lamps you can" in done.output
    assert re.search(r"\npush en: \d+ of 4096 bytes\n\ntitle: Lamps .*\nbody: The new .*\nlink: https://", done.output)
    done = run.invoke(app, ["templates", "preview", "order-shipped", "--channel", "push", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.iterdir()} == {"order-shipped.de.push.json", "order-shipped.en.push.json"}
    written = json.loads((tmp_path / "order-shipped.de.push.json").read_text("utf-8"))
    assert written["title"] == "Dein Paket ist unterwegs"
    assert written["data"] == {"order_number": "A-20261123-17"}
    done = run.invoke(app, ["templates", "preview", "sign-in-code", "--channel", "sms", "--out", str(tmp_path)])
    assert (tmp_path / "sign-in-code.en.sms.txt").read_text("utf-8").endswith("@shop.example #493027\n")
    assert run.invoke(app, ["templates", "preview", "newsletter", "--channel", "sms"]).exit_code == 1


def test_preview_estimates_what_a_text_message_costs(run: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_SMS_SEGMENT_PRICE", "0.0790 EUR")
    done = run.invoke(app, ["templates", "preview", "sign-in-code", "--channel", "sms", "--locale", "de"])
    assert done.output.startswith("sms de: 1 segment, GSM-7, 109 units, about 0.0790 EUR\n"), done.output
    monkeypatch.setenv("NOTIFIER_SMS_SEGMENT_PRICE", "cheap")
    done = run.invoke(app, ["templates", "preview", "sign-in-code"])
    assert done.exit_code == 1
    assert "NOTIFIER_SMS_SEGMENT_PRICE" in done.output
    assert "cheap" not in done.output


def test_check_fails_where_there_is_nothing_to_check(
    run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFIER_TEMPLATES_DIR", str(write(tmp_path, {"topics.toml": LETTER["topics.toml"]})))
    done = run.invoke(app, ["templates", "check"])
    assert (done.exit_code, "there is no template there: see NOTIFIER_TEMPLATES_DIR" in done.output) == (1, True)
