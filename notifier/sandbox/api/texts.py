"""The text messages as JSON: find one, read it, type an answer as if on the phone."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import AfterValidator, BaseModel, StringConstraints

from notifier.sandbox.desk import Desk
from notifier.sandbox.texts import LONGEST, MOST_TEXTS, Text, read_number


def _number(text: str) -> str:
    number = read_number(text)
    if number is None:
        raise ValueError("write a number with its country, as in +4915112345678")
    return number


Number = Annotated[str, AfterValidator(_number)]
Typed = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST)]


class Typing(BaseModel):
    """What somebody types."""

    body: Typed


def router(desk: Desk) -> APIRouter:
    """The routes under `/api/texts` and `/api/phones`."""
    routes = APIRouter()

    @routes.get("/texts")
    def find_texts(
        phone: str = "", after: str = "", limit: Annotated[int, Query(ge=1, le=MOST_TEXTS)] = 50
    ) -> dict[str, Any]:
        """The newest first; `after` leaves out a text and all that came before it."""
        return {"texts": [_told(text) for text in desk.find_texts(phone, after, limit)]}

    @routes.get("/texts/{sid}")
    def read_text(sid: str) -> dict[str, Any]:
        """One text."""
        found = desk.texts.get(sid)
        if found is None:
            raise HTTPException(404, "This text is not here: the texts were cleared, or newer ones took its place.")
        return _told(found)

    @routes.post("/phones/{number}/type")
    async def type_on_phone(number: Number, typing: Typing) -> dict[str, Any]:
        """Type something as the person who holds this phone; the answer is what the phone got since, oldest first."""
        before = {text.sid for text in desk.texts.thread(number)}
        await desk.type_on(number, typing.body)
        return {"texts": [_told(text) for text in desk.texts.thread(number) if text.sid not in before]}

    @routes.delete("/texts")
    async def clear() -> dict[str, int]:
        """Throw all texts away."""
        return {"deleted": desk.texts.clear()}

    return routes


def _told(text: Text) -> dict[str, Any]:
    return {
        "sid": text.sid,
        "at": text.at.isoformat(),
        "phone": text.phone,
        "ours": text.ours,
        "body": text.body,
        "segments": text.segments,
        "inbound": text.is_inbound,
        "status": text.status,
        "error_code": text.error_code,
        "told": text.told,
    }
