"""The preference page over a real socket: what a link may do, what a form changes, what the ledger then says."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from notifier.dispatch.preferences import PreferencePage
from notifier.store.preferences import choose
from notifier.web.pages import Brand, Pages
from tests.servers.service import Response, Service, path_of, running
from tests.servers.town import new_id

pytestmark = pytest.mark.anyio

FORM = {"Content_Type": "application/x-www-form-urlencoded"}
SHIPPED = Path(__file__).parents[2] / "templates"
OLD = timedelta(hours=1, minutes=1)
NEWS, LETTER = "topic:product-news/email", "topic:newsletter/email"


@pytest.fixture
async def service(anyio_backend, database_url, tmp_path) -> AsyncIterator[Service]:
    async with running(database_url, tmp_path, templates_dir=SHIPPED, **TWILIO) as service:
        yield service


TWILIO = {
    "twilio_account_sid": "AC" + "0" * 32,
    "twilio_auth_tokens": "x" * 32,
    "twilio_sender": "+4930123456",
}


@pytest.fixture
async def ann(service: Service) -> UUID:
    return await service.town.person("ann@one.test", locale="en")


def manage(service: Service, person: UUID, age: timedelta = timedelta()) -> str:
    """The path of a manage link that was asked for and mailed so long ago."""
    return path_of(service.app.links.fresh_url(person, datetime.now(UTC) - age))


def foot(service: Service, person: UUID, message: UUID, age: timedelta = timedelta()) -> str:
    """The path of the link in the foot of a message that was sent so long ago."""
    return path_of(service.app.links.preferences_url(person, message, datetime.now(UTC) - age))


Fields = list[tuple[str, str]]


def form_of(page: Response) -> Fields:
    """What a browser would post if the person pressed Save and had touched nothing."""
    form = re.search(r'<form method="post" class="settings".*?</form>', page.text, re.DOTALL)[0]
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form)
    boxes = re.findall(r'<input type="(?:checkbox|radio)"(?: id="[^"]*")? name="(\w+)" value="([^"]*)"([^>]*)>', form)
    fields += [(name, value) for name, value, more in boxes if "checked" in more and "disabled" not in more]
    for name, options in re.findall(r'<select id="\w+" name="(\w+)">(.*?)</select>', form, re.DOTALL):
        fields += [(name, value) for value in re.findall(r'<option value="([^"]*)"[^>]* selected', options)]
    return [(name, html.unescape(value)) for name, value in fields]


def touched(form: Fields, *, on: Sequence[str] = (), off: Sequence[str] = (), **chosen: str) -> Fields:
    """The form after the person ticked, unticked and chose. A wide switch is ticked to stop it."""
    kept = [(name, value) for name, value in form if not (name in ("on", "stop") and value in [*on, *off])]
    kept = [(name, chosen.get(name, value)) for name, value in kept]
    ticks = [("on", key) for key in on if key.startswith("topic:")]
    return kept + ticks + [("stop", key) for key in off if not key.startswith("topic:")]


async def post(service: Service, path: str, fields: Fields) -> Response:
    return await service.ask("POST", path, urlencode(fields).encode(), **FORM)


async def save(service: Service, path: str, **changes) -> Response:
    return await post(service, path, touched(form_of(await service.ask("GET", path)), **changes))


async def lines(service: Service, *people: UUID) -> list[tuple[str, str, bool]]:
    return [(line["scope"], line["channel"], line["granted"]) for line in await service.town.ledger(*people)]


async def profile(service: Service, person: UUID):
    [row] = await service.town.rows("SELECT locale, timezone, snoozed_until FROM recipients WHERE id = %s", (person,))
    return row


# What is shown


async def test_the_page_shows_the_topics_on_the_channels_that_reach_the_person_and_no_address(service, ann):
    page = await service.ask("GET", manage(service, ann))
    assert page.status == 200
    assert set(re.findall(r'name="on" value="(\S+)"', page.text)) == {LETTER, NEWS, "topic:orders/email"}
    assert re.findall(r'name="on" value="(\S+)" checked', page.text) == [NEWS, "topic:orders/email"]
    assert "a…@o….test" in page.text
    assert "Security and sign-in" in page.text
    assert "they cannot be switched off" in page.text
    assert not re.search(r"<script|<link|<img|\son\w+=|\sstyle=|https?://|ann@one", page.text)
    await service.town.phone(ann, "+4930123456")
    page = await service.ask("GET", manage(service, ann))
    assert 'value="topic:product-news/sms"' in page.text
    assert 'value="topic:newsletter/sms"' not in page.text
    assert "+49…56" in page.text
    assert "set-cookie" not in page.headers
    policy = page.headers["content-security-policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-\S+'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        policy,
    )
    assert page.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "it", "ar"])
async def test_the_page_speaks_the_persons_language_throughout(service, language):
    person = await service.town.person("x@one.test", locale=language)
    page = await service.ask("GET", manage(service, person), Accept_Language="pt")
    assert page.headers["content-language"] == language
    topic = service.app.templates.topics["product-news"]
    assert topic.names[language] in html.unescape(page.text)
    assert topic.descriptions[language] in html.unescape(page.text)


async def test_whoever_looks_and_follows_links_changes_nothing(service, ann):
    path = manage(service, ann)
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"):
        for suffix in ("", "/", "?preferences=1&stop=all/any&shown=all/any=on", "?fresh=1", "?export=1"):
            response = await service.ask(method, path + suffix, Accept="text/html", User_Agent="scanner")
            assert response.status in (200, 204, 405)
            assert "content-disposition" not in response.headers
    assert await service.town.ledger() == []
    assert await service.town.rows("SELECT 1 FROM messages") == []


async def test_a_link_of_nobody_looks_like_no_link_whatever_is_posted(service):
    nothing = (await service.ask("GET", "/u/nothing")).body
    nobody = manage(service, new_id())
    for fields in ([("preferences", "1"), ("stop", "all/any"), ("shown", "all/any=on")], [("export", "1")], []):
        answer = await post(service, nobody, fields)
        assert (answer.status, answer.body) == (404, nothing)
    assert (await service.ask("GET", nobody)).body == nothing


async def test_an_adopted_persons_link_leads_to_who_adopted_them(service, ann):
    path = manage(service, await service.town.person(merged_into=ann))
    assert (await save(service, path, off=[NEWS])).status == 200
    assert await lines(service, ann) == [("topic:product-news", "email", False)]


# What is changed


async def test_a_switch_that_is_turned_off_is_a_no_with_its_proof_and_stops_what_waits(service, ann):
    waiting = await service.town.message(ann, "product-news", "queued")
    done = await save(service, manage(service, ann, OLD), off=[NEWS])
    assert done.status == 200
    assert re.search(r'role="status">\s*<h2>Saved</h2>', done.text)
    assert "Product news · Email</bdi></strong>: off" in done.text
    [line] = await service.town.ledger()
    assert (line["scope"], line["channel"], line["source"]) == ("topic:product-news", "email", "preference_page")
    version = Pages(Brand("", "")).words(["en"]).version
    proof = {"link": "manage", "wording": "Product news · Email", "wording_version": f"en:{version}"}
    ends = {"link_expires_at": line["evidence"]["link_expires_at"]}
    assert line["evidence"] == {**proof, **ends, "ip": "127.0.0.0/24", "allowed_before": True}
    assert await service.town.state(waiting) == "cancelled"
    again = await save(service, manage(service, ann, OLD))
    assert "Nothing was changed" in again.text
    assert len(await service.town.ledger()) == 1


async def test_a_topic_that_is_turned_on_is_a_grant_that_names_the_channel(service, ann):
    done = await save(service, manage(service, ann), on=[LETTER])
    assert done.status == 200
    [line] = await service.town.ledger()
    assert (line["scope"], line["channel"], line["granted"]) == ("topic:newsletter", "email", True)
    assert (line["source"], line["evidence"]["wording"]) == ("preference_page", "Newsletter · Email")
    assert f'value="{LETTER}" checked' in done.text


async def test_an_old_link_reduces_and_leaves_the_rest_to_a_fresh_one(service, ann):
    path = manage(service, ann, OLD)
    page = await service.ask("GET", path)
    assert re.search(rf'value="{LETTER}" disabled', page.text)
    fields = [*touched(form_of(page), off=[NEWS]), ("shown", f"{LETTER}=off"), ("on", LETTER)]
    done = await post(service, path, fields)
    assert done.status == 409
    assert re.search(r'role="alert">\s*<h2>Not done yet</h2>', done.text)
    assert 'href="#switch-topic-newsletter-email"' in done.text
    assert 'id="switch-topic-newsletter-email"' in done.text
    assert "Product news · Email</bdi></strong>: off" in done.text
    assert await lines(service) == [("topic:product-news", "email", False)]


async def test_the_link_in_a_mails_foot_reduces_and_no_more_however_new_the_mail_is(service, ann):
    path = foot(service, ann, await service.town.message(ann, "product-news"))
    page = await service.ask("GET", path)
    assert re.search(rf'value="{LETTER}" disabled', page.text)
    done = await post(service, path, [*touched(form_of(page), off=[NEWS]), ("shown", f"{LETTER}=off"), ("on", LETTER)])
    assert done.status == 409
    assert await lines(service) == [("topic:product-news", "email", False)]
    data = await post(service, path, [("export", "1")])
    assert (data.status, "content-disposition" in data.headers) == (409, False)


async def test_the_wide_switches_stop_and_let_go_and_bring_nothing_back_by_themselves(service, ann):
    path = manage(service, ann)
    await save(service, path, on=[LETTER])
    await save(service, path, off=[LETTER])
    stopped = await save(service, path, off=["marketing/any"])
    assert "Stopped: <strong><bdi>All newsletters and offers, everywhere" in stopped.text
    assert f'value="{NEWS}" checked' not in stopped.text
    assert "topic:orders/email" in re.findall(r'name="on" value="(\S+)" checked', stopped.text)
    lifted = await save(service, path, on=["marketing/any"])
    assert re.findall(r'name="on" value="(\S+)" checked', lifted.text) == [NEWS, "topic:orders/email"]
    assert (await lines(service))[2:] == [("marketing", "any", False), ("marketing", "any", True)]


async def test_everything_off_stays_off_for_an_old_link_and_its_untouched_form_is_no_wish(service, ann):
    await save(service, manage(service, ann), off=["all/any"])
    path = manage(service, ann, OLD)
    page = await service.ask("GET", path)
    assert re.search(r'name="stop" value="all/any" checked disabled', page.text)
    assert "Nothing was changed" in (await post(service, path, form_of(page))).text
    assert await lines(service) == [("all", "any", False)]


async def test_two_tabs_undo_nothing_of_one_another(service, ann):
    path = manage(service, ann)
    first, second = form_of(await service.ask("GET", path)), form_of(await service.ask("GET", path))
    await post(service, path, touched(first, off=[NEWS], timezone="Europe/Vienna"))
    await post(service, path, touched(second, on=[LETTER], locale="de"))
    assert await lines(service) == [("topic:product-news", "email", False), ("topic:newsletter", "email", True)]
    row = await profile(service, ann)
    assert (row["locale"], row["timezone"]) == ("de", "Europe/Vienna")


async def test_the_same_form_twenty_times_at_once_is_one_line(service, ann):
    path = manage(service, ann)
    fields = touched(form_of(await service.ask("GET", path)), off=[NEWS], on=[LETTER])
    answers = await asyncio.gather(*(post(service, path, fields) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert len(await service.town.ledger()) == 2


async def test_what_was_switched_off_by_mistake_is_undone_for_an_hour(service, ann):
    path = manage(service, ann, OLD)
    done = await save(service, path, off=[NEWS])
    [undo] = re.findall(r'name="undo" value="([^"]+)"', done.text)
    restored = await post(service, path, [("undo", undo)])
    assert "Everything is as before" in restored.text
    assert f'value="{NEWS}" checked' in (await service.ask("GET", path)).text


async def test_an_unsubscribe_link_never_turns_anything_on(service, ann):
    path = service.link(ann, await service.town.message(ann, "product-news"))
    await post(service, path, [("preferences", "1"), ("shown", f"{LETTER}=off"), ("on", LETTER), ("export", "1")])
    assert not any(line["granted"] for line in await service.town.ledger())


@pytest.mark.parametrize(
    "fields",
    [
        [("shown", "x"), ("shown", "=on"), ("shown", "topic:security/email=on"), ("shown", "topic:gone/email=on")],
        [("on", "topic:security/email"), ("on", LETTER), ("stop", "\x00"), ("pause", "forever")],
        [("shown", f"{LETTER}=off"), ("shown", f"{LETTER}=off")],
        [("stop", "marketing/any"), ("shown", "marketing/email=on")],
    ],
)
async def test_an_odd_form_changes_nothing(service, ann, fields):
    answer = await post(service, manage(service, ann), [("preferences", "1"), *fields])
    assert answer.status == 200
    assert "Nothing was changed" in answer.text
    assert await service.town.ledger() == []


# Pause, language, time zone


async def test_a_pause_is_taken_from_every_link_and_ended_by_a_fresh_one(service, ann):
    old, fresh = manage(service, ann, OLD), manage(service, ann)
    assert "Paused until" in (await save(service, old, pause="week")).text
    until = (await profile(service, ann))["snoozed_until"]
    assert timedelta(days=6) < until - datetime.now(UTC) < timedelta(days=8)
    for shorter in ("end", "day"):
        held_back = await save(service, old, pause=shorter)
        assert held_back.status == 409
        assert 'href="#pause"' in held_back.text
        assert (await profile(service, ann))["snoozed_until"] == until
    assert (await save(service, old, pause="month")).status == 200
    assert "The pause has ended" in (await save(service, fresh, pause="end")).text
    assert (await profile(service, ann))["snoozed_until"] is None
    assert await service.town.ledger() == []


async def test_the_answer_comes_in_the_language_that_was_just_chosen(service, ann):
    done = await save(service, manage(service, ann, OLD), locale="ar", timezone="Asia/Amman")
    assert done.headers["content-language"] == "ar"
    assert "Asia/Amman" in done.text


async def test_what_stands_in_no_list_is_named_at_the_top_and_the_rest_is_saved(service, ann):
    done = await save(service, manage(service, ann), off=[NEWS], timezone="Mars/Olympus", locale="tlh")
    assert done.status == 422
    for name in ("timezone", "locale"):
        assert f'href="#{name}"' in done.text
        assert f'<select id="{name}"' in done.text
    assert await lines(service) == [("topic:product-news", "email", False)]
    assert (await profile(service, ann))["timezone"] is None


# A fresh link


async def sent(service: Service) -> list[tuple[UUID, str, str]]:
    query = "SELECT recipient_id, channel, topic FROM messages WHERE topic = 'manage-link' ORDER BY id"
    return [(row["recipient_id"], row["channel"], row["topic"]) for row in await service.town.rows(query)]


async def test_every_link_mails_a_fresh_one_to_the_person_it_stands_for(service, ann):
    unsubscribe = service.link(ann, await service.town.message(ann, "product-news"))
    for path in (unsubscribe, manage(service, ann, OLD)):
        assert 'name="fresh"' in (await service.ask("GET", path)).text
        answer = await post(service, path, [("fresh", "1")])
        assert (answer.status, "a link to your settings is on its way" in answer.text) == (200, True)
    assert await sent(service) == [(ann, "email", "manage-link")] * 2
    assert await service.town.ledger() == []


async def test_three_an_hour_and_the_answer_is_the_same(service, ann):
    path = manage(service, ann, OLD)
    answers = await asyncio.gather(*(post(service, path, [("fresh", "1")]) for _ in range(8)))
    nobody = await post(service, manage(service, new_id(), OLD), [("fresh", "1")])
    without = await post(service, manage(service, await service.town.person(), OLD), [("fresh", "1")])
    assert len({(answer.status, answer.body) for answer in [*answers, nobody, without]}) == 1
    assert len(await sent(service)) == 3
    await passes(service, "61 minutes")
    await post(service, path, [("fresh", "1")])
    assert len(await sent(service)) == 4


async def passes(service: Service, time: str) -> None:
    await service.town.execute("UPDATE notifications SET created_at = created_at - %s::interval", (time,))


async def test_five_a_day_as_whoever_holds_an_old_mail_can_ask_again_and_again(service, ann):
    bob = await service.town.person("ann@one.test")
    paths = [manage(service, person, OLD) for person in (ann, bob)]
    for _ in range(4):
        for path in paths:
            await post(service, path, [("fresh", "1")])
        await passes(service, "61 minutes")
    assert len(await sent(service)) == 5
    await passes(service, "20 hours")
    await post(service, paths[0], [("fresh", "1")])
    assert len(await sent(service)) == 6


async def test_an_address_of_two_people_gets_three_an_hour_and_not_six(service, ann):
    bob = await service.town.person("ann@one.test")
    paths = [manage(service, person, OLD) for person in (ann, bob)]
    await asyncio.gather(*(post(service, path, [("fresh", "1")]) for path in paths * 4))
    assert len(await sent(service)) == 3


async def test_a_text_message_follows_where_there_is_no_mailbox(service):
    person = await service.town.person()
    await service.town.phone(person, "+4930123456")
    await post(service, manage(service, person, OLD), [("fresh", "1")])
    assert [channel for _, channel, _ in await sent(service)] == ["sms"]


async def test_where_the_template_is_missing_no_link_is_offered(database_url, tmp_path):
    async with running(database_url, tmp_path) as service:
        ann = await service.town.person("ann@one.test")
        unsubscribe = service.link(ann, await service.town.message(ann, "product-news"))
        for path in (unsubscribe, manage(service, ann, OLD)):
            assert 'name="fresh"' not in (await service.ask("GET", path)).text
            assert (await post(service, path, [("fresh", "1")])).status == 200
        assert await service.town.ledger() == []


# One's own data


async def test_a_fresh_link_gives_everything_and_an_old_one_says_what_it_takes(service, ann):
    await save(service, manage(service, ann), on=[LETTER])
    answer = await post(service, manage(service, ann), [("export", "1")])
    assert answer.headers["content-disposition"] == 'attachment; filename="my-data.json"'
    assert answer.headers["cache-control"] == "no-store"
    data = json.loads(answer.body)
    assert data["addresses"] == [{"channel": "email", "address": "ann@one.test"}]
    assert {"topic": "newsletter", "channel": "email", "allowed": True} in data["topics"]
    [line] = data["ledger"]
    assert (line["scope"], line["source"], line["granted"]) == ("topic:newsletter", "preference_page", True)
    old = await post(service, manage(service, ann, OLD), [("export", "1")])
    assert old.status == 409
    assert 'role="alert"' in old.text
    assert "ann@one" not in old.text


# Why did I get this


async def decided(
    service: Service, person: UUID, rule: str, numbers: Sequence[int] = (), topic: str = "product-news"
) -> UUID:
    message = await service.town.message(person, topic)
    note = {"rule": rule, "at": datetime.now(UTC).isoformat(), "numbers": list(numbers), "detail": ""}
    await service.town.execute("UPDATE messages SET decision = %s WHERE id = %s", (Jsonb(note), message))
    return message


async def test_an_unsubscribe_page_says_why_the_message_came(service, ann):
    await save(service, manage(service, ann), off=[NEWS])
    await save(service, manage(service, ann), on=[NEWS])
    _, grant = await service.town.ledger()
    message = await decided(service, ann, "granted", [grant["number"]])
    page = (await service.ask("GET", service.link(ann, message))).text
    assert "Why did I get this?" in page
    assert "You had said yes to it." in page
    assert re.search(r"Your yes of <strong><bdi>\w+ \d+, \d{4}.*?, given <strong><bdi>on your preference page", page)
    page = (await service.ask("GET", service.link(ann, await decided(service, ann, "opt_out_default")))).text
    assert "You had not said no to it" in page


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "it", "ar"])
async def test_the_preference_page_says_why_the_message_came_in_whose_foot_its_link_stood(service, language):
    person = await service.town.person("x@one.test", locale=language)
    words = Pages(Brand("", "")).words([language])
    message = await decided(service, person, "mandatory_topic", topic="security")
    path = foot(service, person, message)
    for page in (await service.ask("GET", path), await save(service, path, off=[NEWS])):
        shown = html.unescape(page.text)
        assert words.sentences["why.heading"] in shown
        assert words.sentences["why.mandatory_topic"] in shown
        assert service.app.templates.topics["security"].names[language] in shown.split('class="why"')[1]


async def test_a_link_that_was_asked_for_or_whose_message_is_gone_gives_no_reason(service, ann):
    for path in (manage(service, ann), foot(service, ann, new_id())):
        page = await service.ask("GET", path)
        assert (page.status, "Why did I get this?" in page.text) == (200, False)


async def test_the_way_out_does_not_suffer_from_a_reason_that_cannot_be_told(service, ann, monkeypatch):
    message = await decided(service, ann, "granted")

    async def broken(self, link):
        raise ZeroDivisionError

    monkeypatch.setattr(PreferencePage, "why", broken)
    page = await service.ask("GET", service.link(ann, message))
    assert (page.status, 'name="scope"' in page.text) == (200, True)
    page = await service.ask("GET", foot(service, ann, message))
    assert (page.status, 'name="preferences"' in page.text) == (200, True)


# The database away


async def test_without_the_database_nothing_is_called_saved_and_the_same_form_works_later(service, ann, monkeypatch):
    path = manage(service, ann)
    fields = touched(form_of(await service.ask("GET", path)), off=[NEWS], on=[LETTER])

    async def lost(*_):
        raise psycopg.OperationalError

    with monkeypatch.context() as patch:
        patch.setattr("notifier.dispatch.preferences.recipients.lock_survivors", lost)
        patch.setattr("notifier.dispatch.preferences.recipients.by_ids", lost)
        shown = await service.ask("GET", path)
        assert (shown.status, "cannot show your settings just now" in shown.text) == (200, True)
        assert set(re.findall(r'name="scope" value="(\w+)"', shown.text)) == {"marketing", "all"}
        failed = await post(service, path, fields)
        assert (failed.status, failed.headers["retry-after"]) == (503, "120")
        assert "Saved" not in failed.text
        assert (await post(service, path, [("export", "1")])).status == 503
    assert await service.town.ledger() == []
    kept = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', failed.text)
    assert sorted(kept) == sorted((name, value) for name, value in fields if value)
    assert (await post(service, path, kept)).status == 200
    assert len(await service.town.ledger()) == 2


async def test_half_a_save_is_none(service, ann, monkeypatch):
    """A yes that cannot be written takes the no of the same form with it, and the page does not say Saved."""
    path = manage(service, ann)
    fields = touched(form_of(await service.ask("GET", path)), off=[NEWS], timezone="Europe/Vienna")

    async def lost(*given):
        await choose(*given)
        raise psycopg.OperationalError

    monkeypatch.setattr("notifier.dispatch.preferences.preferences.choose", lost)
    assert (await post(service, path, fields)).status == 503
    assert await service.town.ledger() == []
