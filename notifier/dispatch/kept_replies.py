"""STOP and START by text message outlive an outage of the database: on disk until they are in the ledger.

Twilio repeats a webhook for 15 seconds at most, and by default not at all. So what cannot be written down is kept in a
file, and still refused, for Twilio to come again or to the fallback URL: both lead to the same line, by the provider's
id of the message. Looking through Twilio's list of messages after an outage would need no file, but a request for each
sender and page, a guess when the outage began, and it would not say what Twilio itself has answered.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import structlog

from notifier.dispatch.replies import LONGEST_WORDING, Replies, Reply
from notifier.store.database import AWAY
from notifier_channels.addresses import PhoneNumber
from notifier_channels.sms.keywords import Keyword

log = structlog.get_logger(__name__)

KEPT = frozenset({Keyword.STOP, Keyword.START})  #: all else changes nothing that an answer, now or never, would not
LOOK_EVERY = 2.0  #: seconds


@dataclass(frozen=True, slots=True)
class KeptReplies:
    """Takes text messages as `Replies` does, and keeps what the database would not take."""

    replies: Replies
    directory: Path

    async def __call__(self, reply: Reply) -> str | None:
        """Act on it, after all that came before it; the text of the answer, or None.

        Raises:
            psycopg.Error: it could not be written down. STOP and START are on disk.
            OSError: nor could they be kept there.

        """
        try:
            await self.catch_up(but=reply.reference)
            answer = await self.replies(reply)
        except psycopg.Error:
            if reply.said in KEPT:
                await asyncio.to_thread(_keep, self._path(reply.reference), reply)
            raise
        self._path(reply.reference).unlink(missing_ok=True)
        return answer

    async def catch_up(self, but: str | None = None) -> None:
        """Act on what was kept, oldest first, and answer none of it: an hour later nobody knows what is meant.

        What cannot be read, acted on or removed is left for the next time: nobody's STOP waits for it.

        Raises:
            psycopg.Error: the database is still away.

        """
        for path, reply in await asyncio.to_thread(self._kept):
            if reply.reference == but:  # it is on its way, and that one is answered
                continue
            try:
                await self.replies(reply)
                path.unlink(missing_ok=True)
            except AWAY:
                raise
            except (psycopg.Error, OSError) as error:
                log.error("reply.not_caught_up", error=type(error).__name__)
                continue
            log.info("reply.caught_up", said=str(reply.said))

    async def keep_up(self) -> None:
        """Catch up now and whenever something was kept, until cancelled."""
        while True:
            try:
                await self.catch_up()
            except (psycopg.Error, OSError) as error:
                log.warning("reply.waits", error=type(error).__name__)
            await asyncio.sleep(LOOK_EVERY)

    def _path(self, reference: str) -> Path:
        return self.directory / f"{sha256(reference.encode('utf-8', 'replace')).hexdigest()}.json"

    def _kept(self) -> list[tuple[Path, Reply]]:
        found = []
        for path in self.directory.glob("*.json"):
            try:
                found.append((path, _parse(json.loads(path.read_bytes()))))
            except FileNotFoundError:  # another process was first
                continue
            except OSError as error:  # such as one that another account has written
                log.error("reply.not_caught_up", error=type(error).__name__)
            except (ValueError, KeyError, TypeError) as error:  # a disk's fault: no file of ours is ever cut off
                log.error("reply.not_caught_up", error=type(error).__name__)
                _set_aside(path)
        return sorted(found, key=lambda one: one[1].received_at)


def _set_aside(path: Path) -> None:
    with suppress(OSError):  # it is reported again the next time
        path.rename(path.with_suffix(".broken"))


def _keep(path: Path, reply: Reply) -> None:
    """On disk when it returns, whole or not at all. What is there is the same message, seen earlier."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fields = asdict(reply) | {
        "phone": reply.phone.e164,
        "text": reply.text[:LONGEST_WORDING],
        "received_at": reply.received_at.isoformat(),
    }
    draft = path.with_suffix(f".{os.getpid()}.draft")
    with open(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:  # noqa: PTH123
        json.dump(fields, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _parse(fields: Mapping[str, Any]) -> Reply:
    known = {
        "phone": PhoneNumber(fields["phone"]),
        "said": Keyword(fields["said"]),
        "received_at": datetime.fromisoformat(fields["received_at"]),
    }
    return Reply(**{**fields, **known})
