"""The web process: one event loop that serves until it is told to stop, and lets what it has in hand finish."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import uvicorn
import uvloop

from notifier.app import App, writable
from notifier.errors import NotConfigured
from notifier.settings import Settings
from notifier.web.server import create_app

BACKLOG = 2048


def run_api(settings: Settings, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        NotConfigured: the port is taken, PostgreSQL does not answer, an extra is missing, or no STOP could be kept.
        TemplateError: a template does not load.

    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, _listening(host, port) as door:
        runner.run(_serve(settings, door, ready))


async def _serve(settings: Settings, door: socket.socket, ready: Callable[[str], None]) -> None:
    try:
        async with App.open(settings) as app:
            if settings.twilio_auth_tokens:  # a STOP that the database does not take is kept there
                writable(app.replies.directory)
            server = _Server(_config(app))
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, server.stop)
            host, port = door.getsockname()[:2]
            ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            await server.serve(sockets=[door])
    except psycopg.OperationalError as error:
        raise NotConfigured(f"PostgreSQL does not answer ({type(error).__name__}): see DATABASE_URL.") from None


def _config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(app),
        lifespan="on",
        log_config=None,
        access_log=False,  # paths hold links that act and ids that products choose (I5)
        server_header=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=int(app.settings.shutdown_seconds),
    )


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, which end the process before the database is given back."""

    def stop(self) -> None:
        """Finish what is under way and return; asked twice, return at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
            door.listen(BACKLOG)
        except OSError as error:
            raise NotConfigured(
                f"Port {port} on {host} cannot be used ({error.strerror}): choose another --port, or --host."
            ) from None
        yield door
