"""A token is accepted exactly when one of our keys signed it, whole, for this purpose, in time."""

import base64
import hmac
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from notifier.domain.tokens import LONGEST, ConfirmLink, Links, MailOptOut, ManageLink, OptOutLink, ReturnPath, UndoLink
from notifier.errors import NotConfigured
from notifier_channels.contract import Channel

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEYS = {"2026": b"n" * 32}
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

ids = st.uuids()
topics = st.from_regex(r"[a-z0-9][a-z0-9-]{0,60}", fullmatch=True)
channels = st.sampled_from(Channel)


def links(keys: dict[str, bytes] = KEYS) -> Links:
    return Links(keys, "https://n.example/", "in.example")


def token_of(url: str) -> str:
    return url.rpartition("/u/")[2]


def local_part(address: str | None) -> str:
    assert address is not None
    return address.partition("@")[0]


@given(ids, topics, channels, ids)
def test_an_unsubscribe_url_says_who_what_and_where_and_no_more(recipient, topic, channel, message):
    url = links().unsubscribe_url(recipient, topic, channel, message)
    assert url.startswith("https://n.example/u/v1.2026.")
    assert set(token_of(url)) <= set(BASE64 + ".")
    assert len(url) < 300
    century_later = NOW + timedelta(days=36_500)
    assert links().read_page(token_of(url), century_later) == OptOutLink(recipient, message, channel, topic)


@given(st.binary(min_size=1, max_size=200), ids, ids)
def test_what_a_key_of_any_length_signs_is_what_hmac_says(secret, recipient, message):
    made = links({"k": secret})
    signed, _, mac = token_of(made.unsubscribe_url(recipient, "newsletter", Channel.EMAIL, message)).rpartition(".")
    genuine = hmac.digest(secret, b"notifier link\0" + signed.encode(), "sha256")[:24]
    assert mac == base64.urlsafe_b64encode(genuine).decode()
    assert made.read_mail(local_part(made.return_path(message, 1))) == ReturnPath(message, 1)


@given(st.data(), ids, topics, channels, ids)
def test_no_flipped_bit_is_accepted(data, recipient, topic, channel, message):
    token = token_of(links().unsubscribe_url(recipient, topic, channel, message)).encode()
    bit = data.draw(st.integers(0, len(token) * 8 - 1))
    flipped = bytearray(token)
    flipped[bit // 8] ^= 1 << bit % 8
    assert links().read_page(flipped.decode("latin-1"), NOW) is None


def test_no_flipped_bit_of_any_kind_of_token_is_accepted():
    made = links()
    url = token_of(made.unsubscribe_url(UUID(int=1), "newsletter", Channel.EMAIL, UUID(int=2)))
    manage = token_of(made.preferences_url(UUID(int=1), UUID(int=2), NOW))
    undo = made.undo_token(UUID(int=1), [7, 8], NOW)
    fresh = token_of(made.fresh_url(UUID(int=1), NOW))
    pages = ((token, made.read_page) for token in (url, manage, fresh))
    for token, read in (*pages, (undo, made.read_undo)):
        assert read(token, NOW) is not None
        for bit in range(len(token) * 8):
            flipped = bytearray(token.encode())
            flipped[bit // 8] ^= 1 << bit % 8
            assert read(flipped.decode("latin-1"), NOW) is None, bit


@pytest.mark.parametrize("kind", ["u", "b"])
def test_no_changed_letter_of_a_mail_token_is_accepted(kind):
    made = links()
    address = made.unsubscribe_mailto(UUID(int=1), "newsletter") if kind == "u" else made.return_path(UUID(int=1), 1)
    local = local_part(address)
    assert made.read_mail(local) is not None
    for at in range(len(local)):
        for letter in "abcdefghijklmnopqrstuvwxyz234567-=1890":
            changed = local[:at] + letter + local[at + 1 :]
            assert changed == local or made.read_mail(changed) is None, changed


@given(st.text())
@example("\ud800")
def test_whatever_stands_before_the_at_is_no_token_and_no_error(text):
    """Also half of a surrogate pair, which JSON and SMTPUTF8 may bring."""
    assert links().read_mail(text) is None
    assert links().read_mail(f"{text}-aaaa") is None


@given(st.tuples(ids, topics, channels, ids), st.tuples(ids, topics, channels, ids))
def test_parts_of_two_tokens_do_not_make_a_third(one, other):
    made = links({"a": b"a" * 32})
    rotated = links({"b": b"b" * 32, "a": b"a" * 32})
    first = token_of(made.unsubscribe_url(*one)).split(".")
    second = token_of(rotated.unsubscribe_url(*other)).split(".")
    assume(first[2] != second[2])
    for mask in range(1, 15):
        mixed = [first[part] if mask >> part & 1 else second[part] for part in range(4)]
        if mixed not in (first, second):
            assert rotated.read_page(".".join(mixed), NOW) is None


@given(ids, topics, ids)
def test_after_three_rotations_every_old_token_still_works_and_a_removed_key_verifies_nothing(
    recipient, topic, message
):
    ring: dict[str, bytes] = {}
    old: list[tuple[str, str, str]] = []
    for key_id in ("k1", "k2", "k3", "k4"):
        ring = {key_id: key_id.encode() * 16, **ring}
        made = links(ring)
        old.append(
            (
                token_of(made.unsubscribe_url(recipient, topic, Channel.EMAIL, message)),
                local_part(made.unsubscribe_mailto(recipient, topic)),
                local_part(made.return_path(message, 3)),
            )
        )
    for page, mailto, verp in old:
        assert links(ring).read_page(page, NOW) == OptOutLink(recipient, message, Channel.EMAIL, topic)
        assert isinstance(links(ring).read_mail(mailto), MailOptOut)
        assert links(ring).read_mail(verp) == ReturnPath(message, 3)
    without_the_first = links({key_id: secret for key_id, secret in ring.items() if key_id != "k1"})
    page, mailto, verp = old[0]
    assert without_the_first.read_page(page, NOW) is None
    assert without_the_first.read_mail(mailto) is None
    assert without_the_first.read_mail(verp) is None


def test_a_key_id_cannot_be_claimed_by_another_secret():
    token = token_of(links({"k": b"x" * 32}).unsubscribe_url(UUID(int=1), "t", Channel.EMAIL, UUID(int=2)))
    assert links({"k": b"y" * 32}).read_page(token, NOW) is None
    assert links({"other": b"x" * 32}).read_page(token, NOW) is None


def test_a_token_without_a_secret_is_not_signed_by_an_unknown_key():
    empty = Links({"ghost": b""}, "https://n.example", None)
    token = token_of(empty.unsubscribe_url(UUID(int=1), "t", Channel.EMAIL, UUID(int=2)))
    assert links().read_page(token, NOW) is None


def test_each_purpose_reads_only_its_own_tokens():
    made = links()
    opt_out = token_of(made.unsubscribe_url(UUID(int=1), "newsletter", Channel.EMAIL, UUID(int=2)))
    manage = token_of(made.preferences_url(UUID(int=1), UUID(int=2), NOW))
    undo = made.undo_token(UUID(int=1), [5], NOW)
    assert made.read_page(undo, NOW) is None
    assert made.read_undo(opt_out, NOW) is None
    assert made.read_undo(manage, NOW) is None
    mailto, verp = local_part(made.unsubscribe_mailto(UUID(int=1), "t")), local_part(made.return_path(UUID(int=1), 1))
    assert made.read_mail("b" + mailto[1:]) is None
    assert made.read_mail("u" + verp[1:]) is None


def test_what_reduces_lasts_for_ever_and_what_does_not_ends():
    made = links()
    manage = token_of(made.preferences_url(UUID(int=1), UUID(int=2), NOW))
    assert made.read_page(manage, NOW) == ManageLink(UUID(int=1), NOW + timedelta(days=30), UUID(int=2))
    assert made.read_page(manage, NOW + timedelta(days=30)) is None
    undo = made.undo_token(UUID(int=1), [5, 9], NOW)
    assert made.read_undo(undo, NOW) == UndoLink(UUID(int=1), (5, 9), NOW + timedelta(hours=1))
    assert made.read_undo(undo, NOW + timedelta(hours=1)) is None


def test_only_a_link_that_was_asked_for_is_fresh_and_only_for_an_hour():
    made = links()
    asked = made.read_page(token_of(made.fresh_url(UUID(int=1), NOW)), NOW)
    assert asked == ManageLink(UUID(int=1), NOW + timedelta(days=30), was_asked_for=True)
    assert asked.is_fresh(NOW + timedelta(minutes=59))
    assert not asked.is_fresh(NOW + timedelta(hours=1))
    in_a_foot = made.read_page(token_of(made.preferences_url(UUID(int=1), UUID(int=2), NOW)), NOW)
    assert isinstance(in_a_foot, ManageLink)
    assert not in_a_foot.is_fresh(NOW)


def test_a_link_of_before_that_names_no_message_still_opens_the_page_and_is_not_fresh():
    made = links()
    ends = NOW + timedelta(days=30)
    token = made._sign(b"m" + UUID(int=1).bytes + int(ends.timestamp()).to_bytes(8, "big"))
    link = made.read_page(token, NOW)
    assert link == ManageLink(UUID(int=1), ends)
    assert not link.is_fresh(NOW)


@given(ids, st.lists(st.integers(1, 2**62), max_size=200))
def test_an_undo_names_exactly_its_ledger_lines(recipient, numbers):
    token = links().undo_token(recipient, numbers, NOW)
    assert len(token) < LONGEST
    undo = links().read_undo(token, NOW)
    assert undo is not None
    assert undo.numbers == tuple(numbers)


@given(ids, topics, st.integers(1, 99))
def test_mail_tokens_fit_a_local_part_and_survive_any_case(recipient, topic, attempt):
    mailto = local_part(links().unsubscribe_mailto(recipient, topic))
    verp = local_part(links().return_path(recipient, attempt))
    assert max(len(mailto), len(verp)) <= 64
    assert mailto == mailto.lower()
    assert links().read_mail(verp.upper()) == ReturnPath(recipient, attempt)
    opt_out = links().read_mail(mailto.swapcase())
    assert isinstance(opt_out, MailOptOut)
    assert opt_out.recipient == recipient
    assert opt_out.topic_among(["another", topic]) == topic
    assert opt_out.topic_among([topic + "-gone"]) is None


@given(st.text(max_size=200))
def test_text_from_anywhere_is_no_token(text):
    assert links().read_page(text, NOW) is None
    assert links().read_page(f"v1.2026.{text}", NOW) is None
    assert links().read_undo(text, NOW) is None
    assert links().read_mail(text) is None
    assert links().read_mail(f"u-{text}") is None


def test_without_an_inbound_domain_no_mail_address_is_promised():
    made = Links(KEYS, "https://n.example", None)
    assert made.unsubscribe_mailto(UUID(int=1), "t") is None
    assert made.return_path(UUID(int=1), 1) is None


@pytest.mark.parametrize("key_id", ["", "a.b", "x" * 17, "a/b"])
def test_a_key_id_that_would_break_a_token_is_refused_at_start(key_id):
    with pytest.raises(NotConfigured, match="NOTIFIER_LINK_KEYS"):
        Links({key_id: b"x" * 32}, "https://n.example", None)


def test_a_reference_travels_in_a_header_and_is_that_of_the_return_path():
    made = Links(KEYS, "https://n.example", "in.example", "X-Ref: notifier={reference}")
    header = made.reference_header(UUID(int=7), 3)
    assert header is not None
    name, _, reference = header.partition("=")
    assert name == "X-Ref: notifier"
    assert made.read_mail(reference) == ReturnPath(UUID(int=7), 3)
    assert made.return_path(UUID(int=7), 3) == f"{reference}@in.example"
    assert len(reference) <= 80  # Postmark's limit for a value of metadata
    assert links().reference_header(UUID(int=7), 3) is None


# A confirmation -------------------------------------------------------------------------------------------------------

SOON = NOW + timedelta(days=7)
asks = st.builds(
    ConfirmLink,
    confirmation=ids,
    recipient=ids,
    channel=channels,
    address_hash=st.binary(min_size=16, max_size=16),
    topic=topics,
    expires_at=st.just(SOON),
)
ASK = ConfirmLink(UUID(int=1), UUID(int=2), Channel.EMAIL, b"h" * 16, "newsletter", SOON)


def ask_token(link: ConfirmLink, made: Links | None = None) -> str:
    return (made or links()).confirm_url(link).rpartition("/c/")[2]


@given(asks)
def test_a_confirm_url_says_what_is_asked_for_seven_days(link):
    token = ask_token(link)
    assert set(token) <= set(BASE64 + ".")
    assert len(token) < 300
    assert links().read_confirm(token, NOW) == link
    assert links().read_confirm(token, SOON - timedelta(seconds=1)) == link
    assert links().read_confirm(token, SOON) is None


def test_no_flipped_bit_of_a_confirm_token_is_accepted():
    token = ask_token(ASK)
    for bit in range(len(token) * 8):
        flipped = bytearray(token.encode())
        flipped[bit // 8] ^= 1 << bit % 8
        assert links().read_confirm(flipped.decode("latin-1"), NOW) is None, bit


@given(asks, asks)
def test_parts_of_two_confirm_tokens_do_not_make_a_third(one, other):
    rotated = links({"b": b"b" * 32, "a": b"a" * 32})
    first, second = ask_token(one, links({"a": b"a" * 32})).split("."), ask_token(other, rotated).split(".")
    assume(first[2] != second[2])
    for mask in range(1, 15):
        mixed = [first[part] if mask >> part & 1 else second[part] for part in range(4)]
        if mixed not in (first, second):
            assert rotated.read_confirm(".".join(mixed), NOW) is None


@given(asks, ids, topics)
def test_a_confirm_token_confirms_and_nothing_else_does(link, message, topic):
    made = links()
    token = ask_token(link)
    assert made.read_page(token, NOW) is None
    assert made.read_undo(token, NOW) is None
    assert made.read_report(token) is None
    for other in (
        token_of(made.unsubscribe_url(link.recipient, topic, link.channel, message)),
        token_of(made.unsubscribe_url(link.recipient, "a-topic-with-a-long-key-" * 3, link.channel, message)),
        token_of(made.preferences_url(link.recipient, message, NOW)),
        made.undo_token(link.recipient, [1, 2, 3, 4, 5], NOW),
    ):
        assert made.read_confirm(other, NOW) is None


@given(asks)
def test_a_confirm_token_outlives_a_rotation_and_not_its_key(link):
    token = ask_token(link, links({"a": b"a" * 32}))
    assert links({"b": b"b" * 32, "a": b"a" * 32}).read_confirm(token, NOW) == link
    assert links({"b": b"b" * 32}).read_confirm(token, NOW) is None
    assert links({"a": b"b" * 32}).read_confirm(token, NOW) is None


@given(st.text(max_size=200))
def test_text_from_anywhere_confirms_nothing(text):
    assert links().read_confirm(text, NOW) is None
    assert links().read_confirm(f"v1.2026.{text}", NOW) is None
