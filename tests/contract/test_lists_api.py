"""Lists are uploaded, reported on and removed, and audiences are counted: over the real API and by command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from typer.testing import CliRunner

from notifier.cli import app
from notifier.client import AsyncNotifier
from notifier.dispatch.lists import Lists
from notifier.domain.access import Scope
from notifier.domain.recipients import Hasher
from notifier.store.database import rows
from notifier.web import uploads
from notifier_channels.addresses import EmailAddress
from notifier_channels.contract import Channel
from tests.servers.api import Api, pointers

pytestmark = pytest.mark.anyio

CSV = {"Content-Type": "text/csv"}
NOWHERE = "019892f0-1c9a-7c3e-8a7b-3f1f4a0b9c1d"


async def upload(api: Api, content: Any, name: str = "Spring") -> httpx.Response:
    return await api.client.post("/v1/lists", params={"name": name}, content=content, headers=CSV)


async def uploaded(api: Api, *lines: str) -> dict[str, Any]:
    answer = await upload(api, "\n".join(lines))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def members(api: Api, list_id: str) -> set[str | None]:
    found = await api.rows(
        "SELECT external_id FROM list_members JOIN recipients ON id = recipient_id WHERE list_id = %s", (list_id,)
    )
    return {row["external_id"] for row in found}


async def count(api: Api, audience: dict[str, Any], **more: Any) -> httpx.Response:
    return await api.client.post("/v1/audiences/count", json={"audience": audience} | more)


async def campaign(api: Api, state: str, audience: dict[str, Any]) -> UUID:
    id_ = uuid4()
    await api.execute(
        "INSERT INTO campaigns (id, name, state, template, audience, schedule, created_by, ended_at)"
        " VALUES (%s, 'Spring', %s, 'product-news', %s, '{}', 'operator', %s)",
        (id_, state, json.dumps(audience), "now" if state == "cancelled" else None),
    )
    return id_


@pytest.fixture
async def people(api: Api) -> None:
    await api.put("ann", email="ann@example.test", locale="de-AT", timezone="Europe/Vienna", attributes={"plan": "pro"})
    await api.put("ben", email="shared@example.test", phone="+4930123456", locale="en")
    await api.put("cleo", email="shared@example.test")


# Uploads --------------------------------------------------------------------------------------------------------------


async def test_a_list_of_ids_says_what_became_of_each_line(api: Api, people: None) -> None:
    made = await uploaded(api, "id,name", "ann,Ann A.", "nobody,N.", "ben,B.", "ann,Ann again", "", '"o"dd,x', "ann")
    assert (made["name"], made["is_ready"]) == ("Spring", True)
    assert made["report"] == {
        "lines": 6,
        "people": 2,
        "doubled": 1,
        "unknown": 1,
        "unknown_lines": [3],
        "unreadable": 2,
        "unreadable_lines": [
            {"line": 7, "detail": "is not CSV in UTF-8"},
            {"line": 8, "detail": "has 1 cells where the first line names 2"},
        ],
    }
    assert await members(api, made["id"]) == {"ann", "ben"}
    assert (await api.client.get(f"/v1/lists/{made['id']}")).json() == made


async def test_an_address_means_everybody_who_holds_it_and_creates_nobody(api: Api, people: None) -> None:
    made = await uploaded(api, "\ufeffCity,Email", "Graz,SHARED@example.test", "Linz,new@example.test", "Wien,a b@c")
    report = made["report"]
    assert (report["lines"], report["people"], report["unknown_lines"], report["unreadable"]) == (3, 2, [3], 1)
    assert await members(api, made["id"]) == {"ben", "cleo"}
    assert await api.count("recipients") == 3
    assert "new@" not in json.dumps(made)
    assert "a b" not in json.dumps(made)


async def test_a_line_is_doubled_when_all_its_people_were_named_before(api: Api, people: None) -> None:
    made = await uploaded(api, "phone", "+49 30 123456", "030 123456", "+4930123456")
    report = made["report"]
    assert (report["people"], report["doubled"], report["unreadable_lines"][0]["line"]) == (1, 1, 3)
    assert await members(api, made["id"]) == {"ben"}


async def test_people_are_found_by_what_was_hashed_before_the_last_rotation(api: Api, people: None) -> None:
    made = await uploaded(api, "id")
    rotated = Lists(Hasher({"h2": b"i" * 32, "h1": b"h" * 32}))
    names = {2: EmailAddress("ann", "example.test")}
    added = await api.app.database.transact(lambda c: rotated.add(c, UUID(made["id"]), Channel.EMAIL, names))
    assert added.meant == {2: added.new}
    assert await members(api, made["id"]) == {"ann"}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "must name the columns"),
        ("name,city", "called `id`, `email` or `phone`"),
        ("ann@example.test", "looks like data"),
        ("+4930123456", "looks like data"),
        ("name;email", "divide it by commas"),
        ("id,email", "more than one of id, email and phone"),
        ("email,email", "more than one of id, email and phone"),
        ('"email', "must name the columns"),
    ],
)
async def test_a_first_line_that_names_no_column_is_explained_and_makes_no_list(api: Api, header, said) -> None:
    answer = await upload(api, f"{header}\nann@example.test\n")
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert said in error["detail"]
    assert "ann@" not in answer.text
    assert await api.count("lists") == 0


async def test_nothing_at_all_is_explained_as_well(api: Api) -> None:
    answer = await upload(api, "")
    assert answer.status_code == 422
    assert "must name the columns" in answer.text


async def test_a_list_may_be_empty(api: Api) -> None:
    made = await uploaded(api, "id")
    assert (made["is_ready"], made["report"]["people"], made["report"]["lines"]) == (True, 0, 0)


async def test_a_list_is_of_any_length_and_is_looked_up_in_pieces(api: Api, people: None, monkeypatch) -> None:
    monkeypatch.setattr(uploads, "BATCH", 7)
    lines = [f"x-{n}" for n in range(230)]
    made = await uploaded(api, "id", *lines[:120], "ann", *lines[120:], "ann", "ben")
    report = made["report"]
    assert (report["lines"], report["people"], report["doubled"], report["unknown"]) == (233, 2, 1, 230)
    assert report["unknown_lines"] == list(range(2, 102))


async def test_an_upload_that_breaks_off_leaves_a_list_that_serves_for_nothing_but_removal(
    api: Api, people: None, monkeypatch
) -> None:
    monkeypatch.setattr(uploads, "BATCH", 1)

    async def broken() -> AsyncIterator[bytes]:
        yield b"id\nann\n"
        while not await api.count("list_members"):
            await asyncio.sleep(0.01)
        raise ConnectionResetError

    assert (await upload(api, broken())).status_code == 500
    [left] = (await api.client.get("/v1/lists")).json()["lists"]
    assert (left["is_ready"], left["report"]) == (False, None)
    refused = await count(api, {"list": left["id"], "exclude": [left["id"], NOWHERE]})
    assert [(error["pointer"], error["detail"].split()[1]) for error in refused.json()["errors"]] == [
        ("/audience/exclude/0", "not"),
        ("/audience/exclude/1", "no"),
        ("/audience/list", "not"),
    ]
    assert (await api.client.delete(f"/v1/lists/{left['id']}")).status_code == 204
    assert await api.count("lists") == await api.count("list_members") == 0


async def test_a_list_that_is_removed_while_it_streams_in_ends_the_upload(api: Api, people: None, monkeypatch) -> None:
    monkeypatch.setattr(uploads, "BATCH", 1)

    async def slow() -> AsyncIterator[bytes]:
        yield b"id\nann\n"
        while not await api.count("list_members"):
            await asyncio.sleep(0.01)
        [one] = await api.rows("SELECT id FROM lists")
        assert (await api.client.delete(f"/v1/lists/{one['id']}")).status_code == 204
        yield b"ben\n"

    answer = await upload(api, slow())
    assert (answer.status_code, await api.count("lists")) == (404, 0)


async def test_what_is_no_csv_or_has_no_name_is_refused(api: Api) -> None:
    other = await api.client.post("/v1/lists", params={"name": "x"}, content="id\n")
    assert other.status_code == 415
    assert (await upload(api, "id\n", name="")).status_code == 422


# Looking and removing -------------------------------------------------------------------------------------------------


async def test_lists_are_paged_the_newest_first(api: Api) -> None:
    made = [(await uploaded(api, "id"))["id"] for _ in range(3)]
    first = (await api.client.get("/v1/lists", params={"limit": 2})).json()
    second = (await api.client.get("/v1/lists", params={"limit": 2, "before": first["next"]})).json()
    assert [one["id"] for one in first["lists"] + second["lists"]] == made[::-1]
    assert second["next"] is None


@pytest.mark.parametrize("place", ["list", "exclude"])
async def test_a_list_that_an_unfinished_campaign_names_stays(api: Api, place: str) -> None:
    made = (await uploaded(api, "id"))["id"]
    over = await campaign(api, "cancelled", {"list": made, "exclude": [made]})
    using = await campaign(api, "draft", {"list": None, "exclude": []} | {place: made if place == "list" else [made]})
    refused = await api.client.delete(f"/v1/lists/{made}")
    assert refused.status_code == 409
    assert str(using) in refused.json()["detail"]
    assert str(over) not in refused.json()["detail"]
    await api.execute("UPDATE campaigns SET state = 'cancelled', ended_at = now()")
    assert (await api.client.delete(f"/v1/lists/{made}")).status_code == 204


async def test_a_list_that_is_not_there_is_said_to_be_so(api: Api) -> None:
    for ask in (api.client.get, api.client.delete):
        assert (await ask(f"/v1/lists/{NOWHERE}")).status_code == 404
        assert (await ask("/v1/lists/spring")).status_code == 422


async def test_reading_keys_read_and_marketing_uploads(api: Api) -> None:
    reading, writing = await api.key(Scope.READ), await api.key(Scope.SEND_MARKETING)
    post = {"params": {"name": "x"}, "content": "id\n"}
    assert (await api.client.post("/v1/lists", **post, headers=CSV | reading)).status_code == 403
    made = await api.client.post("/v1/lists", **post, headers=CSV | writing)
    assert made.status_code == 201
    path = f"/v1/lists/{made.json()['id']}"
    assert (await api.client.get(path, headers=reading)).status_code == 200
    assert (await api.client.delete(path, headers=reading)).status_code == 403
    assert (await api.client.delete(path, headers=writing)).status_code == 204
    neither = await api.key(Scope.PREFERENCES)
    assert (await api.client.post("/v1/audiences/count", json={"audience": {}}, headers=neither)).status_code == 403


# Counting -------------------------------------------------------------------------------------------------------------


async def test_an_audience_is_counted_and_shown_without_addresses(api: Api, people: None) -> None:
    answer = await count(api, {"filter": {"language": "de"}})
    assert answer.json() == {"people": 1, "sample": [{"id": "ann", "locale": "de-AT", "timezone": "Europe/Vienna"}]}
    everybody = (await count(api, {}, sample=2)).json()
    assert (everybody["people"], len(everybody["sample"])) == (3, 2)
    assert "example.test" not in json.dumps(everybody)
    left = (await uploaded(api, "email", "shared@example.test"))["id"]
    assert [one["id"] for one in (await count(api, {"exclude": [left]})).json()["sample"]] == ["ann"]


async def test_counts_that_take_their_time_leave_connections_to_those_who_send(api: Api, people: None) -> None:
    made = await uploaded(api, "id", "ann")
    async with await api.app.database.connect() as other:
        async with other.transaction():
            await other.execute("SELECT 1 FROM lists FOR UPDATE")  # as its removal does
            counts = [asyncio.create_task(count(api, {"list": made["id"]})) for _ in range(20)]
            while not await rows(other, "SELECT 1 FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
            assert (await api.send()).status_code == 202
        assert {(await one).json()["people"] for one in counts} == {1}


async def test_a_filter_that_is_wrong_is_refused_by_place(api: Api) -> None:
    answer = await count(api, {"filter": {"any": [{"subscribed": "lottery"}, {"attribute": "plan"}]}, "size": 3})
    assert (answer.status_code, pointers(answer)) == (
        422,
        ["/audience/size", "/audience/filter/any/0/subscribed", "/audience/filter/any/1"],
    )


# The client and the commands ------------------------------------------------------------------------------------------


async def test_the_client_does_all_of_it(api: Api, people: None) -> None:
    transport = httpx.ASGITransport(api.web)
    key = api.client.headers["Authorization"].removeprefix("Bearer ")
    async with AsyncNotifier("http://notifier.test", key, transport=transport) as notifier:
        made = await notifier.upload_list("Spring & more", "email\nshared@example.test\nnobody@example.test\n")
        assert made.report is not None
        assert (made.name, made.report.people, made.report.unknown_lines) == ("Spring & more", 2, (3,))
        assert await notifier.uploaded_list(made.id) == made
        assert [one async for one in notifier.uploaded_lists()] == [made]
        counted = await notifier.count_audience({"exclude": [made.id]}, sample=1)
        assert (counted.people, counted.sample[0].id) == (1, "ann")
        await notifier.remove_list(made.id)
        assert [one async for one in notifier.uploaded_lists()] == []


@pytest.fixture
def run(api: Api, monkeypatch):
    for name, value in {
        "DATABASE_URL": api.app.database.url,
        "REDIS_URL": "unix:///nowhere",
        "NOTIFIER_LINK_KEYS": "l1:" + "l" * 32,
        "NOTIFIER_HASH_KEYS": "h1:" + "h" * 32,
    }.items():
        monkeypatch.setenv(name, value)

    async def typed(*words: object):
        return await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words])

    return typed


async def test_commands_upload_show_and_remove(run, api: Api, people: None, tmp_path: Path) -> None:
    file = tmp_path / "spring.csv"
    file.write_text("email\nshared@example.test\nnobody@example.test\nodd\nSHARED@example.test\n")
    answer = await run("lists", "upload", file)
    assert answer.exit_code == 0, answer.output
    for part in ("spring.csv", "2 people, out of 4 lines", "1 lines name only", "1 lines name nobody", "line 4: is no"):
        assert part in answer.output
    assert "example.test" not in answer.output
    [made] = await api.rows("SELECT id FROM lists")
    assert (await run("lists", "show", made["id"])).output == answer.output
    assert f"{made['id']}" in (await run("lists", "list")).output
    using = await campaign(api, "draft", {"list": str(made["id"]), "exclude": []})
    refused = await run("lists", "remove", made["id"])
    assert (refused.exit_code, str(using) in refused.output) == (1, True)
    await api.execute("DELETE FROM campaigns")
    assert (await run("lists", "remove", made["id"])).exit_code == 0
    assert (await run("lists", "show", made["id"])).exit_code == 1
    file.write_text("mail\nann@example.test\n")
    refused = await run("lists", "upload", file)
    assert (refused.exit_code, "called `id`, `email` or `phone`" in refused.output) == (1, True)


async def test_a_command_counts_an_audience(run, people: None, tmp_path: Path) -> None:
    file = tmp_path / "filter.json"
    file.write_text(json.dumps({"filter": {"attribute": "plan", "equals": "pro"}}))
    answer = await run("audiences", "count", "--file", file)
    assert (answer.exit_code, answer.output) == (0, "1 people\n  ann  de-AT  Europe/Vienna\n")
    for text, said in (('{"all": []}', "/all: is not a known field"), ("{", "not JSON"), ("[]", "must be an object")):
        file.write_text(text)
        refused = await run("audiences", "count", "--file", file)
        assert (refused.exit_code, said in refused.output) == (1, True), refused.output
    file.write_text(json.dumps({"list": NOWHERE}))
    assert "/list: is no list" in (await run("audiences", "count", "--file", file)).output
