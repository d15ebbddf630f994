"""The Twilio provider against the stand-in on a real socket, and against far ends that break in every way."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid4

import httpx
import jsonschema
import pytest

from notifier.store.database import rows
from notifier_channels.addresses import PhoneNumber
from notifier_channels.contract import (
    Ambiguous,
    BadAddress,
    Channel,
    Doubt,
    Misconfigured,
    OptedOut,
    Outcome,
    Outgoing,
    RateLimited,
    Receipt,
    Rejected,
    SmsContent,
    Unavailable,
    Withheld,
)
from notifier_channels.sms.twilio import MissingExtra, TwilioProvider
from tests.contract.test_providers import Far, ProviderContract, Since
from tests.servers.outgoing import Notebook, sent
from tests.servers.twilio import (
    BODY,
    NOWHERE,
    SENDER,
    SERVICE,
    SID,
    TOKEN,
    FreePace,
    StandIn,
    broken,
    http,
    provider_at,
    standing_in,
    text_to,
)
from tests.world import World

pytestmark = pytest.mark.anyio

OPENAPI = json.loads((Path(__file__).parents[1] / "data/twilio/messages.json").read_text())
MESSAGES = "/2010-04-01/Accounts/{AccountSid}/Messages.json"

NUMBERS = {
    "ann": "+12025550100",
    "bob": "+12025550101",
    "nobody": "+15005550001",
    "full": "+15005550002",
    "left": "+15005550004",
    "fast": "+12025550136",
    "doubt": "+12025550137",
}


@dataclass
class TwilioFar(Far):
    stand_in: StandIn

    answers: ClassVar = {
        "nobody": BadAddress,
        "full": Rejected,
        "left": OptedOut,
        "fast": RateLimited,
        "doubt": Ambiguous,
    }
    secrets: ClassVar = ("+", "555", BODY, *NUMBERS)

    def batch_of(self, *names: str) -> list[Outgoing[SmsContent]]:
        return [text_to(NUMBERS[name]) for name in names]

    def name_of(self, outgoing: Outgoing[SmsContent]) -> str:
        return next(name for name, number in NUMBERS.items() if number == str(outgoing.to))

    def accepted(self) -> Counter[UUID]:
        return Counter(self.stand_in.accepted())

    def seen(self) -> bytes:
        return b"".join(exchange.sent for exchange in self.stand_in.exchanges)

    @asynccontextmanager
    async def silent(self, since: Since) -> AsyncIterator[TwilioProvider]:
        async with broken(None, reads=since == "committing") as silent:
            url = silent.url.replace("http:", "https:") if since == "connecting" else silent.url
            provider = provider_at(url, timeout=0.3)
            yield provider
            await provider.close()


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    async with standing_in() as stand_in:
        yield stand_in


class TestTwilio(ProviderContract):
    @pytest.fixture
    async def far(self, stand_in: StandIn) -> AsyncIterator[Far]:
        provider = provider_at(stand_in.url)
        yield TwilioFar(provider, 3, stand_in)
        await provider.close()


class TestTwilioWithAService(ProviderContract):
    @pytest.fixture
    async def far(self, stand_in: StandIn) -> AsyncIterator[Far]:
        provider = provider_at(stand_in.url, SERVICE)
        yield TwilioFar(provider, 3, stand_in)
        await provider.close()


# What is sent ---------------------------------------------------------------------------------------------------------


def resolved(node: Any) -> Any:
    """OpenAPI 3.0 as JSON schema: references followed, `nullable` spelt out."""
    if isinstance(node, list):
        return [resolved(one) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return resolved(OPENAPI["components"]["schemas"][node["$ref"].rpartition("/")[2]])
    plain = {key: resolved(value) for key, value in node.items() if key not in {"nullable", "format", "x-twilio"}}
    return {"anyOf": [plain, {"type": "null"}]} if node.get("nullable") else plain


def conforms_as_form(form: dict[str, str]) -> None:
    schema = OPENAPI["paths"][MESSAGES]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    read = {"integer": int, "number": float, "boolean": {"true": True, "false": False, "True": 0, "False": 0}.get}
    values = {
        name: read.get(schema["properties"].get(name, {}).get("type"), str)(value) for name, value in form.items()
    }
    jsonschema.validate(values, {**resolved(schema), "additionalProperties": False})


def conforms_as_answer(method: str, status: str, path: str, answer: Any) -> None:
    schema = OPENAPI["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]
    shape = resolved(schema)
    jsonschema.validate(answer, {**shape, "additionalProperties": False, "required": sorted(shape["properties"])})


@pytest.mark.parametrize("sender", [SENDER, SERVICE, "Acme", "MG Garage"])
async def test_request_and_answer_are_as_published(stand_in: StandIn, sender: str):
    provider = provider_at(stand_in.url, sender)
    await sent(provider, [text_to(NUMBERS["ann"], "Grüße & 100 % + ~ 😜\n=")], Notebook())
    await provider.close()
    (exchange,) = stand_in.exchanges
    conforms_as_form(exchange.form)
    conforms_as_answer("post", "201", MESSAGES, exchange.json)
    assert exchange.path == f"/twilio/2010-04-01/Accounts/{SID}/Messages.json"
    assert exchange.form["Body"] == "Grüße & 100 % + ~ 😜\n="
    assert exchange.form["SmartEncoded"] == "false"
    assert exchange.form.get("MessagingServiceSid" if sender == SERVICE else "From") == sender
    assert ("From" in exchange.form) != ("MessagingServiceSid" in exchange.form)
    assert exchange.form["StatusCallback"].startswith(NOWHERE)


@pytest.mark.parametrize(
    ("left", "expected"), [(timedelta(days=3), 36_000), (timedelta(seconds=100), 99), (timedelta(seconds=1.5), 1)]
)
async def test_a_message_is_not_delivered_after_it_has_expired(stand_in: StandIn, left: timedelta, expected: int):
    provider = provider_at(stand_in.url)
    await sent(provider, [text_to(NUMBERS["ann"], left=left)], Notebook())
    await provider.close()
    assert int(stand_in.exchanges[0].form["ValidityPeriod"]) in {expected, expected - 1} - {0}


async def test_what_expired_while_it_waited_for_its_turn_goes_back_unsent(stand_in: StandIn):
    provider, witness = provider_at(stand_in.url), Notebook()
    outcomes = await sent(provider, [text_to(NUMBERS["ann"], left=timedelta(0))], witness)
    await provider.close()
    assert list(outcomes.values()) == [Withheld("expired")]
    assert not witness.lines
    assert not stand_in.exchanges


async def test_a_no_for_everybody_ends_the_batch_at_once(stand_in: StandIn):
    pace = FreePace()
    provider = provider_at(stand_in.url, connections=1, pace=pace)
    outcomes = await sent(provider, [text_to(NUMBERS["ann"]) for _ in range(30)], Notebook(is_over=True))
    await provider.close()
    assert set(outcomes.values()) == {Withheld()}
    assert pace.units == [1]


async def test_the_pace_is_asked_for_segments_before_the_witness(stand_in: StandIn):
    witness = Notebook()

    class Pace(FreePace):
        async def turn(self, units: int) -> None:
            assert not witness.in_doubt
            await super().turn(units)

    pace = Pace()
    provider = provider_at(stand_in.url, connections=1, pace=pace)
    await sent(provider, [text_to(NUMBERS["ann"], "a" * size) for size in (160, 161, 307)], witness)
    await provider.close()
    assert pace.units == [1, 2, 3]


async def test_a_receipt_names_the_message_at_twilio(stand_in: StandIn):
    provider = provider_at(stand_in.url)
    (outcome,) = (await sent(provider, [text_to(NUMBERS["ann"])], Notebook())).values()
    await provider.close()
    (text,) = stand_in.texts
    assert outcome == Receipt(text.sid, "queued")


async def test_batches_share_the_connections_and_so_the_doubt(stand_in: StandIn):
    provider, witness = provider_at(stand_in.url), Notebook()
    batches = [[text_to(NUMBERS["ann"]) for _ in range(20)] for _ in range(3)]
    await asyncio.gather(*(sent(provider, batch, witness) for batch in batches))
    await provider.close()
    assert witness.most_in_doubt == 3


async def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "twilio.rest", None)
    with pytest.raises(MissingExtra, match=re.escape("notifier-dispatch[sms]")):
        provider_at(NOWHERE)


async def test_an_api_key_opens_the_account_too():
    async with standing_in(api_key="SK123:secret") as stand_in:
        provider = provider_at(stand_in.url, username="SK123", password="secret")
        (outcome,) = (await sent(provider, [text_to(NUMBERS["ann"])], Notebook())).values()
        await provider.close()
    assert isinstance(outcome, Receipt)


async def test_wrong_credentials_stop_the_batch_and_blame_no_message(stand_in: StandIn):
    provider, witness = provider_at(stand_in.url, connections=1, password="wrong"), Notebook()
    outcomes = await sent(provider, [text_to(NUMBERS["ann"]) for _ in range(30)], witness)
    await provider.close()
    assert set(outcomes.values()) == {Misconfigured("20003", "the credentials were refused")}
    assert len(stand_in.exchanges) == 3


@pytest.mark.parametrize("code", [21606, 21608, 21659, 21661, 21703])
async def test_a_refusal_for_one_recipient_pauses_nobody_and_one_for_all_does(code: int):
    refusal = http("400 Bad Request", json.dumps({"code": code, "status": 400}).encode())
    async with broken(refusal) as far:
        provider = provider_at(far.url, connections=1)

        async def kinds(size: int) -> list[type[Outcome]]:
            batch = [text_to(NUMBERS["ann"]) for _ in range(size)]
            return [type(outcome) for outcome in (await sent(provider, batch, Notebook())).values()]

        assert await kinds(5) == [Rejected] * 5
        far.answer = http("201 CREATED", TAKEN)
        assert await kinds(1) == [Receipt]
        far.answer = refusal
        assert await kinds(3) + await kinds(3) + await kinds(10) == [Rejected] * 5 + [Misconfigured] * 11
        await provider.close()
    assert far.requests == 15  # three of the last ten, to be sure


# The wire breaks ------------------------------------------------------------------------------------------------------

ERROR = json.dumps({"code": 20500, "message": "Internal error for +12025550100", "status": 500}).encode()
TAKEN = json.dumps({"sid": "SM" + "0" * 32, "status": "queued"}).encode()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", Ambiguous),
        (b"HTTP/1.1 201 CRE", Ambiguous),
        (b"220 mail.example ESMTP\r\n", Ambiguous),
        (http("201 CREATED", TAKEN[:20], length=len(TAKEN)), Ambiguous),
        (http("201 CREATED", TAKEN[:20]), Ambiguous),
        (http("201 CREATED", b"<html>"), Ambiguous),
        (http("201 CREATED", b"{}"), Ambiguous),
        (http("201 CREATED", b"[]"), Ambiguous),
        (http("201 CREATED", b'{"sid": "SM1", "date_created": 7}'), Ambiguous),
        (http("201 CREATED", b"\xff\xfe"), Ambiguous),
        (http("201 CREATED", TAKEN), Receipt),
        (http("302 Found", b"", "Location: http://127.0.0.1:9/"), Ambiguous),
        (http("500 Internal Server Error", ERROR), Ambiguous),
        (http("502 Bad Gateway", b"<html>"), Ambiguous),
        (http("503 Service Unavailable"), Ambiguous),
        (http("504 Gateway Timeout", b"null"), Ambiguous),
        (http("408 Request Timeout"), Ambiguous),
        (http("400 Bad Request", ERROR), Ambiguous),
        (http("429 Too Many Requests", b"<html>"), RateLimited),
        (http("401 Unauthorized", b"<html>"), Misconfigured),
        (http("403 Forbidden"), Misconfigured),
        (http("404 Not Found", b"<html>"), Misconfigured),
        (http("400 Bad Request", b"<html>"), Rejected),
        (http("400 Bad Request", b'{"code": "21211"}'), Rejected),
        (http("400 Bad Request", b'{"code": 21999}'), Rejected),
        (http("413 Payload Too Large", b'["code"]'), Rejected),
    ],
)
async def test_an_answer_that_is_none_leaves_doubt_and_is_never_asked_again(answer: bytes, expected: type[Outcome]):
    async with broken(answer) as far:
        provider, witness = provider_at(far.url), Notebook()
        (outcome,) = (await sent(provider, [text_to(NUMBERS["ann"])], witness)).values()
        await provider.close()
    assert type(outcome) is expected
    assert far.requests == 1
    assert bool(witness.in_doubt) == (expected is Ambiguous)
    assert not re.search(f"555|{BODY}", repr(outcome))


async def test_a_line_that_is_cut_before_the_request_is_read_leaves_doubt():
    async with broken(b"", reads=False) as far:
        provider = provider_at(far.url)
        (outcome,) = (await sent(provider, [text_to(NUMBERS["ann"])], Notebook())).values()
        await provider.close()
    assert outcome.code == "closed"
    assert isinstance(outcome, Ambiguous)


async def test_silence_is_doubt():
    async with broken(None) as far:
        provider = provider_at(far.url, timeout=0.2)
        (outcome,) = (await sent(provider, [text_to(NUMBERS["ann"])], Notebook())).values()
        await provider.close()
    assert outcome == Ambiguous("timeout", "Twilio did not answer in time")


@pytest.mark.parametrize("url", [NOWHERE, "http://nowhere.invalid", "https://127.0.0.1:9"])
async def test_nobody_there_is_definitely_not_taken_and_ends_the_batch(url: str):
    provider, witness = provider_at(url, connections=1), Notebook()
    outcomes = await sent(provider, [text_to(NUMBERS["ann"]) for _ in range(30)], witness)
    await provider.close()
    assert {(type(outcome), outcome.is_away) for outcome in outcomes.values()} == {(Unavailable, True)}
    assert not witness.in_doubt
    assert len(witness.allowed) == 3


async def test_an_outage_puts_a_few_messages_in_doubt_and_not_the_whole_batch():
    async with broken(http("500 Internal Server Error", ERROR)) as far:
        provider, witness = provider_at(far.url, connections=2), Notebook()
        outcomes = await sent(provider, [text_to(NUMBERS["ann"]) for _ in range(50)], witness)
        await provider.close()
    kinds = Counter(type(outcome) for outcome in outcomes.values())
    assert kinds[Ambiguous] == far.requests == len(witness.in_doubt) <= 4
    assert kinds[Unavailable] == 50 - kinds[Ambiguous]


async def test_an_outage_is_noticed_over_batches_of_two_and_then_probed_until_something_is_taken():
    async with broken(http("500 Internal Server Error", ERROR)) as far:
        provider = provider_at(far.url, connections=2)

        async def batch(size: int = 2) -> list[Outcome]:
            outcomes = await sent(provider, [text_to(NUMBERS["ann"]) for _ in range(size)], Notebook())
            return [outcome if isinstance(outcome, Unavailable) else type(outcome) for outcome in outcomes.values()]

        away = Unavailable("20500", "too many answers in a row were lost", is_away=True)
        assert [await batch() for _ in range(3)] == [[Ambiguous] * 2, [Ambiguous] * 2, [away] * 2]
        assert [await batch(1) for _ in range(4)] == [[Ambiguous], [away], [Ambiguous], [away]]
        far.answer = http("201 CREATED", TAKEN)
        assert await batch(1) == [Receipt]
        far.answer = http("500 Internal Server Error", ERROR)
        assert [await batch(1) for _ in range(4)] == [[Ambiguous]] * 3 + [[away]]
        await provider.close()


async def test_refusals_between_do_not_hide_an_outage(stand_in: StandIn):
    provider = provider_at(stand_in.url, connections=1)
    names = ["doubt", "nobody", "full"] * 3 + ["ann"]
    outcomes = await sent(provider, [text_to(NUMBERS[name]) for name in names], Notebook())
    await provider.close()
    kinds = [type(outcome) for outcome in outcomes.values()]
    assert kinds == [Ambiguous, BadAddress, Rejected] * 2 + [Ambiguous] + [Unavailable] * 3


async def test_an_outage_pauses_the_sender_and_leaves_a_campaign_waiting(database, tmp_path):
    world = World(database, tmp_path / "journals")
    people = await world.people(30)
    await world.queue(people, by=Channel.SMS, to=await world.phones(people))
    async with broken(http("500 Internal Server Error", ERROR)) as far:
        provider = provider_at(far.url, connections=2, most_at_once=2)
        async with world.worker({Channel.SMS: provider}) as deliver:
            await deliver(())
        await provider.close()
    states = Counter(state for state, _ in await world.states(await all_messages(world)))
    assert states == {"unknown": 4, "queued": 26}
    assert await world.one("SELECT code FROM provider_pauses WHERE provider = 'twilio'") == "20500"


async def all_messages(world: World) -> list[UUID]:
    async with world.database.connection() as c:
        return [row["id"] for row in await rows(c, "SELECT id FROM messages")]


@pytest.mark.parametrize(("header", "seconds"), [("Retry-After: 7", 7), ("Retry-After: soon", 1), ("X-Other: 7", 1)])
async def test_retry_after_is_honoured(header: str, seconds: int):
    async with broken(http("429 Too Many Requests", b'{"code": 20429}', header)) as far:
        provider = provider_at(far.url)
        (outcome,) = (await sent(provider, [text_to(NUMBERS["ann"])], Notebook())).values()
        await provider.close()
    assert outcome == RateLimited("20429", timedelta(seconds=seconds), "too many requests")


async def test_nothing_of_a_request_is_logged(stand_in: StandIn, caplog: pytest.LogCaptureFixture):
    caplog.set_level(0)
    provider = provider_at(stand_in.url)
    await sent(provider, [text_to(number) for number in NUMBERS.values()], Notebook())
    await provider.look_up([doubt()])
    await provider.close()
    assert "555" not in caplog.text.replace("asyncio", "")
    assert not re.search(f"{BODY}|{TOKEN}", caplog.text)


# What was taken? ------------------------------------------------------------------------------------------------------


def doubt(number: str = NUMBERS["doubt"], ago: timedelta = timedelta(0), taken: frozenset[str] = frozenset()) -> Doubt:
    now = datetime.now(UTC) - ago
    return Doubt(uuid4(), 1, PhoneNumber(number), now - timedelta(seconds=2), now, taken)


async def test_a_message_whose_answer_was_lost_is_found_again(stand_in: StandIn):
    provider = provider_at(stand_in.url)
    lost = text_to(NUMBERS["doubt"])
    await sent(provider, [lost, text_to(NUMBERS["ann"])], Notebook())
    await stand_in.phones.type_on_phone(NUMBERS["bob"], "hello?", NUMBERS["doubt"])  # inbound, to that number
    await stand_in.phones.type_on_phone(NUMBERS["doubt"], "help", SENDER)  # answered by Twilio itself
    asked = replace(doubt(), message=lost.id)
    found = await provider.look_up([asked])
    await provider.close()
    (sid,) = [text.sid for text in stand_in.texts if text.callback_url and text.phone == NUMBERS["doubt"]]
    assert found.keys() == {lost.id}
    assert found[lost.id].reference == sid
    conforms_as_answer("get", "200", MESSAGES, stand_in.exchanges[-1].json)


async def test_only_one_possible_trace_is_a_proof(stand_in: StandIn):
    provider = provider_at(stand_in.url)
    await sent(provider, [text_to(NUMBERS["doubt"])], Notebook())
    (sid,) = [text.sid for text in stand_in.texts]

    async def proven(*doubts: Doubt) -> int:
        found = await provider.look_up(doubts)
        assert found.keys() == {one.message for one in doubts}
        return sum(receipt is not None for receipt in found.values())

    assert not await proven(doubt(NUMBERS["bob"]))  # nothing was sent to that number
    assert not await proven(doubt(ago=timedelta(hours=1)))  # sent much later
    assert not await proven(doubt(ago=timedelta(hours=-1)))  # sent long before
    assert not await proven(doubt(taken=frozenset({sid})))  # it is another message's
    assert not await proven(doubt(), doubt())  # it is one of two
    assert await proven(doubt()) == 1
    await sent(provider, [text_to(NUMBERS["doubt"])], Notebook())
    assert not await proven(doubt())  # one of two messages
    await provider.close()


@pytest.mark.parametrize("sender", [SENDER, SERVICE, "Acme"])
async def test_what_another_application_of_the_account_sent_is_no_trace(stand_in: StandIn, sender: str):
    ours, theirs = provider_at(stand_in.url, sender), provider_at(stand_in.url, "+12025550198")
    await sent(theirs, [text_to(NUMBERS["ann"])], Notebook())
    one = doubt(NUMBERS["ann"])
    assert await ours.look_up([one]) == {one.message: None}
    await sent(ours, [text_to(NUMBERS["ann"])], Notebook())
    assert (await ours.look_up([one]))[one.message] is not None
    await theirs.close()
    await ours.close()


async def test_what_marketing_s_own_sender_sent_is_found_as_well(stand_in: StandIn):
    provider, marketing = provider_at(stand_in.url, other_senders=[SERVICE]), provider_at(stand_in.url, SERVICE)
    await sent(marketing, [text_to(NUMBERS["ann"])], Notebook())
    one = doubt(NUMBERS["ann"])
    assert (await provider.look_up([one]))[one.message] is not None
    await marketing.close()
    await provider.close()


async def test_a_question_that_fails_leaves_the_others_their_answers(stand_in: StandIn):
    provider = provider_at(stand_in.url)
    await sent(provider, [text_to(NUMBERS["ann"])], Notebook())
    doubts = [doubt(NUMBERS["bob"]), doubt(NUMBERS["ann"]), *(doubt(NUMBERS["bob"]) for _ in range(9))]
    ask, asked = provider._candidates, []

    async def fails_for_bob(one: Doubt):
        asked.append(one)
        return await ask(one) if str(one.to) == NUMBERS["ann"] else 1 // 0

    provider._candidates = fails_for_bob
    found = await provider.look_up(doubts)
    await provider.close()
    assert found.keys() == {doubts[1].message}
    assert found[doubts[1].message] is not None
    assert len(asked) == 5  # three in a row: it makes no sense to go on


@pytest.mark.parametrize("answer", [b"", http("500 Oops"), http("401 No"), http("200 OK", b"{}"), http("200 OK", b"?")])
async def test_a_lookup_that_fails_proves_nothing(answer: bytes):
    async with broken(answer, reads=False) as far:
        provider = provider_at(far.url)
        found = await provider.look_up([doubt()])
        await provider.close()
    assert not found


# The stand-in ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"To": ""}, 400, 21604),
        ({"To": "12"}, 400, 21211),
        ({"From": ""}, 400, 21603),
        ({"From": "no such sender!"}, 400, 21212),
        ({"From": "+15005550007"}, 400, 21606),
        ({"From": "+15005550008"}, 400, 21611),
        ({"MessagingServiceSid": "MG12"}, 400, 21705),
        ({"Body": " "}, 400, 21619),
        ({"Body": "a" * 1601}, 400, 21617),
        ({"StatusCallback": "ftp://example.com"}, 400, 21609),
        ({"StatusCallback": "https://a_b.example.com/"}, 400, 21609),
        ({"ValidityPeriod": "0"}, 400, 90007),
        ({"ValidityPeriod": "36001"}, 400, 90007),
        ({"To": "+15005550003"}, 400, 21408),
        ({"To": "+15005550009"}, 400, 21614),
        ({"To": NUMBERS["fast"]}, 429, 20429),
    ],
)
async def test_the_stand_in_is_as_strict_as_twilio(stand_in: StandIn, fields: dict[str, str], status: int, code: int):
    form = {"To": NUMBERS["ann"], "From": SENDER, "Body": BODY, "ValidityPeriod": "60"} | fields
    async with httpx.AsyncClient(auth=(SID, TOKEN)) as client:
        answer = await client.post(f"{stand_in.url}/2010-04-01/Accounts/{SID}/Messages.json", data=form)
    assert (answer.status_code, answer.json()["code"], answer.json()["status"]) == (status, code, status)
    assert answer.json().keys() == {"code", "message", "more_info", "status"}
    assert not len(stand_in.texts)


async def test_a_message_is_fetched_as_published(stand_in: StandIn):
    provider = provider_at(stand_in.url)
    await sent(provider, [text_to(NUMBERS["ann"])], Notebook())
    await provider.close()
    (text,) = stand_in.texts
    path = f"{stand_in.url}/2010-04-01/Accounts/{SID}/Messages"
    async with httpx.AsyncClient(auth=(SID, TOKEN)) as client:
        fetched = await client.get(f"{path}/{text.sid}.json")
        assert (await client.get(f"{path}/SM{'0' * 32}.json")).json()["code"] == 20404
        other = await client.get(f"{stand_in.url}/2010-04-01/Accounts/AC{'1' * 32}/Messages.json")
        assert (other.status_code, other.json()["code"]) == (404, 20404)
    conforms_as_answer("get", "200", MESSAGES.replace("s.json", "s/{Sid}.json"), fetched.json())


async def test_the_list_comes_in_pages_newest_first_and_filtered(stand_in: StandIn):
    provider = provider_at(stand_in.url, connections=1)
    await sent(provider, [text_to(NUMBERS["ann"], str(n)) for n in range(5)] + [text_to(NUMBERS["bob"])], Notebook())
    listed = [one async for one in await provider._messages().stream_async(to=NUMBERS["ann"], page_size=2)]
    assert [one.body for one in listed] == ["4", "3", "2", "1", "0"]
    assert len(await provider._messages().list_async(from_="+12025550111")) == 0
    await provider.close()


async def test_whoever_says_stop_to_a_sender_gets_nothing_from_it_until_start():
    async with standing_in() as stand_in:
        provider = provider_at(stand_in.url)

        async def outcome() -> Outcome:
            return next(iter((await sent(provider, [text_to(NUMBERS["ann"])], Notebook())).values()))

        assert isinstance(await outcome(), Receipt)
        await stand_in.phones.type_on_phone(NUMBERS["ann"], " stop ")
        assert isinstance(await outcome(), OptedOut)
        await stand_in.phones.type_on_phone(NUMBERS["ann"], "Start")
        assert isinstance(await outcome(), Receipt)
        await provider.close()
