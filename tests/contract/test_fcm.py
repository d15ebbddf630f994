"""Push through Google's SDK against the stand-in for FCM on a real socket, with faults at every point of the wire."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import httpx
import pytest

from notifier.sandbox.fcm_account import Account, write_service_account
from notifier_channels.addresses import DeviceKind, Platform
from notifier_channels.contract import (
    Ambiguous,
    BadAddress,
    Misconfigured,
    Outcome,
    Outgoing,
    PushContent,
    RateLimited,
    Receipt,
    Rejected,
    Unavailable,
    Withheld,
)
from notifier_channels.push import fcm as fcm_module
from notifier_channels.push import wire
from notifier_channels.push.fcm import CannotUseFcm, FcmProvider
from tests.contract import test_providers as suite
from tests.servers.certificates import Certificates, server_context
from tests.servers.discovery import violations
from tests.servers.fcm import Far, Fault, error, push
from tests.servers.http2 import Door
from tests.servers.outgoing import Notebook, Turnstile, sent
from tests.servers.twilio import broken

pytestmark = pytest.mark.anyio

AT_ONCE = 7
LOST = Fault("doubt", then="reset", taken=True)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its key is made once: that takes a while."""
    return tmp_path_factory.mktemp("firebase") / "account.json"


@asynccontextmanager
async def fcm(
    account: Path,
    *faults: Fault,
    at_once: int = AT_ONCE,
    patience: float = 10,
    pace: Turnstile | None = None,
    **options,
) -> AsyncIterator[tuple[FcmProvider, Far]]:
    async with Far(account, faults, **options).open() as far:
        provider = FcmProvider.from_file(account, at_once=at_once, api_url=far.url, timeout=patience, pace=pace)
        try:
            yield provider, far
        finally:
            await provider.close()
        assert not [wrong for request in far.requests for wrong in violations(request, "SendMessageRequest")]
        assert not [wrong for answer in far.answers if "name" in answer for wrong in violations(answer, "Message")]


def accepted(far: Far) -> Counter[UUID]:
    return Counter(UUID(hex=push.tag) for push in far.pushes)


def kinds(batch: list[Outgoing[PushContent]], outcomes: dict[UUID, Outcome]) -> list[type[Outcome]]:
    return [type(outcomes[outgoing.id]) for outgoing in batch]


# The suite of all providers -------------------------------------------------------------------------------------------


@dataclass
class FcmFar(suite.Far):
    """Of `connections` it has, as far as doubt goes, as many as one call carries."""

    far: Far

    answers: ClassVar = {
        "unregistered-": BadAddress,
        "bad-token-": BadAddress,
        "other-project-": Rejected,
        "apns-key-": Unavailable,
        "internal-": Unavailable,
        "quota-": RateLimited,
        "doubt": Ambiguous,
    }
    secrets = ("unregistered-", "bad-token-", "other-project-", "doubt0", "quota-0", "000000")

    def batch_of(self, *names: str) -> list[Outgoing[PushContent]]:
        return [push(name) for name in names]

    def name_of(self, outgoing: Outgoing[PushContent]) -> str:
        return outgoing.to.value.rstrip("0")

    def accepted(self) -> Counter[UUID]:
        return accepted(self.far)

    def seen(self) -> bytes:
        return bytes(self.far.seen)

    @asynccontextmanager
    async def silent(self, since: suite.Since) -> AsyncIterator[FcmProvider]:
        async with (
            broken(None, reads=False) as nobody,
            fcm(self.far.account, Fault("", then="hang"), patience=0.5) as (provider, _),
        ):
            if since == "connecting":
                provider._wire._app._services["_messaging"]._fcm_url = nobody.url.replace("http:", "https:")
            yield provider


class TestFcm(suite.ProviderContract):
    @pytest.fixture
    async def far(self, account: Path) -> AsyncIterator[suite.Far]:
        async with fcm(account, LOST) as (provider, far):
            yield FcmFar(provider, AT_ONCE, far)


# Faults at every point of the wire ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("ill", then="reset"), Ambiguous("closed", "ReadError")),
        (Fault("ill", then="reset", taken=True), Ambiguous("closed", "ReadError")),
        (Fault("ill", then="cut", taken=True), Ambiguous("closed", "RemoteProtocolError")),
        (Fault("ill", 200, b"nonsense", taken=True), Ambiguous("200", "the answer could not be read")),
        (Fault("ill", 200, b'{"name": ""}', taken=True), Ambiguous("200", "the answer could not be read")),
        (Fault("ill", 200, b"\xff[", taken=True), Ambiguous("200", "the answer could not be read")),
        (Fault("ill", 200, b"[" * 100_000, taken=True), Ambiguous("200", "the answer could not be read")),
        (Fault("ill", 429, error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")), RateLimited),
        (Fault("ill", 429, b"slow down"), RateLimited),
        (Fault("ill", 500, error(500, "INTERNAL", "INTERNAL")), Unavailable("INTERNAL", "FCM failed")),
        (Fault("ill", 503, error(503, "UNAVAILABLE")), Unavailable("UNAVAILABLE", "FCM is overloaded")),
        (Fault("ill", 500, b"<html>"), Ambiguous),
        (Fault("ill", 502, b"<html>"), Ambiguous),
        (Fault("ill", 503), Ambiguous),
        (Fault("ill", 503, b'{"error": "no object"}'), Ambiguous),
        (Fault("ill", 504, error(504, "DEADLINE_EXCEEDED"), taken=True), Ambiguous),
        (Fault("ill", 400, b'{"error": {"details": ["no object"]}}'), Rejected),
        (Fault("ill", 400, b"\xff\xfe"), Rejected),
        (Fault("ill", 401, error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR")), Unavailable),
        (Fault("ill", 403, error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH")), Rejected),
        (Fault("ill", 404, error(404, "NOT_FOUND", "UNREGISTERED")), BadAddress),
        (Fault("ill", 404, error(404, "NOT_FOUND")), Misconfigured),
        (Fault("ill", 302, headers=(("Location", "http://127.0.0.1:9/"),)), Misconfigured),
    ],
    ids=lambda value: f"{value.status} {value.then} {value.body[:12]}" if isinstance(value, Fault) else None,
)
async def test_one_fault_befalls_one_message(account: Path, fault: Fault, expected: Outcome | type[Outcome]):
    async with fcm(account, fault) as (provider, far):
        batch, witness = [push(name) for name in ("ann", "ann", "ill", "ann", "ann")], Notebook()
        outcomes = await sent(provider, batch, witness)
    kind = expected if isinstance(expected, type) else type(expected)
    assert kinds(batch, outcomes) == [Receipt, Receipt, kind, Receipt, Receipt]
    assert isinstance(expected, type) or outcomes[batch[2].id] == expected
    assert accepted(far) == Counter(one.id for one in batch if one is not batch[2] or fault.taken)
    assert far.hits == {fault: 1}, "the SDK repeats nothing by itself"
    assert witness.in_doubt == ({batch[2].id} if fault.then != "answer" else set())


async def test_a_server_that_does_not_answer_leaves_its_message_in_doubt(account: Path):
    async with fcm(account, Fault("ill", then="hang"), patience=0.2) as (provider, _):
        batch, witness = [push("ann"), push("ill")], Notebook()
        outcomes = await sent(provider, batch, witness)
    assert outcomes[batch[1].id] == Ambiguous("timeout", "ReadTimeout")
    assert witness.in_doubt == {batch[1].id}


async def test_where_nobody_listens_everything_is_away_and_nobody_in_doubt(account: Path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with fcm(account) as (provider, _):
            provider._wire._app._services["_messaging"]._fcm_url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
            witness = Notebook()
            outcomes = await sent(provider, [push() for _ in range(AT_ONCE * 3)], witness)
    assert set(outcomes.values()) == {Unavailable("connect", "ConnectError", is_away=True)}
    assert len(witness.allowed) == AT_ONCE, "the rest was not tried"
    assert not witness.in_doubt


async def test_a_fault_of_ours_stops_the_batch(account: Path):
    async with fcm(account, Fault("", 403, error(403, "PERMISSION_DENIED"))) as (provider, far):
        batch, witness = [push() for _ in range(AT_ONCE * 3)], Notebook()
        outcomes = await sent(provider, batch, witness)
    assert {type(outcome) for outcome in outcomes.values()} == {Misconfigured}
    assert len(far.requests) == len(witness.allowed) == AT_ONCE


async def test_devices_of_another_project_are_our_fault_when_nothing_else_is_taken_between(account: Path):
    async with fcm(account) as (provider, far):
        mixed = await sent(provider, [push(name) for name in ("other-project-", "ann") * 8], Notebook())
        assert {type(outcome) for outcome in mixed.values()} == {Rejected, Receipt}
        batch = [push("other-project-") for _ in range(AT_ONCE * 3)]
        outcomes = await sent(provider, batch, Notebook())
    assert kinds(batch, outcomes) == [Rejected] * 5 + [Misconfigured] * (len(batch) - 5)
    assert len(far.requests) < 16 + len(batch)


async def test_an_outage_puts_one_call_in_doubt_and_then_one_probe_at_a_time(account: Path):
    async with fcm(account, Fault("", 503, b"<html>", times=AT_ONCE + 1)) as (provider, far):
        away = Unavailable("503", "too many answers in a row were lost", is_away=True)
        batch = [push() for _ in range(AT_ONCE * 3)]
        outcomes = await sent(provider, batch, Notebook())
        assert kinds(batch, outcomes) == [Ambiguous] * AT_ONCE + [Unavailable] * AT_ONCE * 2
        assert outcomes[batch[-1].id] == away
        later = [push(), push()]
        assert kinds(later, await sent(provider, later, Notebook())) == [Ambiguous, Unavailable]
        assert kinds(later, await sent(provider, later, Notebook())) == [Receipt, Receipt]
    assert len(far.requests) == AT_ONCE + 3


async def test_an_outage_is_noticed_over_small_batches(account: Path):
    async with fcm(account, Fault("", then="reset")) as (provider, far):
        made = [kinds(batch, await sent(provider, batch, Notebook())) for batch in ([push()] for _ in range(6))]
    assert made == [[Ambiguous]] * 3 + [[Unavailable], [Ambiguous], [Unavailable]]
    assert len(far.requests) == 4


@pytest.mark.parametrize("together", [3, 100])
async def test_a_call_waits_for_the_turn_of_all_its_pushes_before_the_witness_is_asked(account: Path, together: int):
    pace, size = Turnstile(together=together), min(together, AT_ONCE)
    async with fcm(account, pace=pace) as (provider, far):
        batch, witness = [push() for _ in range(size + 1)], Notebook()
        sending = asyncio.create_task(sent(provider, batch, witness))
        await pace.until_all_wait(1)
        assert not witness.lines
        await pace.let(size)
        await pace.until_all_wait(1)
        assert len(far.pushes) == len(witness.allowed) == size
        await pace.let(1)
        assert {type(outcome) for outcome in (await sending).values()} == {Receipt}
    assert pace.asked == [size, 1]


# Waiting --------------------------------------------------------------------------------------------------------------


async def test_retry_after_holds_for_everything_that_this_process_sends(account: Path):
    async with fcm(account) as (provider, _):
        first = [push("ann"), push("slow-down-")]
        outcomes = await sent(provider, first, Notebook())
        assert kinds(first, outcomes) == [Receipt, RateLimited]
        assert outcomes[first[1].id].retry_after == timedelta(seconds=5)
        witness, later = Notebook(), [push(), push()]
        held = await sent(provider, later, witness)
        assert {type(outcome) for outcome in held.values()} == {RateLimited}
        assert all(timedelta(0) < outcome.retry_after <= timedelta(seconds=5) for outcome in held.values())
        assert not witness.lines
        provider._hold._until = 0.0  # the time has passed
        assert kinds(later, await sent(provider, later, witness)) == [Receipt, Receipt]


async def test_retry_after_of_an_overloaded_server_holds_as_well(account: Path):
    fault = Fault("ill", 503, error(503, "UNAVAILABLE", "UNAVAILABLE"), (("Retry-After", "120"),))
    async with fcm(account, fault) as (provider, _):
        ill, after = push("ill"), push()
        assert isinstance((await sent(provider, [ill], Notebook()))[ill.id], Unavailable)
        held = (await sent(provider, [after], Notebook()))[after.id]
    assert isinstance(held, RateLimited)
    assert held.code == "UNAVAILABLE"
    assert held.retry_after > timedelta(seconds=60)


async def test_a_batch_under_way_stops_when_it_is_told_to_wait(account: Path):
    async with fcm(account, at_once=2) as (provider, far):
        batch = [push("slow-down-"), *(push() for _ in range(9))]
        outcomes = await sent(provider, batch, Notebook())
    assert kinds(batch, outcomes) == [RateLimited, Receipt, *[RateLimited] * 8]
    assert len(far.requests) == 2


async def test_without_retry_after_only_that_device_waits(account: Path):
    async with fcm(account, at_once=1) as (provider, _):
        batch = [push("quota-"), push("ann")]
        outcomes = await sent(provider, batch, Notebook())
    assert kinds(batch, outcomes) == [RateLimited, Receipt]
    assert outcomes[batch[0].id].retry_after == timedelta(minutes=1)


def too_fast(match: str = "", message: str = "No.", **headers: str) -> Fault:
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Fault(match, 429, error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", message), named)


async def test_without_retry_after_a_row_of_them_holds_everything(account: Path):
    async with fcm(account, too_fast(), at_once=2) as (provider, far):
        batch = [push() for _ in range(50)]
        outcomes = await sent(provider, batch, Notebook())
        assert {type(outcome) for outcome in outcomes.values()} == {RateLimited}
        assert len(far.requests) == 4, "the second call brings the third in a row"
        assert timedelta(seconds=50) < outcomes[batch[-1].id].retry_after <= timedelta(minutes=1)


async def test_what_is_taken_between_shows_that_not_all_is_too_fast(account: Path):
    async with fcm(account, too_fast("ill"), at_once=1) as (provider, far):
        batch = [push(name) for name in ("ill", "ill", "ann") * 4]
        outcomes = await sent(provider, batch, Notebook())
    assert kinds(batch, outcomes) == [RateLimited, RateLimited, Receipt] * 4
    assert len(far.requests) == 12


async def test_one_device_s_rate_holds_nobody_else_however_long(account: Path):
    fault = too_fast("ill", "Device message rate exceeded.", Retry_After="3600")
    async with fcm(account, fault, at_once=1) as (provider, _):
        batch = [push(name) for name in ("ill", "ill", "ill", "ann")]
        outcomes = await sent(provider, batch, Notebook())
    assert kinds(batch, outcomes) == [RateLimited] * 3 + [Receipt]
    assert outcomes[batch[0].id].retry_after == timedelta(hours=1)


async def test_the_project_s_quota_holds_everything_at_once(account: Path):
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED"}
    body = json.dumps({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [detail]}}).encode()
    async with fcm(account, Fault("", 429, body), at_once=1) as (provider, far):
        outcomes = await sent(provider, [push() for _ in range(9)], Notebook())
    assert {type(outcome) for outcome in outcomes.values()} == {RateLimited}
    assert len(far.requests) == 1


async def test_a_push_that_has_expired_while_it_waited_goes_back_unsent(account: Path):
    async with fcm(account) as (provider, far):
        batch, witness = [push(expires_at=datetime.now(UTC)), push()], Notebook()
        outcomes = await sent(provider, batch, witness)
    assert outcomes[batch[0].id] == Withheld("expired")
    assert kinds(batch, outcomes) == [Withheld, Receipt]
    assert witness.allowed == {batch[1].id}
    assert len(far.requests) == 1


async def test_a_platform_s_wrong_key_calls_for_a_person_once_a_minute(account: Path, caplog, monkeypatch):
    async with fcm(account, at_once=2) as (provider, _):
        for _ in range(3):
            batch = [push("apns-key-"), push("apns-key-"), push()]
            assert kinds(batch, await sent(provider, batch, Notebook())) == [Unavailable, Unavailable, Receipt]
        lines = [record for record in caplog.records if "push.key_refused" in record.getMessage()]
        assert [(line.levelname, "THIRD_PARTY_AUTH_ERROR" in line.getMessage()) for line in lines] == [("ERROR", True)]
        monkeypatch.setattr(provider._keys, "_told_at", time.monotonic() - fcm_module.AGAIN)
        await sent(provider, [push("apns-key-")], Notebook())
    assert caplog.text.count("push.key_refused") == 2
    assert "apns-key-" not in caplog.text


BAD_KEY = Misconfigured("THIRD_PARTY_AUTH_ERROR", "the project's APNs key or web push key is wrong", Platform.IOS)
IPHONES = [f"apns-key-{n}" for n in range(6)]


def on(platform: Platform | None, *devices: str) -> list[Outgoing[PushContent]]:
    return [push(device, platform=platform) for device in devices]


async def test_several_iphones_that_are_refused_stop_the_rest_of_them_unasked_and_the_others_go_on(account: Path):
    iphones, others = on(Platform.IOS, *IPHONES), [*on(Platform.ANDROID, "bob"), *on(Platform.WEB, "eve"), push()]
    async with fcm(account, at_once=1) as (provider, far):
        witness = Notebook()
        outcomes = await sent(provider, [*iphones, *others], witness)
        assert kinds(iphones, outcomes) == [Unavailable] * 2 + [Misconfigured] * 4
        assert {outcomes[one.id] for one in iphones[2:]} == {BAD_KEY}
        assert kinds(others, outcomes) == [Receipt] * 3
        assert witness.allowed == {one.id for one in [*iphones[:3], *others]}
        assert witness.answers[iphones[2].id] == BAD_KEY
        [probe] = on(Platform.IOS, "apns-key-9")
        assert await sent(provider, [probe], Notebook()) == {probe.id: BAD_KEY}
    assert len(far.requests) == 7


async def test_a_whole_call_of_refused_iphones_does_not_end_the_batch_of_the_others(account: Path):
    async with fcm(account, at_once=5) as (provider, _):
        iphones, androids = on(Platform.IOS, *IPHONES[:5]), on(Platform.ANDROID, "bob", "eve")
        outcomes = await sent(provider, [*iphones, *androids], Notebook())
    assert kinds(iphones, outcomes) == [Unavailable] * 2 + [Misconfigured] * 3
    assert kinds(androids, outcomes) == [Receipt] * 2


async def test_one_iphone_that_is_refused_again_and_again_stops_no_other(account: Path):
    async with fcm(account, at_once=1) as (provider, _):
        again = on(Platform.IOS, *["apns-key-1"] * 4, "apns-key-2", "ann", "apns-key-3")
        outcomes = await sent(provider, again, Notebook())
    assert kinds(again, outcomes) == [Unavailable] * 5 + [Receipt, Unavailable]


@pytest.mark.parametrize("platform", [None, Platform.ANDROID])
async def test_what_has_no_key_or_no_known_platform_is_never_stopped(account: Path, platform: Platform | None):
    async with fcm(account, at_once=1) as (provider, _):
        batch = on(platform, *IPHONES)
        assert {type(outcome) for outcome in (await sent(provider, batch, Notebook())).values()} == {Unavailable}


async def test_a_key_that_is_right_again_is_heard_of_in_the_same_batch(account: Path):
    """Calls of several messages: the third was refused, and one beside it was taken."""
    async with fcm(account, at_once=4) as (provider, _):
        batch = on(Platform.IOS, *IPHONES[:3], "ann", "ann", "bob")
        outcomes = await sent(provider, batch, Notebook())
    assert kinds(batch, outcomes) == [Unavailable] * 2 + [Misconfigured] + [Receipt] * 3


# The token ------------------------------------------------------------------------------------------------------------


async def test_a_slow_token_endpoint_does_not_stop_the_loop(account: Path):
    async with fcm(account, token_gate=asyncio.Event()) as (provider, far):
        batches = [[push()] for _ in range(5)]
        sending = [asyncio.create_task(sent(provider, batch, Notebook())) for batch in batches]
        while not far.tokens:
            await asyncio.sleep(0.001)  # the endpoint lives in this loop: if it stood still, nobody could ask it
        assert not far.requests
        far.token_gate.set()
        outcomes = await asyncio.gather(*sending)
    assert {type(outcome) for each in outcomes for outcome in each.values()} == {Receipt}
    assert far.tokens == 1, "one for all who wait"


async def test_an_ageing_token_is_used_while_its_successor_is_fetched(account: Path):
    async with fcm(account) as (provider, far):
        await sent(provider, [push()], Notebook())
        far.token_gate = asyncio.Event()
        credential = provider._wire.token._credential
        credential.expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(minutes=2)
        for _ in range(3):
            assert {type(one) for one in (await sent(provider, [push()], Notebook())).values()} == {Receipt}
        while far.tokens < 2:
            await asyncio.sleep(0.001)
        far.token_gate.set()
        await asyncio.gather(*provider._wire.token.under_way())
        assert credential.token_state.name == "FRESH"
    assert far.tokens == 2


async def test_the_sdk_never_fetches_a_token_in_the_loop(account: Path, monkeypatch: pytest.MonkeyPatch):
    threads = []
    refresh = wire.AccessToken._refresh

    def watched(self: wire.AccessToken) -> None:
        threads.append(threading.current_thread())
        refresh(self)

    monkeypatch.setattr(wire.AccessToken, "_refresh", watched)
    own_way = "google.oauth2.service_account.Credentials.before_request"
    monkeypatch.setattr(own_way, lambda *_: threads.append(threading.main_thread()))
    async with fcm(account, lifetime=1) as (provider, far):
        batch = [push("apns-key-"), push()]
        for _ in range(3):
            assert kinds(batch, await sent(provider, batch, Notebook())) == [Unavailable, Receipt]
            provider._wire.token.distrust()
    assert far.tokens == len(threads) >= 3
    assert threading.main_thread() not in threads


async def test_a_token_that_fcm_does_not_take_is_not_used_again(account: Path):
    fault = Fault("ill", 401, error(401, "UNAUTHENTICATED"), times=1)
    async with fcm(account, fault) as (provider, far):
        ill = push("ill")
        assert isinstance((await sent(provider, [ill], Notebook()))[ill.id], Misconfigured)
        assert isinstance((await sent(provider, [ill], Notebook()))[ill.id], Receipt)
    assert far.tokens == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}', Misconfigured),
        (b'{"error": "internal_failure"}', Unavailable),
        (b"nonsense", Misconfigured),
    ],
)
async def test_without_a_token_nothing_is_sent(account: Path, answer: bytes, expected, monkeypatch):
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)
    async with fcm(account, refuses_tokens=answer) as (provider, far):
        witness = Notebook()
        outcomes = await sent(provider, [push(), push()], witness)
    assert {type(outcome) for outcome in outcomes.values()} == {expected}
    assert not witness.lines
    assert not far.requests


# What the SDK must not do, and what it is given -----------------------------------------------------------------------


async def test_the_names_inside_of_the_sdk_are_those_that_are_used(account: Path):
    async with fcm(account) as (provider, far):
        service = provider._wire._app._services["_messaging"]
        client = service._async_client
        assert service._fcm_url == f"{far.url}/v1/projects/notifier-sandbox/messages:send"
        assert {transport._retry.retries_left for transport in client._mounts.values()} == {0}
        assert not [transport for transport in client._mounts.values() if transport._retry.status_forcelist]
        assert client.async_client.auth is provider._wire.token
        assert client.timeout == 10
        assert client._mounts.keys() == {"http://", "https://"}
        pools = [transport._wrapped_transport._pool for transport in client._mounts.values()]
        assert {(pool._http2, pool._retries) for pool in pools} == {(True, 0)}


async def test_each_provider_has_an_app_of_its_own_and_gives_it_back(account: Path):
    import firebase_admin

    before = set(firebase_admin._apps)
    async with fcm(account) as (first, _), fcm(account) as (second, _):
        names = set(firebase_admin._apps) - before
        assert len(names) == 2
        assert "[DEFAULT]" not in names
        for provider in (first, second):
            await sent(provider, [push()], Notebook())
    assert set(firebase_admin._apps) == before


async def test_a_token_and_an_installation_id_each_stand_in_their_own_field(account: Path, recwarn):
    async with fcm(account) as (provider, far):
        batch = [push(kind=DeviceKind.FID), push(kind=DeviceKind.TOKEN)]
        await sent(provider, batch, Notebook())
    sent_to = [{"fid", "token"} & request["message"].keys() for request in far.requests]
    assert sorted(map(sorted, sent_to)) == [["fid"], ["token"]]
    assert not recwarn.list


async def test_what_cannot_be_sent_is_refused_before_anybody_is_asked(account: Path):
    async with fcm(account) as (provider, _):
        bad = [
            PushContent("t", "x" * 4096),
            PushContent("t", "b", data={"google.x": "1"}),
            PushContent("t", "b", data={"n": 1}),
            PushContent("t", "\ud800"),
        ]
        batch, witness = [push(), *(push(content=one) for one in bad), push()], Notebook()
        outcomes = await sent(provider, batch, witness)
    assert kinds(batch, outcomes) == [Receipt, *[Rejected] * 4, Receipt]
    assert witness.allowed == {batch[0].id, batch[-1].id}


async def test_an_answer_lost_is_repeated_under_the_same_tag(account: Path):
    async with fcm(account, Fault("doubt", then="reset", taken=True, times=1)) as (provider, far):
        one = push("doubt")
        await sent(provider, [one], Notebook())
        await sent(provider, [one], Notebook())
        assert accepted(far) == {one.id: 2}
        assert len(far.pushes.screen(str(one.to))) == 1


async def test_closing_waits_for_the_answers_under_way(account: Path):
    async with fcm(account) as (provider, _):
        await sent(provider, [push()], Notebook())
        witness = Notebook()

        async def close() -> None:
            await witness.committed.wait()
            await provider.close()

        batch = [push() for _ in range(AT_ONCE * 2)]
        outcomes, _ = await asyncio.gather(sent(provider, batch, witness), close())
    assert kinds(batch, outcomes) == [Receipt] * AT_ONCE + [Unavailable] * AT_ONCE


async def test_cancelled_within_a_call_it_hears_the_answers_that_are_due(account: Path):
    async with fcm(account) as (provider, far):
        witness = Notebook()

        async def cut_off(sending: asyncio.Task) -> None:
            await witness.committed.wait()
            sending.cancel()

        async with asyncio.TaskGroup() as group:
            sending = group.create_task(sent(provider, [push() for _ in range(AT_ONCE * 3)], witness))
            group.create_task(cut_off(sending))
        assert sending.cancelled()
        assert not witness.in_doubt
        assert accepted(far) == Counter(witness.allowed)
    assert len(witness.allowed) == AT_ONCE


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"type": "service_account", "project_id": "p"}'])
def test_a_file_that_is_no_key_is_refused_without_repeating_it(tmp_path: Path, content: str):
    path = tmp_path / "account.json"
    path.write_text(content)
    with pytest.raises(CannotUseFcm, match="not the JSON key"):
        FcmProvider.from_file(path)
    with pytest.raises(CannotUseFcm, match="cannot be read"):
        FcmProvider.from_file(tmp_path / "none.json")


def test_without_the_sdk_the_extra_is_named(account: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "firebase_admin", None)
    with pytest.raises(CannotUseFcm, match="extra `push`"):
        FcmProvider.from_file(account)


# HTTP/2, as Google speaks it ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def over_http2(
    account: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, shows: str = "good", **options
) -> AsyncIterator[tuple[FcmProvider, Door]]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    context = server_context(getattr(certificates, shows))
    async with Far(account).open() as far, Door(far, context, **options).open() as door:
        provider = FcmProvider.from_file(account, api_url=door.url)
        try:
            yield provider, door
        finally:
            await provider.close()


async def test_a_call_shares_one_connection(account: Path, certificates: Certificates, monkeypatch):
    async with over_http2(account, certificates, monkeypatch, streams_at_once=20) as (provider, door):
        batch = [push(name) for name in ("ann", "unregistered-") * 60]
        outcomes = await sent(provider, batch, Notebook())
        assert kinds(batch, outcomes) == [Receipt, BadAddress] * 60
    assert door.lines == 1
    assert 1 < door.most_streams <= 20


async def test_a_server_that_leaves_in_good_order_loses_and_doubles_nothing(
    account: Path, certificates: Certificates, monkeypatch
):
    async with over_http2(account, certificates, monkeypatch, leaves_after=5) as (provider, door):
        batch, witness = [push() for _ in range(30)], Notebook()
        outcomes = await sent(provider, batch, witness)
        taken = {id_ for id_, outcome in outcomes.items() if isinstance(outcome, Receipt)}
    assert {type(outcome) for outcome in outcomes.values()} <= {Receipt, Ambiguous}
    assert set(accepted(door.far).values()) == {1}
    assert taken <= accepted(door.far).keys() <= taken | witness.in_doubt


async def test_a_certificate_that_does_not_hold_is_nobody_at_all(
    account: Path, certificates: Certificates, monkeypatch
):
    async with over_http2(account, certificates, monkeypatch, "expired") as (provider, _):
        outcomes = await sent(provider, [push()], Notebook())
    assert list(outcomes.values()) == [Unavailable("connect", "ConnectError", is_away=True)]


# The stand-in ---------------------------------------------------------------------------------------------------------


def test_the_service_account_is_written_once_and_for_its_owner_only(tmp_path: Path):
    path = tmp_path / "account.json"
    write_service_account(path, "http://127.0.0.1:1/")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_bytes()
    path.chmod(0o644)
    write_service_account(path, "http://127.0.0.1:1")
    assert path.read_bytes() == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = Account.read(path).secret
    write_service_account(path, "http://127.0.0.1:2")
    assert Account.read(path).secret == key
    assert b"http://127.0.0.1:2/fcm/token" in path.read_bytes()


async def test_the_stand_in_gives_tokens_only_for_the_account_s_signature(account: Path, tmp_path: Path):
    import jwt

    other = tmp_path / "other.json"
    write_service_account(other, "http://127.0.0.1:1")
    now = int(time.time())
    claims = {
        "iss": "push@notifier-sandbox.iam.gserviceaccount.com",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": now,
        "exp": now + 3600,
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
    }
    wrong = [
        ({}, Account.read(other).key),
        *(({name: value}, None) for name, value in (("aud", "x"), ("iss", "x"), ("exp", now - 9), ("scope", "mail"))),
        ({"exp": now + 7200}, None),
    ]
    async with Far(account).open() as far, httpx.AsyncClient() as client:
        good = Account.read(account).key
        for change, key in [({}, good), *((change, key or good) for change, key in wrong)]:
            assertion = jwt.encode(claims | change, key, "RS256")
            form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
            answer = await client.post(f"{far.url}/token", data=form)
            assert answer.status_code == (200 if (change, key) == ({}, good) else 400), change
        assert (await client.post(f"{far.url}/token", data={"assertion": assertion})).status_code == 400


async def test_the_stand_in_wants_its_token_and_its_project(account: Path):
    async with Far(account).open() as far, httpx.AsyncClient() as client:
        token = Account.read(account).token()
        body = {"message": {"fid": "a" * 22}}
        for project, authorization, status in [
            ("notifier-sandbox", f"Bearer {token}", 200),
            ("another", f"Bearer {token}", 403),
            ("notifier-sandbox", "Bearer nonsense", 401),
            ("notifier-sandbox", f"Bearer {Account.read(account).token(lifetime=-1)}", 401),
        ]:
            url = f"{far.url}/v1/projects/{project}/messages:send"
            answer = await client.post(url, json=body, headers={"Authorization": authorization})
            assert answer.status_code == status
            assert ("details" in answer.json().get("error", {})) is False


async def test_a_dead_device_is_told_as_such(account: Path):
    async with fcm(account) as (provider, far):
        one = push()
        far.pushes.dead.add(str(one.to))
        assert isinstance((await sent(provider, [one], Notebook()))[one.id], BadAddress)
        assert (far.pushes.refused(str(one.to)), len(far.pushes)) == (1, 0)


async def test_unavailable_is_so_once(account: Path):
    async with fcm(account) as (provider, _):
        one = push("unavailable-")
        assert isinstance((await sent(provider, [one], Notebook()))[one.id], Unavailable)
        assert isinstance((await sent(provider, [one], Notebook()))[one.id], Receipt)


async def test_a_witness_may_hold_back_some_of_a_call(account: Path):
    async with fcm(account) as (provider, far):
        batch = [push() for _ in range(4)]
        outcomes = await sent(provider, batch, Notebook(says_no_to={batch[1].id}))
    assert kinds(batch, outcomes) == [Receipt, Withheld, Receipt, Receipt]
    assert len(far.requests) == 3
