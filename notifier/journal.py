"""The witness's notebook: what a worker process wrote before and after each accepting byte, readable after its death.

A line before the byte, a line after the answer. Who finds the writer dead (it acquires the file's lock) knows for each
attempt: no line before = proven unsent; both = the answer; only before = in doubt. Lines carry ids and codes only (I5).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import get_args
from uuid import UUID

from notifier_channels.contract import Outcome, Receipt

LONGEST = 8 << 20  #: bytes; then new batches wait until those under way are settled and the file is cut

_json = json.JSONEncoder(separators=(",", ":")).encode
_KINDS = {kind.__name__: kind for kind in get_args(Outcome)}
_PLAIN = re.compile(r"[A-Za-z0-9 ._:/@<>=+-]*")  #: what stands in JSON as it is
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """The machine since its last start. A power failure may take a journal's tail: then it proves nothing."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else os.uname().nodename


class Journal:
    """The journal of this process; holds the file's lock until the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(self._file, 0)  # of another life: a database that was put back gives numbers out again
        self._open_batches = 0
        self._size = 0
        self._cut = asyncio.Event()
        self._cut.set()

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """Around a batch from before its first line until its settle has committed; then the file may be cut.

        A batch that ends by an exception has not settled: the file stays, for whoever finds this process dead.
        """
        await self._cut.wait()
        self._open_batches += 1
        yield
        self._open_batches -= 1
        if self._open_batches == 0:
            os.ftruncate(self._file, 0)
            self._size = 0
            self._cut.set()

    def rendering(self, message: UUID) -> None:
        """The message is about to be rendered: if this is the last line, it is what brought the process down."""
        self._write(f"R {message.hex}\n")

    def rendered(self) -> None:
        """The batch is rendered."""
        self._write("E\n")

    def before(self, message: UUID, attempt: int) -> None:
        """The accepting byte is about to leave."""
        self._write(f"B {message.hex} {attempt}\n")

    def after(self, message: UUID, attempt: int, outcome: Outcome) -> None:
        """The answer is read."""
        self._write(f"A {message.hex} {attempt} {_encode(outcome)}\n")

    def close(self) -> None:
        """Give the lock back. What is settled by now needs no file any more."""
        os.close(self._file)

    def _write(self, line: str) -> None:
        written = os.write(self._file, line.encode())
        if written < len(line):
            os.ftruncate(self._file, self._size)  # half a line would spoil the next one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written
        if self._size > LONGEST:
            self._cut.clear()


@dataclass(slots=True)
class Testimony:
    """What a dead worker's journal says."""

    committed: set[tuple[UUID, int]] = field(default_factory=set)
    answers: dict[tuple[UUID, int], Outcome] = field(default_factory=dict)
    in_hand: UUID | None = None  #: what was being rendered when the process died

    @property
    def last_answers(self) -> dict[UUID, Outcome]:
        """By message, what was answered to its last attempt."""
        return {message: answer for (message, _), answer in sorted(self.answers.items(), key=lambda one: one[0][1])}


@contextmanager
def testimony(path: Path) -> Iterator[Testimony | None]:
    """Read a dead worker's journal while holding its lock.

    None: the file is out of reach or damaged, or its writer lives (it lost its database lock, but not its life).
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield None
    else:
        with open(descriptor, encoding="utf-8", errors="replace", closefd=False) as file:
            yield read(file)
    finally:
        os.close(descriptor)


def read(lines: Iterable[str]) -> Testimony | None:
    """Fold the lines. A torn last line is one that was never finished: it says nothing.

    None: a line is damaged. It may have been any line, so that the whole proves nothing.
    """
    said = Testimony()
    try:
        for line in lines:
            if line.endswith("\n"):
                _hear(said, line.split(maxsplit=3))
    except (ValueError, KeyError, TypeError):
        return None
    return said


def _hear(said: Testimony, words: list[str]) -> None:
    match words:
        case ["R", message]:
            said.in_hand = UUID(message)
            return
        case ["E"]:
            pass
        case ["B", message, attempt]:
            said.committed.add((UUID(message), int(attempt)))
        case ["A", message, attempt, answer]:
            said.answers[UUID(message), int(attempt)] = _decode(answer)
        case _:
            raise ValueError("no line of a journal")
    said.in_hand = None


def _encode(outcome: Outcome) -> str:
    if isinstance(outcome, Receipt):  # nearly every line
        if _PLAIN.fullmatch(outcome.reference) and _PLAIN.fullmatch(outcome.code):  # encoding costs more than the line
            return f'["Receipt",{{"reference":"{outcome.reference}","code":"{outcome.code}"}}]'
        return _json(["Receipt", {"reference": outcome.reference, "code": outcome.code}])
    return json.dumps([type(outcome).__name__, asdict(outcome)], default=timedelta.total_seconds)


def _decode(text: str) -> Outcome:
    kind, fields = json.loads(text)
    if "retry_after" in fields:
        fields["retry_after"] = timedelta(seconds=fields["retry_after"])
    outcome: Outcome = _KINDS[kind](**fields)
    return outcome
