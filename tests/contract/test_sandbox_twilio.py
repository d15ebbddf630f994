"""The stand-in for Twilio talks back: signed callbacks in order until they are taken, and phones that answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from notifier.sandbox.numbers import NUMBERS, number_of
from notifier.sandbox.phones import ANSWERS, NUMBER_OF_SERVICE
from notifier.sandbox.texts import Text
from notifier_channels.addresses import PhoneNumber
from notifier_channels.contract import EventKind
from notifier_channels.sms.webhooks import Form, form_of, genuine, inbound, status, twiml
from tests.contract.test_twilio import NUMBERS as NAMES
from tests.servers.outgoing import NOW, Notebook, sent
from tests.servers.twilio import SENDER, SERVICE, TOKEN, StandIn, provider_at, serving, standing_in, text_to

pytestmark = pytest.mark.anyio

ANN = NAMES["ann"]


@dataclass
class Notifier:
    """Takes genuine webhooks only, and answers with the next status of `script`, then with 204 or a message."""

    url: str = ""
    says: str | None = None
    script: list[int] = field(default_factory=list)
    forms: list[Form] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, scope, receive, send) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = scope["query_string"].decode()
        url = self.url + scope["path"] + (f"?{query}" if query else "")
        is_genuine = genuine([TOKEN], url, headers["content-type"], body, headers["x-twilio-signature"])
        code = 403 if not is_genuine else self.script.pop(0) if self.script else 200
        answer = twiml(self.says) if code == 200 else b""
        await send({"type": "http.response.start", "status": code, "headers": [(b"content-type", b"text/xml")]})
        await send({"type": "http.response.body", "body": answer})
        async with self.news:
            self.forms.append(form_of(headers["content-type"], body))
            self.paths.append(scope["path"])
            self.news.notify_all()

    async def heard(self, is_enough: Callable[[list[str]], bool]) -> list[str]:
        """The statuses so far, once they are enough."""
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(lambda: is_enough(self.statuses))
        return self.statuses

    @property
    def statuses(self) -> list[str]:
        return [form.first("MessageStatus") for form in self.forms]


@asynccontextmanager
async def town(*, answers_keywords: bool = True) -> AsyncIterator[tuple[Notifier, StandIn]]:
    notifier = Notifier()
    async with serving(notifier) as url:
        notifier.url = url
        async with standing_in(url, answers_keywords=answers_keywords) as stand_in:
            yield notifier, stand_in


async def write(
    notifier: Notifier, stand_in: StandIn, number: str = ANN, sender: str = SENDER, overrides: str = "#rc=5&rp=all"
) -> Text:
    provider = provider_at(stand_in.url, sender)
    url = f"{notifier.url}/hooks/twilio/status?ref=a.b{overrides}"
    await sent(provider, [text_to(number, callback_url=url)], Notebook())
    await provider.close()
    return next(iter(stand_in.texts))


@pytest.mark.parametrize(
    ("sender", "expected"), [(SENDER, ["sent", "delivered"]), (SERVICE, ["queued", "sent", "delivered"])]
)
async def test_every_status_is_told_in_order(sender: str, expected: list[str]):
    async with town() as (notifier, stand_in):
        text = await write(notifier, stand_in, sender=sender)
        assert await notifier.heard(lambda statuses: "delivered" in statuses) == expected
    assert text.status == "delivered"
    kinds = [event.kind for form in notifier.forms for event in status(form, (text_to(ANN).id, 1), NOW)]
    assert kinds == [EventKind.SENT] * (len(expected) - 1) + [EventKind.DELIVERED]


async def test_a_callback_is_repeated_until_it_is_taken_and_the_next_one_waits():
    async with town() as (notifier, stand_in):
        notifier.script = [503, 404, 500]
        text = await write(notifier, stand_in)
        assert await notifier.heard(lambda statuses: "delivered" in statuses) == ["sent"] * 4 + ["delivered"]
        assert len({form.first("MessageSid") for form in notifier.forms}) == 1
    assert stand_in.callbacks.counts["gave_up"] == 0
    assert text.told[0] == "sent"


@pytest.mark.parametrize(
    ("overrides", "script", "told", "count"),
    [
        ("", [503], 1, "gave_up"),  # by default it comes again only when nobody could be reached
        ("", [404], 1, "refused"),
        ("#rc=5", [503], 1, "gave_up"),
        ("#rp=5xx", [503] * 9, 2, "gave_up"),
        ("#rc=2&rp=4xx,ct", [404] * 9, 3, "refused"),
        ("#rc=2&rp=4xx,ct", [500] * 9, 1, "gave_up"),
        ("#rc=99&rp=all", [500] * 6, 6, "gave_up"),
        ("#rc=x&rp=what", [500] * 6, 1, "gave_up"),
    ],
)
async def test_a_callback_comes_again_only_as_the_fragment_of_its_url_says(overrides, script, told, count):
    async with town() as (notifier, stand_in):
        notifier.script = [*script[:told]]
        await write(notifier, stand_in, overrides=overrides)
        heard = await notifier.heard(lambda statuses: "delivered" in statuses)
    assert heard == ["sent"] * told + ["delivered"]
    assert stand_in.callbacks.counts[count] == 1


async def test_it_reports_to_notifier_and_to_nobody_else():
    async with town() as (notifier, stand_in):
        provider = provider_at(stand_in.url)
        async with serving(other := Notifier()) as elsewhere:
            other.url = elsewhere
            await sent(provider, [text_to(ANN, callback_url=f"{elsewhere}/x")], Notebook())
            await write(notifier, stand_in)
            await notifier.heard(lambda statuses: "delivered" in statuses)
        await provider.close()
    assert not other.forms


@pytest.mark.parametrize("row", NUMBERS, ids=lambda row: row.e164)
def test_every_magic_number_is_one_that_notifier_takes(row):
    assert PhoneNumber.parse(row.e164).e164 == row.e164
    assert number_of(row.e164) is row


@pytest.mark.parametrize(
    "row", [row for row in NUMBERS if row.steps[-1].status == "undelivered"], ids=lambda row: row.e164
)
async def test_what_cannot_be_delivered_is_reported_with_its_code(row):
    async with town() as (notifier, stand_in):
        await write(notifier, stand_in, row.e164)
        await notifier.heard(lambda statuses: "undelivered" in statuses)
    (event,) = status(notifier.forms[-1], (text_to(ANN).id, 1), NOW)
    assert event.kind is EventKind.BOUNCED
    assert event.code == str(row.steps[-1].error_code)
    assert event.is_dead == ("suppressed" in row.then)


async def test_what_was_taken_and_answered_with_500_is_reported_as_delivered():
    async with town() as (notifier, stand_in):
        await write(notifier, stand_in, NAMES["doubt"])
        await notifier.heard(lambda statuses: "delivered" in statuses)


# Phones ---------------------------------------------------------------------------------------------------------------


async def test_a_reply_reaches_notifier_and_its_answer_the_phone():
    async with town() as (notifier, stand_in):
        notifier.says = "We are open until 8 & later."
        await write(notifier, stand_in)
        typed = await stand_in.phones.type_on_phone(ANN, "When are you open?")
        said = inbound(notifier.forms[notifier.paths.index("/hooks/twilio/inbound")])
        thread = stand_in.texts.thread(ANN)
    assert said is not None
    assert (said.sid, said.from_number, said.to, said.body) == (typed.sid, ANN, SENDER, "When are you open?")
    assert said.opt_out_type is None
    assert typed.status == "received"
    assert [(text.body, text.is_inbound) for text in thread[1:]] == [
        ("When are you open?", True),
        ("We are open until 8 & later.", False),
    ]


async def test_twilio_answers_its_own_keywords_and_blocks_our_answer_after_stop():
    async with town() as (notifier, stand_in):
        notifier.says = "You are unsubscribed."
        await stand_in.phones.type_on_phone(ANN, "Stop", SENDER)
        assert [text.body for text in stand_in.texts.thread(ANN)] == ["Stop", ANSWERS["STOP"]]
        assert stand_in.phones.has_stopped(SENDER, ANN)
        assert not stand_in.phones.has_stopped(SERVICE, ANN)
        await stand_in.phones.type_on_phone(ANN, "help", SENDER)
        assert [text.body for text in stand_in.texts.thread(ANN)][2:] == ["help", ANSWERS["HELP"]]
        await stand_in.phones.type_on_phone(ANN, "yes", SENDER)
        assert not stand_in.phones.has_stopped(SENDER, ANN)


async def test_a_wider_stop_is_left_to_notifier():
    async with town() as (notifier, stand_in):
        notifier.says = "You are unsubscribed."
        await stand_in.phones.type_on_phone(ANN, "stop please", SENDER)
        assert [text.body for text in stand_in.texts.thread(ANN)] == ["stop please", "You are unsubscribed."]
        assert not stand_in.phones.has_stopped(SENDER, ANN)


async def test_when_twilio_leaves_keywords_to_us_it_answers_and_blocks_nothing():
    async with town(answers_keywords=False) as (notifier, stand_in):
        notifier.says = "You are unsubscribed."
        await stand_in.phones.type_on_phone(ANN, "STOP", SENDER)
        assert [text.body for text in stand_in.texts.thread(ANN)] == ["STOP", "You are unsubscribed."]
        assert not stand_in.phones.has_stopped(SENDER, ANN)


async def test_a_messaging_service_tells_how_it_read_a_keyword():
    async with town() as (notifier, stand_in):
        await stand_in.phones.type_on_phone(ANN, "unsubscribe", SERVICE)
        (form,) = notifier.forms
    assert (form.first("To"), form.first("MessagingServiceSid")) == (NUMBER_OF_SERVICE, SERVICE)
    assert form.first("OptOutType") == "STOP"


async def test_a_reply_that_notifier_does_not_take_is_shown_as_failed():
    async with town() as (notifier, stand_in):
        notifier.script = [503]
        typed = await stand_in.phones.type_on_phone(ANN, "hello", SENDER)
    assert (typed.status, typed.error_code) == ("failed", 11200)
