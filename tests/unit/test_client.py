import asyncio
import json
import time
import uuid
from datetime import UTC, datetime

import httpx
import pytest

from notifier.client import AsyncNotifier, Notification, Notifier, Refused, Unreachable

ACCEPTED = {
    "id": "019892f0-1c9a-7c3e-8a7b-3f1f4a0b9c1d",
    "created_at": "2026-11-23T10:00:00Z",
    "messages": [{"id": "019892f0-1c9a-7c3e-8a7b-3f1f4a0b9c1e", "channel": "email"}],
    "added_in_a_later_version": 1,
}
TO = {"email": "ann@example.com"}


@pytest.fixture(autouse=True)
def waits(monkeypatch) -> list[float]:
    waited = []

    async def rest(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(asyncio, "sleep", rest)
    return waited


class Service:
    """Plays answers in turn and remembers what it was asked."""

    def __init__(self, *answers: httpx.Response | int | type[httpx.RequestError]) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, httpx.Response):
            return answer
        if isinstance(answer, int):
            return httpx.Response(answer)
        raise answer("lost")

    @property
    def keys(self) -> set[str]:
        return {request.headers["Idempotency-Key"] for request in self.asked}


def accepted(**headers: str) -> httpx.Response:
    return httpx.Response(202, json=ACCEPTED, headers=headers)


class Sync:
    def __init__(self, service: Service, **more) -> None:
        self.notifier = Notifier("http://n.test", "nk_a_b", transport=httpx.MockTransport(service), **more)

    def __getattr__(self, name):
        return getattr(self.notifier, name)


class Async(Sync):
    def __init__(self, service: Service, **more) -> None:
        self.notifier = AsyncNotifier("http://n.test", "nk_a_b", transport=httpx.MockTransport(service), **more)

    def __getattr__(self, name):
        method = getattr(self.notifier, name)
        return lambda *arguments, **more: asyncio.run(method(*arguments, **more))


both = pytest.mark.parametrize("kind", [Sync, Async])


@both
def test_a_send_is_what_the_api_takes_and_what_it_answers(kind) -> None:
    service = Service(accepted())
    when = datetime(2027, 1, 1, tzinfo=UTC)
    answer = kind(service).send("welcome", to=TO, data={"a": 1}, send_at=when, idempotency_key="k")
    [request] = service.asked
    assert (request.method, request.url.path) == ("POST", "/v1/notifications")
    assert request.headers["Authorization"] == "Bearer nk_a_b"
    assert json.loads(request.content) == {
        "template": "welcome",
        "recipient": TO,
        "data": {"a": 1},
        "send_at": "2027-01-01T00:00:00+00:00",
    }
    assert answer.id == uuid.UUID(ACCEPTED["id"])
    assert answer.messages[0].channel == "email"
    assert not answer.replayed


@both
@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError,
        httpx.ReadTimeout,
        httpx.RemoteProtocolError,
        httpx.DecodingError,
        429,
        500,
        503,
        524,  # a proxy's, when the service takes its time
    ],
)
def test_trouble_is_tried_again_under_the_same_key(kind, trouble) -> None:
    service = Service(trouble, trouble, accepted(**{"Idempotent-Replayed": "true"}))
    answer = kind(service).send("welcome", to=TO)
    assert answer.replayed
    assert len(service.asked) == 3
    assert len(service.keys) == 1


@both
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
def test_a_refusal_is_not_tried_again_and_carries_the_problem(kind, status) -> None:
    problem = {"type": "urn:x", "title": "No.", "status": status, "errors": [{"pointer": "/a", "detail": "mend it"}]}
    service = Service(httpx.Response(status, json=problem))
    with pytest.raises(Refused, match="mend it") as refused:
        kind(service).send("welcome", to=TO)
    assert len(service.asked) == 1
    assert refused.value.problem.status == status
    assert refused.value.problem.errors[0].pointer == "/a"


@both
def test_it_gives_up_and_hands_back_the_key(kind) -> None:
    service = Service(*[httpx.ConnectError] * 3)
    with pytest.raises(Unreachable) as lost:
        kind(service, tries=3).send("welcome", to=TO)
    assert {lost.value.idempotency_key} == service.keys


@both
def test_a_success_that_is_not_the_services_is_none(kind) -> None:
    """A proxy's page, or a body cut short: pydantic's error would hold it, and the key would be lost with it."""
    service = Service(*[httpx.Response(200, html="<p>Log in, Ann</p>")] * 3)
    with pytest.raises(Unreachable, match="answered 200, but not as it does") as lost:
        kind(service, tries=3).send("welcome", to=TO)
    assert {lost.value.idempotency_key} == service.keys
    assert kind(Service(httpx.Response(202, content=b'{"id": '), accepted())).send("welcome", to=TO).id


@both
def test_what_a_lost_try_has_removed_is_removed(kind) -> None:
    kind(Service(httpx.ReadTimeout, 404)).remove_list("l")
    with pytest.raises(Refused):
        kind(Service(404)).remove_list("l")


@both
def test_waits_grow_and_follow_what_the_service_asks_for(kind, waits) -> None:
    service = Service(*[httpx.Response(500)] * 3, httpx.Response(503, headers={"Retry-After": "7"}), accepted())
    kind(service).send("welcome", to=TO)
    assert all(0.5 * 0.25 * 2**n <= wait <= 0.25 * 2**n for n, wait in enumerate(waits[:3], 1))
    assert waits[3] == 7


@both
def test_a_key_goes_as_it_is_written(kind) -> None:
    service = Service(accepted())
    kind(service).send("welcome", to=TO, idempotency_key="Größe-Ü")
    assert dict(service.asked[0].headers.raw)[b"Idempotency-Key"] == "Größe-Ü".encode()


def test_two_sends_have_two_keys() -> None:
    service = Service(accepted(), accepted())
    notifier = Sync(service)
    for _ in range(2):
        notifier.send("welcome", to=TO)
    assert len(service.keys) == 2


def test_a_batch_keeps_the_keys_of_its_notifications() -> None:
    many = [Notification(template="welcome", to=TO), Notification(template="welcome", to=TO, idempotency_key="mine")]
    service = Service(*[httpx.Response(202, json={"notifications": [ACCEPTED, ACCEPTED]})] * 2)
    notifier = Sync(service)
    assert len(notifier.send_batch(many)) == 2
    notifier.send_batch(many)
    first, again = [json.loads(request.content)["notifications"] for request in service.asked]
    assert first == again
    assert first[1]["idempotency_key"] == "mine"
    assert uuid.UUID(first[0]["idempotency_key"])


def test_what_is_no_json_is_refused_before_it_leaves() -> None:
    service = Service()
    with pytest.raises(ValueError, match="zone"):
        Sync(service).send("welcome", to=TO, send_at=datetime(2027, 1, 1))  # noqa: DTZ001
    with pytest.raises(TypeError, match="object"):
        Sync(service).send("welcome", to=TO, data={"a": object()})
    assert not service.asked


def test_an_id_with_strange_letters_stays_one_part_of_the_path() -> None:
    service = Service(httpx.Response(404))
    with pytest.raises(Refused):
        Sync(service).recipient("a b?c#d/e")
    assert service.asked[0].url.raw_path == b"/v1/recipients/a%20b%3Fc%23d%2Fe"


def test_a_list_of_people_goes_as_lines_and_a_text_as_a_table() -> None:
    report = {"lines": 2, "stored": 2, "created": 2, "grants": 0, "problems": [], "problems_left_out": 0}
    service = Service(httpx.Response(200, json=report), httpx.Response(200, json=report))
    notifier = Sync(service)
    notifier.import_recipients([{"id": "a"}, {"id": "b"}])
    notifier.import_recipients("id\na\nb\n")
    assert [request.headers["Content-Type"] for request in service.asked] == ["application/x-ndjson", "text/csv"]
    assert service.asked[0].content == b'{"id": "a"}\n{"id": "b"}'


DEVICE = {
    "id": "019892f0-1c9a-7c3e-8a7b-3f1f4a0b9c1f",
    "platform": "ios",
    "kind": "fid",
    "name": None,
    "registered_at": "2026-11-23T10:00:00Z",
    "refreshed_at": "2026-11-23T10:00:00Z",
}


@both
def test_devices_are_registered_listed_and_removed(kind) -> None:
    listed = httpx.Response(200, json={"devices": [DEVICE]})
    service = Service(503, httpx.Response(201, json=DEVICE), listed, httpx.Response(204))
    notifier = kind(service)
    device = notifier.register_device("a/b", platform="ios", fid="cKJ3yYTfS0mG1aBcDeFgHi")
    assert notifier.devices("a/b") == (device,)
    assert notifier.remove_device("a/b", device.id) is None
    first, again, _, removed = service.asked
    assert first.content == again.content
    assert json.loads(first.content) == {"platform": "ios", "fid": "cKJ3yYTfS0mG1aBcDeFgHi"}
    assert [(request.method, request.url.raw_path) for request in service.asked[1:]] == [
        ("POST", b"/v1/recipients/a%2Fb/devices"),
        ("GET", b"/v1/recipients/a%2Fb/devices"),
        ("DELETE", f"/v1/recipients/a%2Fb/devices/{DEVICE['id']}".encode()),
    ]
    assert "Content-Type" not in removed.headers


def test_no_repr_shows_whom_or_what() -> None:
    assert "ann@" not in repr(Notification(template="welcome", to=TO, data={"x": "ann@"}))


# A campaign's report --------------------------------------------------------------------------------------------------

PIECES = (b"a,b\r\n", b"1,2\r\n")


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """An answer that breaks off after its first piece."""

    def __iter__(self):
        yield PIECES[0]
        raise httpx.ReadError("lost")

    async def __aiter__(self):
        yield PIECES[0]
        raise httpx.ReadError("lost")


def table_of(kind, service: Service, got: list[bytes]) -> None:
    client = kind(service).notifier
    if kind is Sync:
        got.extend(client.campaigns.report_csv("c"))
        return

    async def read() -> None:
        async for piece in client.campaigns.report_csv("c"):
            got.append(piece)  # noqa: PERF401  # what came before it broke off counts

    asyncio.run(read())


@both
def test_the_table_is_tried_again_until_it_begins(kind) -> None:
    got: list[bytes] = []
    service = Service(503, httpx.ConnectError, httpx.Response(200, content=b"".join(PIECES)))
    table_of(kind, service, got)
    assert b"".join(got) == b"".join(PIECES)
    assert [request.url.path for request in service.asked] == ["/v1/campaigns/c/report.csv"] * 3


@both
def test_a_table_that_breaks_off_is_not_begun_again_in_the_middle(kind) -> None:
    got: list[bytes] = []
    service = Service(httpx.Response(200, stream=Broken()))
    with pytest.raises(Unreachable, match="ReadError"):
        table_of(kind, service, got)
    assert got == [PIECES[0]]
    assert len(service.asked) == 1


@both
def test_a_table_that_is_refused_carries_the_problem(kind) -> None:
    with pytest.raises(Refused, match="No"):
        table_of(kind, Service(httpx.Response(404, json={"type": "urn:x", "title": "No.", "status": 404})), [])


@pytest.mark.parametrize("client", [Notifier, AsyncNotifier])
@pytest.mark.parametrize("key", ["", "nk_a_b\n", "nk_a b", "nk_ä_b"])
def test_what_cannot_be_a_key_is_named_at_once_and_not_shown(client, key):
    with pytest.raises(ValueError, match="not a key") as refused:
        client("http://127.0.0.1:1", key)
    assert "nk_a" not in str(refused.value)
