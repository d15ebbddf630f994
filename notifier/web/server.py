"""The web process: the API behind its keys, the public pages without, and how both answer when something is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from fastapi import FastAPI
from starlette.responses import HTMLResponse, JSONResponse, Response

from notifier.app import App
from notifier.web import (
    audiences,
    campaign_reports,
    campaigns,
    confirmations,
    consent,
    devices,
    events,
    explanations,
    notifications,
    recipients,
    reference,
    suppressions,
)
from notifier.web.edge import Edge
from notifier.web.guard import Keys
from notifier.web.problems import HANDLED, MEDIA_TYPE, Kinds, on_error, unavailable
from notifier.web.public import public_router

VERSION = "v1"  #: of the interface: what is there stays as it is, what is new is added
READY_WITHIN = 2.0  #: seconds
SLOW = 2  #: requests at a time that count or add up a whole audience: the other connections are for those who send

ABOUT = """Hand over notifications, keep recipients, and ask what became of each message.

Every request carries `Authorization: Bearer nk_...`; `notifier keys create` makes keys. Refusals are problem details
(RFC 9457): each error names the field by JSON pointer and says what to do. Sending is safe to repeat under the same
`Idempotency-Key`."""


def create_app(app: App) -> FastAPI:
    """The whole web application around an open `App`."""

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        keeping_up = asyncio.create_task(app.replies.keep_up())
        yield
        keeping_up.cancel()
        await asyncio.gather(keeping_up, return_exceptions=True)
        await api.state.keys.close()

    api = FastAPI(
        title="Notifier",
        version=VERSION,
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy it would lead to plain http, and a POST with its key after it
    )
    api.state.notifier = app
    api.state.keys = Keys(app.database)
    api.state.slow = asyncio.Semaphore(SLOW)
    api.include_router(notifications.router)
    api.include_router(recipients.router)
    api.include_router(devices.router)
    api.include_router(consent.router)
    api.include_router(confirmations.router)
    api.include_router(suppressions.router)
    api.include_router(campaign_reports.router)
    api.include_router(campaigns.router)
    api.include_router(audiences.router)
    api.include_router(explanations.router)
    api.include_router(events.router)
    api.include_router(public_router(app))
    api.add_api_route("/health", health, include_in_schema=False)
    api.add_api_route("/ready", _ready(app), include_in_schema=False)
    api.add_api_route("/docs", _docs(api), include_in_schema=False)
    for kind in HANDLED:
        api.add_exception_handler(kind, on_error)
    api.add_middleware(Edge)
    _describe(api)
    return api


async def health() -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


def _ready(app: App) -> Callable[[], Awaitable[Response]]:
    async def ready() -> Response:
        """The database answers."""
        try:
            async with asyncio.timeout(READY_WITHIN), app.database.connection() as c:
                await c.execute("SELECT 1")
        except (psycopg.Error, TimeoutError):
            return unavailable()
        return JSONResponse({"status": "ok"})

    return ready


def _docs(api: FastAPI) -> Callable[[], Awaitable[Response]]:
    async def docs() -> Response:
        """The reference, for people."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
        return HTMLResponse(reference.page(api.openapi()), headers={"Content-Security-Policy": policy})

    return docs


# Description ----------------------------------------------------------------------------------------------------------

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": [Kinds.INVALID_INPUT.value.type]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer (RFC 6901) into the request's body."},
                    "detail": {"type": "string", "description": "What is wrong there and what to do."},
                },
            },
        },
    },
}


def _describe(api: FastAPI) -> None:
    """OpenAPI as FastAPI makes it, with the key, and with problems where it would show errors of its own."""
    made = api.openapi

    def described() -> dict[str, Any]:
        if api.openapi_schema:
            return api.openapi_schema
        document = made()
        components = document["components"]
        components["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "An API key: `nk_<id>_<secret>`."}
        }
        for name in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(name, None)
        components["schemas"]["Problem"] = _PROBLEM
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                operation["responses"]["4XX"] = {
                    "description": "What is wrong, where, and the remedy.",
                    "content": content,
                }
                operation["responses"]["503"] = {"description": Kinds.UNAVAILABLE.value.title, "content": content}
        return document

    api.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way to extend it
