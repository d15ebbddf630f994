"""`python -m notifier.demo`: plays the scenario against the installation that the environment describes."""

from __future__ import annotations

import asyncio
import os
import sys

from rich.console import Console

from notifier import settings
from notifier.demo.scenario import play
from notifier.demo.stage import Stage
from notifier.domain.recipients import Hasher
from notifier.store.database import Database


async def main(*, once: bool) -> int:
    """The exit status: 0 when every promise held."""
    read = settings.load()
    stage = Stage(Console())
    stage.open()
    database = Database(read.database_url.get_secret_value(), connections=2)
    await database.open()
    try:
        holds, places = await play(
            stage,
            database=database,
            hasher=Hasher({name: secret.get_secret_value().encode() for name, secret in read.hash_keys.items()}),
            api=read.public_url,
            sandbox=os.environ["NOTIFIER_SANDBOX_URL"],
        )
    finally:
        await database.close()
    stage.close(holds=holds)
    if not once:
        stage.addresses(places)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(once="--once" in sys.argv)))
