"""What the sandbox keeps of text messages and pushes, and what its pages make of them. No I/O."""

import re
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.sandbox import fcm
from notifier.sandbox.desk import latest
from notifier.sandbox.numbers import NUMBERS
from notifier.sandbox.pages.rendering import host, linked
from notifier.sandbox.pushes import MOST_REFUSING, Push, Pushes
from notifier.sandbox.texts import Text, Texts, read_number

NOW = datetime(2026, 11, 23, 10, 41, tzinfo=UTC)
PAGE = Path(__file__).parents[2] / "docs/reference/sandbox.md"


def a_text(number: int, phone: str = "+4915112345678", *, is_inbound: bool = False) -> Text:
    return Text(f"SM{number:032x}", NOW, phone, "+15005550006", str(number), 1, is_inbound=is_inbound)


def a_push(number: int, device: str = "fid:a", tag: str = "") -> Push:
    return Push(number, NOW, device, tag, str(number), "")


# The stores -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40), st.integers(1, 10))
def test_the_newest_texts_stay_and_each_phone_has_its_own(sent: list[tuple[str, bool]], most: int) -> None:
    texts = Texts(most=most)
    made = [texts.keep(a_text(n, phone, is_inbound=typed)) for n, (phone, typed) in enumerate(sent)]
    kept = made[-most:] if made else []
    assert list(texts) == kept[::-1]
    assert texts.taken == sum(not typed for _, typed in sent)
    for phone in "abc":
        assert texts.thread(phone) == [text for text in kept if text.phone == phone]
    assert texts.clear() == len(kept)
    assert list(texts) == []


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", "x", "y"])), max_size=40), st.integers(1, 10))
def test_a_screen_shows_the_last_of_each_tag_and_all_without_one(sent: list[tuple[str, str]], most: int) -> None:
    pushes = Pushes(most=most)
    for number, (device, tag) in enumerate(sent):
        pushes.keep(a_push(number, device, tag))
    for device in "ab":
        kept = [push for push in pushes if push.device == device]
        shown = pushes.screen(device)
        assert shown == [push for push in kept if not push.tag or push is next(p for p in kept if p.tag == push.tag)]
    assert len(pushes) == min(len(sent), most)


def test_refusals_are_counted_by_device_and_the_oldest_make_room() -> None:
    pushes = Pushes()
    for device in ["a", "a", *map(str, range(MOST_REFUSING - 1))]:
        pushes.refuse(device)
    assert (pushes.refused("a"), pushes.refused("0"), pushes.refused("nobody")) == (2, 1, 0)
    pushes.refuse("another")
    assert (pushes.refused("a"), pushes.refused("0")) == (0, 1)


def test_texts_may_come_in_while_somebody_reads_them() -> None:
    texts = Texts()
    texts.keep(a_text(1))
    for _ in texts:
        texts.keep(a_text(2))
    assert len(texts) == 2


def test_the_latest_of_each_stands_with_how_many_there_are() -> None:
    texts = [a_text(3, "a"), a_text(2, "b"), a_text(1, "a")]
    assert latest(texts, lambda text: text.phone) == [(texts[0], 2), (texts[1], 1)]
    assert latest([], str) == []


# What people type -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        ("+4915112345678", "+4915112345678"),
        (" +49 (151) 123-45.678/9 ", "+49151123456789"),
        ("+15005550006", "+15005550006"),
        ("+\u00a049151\u200912345678", "+4915112345678"),
        ("015112345678", None),
        ("+0151123456", None),
        ("+491511234567890123", None),
        ("+49151", None),
        ("+49151x2345678", None),
        ("+4915112345678\n<b>", None),
        ("+٤٩١٥١١٢٣٤٥٦٧٨", None),
        ("", None),
    ],
)
def test_a_number_is_read_as_people_write_it(typed: str, number: str | None) -> None:
    assert read_number(typed) == number


# What becomes of a text on the page -----------------------------------------------------------------------------------


@given(st.text(alphabet="ab<>&\"' :/.htps"))
def test_a_text_is_the_same_with_and_without_its_links(text: str) -> None:
    anchors = re.compile(r'<a href="[^"<>]*" target="_blank" rel="noopener noreferrer">|</a>')
    assert unescape(anchors.sub("", linked(text))) == text


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("Go to https://x.test/a?b=1.", ["https://x.test/a?b=1"]),
        ("(http://x.test/a), https://y.test!", ["http://x.test/a", "https://y.test"]),
        ("javascript:alert(1) data:text/html,x ftp://x.test", []),
        ("https://", []),
    ],
)
def test_only_addresses_of_the_web_become_links(text: str, urls: list[str]) -> None:
    shown = linked(text)
    assert [part.partition('"')[0] for part in shown.split('<a href="')[1:]] == urls


def test_markup_in_and_around_a_link_stays_text() -> None:
    assert "<b>" not in linked("<b>https://x.test/<b>\"'&</b>")
    assert 'href="https://x.test/&#39;onclick"' in linked("https://x.test/'onclick")


@pytest.mark.parametrize(("url", "name"), [("https://a.test/x.png", "a.test"), ("https://[", "https://["), ("x", "x")])
def test_a_picture_is_named_by_its_host(url: str, name: str) -> None:
    assert host(url) == name


# The page about it ----------------------------------------------------------------------------------------------------


def test_the_page_lists_every_simulated_number_and_device_as_it_is() -> None:
    page = PAGE.read_text()
    rows = [f"| `{number.e164}` | {number.does} | {number.then} |" for number in NUMBERS]
    rows += [f"| `{one.name}-` | {one.does} | {one.then} |" for one in fcm.SIMULATORS]
    assert [row for row in rows if row not in page] == []
    assert page.count("\n| `+1") == len(NUMBERS)
