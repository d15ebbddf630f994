"""Two ways in which a mail server is dead: it takes the line and says nothing, or nobody is there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

LINES = 512  #: that the kernel holds for a server which never takes one


@contextmanager
def a_relay_that_hangs() -> Iterator[str]:
    """The kernel takes the connections, and nothing is ever said. Its URL."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(LINES)
        yield f"smtp://127.0.0.1:{deaf.getsockname()[1]}?tls=none"


@contextmanager
def a_relay_that_refuses() -> Iterator[str]:
    """Nobody listens, and nobody else gets the port meanwhile. Its URL."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"smtp://127.0.0.1:{closed.getsockname()[1]}?tls=none"
