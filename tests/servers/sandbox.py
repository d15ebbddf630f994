"""The sandbox in a thread of its own, and a stand-in for Notifier that writes down what it is told."""

import asyncio
import http.server
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from notifier.sandbox.server import Running, open_sandbox
from notifier.settings import SandboxSettings

SECRET = "a secret of at least thirty-two characters"
NOWHERE = "http://127.0.0.1:9"
TWILIO = {"twilio_account_sid": "AC" + "0" * 32, "twilio_auth_tokens": "made up", "twilio_answers_keywords": False}


@contextmanager
def running_sandbox(
    public_url: str = NOWHERE, secret: str | None = SECRET, pace: float = 0.01, **more: Any
) -> Iterator[Running]:
    ready: queue.Queue[Running] = queue.Queue()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def live() -> None:
        settings = SandboxSettings(public_url=public_url, sandbox_secret=secret, **more)
        async with open_sandbox(settings, http_port=0, smtp_port=0, pace=pace) as running:
            ready.put(running)
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),))
    thread.start()
    try:
        yield ready.get(timeout=20)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=20)
        assert not thread.is_alive()
        loop.close()


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Notifier:
    """Answers each request with the next status of `script`, then with 204; with a `body`, when there is one."""

    url: str
    requests: queue.Queue[Request]
    script: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    gate: threading.Event | None = None  #: closed: nothing is answered
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> Request:
        return self.requests.get(timeout=20)


@contextmanager
def listening_notifier(port: int = 0) -> Iterator[Notifier]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            with notifier.lock:
                notifier.under_way += 1
                notifier.most_under_way = max(notifier.most_under_way, notifier.under_way)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            notifier.requests.put(Request(self.command, self.path, dict(self.headers), body))
            if notifier.gate is not None:
                notifier.gate.wait(timeout=20)
            with notifier.lock:
                notifier.under_way -= 1
                status = notifier.script.pop(0) if notifier.script else 204
            self.send_response(status)
            for name, value in notifier.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(notifier.body)))
            self.end_headers()
            self.wfile.write(notifier.body)

        do_GET = do_POST = answer  # noqa: N815 -- http.server calls them so

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", port), Handler) as server:
        notifier = Notifier(f"http://127.0.0.1:{server.server_port}", queue.Queue())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield notifier
        finally:
            server.shutdown()
            thread.join(timeout=20)
