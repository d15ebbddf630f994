"""The API's way in for devices. What reaches a device is a secret: it stands in bodies only, and is never answered."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from notifier.app import App
from notifier.dispatch.devices import Registration
from notifier.domain.access import Scope
from notifier.errors import InvalidInput, Problem
from notifier.store.devices import HeldDevice
from notifier.web.bodies import Body, ExternalId, Line
from notifier.web.guard import Guarded, needs
from notifier_channels.addresses import Device, DeviceKind, InvalidAddress, Platform

router = APIRouter(route_class=Guarded, prefix="/v1/recipients/{id}/devices", tags=["Devices"])

Owner = Annotated[ExternalId, Path(alias="id", description="The product's own id of the recipient.")]
DeviceId = Annotated[UUID, Path(description="As registering it was answered.")]


class DeviceBody(Body):
    """One app on one device, by exactly one of `fid` and `token`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"fid": "cKJ3yYTfS0mG1aBcDeFgHi", "platform": "ios", "name": "Ann's phone"}]}
    )

    fid: Annotated[Line, Field(max_length=64)] | None = Field(
        None, repr=False, description="The Firebase installation id, as the app's SDK gives it."
    )
    token: Annotated[Line, Field(max_length=4096)] | None = Field(
        None, repr=False, description="The FCM registration token, from apps that do not use installation ids yet."
    )
    platform: Platform = Field(description="Where the app runs.")
    name: Annotated[Line, Field(min_length=1, max_length=100)] | None = Field(
        None, description="For the person's eyes. Replaced at each registration."
    )


class DeviceAnswer(BaseModel):
    """A device as stored, without what reaches it."""

    id: UUID
    platform: Platform
    kind: DeviceKind
    name: str | None
    registered_at: datetime
    refreshed_at: datetime


class DevicesAnswer(BaseModel):
    """The devices of a recipient, the first one first."""

    devices: list[DeviceAnswer]


@router.post("", responses={201: {"model": DeviceAnswer}}, **needs(Scope.RECIPIENTS))
async def register(request: Request, response: Response, owner: Owner, body: DeviceBody) -> DeviceAnswer:
    """Keep a device, or refresh it. An app calls this at each start, and whenever its `fid` or `token` changes.

    A device that somebody else has registered moves. Of more than 50, the one refreshed longest ago is removed.
    """
    app: App = request.app.state.notifier
    registered = await app.devices.register(owner, Registration(_device(body), body.platform, body.name))
    if registered.is_new:
        response.status_code = 201
    return _answer(registered.device)


@router.get("", **needs(Scope.RECIPIENTS, Scope.READ))
async def all_of(request: Request, owner: Owner) -> DevicesAnswer:
    """The devices that a recipient has now."""
    app: App = request.app.state.notifier
    return DevicesAnswer(devices=[_answer(device) for device in await app.devices.of(owner)])


@router.delete("/{device_id}", status_code=204, **needs(Scope.RECIPIENTS))
async def remove(request: Request, owner: Owner, device_id: DeviceId) -> None:
    """Take a device away, as at logout; what waits for it is not sent. Asking again changes nothing."""
    app: App = request.app.state.notifier
    await app.devices.remove(owner, device_id)


def _device(body: DeviceBody) -> Device:
    given = {kind: value for kind in DeviceKind if (value := getattr(body, kind)) is not None}
    if not given:
        raise InvalidInput([Problem("", "names no device; add `fid`, or `token` from an older app")])
    if len(given) > 1:
        raise InvalidInput([Problem("/token", "names the device a second time; send `fid` alone")])
    [(kind, value)] = given.items()
    try:
        return Device.parse(kind, value)
    except InvalidAddress as error:
        raise InvalidInput([Problem(f"/{kind}", f"cannot be used: {error}")]) from None


def _answer(device: HeldDevice) -> DeviceAnswer:
    return DeviceAnswer(**asdict(device))
