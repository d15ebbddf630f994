"""The stand-in for Twilio's REST API: it speaks the real wire, so that the vendor's SDK runs against it unchanged.

Messages are created, listed and fetched; `callbacks` reports on them, and `phones` answers. Source: the published
OpenAPI (twilio-oai, `api.v2010`, April 2026). The errors are those of `notifier_channels.sms.codes`, which says what
each rests on; how they are worded here is partly from general knowledge.
"""

from __future__ import annotations

import asyncio
import hmac
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from email.utils import format_datetime
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode

import httpx
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from notifier.sandbox.callbacks import Callbacks
from notifier.sandbox.numbers import Number, Step, number_of
from notifier.sandbox.phones import Phones
from notifier.sandbox.requested import ApiError, checked, whole
from notifier.sandbox.texts import Text, Texts
from notifier_channels.sms.twilio import SERVICE

PREFIX = "/twilio"
MOST_ON_A_PAGE = 1000
MOST_REMEMBERED = 10_000

_MESSAGES = {30003: "Unreachable destination handset", 30005: "Unknown destination handset"}


Route: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Keys:
    """What opens the account."""

    account_sid: str
    auth_tokens: tuple[str, ...]
    api_key: str | None = None  #: `SK...:secret`

    def check(self, request: Request) -> None:
        """Let in whoever holds a token or the key.

        Raises:
            ApiError: 20003, or 20404 for another account.

        """
        given = _basic(request.headers.get("authorization", ""))
        known = [f"{self.account_sid}:{token}" for token in self.auth_tokens] + [self.api_key or ""]
        if not any(one and hmac.compare_digest(one.encode(), given) for one in known):
            raise ApiError(401, 20003, "Authenticate")
        if request.path_params["account_sid"] != self.account_sid:
            raise ApiError(404, 20404, "The requested resource was not found")


class Api:
    """The routes, and what they keep."""

    def __init__(self, keys: Keys, phones: Phones, callbacks: Callbacks, *, pace: float = 1.0) -> None:
        self._keys = keys
        self._phones = phones
        self._callbacks = callbacks
        self._pace = pace
        self._refused_once: dict[tuple[str, str], None] = {}

    async def create(self, request: Request) -> Response:
        """Take a message, or refuse it as Twilio would."""
        self._keys.check(request)
        form = dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))
        text = checked(form)
        if self._phones.has_stopped(text.ours, text.phone):
            raise ApiError(400, 21610, "Attempt to send to unsubscribed recipient")
        number = number_of(text.phone)
        await asyncio.sleep(number.wait.total_seconds() * self._pace)
        self._refuse(number, text)
        self._take(text, number)
        return JSONResponse(self._shown(text), 201)

    async def fetch(self, request: Request) -> Response:
        """One message."""
        self._keys.check(request)
        text = self._phones.texts.get(request.path_params["sid"])
        if text is None:
            raise ApiError(404, 20404, "The requested resource was not found")
        return JSONResponse(self._shown(text))

    async def list(self, request: Request) -> Response:
        """A page of messages, newest first."""
        self._keys.check(request)
        query = request.query_params
        size, page = whole(query.get("PageSize", "50"), 1, MOST_ON_A_PAGE), whole(query.get("Page", "0"), 0, 10**6)
        found = [text for text in self._phones.texts if _matches(text, query)]
        shown = found[page * size : (page + 1) * size]
        path = f"/2010-04-01/Accounts/{self._keys.account_sid}/Messages.json"
        rest = {name: value for name, value in query.items() if name not in {"Page", "PageToken"}}

        def uri(number: int) -> str:
            return f"{path}?{urlencode({**rest, 'PageSize': size, 'Page': number})}"

        return JSONResponse(
            {
                "messages": [self._shown(text) for text in shown],
                "start": page * size,
                "end": page * size + max(len(shown) - 1, 0),
                "page": page,
                "page_size": size,
                "uri": uri(page),
                "first_page_uri": uri(0),
                "next_page_uri": uri(page + 1) if len(found) > (page + 1) * size else None,
                "previous_page_uri": uri(page - 1) if page else None,
            }
        )

    def _refuse(self, number: Number, text: Text) -> None:
        refusal = number.refusal
        if refusal is None:
            return
        if refusal.only_once:
            if (text.phone, text.body) in self._refused_once:
                return
            if len(self._refused_once) >= MOST_REMEMBERED:
                self._refused_once.pop(next(iter(self._refused_once)))
            self._refused_once[text.phone, text.body] = None
        if refusal.is_taken:
            self._take(text, number)
        raise ApiError(refusal.status, refusal.code, refusal.says)

    def _take(self, text: Text, number: Number) -> None:
        self._phones.texts.keep(text)
        before = (Step("queued", timedelta(0)),) if text.status == "accepted" else ()
        self._callbacks.follow(text, (*before, *number.steps))

    def _shown(self, text: Text) -> Mapping[str, Any]:
        """A message as the API shows it."""
        is_service, at = bool(SERVICE.fullmatch(text.ours)), format_datetime(text.at)
        us = None if is_service and text.status == "accepted" else text.ours
        uri = f"/2010-04-01/Accounts/{self._keys.account_sid}/Messages/{text.sid}"
        return {
            "account_sid": self._keys.account_sid,
            "api_version": "2010-04-01",
            "body": text.body,
            "date_created": at,
            "date_sent": None if text.status in {"queued", "accepted"} else at,
            "date_updated": at,
            "direction": _direction(text),
            "error_code": text.error_code,
            "error_message": _MESSAGES.get(text.error_code or 0),
            "from": text.phone if text.is_inbound else us,
            "messaging_service_sid": text.ours if is_service else None,
            "num_media": "0",
            "num_segments": str(text.segments),
            "price": None,
            "price_unit": "USD",
            "sid": text.sid,
            "status": text.status,
            "subresource_uris": {"media": f"{uri}/Media.json"},
            "to": text.ours if text.is_inbound else text.phone,
            "uri": f"{uri}.json",
        }


@dataclass(frozen=True, slots=True)
class StandIn:
    """All of it: the routes for the sandbox's server, and what its pages show and do."""

    routes: APIRouter
    texts: Texts
    phones: Phones
    callbacks: Callbacks


@asynccontextmanager
async def stand_in(
    client: httpx.AsyncClient, keys: Keys, public_url: str, *, answers_keywords: bool, pace: float = 1.0
) -> AsyncIterator[StandIn]:
    """Play Twilio for the account of `keys` until the block ends; webhooks are signed with its first token."""
    async with Callbacks(client, keys.account_sid, keys.auth_tokens[0], public_url, pace=pace) as callbacks:
        phones = Phones(Texts(), callbacks, keys.account_sid, public_url, answers_keywords=answers_keywords)
        yield StandIn(router(Api(keys, phones, callbacks, pace=pace)), phones.texts, phones, callbacks)


def _answering(route: Route) -> Route:
    async def answer(request: Request) -> Response:
        try:
            return await route(request)
        except ApiError as error:
            return error.response()

    return answer


def router(api: Api) -> APIRouter:
    """The API under `/twilio`: `NOTIFIER_TWILIO_API_URL` names the sandbox with that path."""
    routes = APIRouter(prefix=f"{PREFIX}/2010-04-01/Accounts/{{account_sid}}", include_in_schema=False)
    routes.add_api_route("/Messages.json", _answering(api.create), methods=["POST"])
    routes.add_api_route("/Messages.json", _answering(api.list), methods=["GET"])
    routes.add_api_route("/Messages/{sid}.json", _answering(api.fetch), methods=["GET"])
    return routes


def _matches(text: Text, query: Mapping[str, str]) -> bool:
    to, sender = (text.ours, text.phone) if text.is_inbound else (text.phone, text.ours)
    if query.get("To", to) != to or query.get("From", sender) != sender:
        return False
    sent = text.at.date()
    is_sent = text.status not in {"queued", "accepted"}
    if "DateSent" in query and not (is_sent and sent == _day(query["DateSent"])):
        return False
    if "DateSent<" in query and not (is_sent and sent <= _day(query["DateSent<"])):
        return False
    return "DateSent>" not in query or (is_sent and sent >= _day(query["DateSent>"]))


def _direction(text: Text) -> str:
    if text.is_inbound:
        return "inbound"
    return "outbound-reply" if text.is_reply else "outbound-api"


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        raise ApiError(400, 20001, "DateSent is not a valid date") from None


def _basic(header: str) -> bytes:
    scheme, _, encoded = header.partition(" ")
    try:
        return b64decode(encoded, validate=True) if scheme.lower() == "basic" else b""
    except ValueError:
        return b""
