"""A mail comes to one of our own addresses: what it changes, for whom, how often, and what it never does."""

from __future__ import annotations

from datetime import timedelta

import pytest
import structlog
from structlog.testing import capture_logs

from notifier.dispatch.feedback import Feedback
from notifier.dispatch.inbound import Came, Inbound
from notifier.domain.feedback import Tolerance
from notifier.domain.tokens import Links
from notifier.store import inbound as stored
from notifier_channels.contract import Channel
from tests.servers.bounces import RETURNED, au, mail, note, plain, postfix, status
from tests.servers.town import HASHER, TOPICS, Town, new_id

pytestmark = pytest.mark.anyio

KEYS = {"k1": b"a key for tests, of thirty-two bytes"}
LINKS = Links(KEYS, "https://acme.test", "in.acme.test")
FORGED = Links({"k1": b"another key, of thirty-two bytes or so"}, "https://acme.test", "in.acme.test")
GONE = postfix("550 5.1.1 User unknown", "5.1.1")
FULL = postfix("552 5.2.2 mailbox full", "5.2.2")
APPLE = plain(
    "From: Ann <ann@one.test>\nSubject: \nMessage-Id: <m1@one.test>\nDate: Mon, 23 Nov 2026 10:00:00 +0100",
    "I no longer wish to receive these messages.",
)


def complaint(returned: bytes = RETURNED, feedback: str = "abuse") -> bytes:
    return mail(
        "From: fbl@example.net\nSubject: complaint",
        ("text/plain", "A complaint."),
        ("message/feedback-report", f"Feedback-Type: {feedback}\nVersion: 1\n"),
        ("message/rfc822", returned),
        kind="report; report-type=feedback-report",
    )


@pytest.fixture
async def town(database) -> Town:
    return Town(database)


@pytest.fixture
async def inbound(database) -> Inbound:
    return Inbound(database, LINKS, HASHER, TOPICS, Feedback(database, HASHER, TOPICS))


async def sent(town: Town, email: str = "ann@one.test", topic: str = "newsletter", state: str = "accepted"):
    """A person, a message to them, and where its bounces come."""
    person = await town.person(email)
    message = await town.message(person, topic, state)
    return person, message, LINKS.return_path(message, 1)


async def suppressed(town: Town) -> list[str]:
    return [row["reason"] for row in await town.rows("SELECT reason FROM suppressions ORDER BY number")]


async def everything(town: Town) -> list:
    tables = ("consent_events", "suppressions", "delivery_events", "inbound_mails")
    return [await town.rows(f"SELECT * FROM {table}") for table in tables]


# Bounces and complaints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["accepted", "delivered", "unknown"])
async def test_a_bounce_moves_its_message_and_a_dead_address_is_suppressed(inbound, town, state):
    _, message, path = await sent(town, state=state)
    assert await inbound(GONE, path) is Came.REPORT
    assert await town.state(message) == "bounced"
    assert await town.rows("SELECT reason FROM messages WHERE id = %s", (message,)) == [{"reason": "bounced:550 5.1.1"}]
    assert await suppressed(town) == ["hard_bounce"]


@pytest.mark.parametrize("raw", [FULL, postfix("550 5.1.1 blocked for spam", "5.1.1"), note("It is undeliverable.")])
async def test_a_blameless_address_is_not_suppressed(inbound, town, raw):
    _, message, path = await sent(town)
    await inbound(raw, path)
    assert await town.state(message) == "bounced"
    assert await suppressed(town) == []


async def test_a_delay_moves_nothing(inbound, town):
    _, message, path = await sent(town)
    assert await inbound(postfix("450 4.2.2 full", "4.2.2", "delayed"), path) is Came.REPORT
    assert await town.state(message) == "accepted"
    assert len(await town.rows("SELECT 1 FROM delivery_events WHERE kind = 'deferred'")) == 1


async def test_the_same_mail_twice_is_one_report(inbound, town):
    _, _, path = await sent(town)
    for _ in range(3):
        await inbound(GONE, path)
    assert len(await town.rows("SELECT 1 FROM delivery_events")) == 1
    assert await suppressed(town) == ["hard_bounce"]


async def test_an_address_survives_a_server_that_changes_its_case(inbound, town):
    _, message, path = await sent(town)
    await inbound(GONE, f"<{path.upper()}>")
    assert await town.state(message) == "bounced"


async def test_whom_it_concerns_is_not_read_from_the_mail(inbound, town):
    _, message, path = await sent(town)
    _, other, _ = await sent(town, "bob@one.test")
    await inbound(GONE.replace(b"ann@example.com", b"bob@one.test"), path)
    assert (await town.state(message), await town.state(other)) == ("bounced", "accepted")


async def test_a_complaint_refuses_all_marketing_and_suppresses_the_address(inbound, town):
    ann, message, path = await sent(town)
    assert await inbound(complaint(), path) is Came.REPORT
    assert await town.state(message) == "complained"
    [line] = await town.ledger(ann)
    assert (line["scope"], line["channel"], line["granted"], line["source"]) == (
        "marketing",
        "email",
        False,
        "complaint",
    )
    assert await suppressed(town) == ["complaint"]


@pytest.mark.parametrize("feedback", ["not-spam", "auth-failure", "virus"])
async def test_a_report_that_is_no_complaint_changes_nothing(inbound, town, feedback):
    _, _, path = await sent(town)
    before = await everything(town)
    assert await inbound(complaint(feedback=feedback), path) is Came.NOTHING
    assert await everything(town) == before


async def test_a_feedback_loop_names_the_message_in_the_mail_that_it_returns(inbound, town):
    ann, message, path = await sent(town)
    header = f"Return-Path: <{path}>\n".encode()
    assert await inbound(complaint(header + RETURNED), "fbl@in.acme.test") is Came.REPORT
    assert await town.state(message) == "complained"
    assert len(await town.ledger(ann)) == 1


async def test_a_feedback_loop_that_names_two_messages_names_none(inbound, town):
    _, _, path = await sent(town)
    _, _, other = await sent(town, "bob@one.test")
    header = f"Return-Path: <{path}>\nX-Other: <{other}>\n".encode()
    assert await inbound(complaint(header + RETURNED), "fbl@in.acme.test") is Came.STRANGE


async def test_a_bounce_is_not_believed_without_a_signed_address_whatever_it_returns(inbound, town):
    _, message, path = await sent(town)
    raw = GONE.replace(RETURNED, f"Return-Path: <{path}>\n".encode() + RETURNED)
    assert await inbound(raw, "bounces@in.acme.test") is Came.STRANGE
    assert await town.state(message) == "accepted"


async def test_a_report_on_a_message_that_is_gone_is_taken_and_forgotten(inbound, town):
    assert await inbound(GONE, LINKS.return_path(new_id(), 1)) is Came.REPORT
    assert await town.rows("SELECT 1 FROM delivery_events") == []


# Strikes --------------------------------------------------------------------------------------------------------------

NO_DOMAIN = postfix("550 5.1.2 Bad destination system address", "5.1.2")
NO_REASON = postfix("554 Transaction failed", "5.0.0")


async def test_a_domain_that_is_not_found_suppresses_after_the_third_time(inbound, town):
    ann, first, _path = await sent(town)
    messages = [first, *[await town.message(ann) for _ in range(2)]]
    for number, message in enumerate(messages, 1):
        for _ in range(2):
            await inbound(NO_DOMAIN, LINKS.return_path(message, 1))
        assert await suppressed(town) == (["hard_bounce"] if number == 3 else [])


async def test_a_delivery_in_between_ends_the_count(inbound, town):
    ann, _, path = await sent(town)
    await inbound(NO_DOMAIN, path)
    await inbound(NO_DOMAIN, LINKS.return_path(await town.message(ann), 1))
    arrived = mail(
        "From: MAILER-DAEMON@x.test", ("text/plain", "x"), ("message/delivery-status", status("delivered", "2.1.5"))
    )
    await inbound(arrived, LINKS.return_path(await town.message(ann), 1))
    await inbound(NO_DOMAIN, LINKS.return_path(await town.message(ann), 1))
    assert await suppressed(town) == []


async def test_what_is_older_than_the_time_does_not_count(inbound, town):
    ann, _, path = await sent(town)
    await inbound(NO_DOMAIN, path)
    await town.execute("UPDATE delivery_events SET received_at = now() - interval '31 days'")
    for _ in range(2):
        await inbound(NO_DOMAIN, LINKS.return_path(await town.message(ann), 1))
    assert await suppressed(town) == []


async def test_bounces_of_others_do_not_count(inbound, town):
    for name in ("ann", "bob", "cyd"):
        _, _, path = await sent(town, f"{name}@one.test")
        await inbound(NO_DOMAIN, path)
    assert await suppressed(town) == []


async def test_bounces_without_a_reason_count_where_that_is_wanted(database, town):
    feedback = Feedback(database, HASHER, TOPICS, Tolerance(soft=2))
    strict = Inbound(database, LINKS, HASHER, TOPICS, feedback)
    ann, _, path = await sent(town)
    for raw in (NO_REASON, FULL, FULL):
        await strict(raw, LINKS.return_path(await town.message(ann), 1))
    assert await suppressed(town) == []
    await strict(NO_REASON, path)
    assert await suppressed(town) == ["hard_bounce"]


async def test_bounces_without_a_reason_never_suppress_by_default(inbound, town):
    ann, _, _ = await sent(town)
    for _ in range(12):
        await inbound(NO_REASON, LINKS.return_path(await town.message(ann), 1))
    assert await suppressed(town) == []


# Unsubscribe ----------------------------------------------------------------------------------------------------------


async def test_a_mail_to_the_unsubscribe_address_is_a_no_to_its_topic(inbound, town):
    ann = await town.person("ann@one.test")
    waiting = await town.message(ann, state="queued")
    assert await inbound(APPLE, LINKS.unsubscribe_mailto(ann, "newsletter"), "ann@one.test") is Came.REFUSAL
    [line] = await town.ledger(ann)
    assert (line["scope"], line["channel"], line["granted"], line["source"]) == (
        *("topic:newsletter", "email"),
        *(False, "mailto"),
    )
    assert await town.state(waiting) == "cancelled"


async def test_the_evidence_is_the_message_id_and_the_date_and_no_body(inbound, town):
    ann = await town.person("ann@one.test")
    await inbound(APPLE, LINKS.unsubscribe_mailto(ann, "newsletter"))
    [line] = await town.ledger(ann)
    assert line["evidence"].keys() == {"message_id", "date", "received_at", "allowed_before"}
    assert line["evidence"]["message_id"] == "<m1@one.test>"
    assert line["evidence"]["date"] == "Mon, 23 Nov 2026 10:00:00 +0100"


async def test_a_topic_that_has_vanished_refuses_all_marketing_and_a_mandatory_one_nothing(inbound, town):
    ann = await town.person("ann@one.test")
    assert await inbound(APPLE, LINKS.unsubscribe_mailto(ann, "security")) is Came.NOTHING
    assert await town.ledger(ann) == []
    await inbound(APPLE, LINKS.unsubscribe_mailto(ann, "a-topic-of-long-ago"))
    assert [line["scope"] for line in await town.ledger(ann)] == ["marketing"]


async def test_it_binds_everybody_who_holds_the_mailbox(inbound, town):
    ann, bob = await town.person("ann@one.test"), await town.person("ann@one.test")
    await inbound(APPLE, LINKS.unsubscribe_mailto(ann, "newsletter"))
    assert len(await town.ledger(ann, bob)) == 2


async def test_of_several_mailboxes_the_one_in_from_is_bound_if_it_is_theirs(inbound, town):
    ann = await town.person("ann@one.test", "shared@two.test")
    bob = await town.person("ann@one.test")
    cyd = await town.person("shared@two.test")
    await inbound(APPLE, LINKS.unsubscribe_mailto(ann, "newsletter"))
    assert [len(await town.ledger(one)) for one in (ann, bob, cyd)] == [1, 1, 0]


async def test_a_mailbox_in_from_that_is_not_theirs_binds_nobody_else(inbound, town):
    ann = await town.person("one@one.test", "two@two.test")
    dan = await town.person("dan@one.test")
    raw = APPLE.replace(b"ann@one.test", b"dan@one.test")
    assert await inbound(raw, LINKS.unsubscribe_mailto(ann, "newsletter")) is Came.REFUSAL
    assert [len(await town.ledger(one)) for one in (ann, dan)] == [1, 0]


async def test_one_who_was_adopted_is_bound_as_who_they_are_now(inbound, town):
    ann = await town.person("ann@one.test")
    nameless = await town.person(merged_into=ann)
    await inbound(APPLE, LINKS.unsubscribe_mailto(nameless, "newsletter"))
    assert len(await town.ledger(ann)) == 1


async def test_a_mail_that_comes_twice_does_not_undo_a_later_yes(inbound, town):
    ann = await town.person("ann@one.test")
    address = LINKS.unsubscribe_mailto(ann, "newsletter")
    await inbound(APPLE, address)
    await town.execute(
        "INSERT INTO consent_events (recipient_id, scope, channel, granted, occurred_at, source)"
        " VALUES (%s, 'topic:newsletter', 'email', true, clock_timestamp(), 'api')",
        (ann,),
    )
    assert await inbound(APPLE, address) is Came.REPEATED
    assert [line["granted"] for line in await town.ledger(ann)] == [False, True]


async def test_another_persons_mail_of_the_same_bytes_counts_for_them(inbound, town):
    ann, bob = await town.person("ann@one.test"), await town.person("bob@one.test")
    for person in (ann, bob):
        assert await inbound(APPLE, LINKS.unsubscribe_mailto(person, "newsletter")) is Came.REFUSAL


async def test_one_mail_to_the_addresses_of_two_topics_leaves_both(inbound, town):
    ann = await town.person("ann@one.test")
    addresses = [LINKS.unsubscribe_mailto(ann, topic) for topic in ("newsletter", "offers")]
    assert [await inbound(APPLE, address) for address in addresses] == [Came.REFUSAL] * 2
    assert [line["scope"] for line in await town.ledger(ann)] == ["topic:newsletter", "topic:offers"]
    assert [await inbound(APPLE, address) for address in addresses] == [Came.REPEATED] * 2


async def test_nobody_known_is_taken_and_forgotten(inbound, town):
    assert await inbound(APPLE, LINKS.unsubscribe_mailto(new_id(), "newsletter")) is Came.REFUSAL
    assert await town.ledger() == []


@pytest.mark.parametrize(
    ("raw", "sender"),
    [
        (APPLE, ""),
        (APPLE, "<>"),
        (APPLE.replace(b"Subject: ", b"Auto-Submitted: auto-replied\nSubject: "), "ann@one.test"),
        (APPLE.replace(b"Subject: ", b"Precedence: bulk\nSubject: "), "ann@one.test"),
        (APPLE.replace(b"Subject: ", b"X-Autoreply: yes\nSubject: "), None),
        (GONE, ""),
        (au("User unknown").replace(b"Postmaster@", b"MAILER-DAEMON@"), None),
        (complaint(), None),
    ],
)
async def test_loops_and_automatic_answers_unsubscribe_nobody(inbound, town, raw, sender):
    ann = await town.person("ann@one.test")
    before = await everything(town)
    assert await inbound(raw, LINKS.unsubscribe_mailto(ann, "newsletter"), sender) is Came.NOTHING
    assert await everything(town) == before


# Forged ---------------------------------------------------------------------------------------------------------------


async def test_no_changed_character_of_an_address_is_believed(inbound, town):
    ann, message, path = await sent(town)
    before = await everything(town)
    for address, raw in ((path, GONE), (LINKS.unsubscribe_mailto(ann, "newsletter"), APPLE)):
        local, _, domain = address.partition("@")
        for at in range(2, len(local)):
            other = "a" if local[at] != "a" else "b"
            assert await inbound(raw, f"{local[:at]}{other}{local[at + 1 :]}@{domain}") is Came.STRANGE
    assert await everything(town) == before
    assert await town.state(message) == "accepted"


async def test_what_another_key_signed_changes_nothing(inbound, town):
    ann, message, _ = await sent(town)
    before = await everything(town)
    for address in (FORGED.return_path(message, 1), FORGED.unsubscribe_mailto(ann, "newsletter")):
        for raw in (GONE, APPLE, complaint()):
            assert await inbound(raw, address) is Came.STRANGE
    header = f"Return-Path: <{FORGED.return_path(message, 1)}>\n".encode()
    assert await inbound(complaint(header), "fbl@in.acme.test") is Came.STRANGE
    assert await everything(town) == before


async def test_a_token_for_one_purpose_is_of_no_use_for_another(inbound, town):
    ann, message, path = await sent(town)
    swapped = "u" + path[1:]
    assert await inbound(APPLE, swapped) is Came.STRANGE
    assert await inbound(GONE, LINKS.unsubscribe_mailto(ann, "newsletter")) is Came.NOTHING
    link = LINKS.unsubscribe_url(ann, "newsletter", Channel.EMAIL, message).rpartition("/")[2]
    assert await inbound(APPLE, f"{link}@in.acme.test") is Came.STRANGE


@pytest.mark.parametrize(
    "recipient", ["", "@", "b-@in.acme.test", "u-", "postmaster@in.acme.test", "\0", "b-" + "é" * 50]
)
async def test_a_strange_recipient_is_strange(inbound, recipient):
    assert await inbound(GONE, recipient) is Came.STRANGE


# The log and the memory -----------------------------------------------------------------------------------------------


async def test_the_log_counts_and_names_nobody(inbound, town):
    ann, message, path = await sent(town)
    structlog.reset_defaults()
    with capture_logs() as logs:
        await inbound(GONE, path)
        await inbound(APPLE, LINKS.unsubscribe_mailto(ann, "newsletter"))
        await inbound(APPLE, FORGED.return_path(message, 1))
    assert [(line["event"], line["came"], line["why"]) for line in logs] == [
        ("inbound.taken", "report", "dead"),
        ("inbound.taken", "refusal", "topic:newsletter"),
        ("inbound.taken", "strange", "unsigned"),
    ]
    assert not any(secret in str(logs) for secret in ("one.test", path.partition("@")[0], str(ann), str(message)))


async def test_hashes_of_mails_are_forgotten_after_a_week(inbound, town):
    ann = await town.person("ann@one.test")
    await inbound(APPLE, LINKS.unsubscribe_mailto(ann, "newsletter"))
    await town.execute("UPDATE inbound_mails SET received_at = now() - %s", (timedelta(days=6),))
    async with town.database.connection() as c:
        assert await stored.forget(c) == 0
        await town.execute("UPDATE inbound_mails SET received_at = now() - %s", (timedelta(days=8),))
        assert await stored.forget(c) == 1
