"""What an operator sets is checked before anything starts, and a mistake names the setting."""

from __future__ import annotations

import pytest

from notifier import settings
from notifier.errors import NotConfigured
from notifier.rendering import Identity
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Mailbox

PRODUCTION = {
    "DATABASE_URL": "postgresql://here",
    "REDIS_URL": "redis://here",
    "NOTIFIER_LINK_KEYS": "k1:" + "x" * 32,
    "NOTIFIER_HASH_KEYS": "h1:" + "x" * 32,
    "NOTIFIER_ENV": "production",
    "NOTIFIER_PUBLIC_URL": "https://mail.example.com",
    "NOTIFIER_LIST_DOMAIN": "lists.example.com",
    "NOTIFIER_POSTAL_ADDRESS": "Acme, 1 Road, Town",
}


@pytest.fixture
def environment(monkeypatch):
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_complete_environment_is_read(environment):
    assert settings.load().is_production


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "NOTIFIER_LINK_KEYS", "NOTIFIER_HASH_KEYS"])
def test_a_setting_that_is_missing_is_named(environment, name):
    environment.delenv(name)
    with pytest.raises(NotConfigured, match=name):
        settings.load()


@pytest.mark.parametrize("name", ["NOTIFIER_LIST_DOMAIN", "NOTIFIER_POSTAL_ADDRESS", "NOTIFIER_PUBLIC_URL"])
def test_an_example_value_does_not_reach_production(environment, name):
    environment.delenv(name)
    with pytest.raises(NotConfigured, match=name):
        settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "hunter2"),
        ("DATABASE_URL", "mysql://notifier:hunter2@host/notifier"),
        ("DATABASE_URL", "postgresql://notifier:hunter2@host/notifier?nonsense=1"),
        ("REDIS_URL", "hunter2"),
        ("REDIS_URL", "redis://:hunter2@host:port/0"),
        ("NOTIFIER_PUBLIC_URL", "hunter2"),
        ("NOTIFIER_PUBLIC_URL", "https://"),
        ("NOTIFIER_PUBLIC_URL", "https://host:port"),
        ("NOTIFIER_PUBLIC_URL", "https://host/hunter2?a=b"),
        ("NOTIFIER_LIST_DOMAIN", "hunter2 lists.example.com"),
        ("NOTIFIER_INBOUND_DOMAIN", "hunter2@in.example.com"),
        ("NOTIFIER_DEFAULT_TIMEZONE", "Mars/Hunter2"),
        ("NOTIFIER_DEFAULT_TIMEZONE", "../hunter2"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named_with_how_to_write_it_and_never_repeated(environment, name, value):
    environment.setenv(name, value)
    with pytest.raises(NotConfigured, match=f"^{name}: .*write it like") as problem:
        settings.load()
    assert "hunter2" not in str(problem.value).lower()


@pytest.mark.parametrize(
    "url",
    ["postgresql://a:5432,b:5432/notifier?target_session_attrs=read-write", "host=/run/postgresql dbname=notifier"],
)
def test_whatever_libpq_reads_is_a_database(environment, url):
    environment.setenv("DATABASE_URL", url)
    assert settings.load().database_url.get_secret_value() == url


@pytest.mark.parametrize("keys", ["", "k1:short", "k1", "k1:" + "x" * 32 + ",k1:" + "y" * 32])
def test_keys_that_cannot_be_used_are_refused_without_being_repeated(environment, keys):
    environment.setenv("NOTIFIER_LINK_KEYS", keys)
    with pytest.raises(NotConfigured, match="NOTIFIER_LINK_KEYS") as problem:
        settings.load()
    assert "xxx" not in str(problem.value)


@pytest.mark.parametrize(
    "header",
    [
        "X-PM-Metadata-notifier: {reference}",
        "X-SES-MESSAGE-TAGS: notifier={reference}",
        'X-Mailgun-Variables: {"notifier": "{reference}"}',
    ],
)
def test_the_headers_of_the_guide_are_accepted(environment, header):
    environment.setenv("NOTIFIER_REFERENCE_HEADER", header)
    assert settings.load().reference_header == header


@pytest.mark.parametrize(
    "header",
    ["X-Ref", "X-Ref: fixed", "{reference}", "X Ref: {reference}", "X-Ref: {reference}\nBcc: x@y", "X-É: {reference}"],
)
def test_a_reference_header_that_would_break_a_mail_is_refused(environment, header):
    environment.setenv("NOTIFIER_REFERENCE_HEADER", header)
    with pytest.raises(NotConfigured, match="NOTIFIER_REFERENCE_HEADER"):
        settings.load()


@pytest.mark.parametrize("name", ["NOTIFIER_INBOUND_SECRET", "NOTIFIER_POSTMARK_SECRET"])
def test_a_secret_that_could_be_guessed_is_refused(environment, name):
    environment.setenv(name, "x" * 31)
    with pytest.raises(NotConfigured, match=name):
        settings.load()


def test_topics_are_separated_by_commas(environment):
    environment.setenv("NOTIFIER_SES_TOPIC_ARNS", "arn:aws:sns:a:1:x, arn:aws:sns:a:1:y")
    assert settings.load().ses_topic_arns == ("arn:aws:sns:a:1:x", "arn:aws:sns:a:1:y")


def test_other_senders_are_read_by_name(environment):
    environment.setenv(
        "NOTIFIER_SENDERS", "shop=The Shop <shop@example.com>; press = Press, Vienna <press@example.com>;"
    )
    senders = settings.load().senders
    assert senders == {"shop": ("The Shop", "shop@example.com"), "press": ("Press, Vienna", "press@example.com")}
    environment.setenv("NOTIFIER_SENDER_ADDRESS", "hello@example.com")
    identity = Identity.from_settings(settings.load_appearance())
    assert identity.senders["press"] == Mailbox("Press, Vienna", EmailAddress("press", "example.com"))


@pytest.mark.parametrize(
    "senders",
    [
        "shop",
        "shop=<shop@example.com>",
        "Shop=The Shop <shop@example.com>",
        "shop=The Shop shop@example.com",
        "a=A <a@example.com>; a=B <b@example.com>",
        "a=A <a@example.com>, b=B <b@example.com>",
        "a=A\nBcc <a@example.com>",
    ],
)
def test_senders_that_cannot_be_told_apart_are_refused_without_being_repeated(environment, senders):
    environment.setenv("NOTIFIER_SENDERS", senders)
    with pytest.raises(NotConfigured, match="NOTIFIER_SENDERS") as problem:
        settings.load()
    assert "@" not in str(problem.value)


def test_a_sender_without_a_usable_address_is_named_by_its_setting(environment):
    environment.setenv("NOTIFIER_SENDER_ADDRESS", "hello@example.com")
    environment.setenv("NOTIFIER_SENDERS", "shop=The Shop <nonsense>")
    with pytest.raises(NotConfigured, match="NOTIFIER_SENDERS"):
        Identity.from_settings(settings.load_appearance())
