import asyncio
import json
import time
from datetime import datetime
from uuid import uuid4

import psycopg
import pytest
from fastapi import APIRouter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from notifier.domain.access import ApiKey, Scope
from notifier.store import keys
from notifier.web import edge
from notifier.web.guard import Guarded
from tests.servers.api import Api, a_body, once
from tests.servers.campaigns import ready_for

pytestmark = pytest.mark.anyio

NO_SUCH = "019892f0-1c9a-7c3e-8a7b-3f1f4a0b9c1d"


def concrete(path: str, number: int = 1) -> str:
    return path.replace("{id}", NO_SUCH).replace("{device_id}", NO_SUCH).replace("{number}", str(number))


def routes(document: dict):
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation


# The door -------------------------------------------------------------------------------------------------------------


async def test_every_route_declares_its_scopes_and_admits_no_other(api: Api) -> None:
    document = (await api.client.get("/openapi.json")).json()
    headers = {scope: await api.key(scope) for scope in Scope}
    seen = set()
    for method, path, operation in routes(document):
        declared = set(operation["x-scopes"])
        assert declared, path
        assert declared <= set(Scope)
        assert operation["security"] == [{"key": []}]
        for scope in Scope:
            response = await api.client.request(method, concrete(path), headers=headers[scope])
            assert (response.status_code == 403) == (scope not in declared), (method, path, scope)
            seen.add((method, path, scope))
        nobody = await api.client.request(method, concrete(path), headers={"Authorization": ""})
        assert nobody.status_code == 401
    assert len(seen) == len(list(routes(document))) * len(Scope)


async def test_the_api_is_this_and_nothing_else(api: Api) -> None:
    document = (await api.client.get("/openapi.json")).json()
    described = {(method, path) for method, path, _ in routes(document)}
    assert described == {
        ("POST", "/v1/notifications"),
        ("POST", "/v1/notifications/batch"),
        ("GET", "/v1/notifications/{id}"),
        ("POST", "/v1/notifications/{id}/cancel"),
        ("GET", "/v1/messages/{id}"),
        ("PUT", "/v1/recipients/{id}"),
        ("GET", "/v1/recipients/{id}"),
        ("POST", "/v1/recipients/import"),
        ("POST", "/v1/recipients/{id}/devices"),
        ("GET", "/v1/recipients/{id}/devices"),
        ("DELETE", "/v1/recipients/{id}/devices/{device_id}"),
        ("GET", "/v1/recipients/{id}/preferences"),
        ("PUT", "/v1/recipients/{id}/preferences"),
        ("POST", "/v1/recipients/{id}/confirmations"),
        ("GET", "/v1/suppressions"),
        ("POST", "/v1/suppressions"),
        ("POST", "/v1/suppressions/lookup"),
        ("POST", "/v1/suppressions/{number}/lift"),
        ("POST", "/v1/lists"),
        ("GET", "/v1/lists"),
        ("GET", "/v1/lists/{id}"),
        ("DELETE", "/v1/lists/{id}"),
        ("POST", "/v1/audiences/count"),
        ("GET", "/v1/messages/{id}/explanation"),
        ("POST", "/v1/explain"),
        ("GET", "/v1/events"),
        ("POST", "/v1/webhooks"),
        ("GET", "/v1/webhooks"),
        ("GET", "/v1/webhooks/{id}/given-up"),
        ("DELETE", "/v1/webhooks/{id}"),
        ("POST", "/v1/webhooks/{id}/replay"),
        ("POST", "/v1/campaigns"),
        ("GET", "/v1/campaigns"),
        ("GET", "/v1/campaigns/{id}"),
        ("PATCH", "/v1/campaigns/{id}"),
        ("POST", "/v1/campaigns/{id}/preview"),
        ("GET", "/v1/campaigns/{id}/preview"),
        ("POST", "/v1/campaigns/{id}/schedule"),
        ("POST", "/v1/campaigns/{id}/unschedule"),
        ("POST", "/v1/campaigns/{id}/pause"),
        ("GET", "/v1/campaigns/{id}/report"),
        ("GET", "/v1/campaigns/{id}/report.csv"),
        ("POST", "/v1/campaigns/{id}/resume"),
        ("POST", "/v1/campaigns/{id}/cancel"),
        ("POST", "/v1/campaigns/{id}/test"),
    }


def test_a_route_without_a_scope_cannot_be_built() -> None:
    router = APIRouter(route_class=Guarded)
    with pytest.raises(RuntimeError, match="declares no scope"):
        router.add_api_route("/v1/open", lambda: None)


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer nk_", "Basic bmtfYTpi", "Bearer nk_000000000000_" + "x" * 43, "Bearer \xff", "nk_x_y"],
)
async def test_what_is_no_key_gets_one_and_the_same_answer(api: Api, authorization) -> None:
    response = await api.client.get(
        f"/v1/messages/{NO_SUCH}", headers={"Authorization": authorization.encode("latin-1")}
    )
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["type"] == "urn:notifier:problem:unauthenticated"


async def test_the_right_id_with_another_secret_is_no_key(api: Api) -> None:
    good = await api.key(Scope.READ)
    key = ApiKey.parse(good["Authorization"].removeprefix("Bearer "))
    forged = ApiKey(key.id, ApiKey.new().secret)
    for header, status in ((good, 404), ({"Authorization": f"Bearer {forged}"}, 401), (good, 404)):
        assert (await api.client.get(f"/v1/messages/{NO_SUCH}", headers=header)).status_code == status


async def test_a_revoked_key_is_refused_within_two_seconds(api: Api) -> None:
    header = await api.key(Scope.READ)
    assert (await api.client.get(f"/v1/messages/{NO_SUCH}", headers=header)).status_code == 404
    key = ApiKey.parse(header["Authorization"].removeprefix("Bearer "))
    async with api.app.database.connection() as c:
        assert await keys.revoke(c, key.id)
    api.web.state.keys.clock = lambda: time.monotonic() + 2.1
    assert (await api.client.get(f"/v1/messages/{NO_SUCH}", headers=header)).status_code == 401


async def test_the_last_use_of_a_key_is_kept_but_not_its_secret(api: Api) -> None:
    header = await api.key(Scope.READ)
    key = ApiKey.parse(header["Authorization"].removeprefix("Bearer "))
    await api.client.get(f"/v1/messages/{NO_SUCH}", headers=header)
    await api.web.state.keys.close()
    [row] = await api.rows("SELECT api_keys::text AS all, last_used_at FROM api_keys WHERE id = %s", (key.id,))
    assert row["last_used_at"] is not None
    assert key.secret not in row["all"]


async def test_a_key_is_asked_for_before_the_body_is_read(api: Api) -> None:
    async def body():
        raise AssertionError("the body was read")
        yield b""

    response = await api.client.post("/v1/notifications", content=body(), headers={"Authorization": "Bearer x"})
    assert response.status_code == 401


# Limits ---------------------------------------------------------------------------------------------------------------


async def test_a_body_is_cut_off_while_it_streams(api: Api) -> None:
    pieces = []

    async def body():
        for _ in range(10_000):
            pieces.append(1)
            yield b" " * 10_000

    response = await api.client.post(
        "/v1/notifications", content=body(), headers=once() | {"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert response.json()["type"] == "urn:notifier:problem:too-large"
    assert len(pieces) < 30


async def test_256_kb_is_the_limit(api: Api) -> None:
    async def post(size: int) -> int:
        text = json.dumps(a_body()).encode()
        content = text + b" " * (size - len(text))
        headers = once() | {"Content-Type": "application/json"}
        return (await api.client.post("/v1/notifications", content=content, headers=headers)).status_code

    assert await post(256 * 1024) == 202
    assert await post(256 * 1024 + 1) == 413


async def test_somebody_whose_id_is_import_is_no_import(api: Api) -> None:
    response = await api.put("import", attributes={"about": "x" * edge.MAX_BODY})
    assert response.status_code == 413
    assert (await api.put("import", attributes={"about": "x"})).status_code == 201


async def test_a_batch_may_be_larger_but_none_of_its_notifications(api: Api) -> None:
    small = a_body()
    large = small | {"data": small["data"] | {"padding": "x" * 300_000}}
    items = [one | {"idempotency_key": f"large-{number}"} for number, one in enumerate([small, large])]

    response = await api.client.post("/v1/notifications/batch", json={"notifications": items})

    assert response.status_code == 422
    assert {"pointer": "/notifications/1", "detail": "is over 256 KB; send less data"} in response.json()["errors"]


async def test_a_body_that_never_comes_is_given_up(api: Api, monkeypatch) -> None:
    monkeypatch.setattr(edge, "READ_TIMEOUT", 0.01)

    response = await Raw(api).post("/v1/notifications", [b"{", None])
    assert response["status"] == 408


class Raw:
    """Speaks ASGI, for what a client library would not do."""

    def __init__(self, api: Api) -> None:
        self.app = api.web
        self.headers = [(b"authorization", api.client.headers["authorization"].encode())]

    async def post(self, path: str, pieces: list[bytes | None]) -> dict:
        waiting = iter(pieces)
        answer = {"body": b""}

        async def receive():
            piece = next(waiting)
            if piece is None:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": piece, "more_body": True}

        async def send(message):
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
            else:
                answer["body"] += message.get("body", b"")

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [*self.headers, (b"content-type", b"application/json"), (b"idempotency-key", b"k")],
            "server": ("n", 80),
            "client": ("c", 1),
            "scheme": "http",
            "root_path": "",
        }
        await self.app(scope, receive, send)
        return answer


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"a":' * 10_000, 400),
        (b"[" * 100_000, 400),
        (b'{"data": ' + b"[" * 21 + b"]" * 21 + b"}", 400),
        (b'{"data": "' + b"[" * 30 + b'"}', 422),
        (b'{"data": {"a": NaN}}', 400),
        (b'{"data": {"a": "\\ud800"}}', 400),
        (b"\xff\xfe", 400),
        (b"", 422),
        (b"{", 400),
        (b"null", 422),
        (b"[]", 422),
        (b'"text"', 422),
        (b"9" * 5000, 400),
    ],
)
async def test_what_is_not_plain_json_is_refused(api: Api, content, status) -> None:
    headers = once() | {"Content-Type": "application/json"}
    response = await api.client.post("/v1/notifications", content=content, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


async def test_another_media_type_is_refused(api: Api) -> None:
    response = await api.client.post("/v1/notifications", data={"template": "x"}, headers=once())
    assert response.status_code == 415


async def test_numbers_too_large_for_any_database_are_refused(api: Api) -> None:
    content = json.dumps(a_body()).replace("30", "1e999").encode()
    headers = once() | {"Content-Type": "application/json"}
    response = await api.client.post("/v1/notifications", content=content, headers=headers)
    assert response.status_code == 422


async def test_every_refusal_is_a_problem(api: Api) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("DELETE", "/v1/notifications", 405),
        ("GET", "/v1/messages/17", 422),
        ("GET", f"/v1/messages/{uuid4()}", 404),
        ("GET", f"/v1/notifications/{uuid4()}", 404),
        ("POST", f"/v1/notifications/{uuid4()}/cancel", 404),
    ):
        response = await api.client.request(method, path)
        assert response.status_code == status, path
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json().keys() >= {"type", "title", "status"}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/recipients/user-17", "GET, PUT"),
        ("PUT", "/v1/campaigns", "GET, POST"),
        ("POST", "/v1/messages/17", "GET"),
        ("DELETE", "/u/x", "GET, HEAD, POST, OPTIONS"),
    ],
)
async def test_a_wrong_method_is_told_all_that_the_address_takes(api: Api, method, path, allowed) -> None:
    response = await api.client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("path", ["/v1/notifications/", "/v1/recipients/user-17/", "/docs/"])
async def test_nothing_redirects(api: Api, path) -> None:
    response = await api.client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    ("method", "path", "body", "detail"),
    [
        ("GET", "/v1/events?limit=0", None, "`limit` in the URL must be at least 1"),
        ("GET", "/v1/lists?limit=x", None, "`limit` in the URL must be a whole number"),
        ("GET", "/v1/campaigns?limit=1.5", None, "`limit` in the URL must be a whole number"),
        ("GET", "/v1/suppressions?before=" + "9" * 30, None, "`before` in the URL must be at most 9223372036854775807"),
        ("GET", "/v1/suppressions?lifted=maybe", None, "`lifted` in the URL must be true or false"),
        ("PUT", "/v1/recipients/" + "x" * 256, {}, "`id` in the URL must have at most 255 characters"),
        ("PUT", "/v1/recipients/x", {"locale": "x" * 36}, "must have at most 35 characters"),
        ("PUT", "/v1/recipients/x/preferences", {"preferences": []}, "must have at least 1 items"),
        ("PUT", "/v1/recipients/x/preferences", {"preferences": "no"}, "must be a list"),
        ("PUT", "/v1/recipients/x/preferences", {"preferences": {}}, "must be a list"),
        (
            "PUT",
            "/v1/recipients/x/preferences",
            {"preferences": [{"scope": "all", "channel": "any", "granted": 0}]},
            "must be true or false",
        ),
        ("POST", "/v1/audiences/count", {"audience": {}, "sample": 1.5}, "must be a whole number"),
        ("POST", "/v1/audiences/count", {"audience": {}, "sample": "many"}, "must be a whole number"),
    ],
)
async def test_a_value_of_another_form_is_told_the_form(api: Api, method, path, body, detail) -> None:
    response = await api.client.request(method, path, json=body)
    assert response.status_code == 422
    assert [error["detail"] for error in response.json()["errors"]] == [detail]


async def test_who_breaks_off_their_own_body_is_no_mistake_of_ours(api: Api, capsys) -> None:
    told = []

    async def gone():
        return {"type": "http.disconnect"}

    async def send(message):
        told.append(message)

    for method, path, type_ in (("POST", "/v1/lists", b"text/csv"), ("POST", "/u/x", b"text/plain")):
        headers = [(b"authorization", api.client.headers["authorization"].encode()), (b"content-type", type_)]
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"name=x"}
        await api.web(scope | {"headers": headers, "root_path": "", "http_version": "1.1"}, gone, send)
    assert told == []
    assert "api.broke" not in capsys.readouterr().out


# Reading back ---------------------------------------------------------------------------------------------------------


async def test_a_notification_is_read_back_without_its_data(api: Api) -> None:
    sent = (await api.send(recipient={"id": "ann", "email": "ann@example.test"})).json()
    answer = await api.client.get(f"/v1/notifications/{sent['id']}")
    read = answer.json()
    assert (read["template"], read["recipient"], read["category"]) == ("password-reset", {"id": "ann"}, "transactional")
    assert [(one["id"], one["state"]) for one in read["messages"]] == [(sent["messages"][0]["id"], "queued")]
    assert datetime.fromisoformat(read["created_at"]) == datetime.fromisoformat(sent["created_at"])
    assert "token=abc" not in answer.text


async def advance(api: Api, message: str, *states: str) -> None:
    """Bring a message on as a worker would."""
    await api.execute("INSERT INTO workers (lane, boot_id, journal) VALUES ('transactional', 'b', 'j')")
    for state in states:
        await api.execute(
            "UPDATE messages SET state = %s, due_at = NULL, worker_id = CASE WHEN %s THEN 1 END WHERE id = %s",
            (state, state in ("claimed", "sending"), message),
        )


async def test_a_message_tells_its_whole_story(api: Api) -> None:
    message = (await api.send()).json()["messages"][0]["id"]
    await advance(api, message, "claimed", "sending", "accepted", "delivered")
    await api.execute('UPDATE messages SET decision = \'{"rule": "granted"}\'')
    await api.execute(
        "INSERT INTO attempts (message_id, n, worker_id, provider, state, code, reference, settled_at)"
        " VALUES (%s, 1, 1, 'smtp', 'accepted', '250', 'Q1', now())",
        (message,),
    )
    await api.execute(
        "INSERT INTO delivery_events (id, message_id, attempt, kind, source, source_id, code, occurred_at)"
        " VALUES (gen_random_uuid(), %s, 1, 'delivered', 'sandbox', 'e1', '250', clock_timestamp())",
        (message,),
    )
    read = (await api.client.get(f"/v1/messages/{message}")).json()
    assert (read["state"], read["topic"], read["template"]) == ("delivered", "security", "password-reset")
    assert read["decision"] == {"rule": "granted"}
    assert [one["what"] for one in read["timeline"]] == ["accepted", "attempt", "delivered"]
    assert read["timeline"][1]["reference"] == "Q1"


async def test_cancelling_says_what_it_came_in_time_for(api: Api) -> None:
    early, late = (await api.send()).json(), (await api.send()).json()
    await advance(api, late["messages"][0]["id"], "claimed", "sending", "accepted")
    for _ in range(2):
        answers = [(await api.client.post(f"/v1/notifications/{one['id']}/cancel")).json() for one in (early, late)]
        assert answers[0]["cancelled"] == [early["messages"][0]["id"]]
        assert answers[0]["too_late"] == []
        assert answers[1]["cancelled"] == []
        assert answers[1]["too_late"] == [{"id": late["messages"][0]["id"], "state": "accepted"}]
    [row] = await api.rows("SELECT state, reason, due_at FROM messages WHERE id = %s", (early["messages"][0]["id"],))
    assert row == {"state": "cancelled", "reason": "cancelled_by_api", "due_at": None}


async def test_cancelling_needs_the_scope_that_sending_needed(api: Api) -> None:
    sent = (await api.send()).json()
    header = await api.key(Scope.SEND_MARKETING)
    assert (await api.client.post(f"/v1/notifications/{sent['id']}/cancel", headers=header)).status_code == 403


# Health ---------------------------------------------------------------------------------------------------------------


async def test_health_and_readiness_need_no_key(api: Api) -> None:
    for path in ("/health", "/ready"):
        response = await api.client.get(path, headers={"Authorization": ""})
        assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_with_the_database_away_callers_are_told_to_come_back(api: Api, monkeypatch) -> None:
    class Away:
        def connection(self):
            raise psycopg.OperationalError("connection to server at 192.0.2.1 failed")

    monkeypatch.setattr(type(api.app.database), "connection", Away.connection)
    assert (await api.client.get("/health")).status_code == 200
    for response in (await api.client.get("/ready"), await api.send()):
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert response.json()["type"] == "urn:notifier:problem:unavailable"
        assert "192.0.2.1" not in response.text


async def test_a_bug_answers_500_and_says_nothing_of_itself(api: Api, monkeypatch) -> None:
    async def broken(*_args):
        raise LookupError("ann@example.test")

    monkeypatch.setattr("notifier.store.notifications.find", broken)
    response = await api.client.get(f"/v1/notifications/{NO_SUCH}")
    assert response.status_code == 500
    assert "ann@" not in response.text


# Nothing that is sent breaks it ---------------------------------------------------------------------------------------

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    leaves, lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4)
)
instants = st.datetimes().map(lambda moment: moment.isoformat() + "Z") | st.sampled_from(
    ["2026-11-23T10:00:00+01:00", "2030-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"]
)
people = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=10) | anything,
        "email": st.emails() | st.text(max_size=12) | anything,
        "phone": st.sampled_from(["+4930123456", "+1"]) | anything,
        "locale": st.sampled_from(["de", "en-GB", "x"]) | anything,
        "timezone": st.sampled_from(["Europe/Vienna", "UTC"]) | anything,
    },
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "template": st.sampled_from(["password-reset", "newsletter", "nope"]) | anything,
        "recipient": people | anything,
        "data": st.just({"reset_url": "https://a.test", "valid_minutes": 3}) | anything,
        "channels": st.lists(st.sampled_from(["email", "sms", "push", "fax"])) | anything,
        "send_at": instants | anything,
        "expires_at": instants | anything,
        "idempotency_key": st.text(max_size=10) | anything,
        "surplus": anything,
    },
)
grants = st.fixed_dictionaries(
    {"topic": st.sampled_from(["newsletter", "x"]), "granted_at": instants}, optional={"evidence": anything}
)
lines = people.flatmap(
    lambda one: st.fixed_dictionaries({}, optional={"attributes": anything, "grants": st.lists(grants)}).map(
        lambda more: {**one, **more}
    )
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(body=bodies | anything, batch=st.booleans(), key=st.text(max_size=12).map(str.encode))
async def test_no_notification_breaks_it(api: Api, body, batch, key) -> None:
    content = json.dumps({"notifications": [body, body]} if batch else body)
    response = await api.client.post(
        "/v1/notifications/batch" if batch else "/v1/notifications",
        content=content,
        headers={b"Idempotency-Key": key.replace(b"\n", b"").replace(b"\r", b""), b"Content-Type": b"application/json"},
    )
    assert response.status_code in (202, 400, 409, 422)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(body=people | anything, entries=st.lists(lines | anything, max_size=5), noise=st.binary(max_size=60))
async def test_no_recipient_breaks_it(api: Api, body, entries, noise) -> None:
    put = await api.client.put(
        "/v1/recipients/someone", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert put.status_code in (200, 201, 400, 422)
    text = "\n".join(json.dumps(entry) for entry in entries).encode() + b"\n" + noise
    listed = await api.client.post(
        "/v1/recipients/import", content=text, headers={"Content-Type": "application/x-ndjson"}
    )
    assert listed.status_code == 200
    table = await api.client.post(
        "/v1/recipients/import", content=b"id,email,grant,granted_at\n" + noise, headers={"Content-Type": "text/csv"}
    )
    assert table.status_code == 200


async def test_every_example_is_accepted(api: Api) -> None:
    document = (await api.client.get("/openapi.json")).json()
    tried = 0
    for method, path, operation in routes(document):
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            schema = document["components"]["schemas"].get(content["schema"].get("$ref", "").rpartition("/")[2], {})
            for example in [content["example"]] if "example" in content else schema["examples"]:
                body = example if isinstance(example, str) else json.dumps(example)
                headers = once() | {"Content-Type": media_type}
                newest = (await api.rows("SELECT max(number) AS number FROM suppressions"))[0]["number"] or 1
                there = path
                if path.startswith("/v1/webhooks/"):  # of the one that the example before has added
                    [endpoint] = await api.rows("SELECT id::text FROM webhook_endpoints")
                    there = path.replace("{id}", endpoint["id"])
                if path.startswith("/v1/campaigns/"):
                    there = path.replace("{id}", await ready_for(api, path, example))
                needed = {"name": "Spring"} if path == "/v1/lists" else {}
                response = await api.client.request(
                    method, concrete(there, newest), params=needed, content=body, headers=headers
                )
                assert response.is_success, response.text
                assert response.status_code == 204 or not response.json().get("problems")
                tried += 1
    assert tried >= 5


async def test_the_docs_open_without_a_key_and_load_nothing(api: Api) -> None:
    response = await api.client.get("/docs", headers={"Authorization": ""})
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
