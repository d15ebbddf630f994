"""The pushes as JSON: find one by device or message, look at a device, and remove the app from it."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query

from notifier.sandbox.desk import Desk, message_of
from notifier.sandbox.pushes import MOST_PUSHES, Push


def router(desk: Desk) -> APIRouter:
    """The routes under `/api/pushes` and `/api/devices`."""
    routes = APIRouter()

    @routes.get("/pushes")
    def find_pushes(
        device: str = "",
        message: UUID | None = None,
        after: int = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_PUSHES)] = 50,
    ) -> dict[str, Any]:
        """The newest first, those that a later one replaced, too; `message` is the id of Notifier's message."""
        return {"pushes": [_told(push) for push in desk.find_pushes(device, message, after, limit)]}

    @routes.get("/pushes/{number}")
    def read_push(number: int) -> dict[str, Any]:
        """One push with the request's `message` as it came."""
        found = next((push for push in desk.pushes if push.id == number), None)
        if found is None:
            raise HTTPException(404, "This push is not here: the pushes were cleared, or newer ones took its place.")
        return {**_told(found), "raw": found.raw}

    @routes.get("/devices/{device:path}")
    def look_at(device: str) -> dict[str, Any]:
        """How often a push to the device was refused, and whether the app was taken off it here."""
        return {"device": device, "dead": device in desk.pushes.dead, "refused": desk.pushes.refused(device)}

    @routes.post("/devices/{device:path}/remove")
    async def remove(device: str) -> dict[str, Any]:
        """Take the app off the device: the next push to it is answered UNREGISTERED."""
        desk.pushes.dead.add(device)
        return {"device": device, "dead": True}

    @routes.delete("/pushes")
    async def clear() -> dict[str, int]:
        """Throw all pushes away; a dead device stays dead."""
        return {"deleted": desk.pushes.clear()}

    return routes


def _told(push: Push) -> dict[str, Any]:
    message = message_of(push)
    return {
        "id": push.id,
        "at": push.at.isoformat(),
        "device": push.device,
        "message_id": str(message) if message else None,
        "title": push.title,
        "body": push.body,
        "image": push.image,
        "link": push.link,
        "data": dict(push.data),
        "urgent": push.is_urgent,
        "ttl": push.ttl,
    }
