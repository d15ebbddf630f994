"""The API's way in for messages, and the way to ask what became of them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel
from starlette.responses import Response

from notifier.app import App
from notifier.domain.access import Caller, Scope
from notifier.domain.messages import Category, State
from notifier.errors import Forbidden, NotFound
from notifier.store import notifications as store
from notifier.store.database import Connection, Row
from notifier.web.bodies import (
    AcceptedBody,
    BatchAcceptedBody,
    BatchBody,
    CancelAnswer,
    HeaderKey,
    MessageAnswer,
    MessageSummary,
    NotificationAnswer,
    NotificationBody,
    RecipientRef,
    TimelineEntry,
    TooLate,
)
from notifier.web.guard import Guarded, needs
from notifier.web.reading import Reader

router = APIRouter(route_class=Guarded, prefix="/v1")
SEND = needs(Scope.SEND_TRANSACTIONAL, Scope.SEND_MARKETING)
READ = needs(Scope.READ)
ONCE = Header(alias="Idempotency-Key", description="Repeated within 7 days, it gets the first answer again.")


@router.post("/notifications", status_code=202, responses={202: {"model": AcceptedBody}}, tags=["Sending"], **SEND)
async def send(request: Request, body: NotificationBody, idempotency_key: Annotated[HeaderKey, ONCE]) -> Response:
    """Accept one notification. The answer comes once it is committed; from then on it is not lost."""
    app, caller = _called(request)
    reader = Reader(app, caller)
    asked = reader.notification(body, "", idempotency_key)
    reader.check()
    accepted = await app.accept_one(asked)
    headers = {"Idempotent-Replayed": "true"} if accepted.is_replay else None
    return _json(_ordered(accepted.answer), headers)


@router.post(
    "/notifications/batch", status_code=202, responses={202: {"model": BatchAcceptedBody}}, tags=["Sending"], **SEND
)
async def send_batch(request: Request, body: BatchBody) -> Response:
    """Accept up to 1,000 notifications, all or none; the answers come in the same order."""
    app, caller = _called(request)
    reader = Reader(app, caller)
    asked = [
        reader.notification(item, f"/notifications/{position}", item.idempotency_key)
        for position, item in enumerate(body.notifications)
    ]
    reader.check()
    answers = await app.accept(asked)
    return _json({"notifications": [_ordered(one.answer) | {"replayed": one.is_replay} for one in answers]})


@router.get("/notifications/{id}", tags=["Reading"], **READ)
async def notification(request: Request, id: UUID) -> NotificationAnswer:  # noqa: A002  # the API's name for it
    """A notification and how its messages stand."""
    app, _ = _called(request)
    async with app.database.connection() as c:
        found = await _found(store.find(c, id))
        messages = await store.messages_of(c, found["message_ids"])
    return NotificationAnswer(
        id=found["id"],
        template=found["template"],
        category=found["category"],
        recipient=RecipientRef(id=found["recipient"]),
        created_at=found["created_at"],
        cancelled_at=found["cancelled_at"],
        messages=[MessageSummary(**_only(message, MessageSummary)) for message in messages],
    )


@router.post("/notifications/{id}/cancel", tags=["Sending"], **SEND)
async def cancel(request: Request, id: UUID) -> CancelAnswer:  # noqa: A002
    """Cancel what is still waiting, and say what it came too late for. Asking again changes nothing."""
    app, caller = _called(request)

    async def work(c: Connection) -> Mapping[UUID, str]:
        found = await _found(store.find(c, id))
        scope = Scope.to_send(Category(found["category"]))
        if scope not in caller.scopes:
            raise Forbidden(f"This key lacks the scope `{scope}`, which the notification's category needs.")
        return await store.cancel(c, id, found["message_ids"])

    states = await app.database.transact(work)
    return CancelAnswer(
        id=id,
        cancelled=[message for message, state in states.items() if state == State.CANCELLED],
        too_late=[TooLate(id=message, state=state) for message, state in states.items() if state != State.CANCELLED],
    )


@router.get("/messages/{id}", tags=["Reading"], **READ)
async def message(request: Request, id: UUID) -> MessageAnswer:  # noqa: A002
    """A message with its timeline: accepted, each attempt, each report, and why it may or may not go."""
    app, _ = _called(request)
    async with app.database.connection() as c:
        found = await store.messages_of(c, [id])
        if not found:
            raise NotFound("There is no message with this id.")
        attempts, reports = await store.attempts_of(c, id), await store.reports_of(c, id)
    row = found[0]
    return MessageAnswer(
        **_only(row, MessageSummary),
        notification_id=row["notification_id"],
        recipient=RecipientRef(id=row["recipient"]),
        template=row["template"],
        topic=row["topic"],
        category=row["category"],
        decision=row["decision"],
        timeline=_timeline(row, attempts, reports),
    )


def _timeline(message: Row, attempts: list[Row], reports: list[Row]) -> list[TimelineEntry]:
    entries = [TimelineEntry(at=message["accepted_at"], what="accepted")] if message["accepted_at"] else []
    for row in attempts:
        details = {name: row[name] for name in ("state", "provider", "code", "reference", "detail", "settled_at")}
        entries.append(TimelineEntry(at=row["started_at"], what="attempt", attempt=row["n"], **details))
    entries += [
        TimelineEntry(
            at=row["occurred_at"], what=row["kind"], attempt=row["attempt"], provider=row["source"], code=row["code"]
        )
        for row in reports
    ]
    return sorted(entries, key=lambda entry: entry.at)


def _called(request: Request) -> tuple[App, Caller]:
    return request.app.state.notifier, request.state.caller


async def _found(query: Awaitable[Row | None]) -> Row:
    if (row := await query) is None:
        raise NotFound("There is no notification with this id.")
    return row


def _only(row: Row, model: type[BaseModel]) -> dict[str, Any]:
    return {name: row[name] for name in model.model_fields}


def _ordered(answer: Mapping[str, Any]) -> dict[str, Any]:
    """In one order, whether it was just made or comes back from the database: a replay is the same to the byte."""
    messages = [{"id": one["id"], "channel": one["channel"]} for one in answer["messages"]]
    return {"id": answer["id"], "created_at": answer["created_at"], "messages": messages}


def _json(body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(body, separators=(",", ":")), 202, headers, "application/json")
