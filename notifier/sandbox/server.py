"""The sandbox as one process: all stand-ins, what they report to Notifier and the pages in one event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import uvicorn

from notifier.errors import NotConfigured
from notifier.sandbox.catcher import Catcher
from notifier.sandbox.desk import Desk
from notifier.sandbox.mails import Inbox
from notifier.sandbox.pushes import Pushes
from notifier.sandbox.reports import Reports
from notifier.sandbox.texts import Texts
from notifier.sandbox.web import create_app
from notifier.sandbox.wires import open_wires
from notifier.settings import SandboxSettings


@dataclass(frozen=True, slots=True)
class Running:
    """Where the sandbox answers."""

    http_url: str
    smtp_port: int
    inbox: Inbox
    texts: Texts
    pushes: Pushes


@asynccontextmanager
async def open_sandbox(
    settings: SandboxSettings, *, host: str = "127.0.0.1", http_port: int, smtp_port: int, pace: float = 1.0
) -> AsyncIterator[Running]:
    """Take everything and show it until the block ends. A port of 0 lets the kernel pick one.

    Raises:
        NotConfigured: in production, when a port is taken, or when a stand-in cannot use what it is given.

    """
    refuse_production(settings)
    inbox, texts, pushes = Inbox(), Texts(), Pushes()
    secret = settings.sandbox_secret.get_secret_value() if settings.sandbox_secret else None
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=10, cookies=_no_cookies()))
        reports = await stack.enter_async_context(Reports(client, settings.public_url, secret, pace=pace))
        door = stack.enter_context(_listening(host, http_port))
        url = f"http://{host}:{door.getsockname()[1]}"
        wires = await stack.enter_async_context(open_wires(settings, texts, pushes, client, url, pace=pace))
        catcher = Catcher(inbox, reports.tell, pace=pace)
        stack.push_async_callback(catcher.close)
        port = await _catching(catcher, host, smtp_port)
        desk = Desk(inbox, reports, client, settings.public_url, f"{host}:{port}", texts, pushes, wires)
        await stack.enter_async_context(_serving(create_app(desk, wires.routers, host=host), door))
        yield Running(url, port, inbox, texts, pushes)


async def serve(
    settings: SandboxSettings, *, host: str, http_port: int, smtp_port: int, ready: Callable[[Running], None]
) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_sandbox(settings, host=host, http_port=http_port, smtp_port=smtp_port) as running:
        ready(running)
        await stop.wait()


def refuse_production(settings: SandboxSettings) -> None:
    """A sandbox takes mail that would never arrive: that must not happen to real people."""
    if settings.env != "development":
        raise NotConfigured("The sandbox delivers nothing, so it does not start with NOTIFIER_ENV=production.")


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: this process has more than the page to close."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _serving(app: object, door: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]  # any ASGI application
        log_level="warning",
        access_log=False,  # searches hold addresses (I5)
        lifespan="off",
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[door]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


def _no_cookies() -> CookieJar:
    """A jar that keeps nothing: the POST of RFC 8058 carries no cookies."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
            door.listen(128)
        except OSError as error:
            raise NotConfigured(_taken(host, port, "--http-port", error)) from None
        yield door


async def _catching(catcher: Catcher, host: str, port: int) -> int:
    try:
        return await catcher.listen(host, port)
    except OSError as error:
        raise NotConfigured(_taken(host, port, "--smtp-port", error)) from None


def _taken(host: str, port: int, option: str, error: OSError) -> str:
    why = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
    return f"The sandbox cannot listen on {host}:{port} ({why}); choose another port with {option}."
