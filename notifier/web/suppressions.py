"""The API's way in for what blocks addresses. An address stands in bodies only, and none is answered (I5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from notifier.app import App
from notifier.dispatch.block import Blocked, page_of, parse
from notifier.domain.access import Scope
from notifier.domain.consent import SuppressionReason
from notifier.domain.messages import Category
from notifier.errors import InvalidInput, Problem
from notifier.web.bodies import Body, Line
from notifier.web.guard import Guarded, needs
from notifier_channels.addresses import InvalidAddress
from notifier_channels.contract import Address, Channel

router = APIRouter(route_class=Guarded, prefix="/v1/suppressions", tags=["Suppressions"])

MOST = 500
HIGHEST = 2**63 - 1
Number = Annotated[int, Path(ge=1, le=HIGHEST, description="As listed.")]
Why = Annotated[Line, Field(min_length=1, max_length=500, description="For whoever asks later; no address.")]


class AddressBody(Body):
    """One address. Devices are not blocked by hand: `DELETE` removes them."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"channel": "email", "address": "ann@example.com"}]})

    channel: Literal["email", "sms"]
    address: Annotated[Line, Field(min_length=3, max_length=320)] = Field(repr=False)


class BlockBody(AddressBody):
    """An address to block."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"channel": "email", "address": "ann@example.com", "blocks": "marketing", "why": "Letter of 3 May"}
            ]
        }
    )

    blocks: Literal["all", "marketing"] = Field("all", description="Everything, or marketing only.")
    why: Why


class LiftBody(Body):
    """Why it ends."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "The mailbox exists again"}]})

    why: Why
    despite: SuppressionReason | None = Field(
        None, description="To lift `stop` or `erased`, which is not ours to decide: repeat it here."
    )


class SuppressionAnswer(BaseModel):
    """What blocks an address, without the address."""

    number: int
    channel: Channel
    reason: SuppressionReason
    blocks: str
    evidence: dict[str, Any]
    created_at: datetime
    lifted_at: datetime | None
    lifted_why: str | None


class LookUpAnswer(BaseModel):
    """Everything that ever stood against an address, oldest first."""

    is_suppressed: bool = Field(description="Something stands against it now.")
    suppressions: list[SuppressionAnswer]


class PageAnswer(BaseModel):
    """A page of them, the newest first."""

    suppressions: list[SuppressionAnswer]
    next: int | None = Field(description="Give it as `before` for the next page; null: this was the last.")


@router.get("", **needs(Scope.READ, Scope.ADMIN))
async def page(  # one for each of its filters
    request: Request,
    *,
    channel: Channel | None = None,
    reason: SuppressionReason | None = None,
    lifted: Annotated[bool, Query(description="Also those that were lifted.")] = False,
    before: Annotated[int | None, Query(ge=1, le=HIGHEST, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> PageAnswer:
    """Suppressions, the newest first. No hashes and no addresses: they are looked up one by one."""
    app: App = request.app.state.notifier
    async with app.database.connection() as c:
        found = await page_of(c, before=before, limit=limit, channel=channel, reason=reason, lifted=lifted)
    following = found[-1].number if len(found) == limit else None
    return PageAnswer(suppressions=[_answer(one) for one in found], next=following)


@router.post("/lookup", **needs(Scope.READ, Scope.ADMIN))
async def look_up(request: Request, body: AddressBody) -> LookUpAnswer:
    """What stands, or ever stood, against an address. A POST, so that the address is in no URL and no log."""
    app: App = request.app.state.notifier
    channel, address = _address(body, app)
    async with app.database.connection() as c:
        found = await app.block.look_up(c, channel, address)
    standing = any(one.lifted_at is None for one in found)
    return LookUpAnswer(is_suppressed=standing, suppressions=[_answer(one) for one in found])


@router.post("", status_code=201, **needs(Scope.ADMIN))
async def add(request: Request, body: BlockBody) -> SuppressionAnswer:
    """Block an address by hand (`manual`), for everything or for marketing only."""
    app: App = request.app.state.notifier
    channel, address = _address(body, app)
    only = Category.MARKETING if body.blocks == "marketing" else None
    by = _by(request)
    return _answer(
        await app.database.transact(lambda c: app.block.add(c, channel, address, only=only, why=body.why, by=by))
    )


@router.post("/{number}/lift", **needs(Scope.ADMIN))
async def lift(request: Request, number: Number, body: LiftBody) -> SuppressionAnswer:
    """End a suppression. Consent is another matter: what the person refused stays refused."""
    app: App = request.app.state.notifier
    by = _by(request)
    return _answer(
        await app.database.transact(lambda c: app.block.lift(c, number, why=body.why, by=by, despite=body.despite))
    )


def _by(request: Request) -> str:
    return f"key:{request.state.caller.key_id}"


def _address(body: AddressBody, app: App) -> tuple[Channel, Address]:
    try:
        return Channel(body.channel), parse(
            Channel(body.channel), body.address, allow_test=not app.settings.is_production
        )
    except InvalidAddress as error:
        raise InvalidInput([Problem("/address", f"cannot be used: {error}")]) from None


def _answer(one: Blocked) -> SuppressionAnswer:
    fields: Mapping[str, Any] = asdict(one)
    return SuppressionAnswer(**fields)
