"""A relay's URL: what it may say, what is assumed, and that it is never repeated."""

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier_channels.email.mail import Features
from notifier_channels.email.relay import InvalidRelayUrl, Relay, Tls
from notifier_channels.email.smtp import SmtpProvider

SECRET = "hunter2secret"


def relay(url: str) -> Relay:
    return Relay.from_url(url, hello="lists.example.com")


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("smtp://relay.example.com", "relay.example.com", 587, Tls.STARTTLS),
        ("smtp://relay.example.com:2525/", "relay.example.com", 2525, Tls.STARTTLS),
        ("smtps://relay.example.com", "relay.example.com", 465, Tls.IMPLICIT),
        ("smtp://relay.example.com?tls=implicit", "relay.example.com", 465, Tls.IMPLICIT),
        ("smtp://relay.example.com:25?tls=none", "relay.example.com", 25, Tls.NONE),
        ("smtp://127.0.0.1:1025", "127.0.0.1", 1025, Tls.NONE),
        ("smtp://[::1]:1025", "::1", 1025, Tls.NONE),
        ("smtp://localhost:1025", "localhost", 1025, Tls.NONE),
        ("smtp://127.0.0.1:1025?tls=starttls", "127.0.0.1", 1025, Tls.STARTTLS),
        ("smtp://localhost.example.com", "localhost.example.com", 587, Tls.STARTTLS),
    ],
)
def test_what_a_url_means(url, host, port, tls):
    found = relay(url)
    assert (found.host, found.port, found.tls) == (host, port, tls)


def test_certificates_are_verified_and_old_tls_is_refused():
    context = relay("smtps://relay.example.com").context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_the_options():
    found = relay("smtps://relay.example.com?limit=20&ehlo=mail.example.com")
    assert found.messages_per_connection == 20
    assert found.hello == "mail.example.com"
    assert relay("smtps://relay.example.com").hello == "lists.example.com"


def test_user_and_password_are_percent_decoded():
    assert relay("smtps://a%40b:p%2F%3A%40@relay.example.com").credentials == ("a@b", "p/:@")
    assert relay("smtps://relay.example.com").credentials is None


@pytest.mark.parametrize(
    "url",
    [
        f"smtp://ann:{SECRET}@relay.example.com?tls=none",
        f"smtp://ann:{SECRET}@relay.example.com?tls=opportunistic",
        f"smtp://ann:{SECRET}@relay.example.com?tsl=none",
        f"smtp://ann:{SECRET}@relay.example.com?limit=0",
        f"smtp://ann:{SECRET}@relay.example.com?limit=many",
        f"smtp://ann:{SECRET}@relay.example.com?limit=²",
        f"smtp://ann:{SECRET}@relay.example.com?ehlo=a%20b",
        f"smtp://ann:{SECRET}@relay.example.com?ehlo=a%0D%0AMAIL",
        f"smtp://ann:{SECRET}@relay.example.com?cafile=/nowhere.pem",
        f"smtp://ann:{SECRET}@relay.example.com?cafile={__file__}",
        f"smtp://ann:{SECRET}@relay.example.com:port",
        f"smtp://ann:{SECRET}/@relay.example.com",
        f"smtp://ann:{SECRET}@relay.example.com/path",
        f"smtp://ann:{SECRET}@relay.example.com#x",
        f"smtps://ann:{SECRET}@relay.example.com?tls=starttls",
        f"http://ann:{SECRET}@relay.example.com",
        f"smtp://ann:{SECRET}@",
        f"smtp://[ann:{SECRET}",
        "",
    ],
)
def test_a_url_that_cannot_be_is_refused_without_being_repeated(url):
    with pytest.raises(InvalidRelayUrl) as refusal:
        relay(url)
    assert SECRET not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


@given(st.text())
def test_any_text_is_a_relay_or_refused(text):
    with contextlib.suppress(InvalidRelayUrl):
        relay(f"smtp://{text}")


def test_a_relay_does_not_show_its_password():
    assert SECRET not in repr(relay(f"smtps://ann:{SECRET}@relay.example.com"))


@pytest.mark.parametrize("domain", ["", "example", "a b.example", "a.example\r\nX: y", "<a.example>"])
def test_the_message_id_needs_a_domain(domain):
    with pytest.raises(InvalidRelayUrl):
        SmtpProvider.from_url("smtp://127.0.0.1", message_id_domain=domain)


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("relay.example.com", Features()),
        ("PIPELINING\nSIZE 100\nPipelining", Features(pipelining=True, knows_size=True, largest=100)),
        ("x\nSIZE", Features(knows_size=True)),
        ("x\nSIZE 35882577\n8BITMIME", Features(knows_size=True, largest=35882577, eight_bit=True)),
        ("x\nAUTH PLAIN login\nAUTH=CRAM-MD5", Features(mechanisms=frozenset({"PLAIN", "LOGIN", "CRAM-MD5"}))),
        ("x\nSTARTTLS\nSMTPUTF8\nXUNKNOWN a b", Features(starttls=True, smtputf8=True)),
        ("x\nNOPIPELINING\nSIZE -1", Features(knows_size=True)),
        ("x\nSIZE " + "9" * 5000, Features(knows_size=True)),
    ],
)
def test_what_a_server_offers(text, features):
    assert Features.parse(text) == features


@given(st.text())
def test_no_offer_is_unreadable(text):
    Features.parse(text)
