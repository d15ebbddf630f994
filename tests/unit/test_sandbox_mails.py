"""The sandbox's pure parts: simulators, reading, one-click checks, the bounded inbox, and the page about them."""

import re
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.sandbox import one_click
from notifier.sandbox.mails import Filter, Inbox
from notifier.sandbox.reading import Bodies, Headers, plain, read_bodies, read_headers, read_source
from notifier.sandbox.simulators import DOMAIN, EVERYBODY_ELSE, SIMULATORS, RefuseRecipient, choose, find

NOW = datetime(2026, 11, 23, 10, 41, tzinfo=UTC)
PAGE = Path(__file__).parents[2] / "docs/reference/sandbox.md"
URL = "https://news.test/u/v1.token"


# Simulators -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("simulator", SIMULATORS, ids=lambda simulator: simulator.name)
def test_a_simulator_is_found_by_name_with_any_suffix_and_in_any_case(simulator) -> None:
    for address in (
        simulator.address,
        f"{simulator.name}+17@{DOMAIN}",
        f"{simulator.name}+a+b@{DOMAIN}",
        simulator.address.upper(),
    ):
        assert find(address) is simulator


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.test",
        "bounce@example.test",
        f"bounce@{DOMAIN}.example.test",
        f"bounce@sub.{DOMAIN}",
        f"bouncer@{DOMAIN}",
        f"ann@{DOMAIN}",
        f"@{DOMAIN}",
        "bounce",
        "",
    ],
)
def test_everybody_else_is_no_simulator(address: str) -> None:
    assert find(address) is EVERYBODY_ELSE


def test_the_first_simulated_recipient_decides_over_a_mail() -> None:
    assert choose(["ann@example.test", f"slow@{DOMAIN}", f"reject@{DOMAIN}"]).name == "slow"
    assert choose(["ann@example.test"]) is EVERYBODY_ELSE
    assert choose([]) is EVERYBODY_ELSE


def test_a_mail_that_is_refused_is_never_reported() -> None:
    for simulator in SIMULATORS:
        if isinstance(simulator.behaviour, RefuseRecipient):
            assert simulator.reports == ()


def test_the_documentation_lists_the_same_simulators() -> None:
    rows = re.findall(r"^\| (`[a-z-]+@`|anybody else) \| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    expected = [(f"`{simulator.name}@`", simulator.does, simulator.then) for simulator in SIMULATORS]
    assert rows == [*expected, ("anybody else", EVERYBODY_ELSE.does, EVERYBODY_ELSE.then)]


# Reading --------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=400))
def test_any_bytes_can_be_read(raw: bytes) -> None:
    _read_all(raw)


headers = st.sampled_from(
    [
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "List-Unsubscribe",
        "Content-Type",
        "MIME-Version",
        "Content-Transfer-Encoding",
    ]
)
values = st.one_of(
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"multipart/alternative; boundary=b",
            b"multipart/alternative",
            b"text/html; charset=no-such",
            b"text/plain; charset=\xff",
            b"message/rfc822",
            b"base64",
            b"=?utf-8?q?=ff?=",
            b"=?no-such?b?!!!?=",
            b"<[x]@y>",
            b'"<a',
        ]
    ),
)


@given(st.lists(st.tuples(headers, values), max_size=8), st.binary(max_size=200))
def test_any_head_and_body_can_be_read(fields: list[tuple[str, bytes]], body: bytes) -> None:
    head = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in fields)
    _read_all(head + b"\r\n" + body + b"\r\n--b\r\n\r\n" + body + b"\r\n--b--\r\n")


@pytest.mark.parametrize("kind", ["html", "plain"])
@pytest.mark.parametrize(("charset", "body"), [("utf-7", b"+2AA-"), ("unicode_escape", b"\\ud800"), ("hex", b"zz")])
def test_a_charset_cannot_bring_in_what_utf_8_cannot_carry(kind: str, charset: str, body: bytes) -> None:
    _read_all(f"Content-Type: text/{kind}; charset={charset}\r\n\r\n".encode() + body)


def _read_all(raw: bytes) -> None:
    head, bodies = read_headers(raw), read_bodies(raw)
    shown = [head.subject, head.sender_name, head.sender_address, read_source(raw), bodies.snippet]
    shown += [part for field in head.fields for part in field]
    shown += [bodies.text or "", bodies.html or ""]
    for text in shown:
        text.encode()
    assert "\n" not in head.subject
    one_click.examine(head)


def test_a_mail_is_read_as_it_was_written() -> None:
    mail = EmailMessage()
    mail["Subject"] = "Größe 🔐 " + "x" * 100
    mail["From"] = '"Müller, Anna" <anna@example.test>'
    mail["Message-ID"] = "<01938b7c58d27d6a9c5e0f7c2e3f9a41@lists.notifier.test>"
    mail.set_content("Grüße\n")
    mail.add_alternative("<p>Grüße</p>", subtype="html")
    head, bodies = read_headers(mail.as_bytes()), read_bodies(mail.as_bytes())
    assert head.subject == mail["Subject"]
    assert (head.sender_name, head.sender_address) == ("Müller, Anna", "anna@example.test")
    assert head.message == UUID("01938b7c58d27d6a9c5e0f7c2e3f9a41")
    assert bodies.text is not None
    assert bodies.html is not None
    assert (bodies.text.strip(), bodies.html.strip()) == ("Grüße", "<p>Grüße</p>")


@pytest.mark.parametrize(
    "message_id",
    [
        "<01938b7c58d27d6a9c5e0f7c2e3f9a4@x.test>",
        "<01938b7c58d27d6a9c5e0f7c2e3f9a411@x.test>",
        "<01938b7c-58d2-7d6a-9c5e-0f7c2e3f9a41@x.test>",
        "01938b7c58d27d6a9c5e0f7c2e3f9a41@x.test",
        "<zz938b7c58d27d6a9c5e0f7c2e3f9a41@x.test>",
        "",
    ],
)
def test_only_a_message_id_of_ours_names_a_message(message_id: str) -> None:
    assert read_headers(f"Message-ID: {message_id}\r\n\r\n".encode()).message is None


def test_a_snippet_is_made_of_the_words_a_reader_sees() -> None:
    markup = "<head><style>p{}</style></head><!-- no --><p>Hello&nbsp;<b>you</b></p><script>no()</script>"
    assert plain(markup).split() == ["Hello", "you"]
    assert Bodies(text=None, html=markup).snippet == "Hello you"
    assert Bodies(text="from\r\n text", html=markup).snippet == "Hello you"
    assert Bodies(text="from\r\n text", html=None).snippet == "from text"
    assert Bodies(text=None, html="<p>News&#8203;&zwnj;&nbsp;&shy;&zwnj; of today</p>").snippet == "News of today"
    assert Bodies(text=None, html=None).snippet == ""


# One click ------------------------------------------------------------------------------------------------------------


def head(*fields: tuple[str, str]) -> Headers:
    return read_headers("".join(f"{name}: {value}\r\n" for name, value in fields).encode() + b"\r\n")


LEAVE = ("List-Unsubscribe", f"<{URL}>")
POST = ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")
LIST_ID = ("List-Id", "News <news.lists.test>")


@pytest.mark.parametrize("value", [f"<{URL}>", f"<mailto:x@y.test>, <{URL}>", f"< {URL} >,<mailto:x@y.test?subject=a>"])
def test_a_complete_offer_passes_every_check(value: str) -> None:
    offer = one_click.examine(head(("List-Unsubscribe", value), POST, LIST_ID))
    assert offer is not None
    assert offer.url == URL
    assert all(check.ok for check in offer.checks)


@pytest.mark.parametrize(
    ("fields", "shows_the_button", "failing"),
    [
        ((LEAVE, LIST_ID), False, [1]),
        ((POST, LIST_ID), False, [0, 2]),
        ((LEAVE, POST), True, [3]),
        ((LEAVE, LEAVE, POST, LIST_ID), False, [0]),
        ((LEAVE, POST, POST, LIST_ID), False, [1]),
        ((LEAVE, ("List-Unsubscribe-Post", "one-click"), LIST_ID), False, [1]),
        ((("List-Unsubscribe", "<mailto:x@y.test>"), POST, LIST_ID), False, [0, 2]),
        ((("List-Unsubscribe", URL), POST, LIST_ID), False, [0, 2]),
        ((("List-Unsubscribe", "<https://[::1>"), POST, LIST_ID), False, [0, 2]),
        ((("List-Unsubscribe", "<https://x:99999/>"), POST, LIST_ID), False, [0, 2]),
        ((("List-Unsubscribe", "<https:///u>"), POST, LIST_ID), False, [0, 2]),
        ((("List-Unsubscribe", "<javascript:alert(1)>"), POST, LIST_ID), False, [0, 2]),
        ((("List-Unsubscribe", "<http://news.test/u>"), POST, LIST_ID), True, [2]),
        ((("List-Unsubscribe", "<http://127.0.0.1:8025/u>"), POST, LIST_ID), True, []),
    ],
)
def test_what_is_missing_is_named(fields: tuple, *, shows_the_button: bool, failing: list[int]) -> None:
    offer = one_click.examine(head(*fields))
    assert offer is not None
    assert (offer.url is not None) is shows_the_button
    assert [number for number, check in enumerate(offer.checks) if not check.ok] == failing


def test_a_mail_without_list_headers_offers_nothing() -> None:
    assert one_click.examine(head(("Subject", "Reset"))) is None


@pytest.mark.parametrize(
    ("bodies", "ok"),
    [
        (Bodies(text=None, html=f'<a href="{URL}">Leave</a>'), True),
        (Bodies(text=f"Leave: {URL}", html=None), True),
        (Bodies(text="https://other.test/u/v1.token", html="<p>"), False),
        (Bodies(text=None, html=None), False),
    ],
)
def test_the_body_needs_a_link_to_the_same_place(bodies: Bodies, *, ok: bool) -> None:
    offer = one_click.examine(head(LEAVE, POST, LIST_ID))
    assert offer is not None
    assert one_click.body_link(offer, bodies).ok is ok


# The inbox ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 10), st.integers(1, 120))
def test_the_newest_mails_stay_within_both_bounds(sizes: list[int], most_mails: int, most_bytes: int) -> None:
    inbox = Inbox(most_mails=most_mails, most_bytes=most_bytes)
    for size in sizes:
        inbox.take(NOW, "a@b.test", ["c@d.test"], b"x" * size)
        assert inbox.bytes == sum(len(mail.raw) for mail in inbox)
        assert len(inbox) <= most_mails
        assert inbox.bytes <= most_bytes or len(inbox) == 1
    kept = [mail.id for mail in inbox]
    assert kept == list(range(len(sizes), len(sizes) - len(kept), -1))
    assert inbox.taken == len(sizes)


def test_no_mail_is_dropped_before_a_bound_is_reached() -> None:
    inbox = Inbox(most_mails=3, most_bytes=10)
    for raw in (b"xxx", b"xxx", b"xxxx"):
        inbox.take(NOW, "", [], raw)
    assert len(inbox) == 3


def test_mails_may_come_in_while_somebody_reads_the_list() -> None:
    inbox = Inbox()
    inbox.take(NOW, "", [], b"")
    for _ in inbox:
        inbox.take(NOW, "", [], b"")
    assert len(inbox) == 2


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), [3, 2, 1]),
        (Filter(to="ANN"), [3, 1]),
        (Filter(subject="reset"), [2, 1]),
        (Filter(anywhere="reset"), [2, 1]),
        (Filter(anywhere="ann@"), [3, 1]),
        (Filter(after=1), [3, 2]),
        (Filter(before=3), [2, 1]),
        (Filter(to="ann", subject="reset", before=3), [1]),
        (Filter(anywhere="nobody"), []),
    ],
)
def test_a_filter_finds_what_was_asked_for(wanted: Filter, found: list[int]) -> None:
    inbox = Inbox()
    for to, subject in (("ann@x.test", "Reset it"), ("ben@x.test", "RESET"), ("ann@x.test", "Hello")):
        inbox.take(NOW, "", [to], f"Subject: {subject}\r\n\r\n".encode())
    assert [mail.id for mail in inbox if wanted.matches(mail)] == found
