"""Campaigns for tests: drafts through the API, and the states to which only time and the planner bring one."""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from uuid import UUID

import httpx
from psycopg.types.json import Jsonb

from tests.servers.api import NEWS, Api, once
from tests.world import new_id

PATH = "/v1/campaigns"
NOTICE = {
    "template": "policy-update",
    "data": {
        "policy": "Privacy policy",
        "effective_on": "2027-01-01",
        "changes": [{"title": "Shorter logs", "text": "Kept for 14 days."}],
        "policy_url": "https://example.com/privacy",
    },
}
PLAN = {"recipients": 3}


def a_campaign(**changes: Any) -> dict[str, Any]:
    body = {"name": "December news", "template": "newsletter", "data": NEWS} | changes
    return {name: value for name, value in body.items() if value is not ...}


async def create(api: Api, key: str | None = None, **changes: Any) -> httpx.Response:
    return await api.client.post(PATH, json=a_campaign(**changes), headers=once(key))


async def draft(api: Api, **changes: Any) -> str:
    made = await create(api, **changes)
    assert made.status_code == 201, made.text
    id_: str = made.json()["id"]
    return id_


async def get(api: Api, id_: str) -> dict[str, Any]:
    found: dict[str, Any] = (await api.client.get(f"{PATH}/{id_}")).json()
    return found


async def do(api: Api, id_: str, what: str, **body: Any) -> httpx.Response:
    return await api.client.post(f"{PATH}/{id_}/{what}", json=body) if body else await post(api, id_, what)


async def post(api: Api, id_: str, what: str) -> httpx.Response:
    return await api.client.post(f"{PATH}/{id_}/{what}")


async def edit(api: Api, id_: str, **body: Any) -> httpx.Response:
    return await api.client.patch(f"{PATH}/{id_}", json=body)


async def foresee(api: Api, id_: str) -> str:
    """A dry-run, done as the scheduler would; its hash."""
    asked = await post(api, id_, "preview")
    assert asked.status_code == 202, asked.text
    hash_ = sha256(asked.json()["id"].encode()).hexdigest()
    await api.execute(
        "UPDATE campaign_plans p SET hash = %s, plan = %s || jsonb_build_object('definition',"
        "  jsonb_build_object('expires_at', c.expires_at))"
        " FROM campaigns c WHERE p.id = %s AND c.id = p.campaign_id",
        (hash_, Jsonb(PLAN), asked.json()["id"]),
    )
    return hash_


async def scheduled(api: Api, **changes: Any) -> str:
    id_ = await draft(api, **changes)
    answer = await do(api, id_, "schedule", plan=await foresee(api, id_))
    assert answer.status_code == 200, answer.text
    return id_


async def standing(api: Api, state: str, **changes: Any) -> str:
    """A campaign in a state, on the way that leads there."""
    if state == "draft":
        return await draft(api, **changes)
    id_ = await scheduled(api, **changes)
    if state == "cancelled":
        assert (await post(api, id_, "cancel")).status_code == 200
    if state in ("sending", "paused", "finished"):
        await api.execute("UPDATE campaigns SET state = 'sending', started_at = now() WHERE id = %s", (id_,))
    if state == "paused":
        assert (await post(api, id_, "pause")).status_code == 200
    if state == "finished":
        await api.execute("UPDATE campaigns SET state = 'finished', ended_at = now() WHERE id = %s", (id_,))
    return id_


async def person(api: Api, number: int, **more: Any) -> UUID:
    """Somebody with an address, whose row has the id that comes back."""
    await api.put(f"user-{number}", email=f"user-{number}@example.test", **more)
    [row] = await api.rows("SELECT id FROM recipients WHERE external_id = %s", (f"user-{number}",))
    id_: UUID = row["id"]
    return id_


async def message(api: Api, campaign: str, to: UUID, state: str = "queued", reason: str | None = None) -> UUID:
    """A message of a campaign as a batch would have made it."""
    id_ = new_id()
    await api.execute(
        "INSERT INTO messages (id, campaign_id, recipient_id, address_id, channel, lane, category, topic,"
        " template_version, expires_at, state, reason, due_at, decision)"
        " SELECT %(id)s, c.id, a.recipient_id, a.id, 'email', 'marketing', c.category, c.topic, c.template_version,"
        " now() + interval '1 day', %(state)s, %(reason)s,"
        " CASE WHEN %(state)s = 'queued' THEN now() + interval '1 hour' END, '{}'"
        " FROM campaigns c, addresses a WHERE c.id = %(campaign)s AND a.recipient_id = %(to)s",
        {"id": id_, "campaign": campaign, "to": to, "state": state, "reason": reason},
    )
    return id_


async def ready_for(api: Api, path: str, example: Any) -> str:
    """The id of a campaign for which the example of a route is right."""
    what = path.rpartition("/")[2]
    id_ = await standing(api, "sending" if what == "pause" else "draft")
    if what == "schedule":
        await foresee(api, id_)
        await api.execute("UPDATE campaign_plans SET hash = %s WHERE campaign_id = %s", (example["plan"], id_))
    return id_
