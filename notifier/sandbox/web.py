"""The sandbox's web server: pages, their JSON and the providers' wires, closed to every site but itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles

from notifier.sandbox import api, pages
from notifier.sandbox.desk import Desk
from notifier.sandbox.pages.rendering import ASSETS

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
ANY_HOST = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- compared, not listened on

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Following = Callable[[Request], Awaitable[Response]]


def create_app(desk: Desk, wires: Sequence[APIRouter] = (), *, host: str) -> FastAPI:
    """The pages, the JSON and the wires of stand-ins, for requests that name `host` or this machine."""
    app = FastAPI(title="Notifier sandbox", openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, following: Following) -> Response:
        refusal = refuse(request, host)
        response = PlainTextResponse(refusal, 403) if refusal else await following(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    for router in (*wires, api.router(desk), pages.router(desk)):
        app.include_router(router)
    app.mount("/assets", StaticFiles(directory=ASSETS / "static"))
    return app


def refuse(request: Request, host: str) -> str | None:
    """Other sites in the same browser reach this port: they may not read it (DNS rebinding) nor press its buttons."""
    named = request.headers.get("host", "")
    if host not in ANY_HOST and _hostname(named) not in LOOPBACK | {host}:
        return "The sandbox answers only under the name of this machine."
    origin = request.headers.get("origin")
    if request.method not in ("GET", "HEAD") and origin is not None and urlsplit(origin).netloc != named:
        return "The sandbox obeys only its own page."
    return None


def _hostname(named: str) -> str | None:
    try:
        return None if "@" in named else urlsplit(f"//{named}").hostname
    except ValueError:
        return None
