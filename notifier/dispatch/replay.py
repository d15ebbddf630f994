"""After a cause is mended, an operator queues what has failed for it. The gate decides anew: a no since then counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from notifier.domain.messages import State
from notifier.domain.replay import Left, why_left
from notifier.store import messages, replays
from notifier.store.database import Connection
from notifier.store.replays import Which

PAGE = 500  #: messages of one transaction


@dataclass(slots=True)
class Replayed:
    """What became of those that were asked for."""

    queued: int = 0
    left: dict[UUID, Left] = field(default_factory=dict)
    unheard_of: list[UUID] = field(default_factory=list)


async def replay(c: Connection, ids: Sequence[UUID], rate: float) -> Replayed:
    """Queue these, `rate` a second, but for those that must not go again."""
    done = Replayed()
    for start in range(0, len(ids), PAGE):
        await _replay_page(c, ids[start : start + PAGE], rate, done)
    return done


async def replay_all(c: Connection, which: Which, rate: float) -> Replayed:
    """The same for all that have failed so. What fails once more meanwhile is not looked at again."""
    done, last = Replayed(), None
    while ids := await replays.page(c, which, last, PAGE):
        await _replay_page(c, ids, rate, done)
        last = ids[-1]
    return done


async def _replay_page(c: Connection, ids: Sequence[UUID], rate: float, done: Replayed) -> None:
    async with c.transaction():
        await messages.lock(c, ids)
        stand = {row["id"]: row for row in await replays.standing(c, ids)}
        judged: Mapping[UUID, Left | None] = {
            id_: why_left(
                State(row["state"]),
                has_expired=row["has_expired"],
                is_called_back=row["is_called_back"],
                is_taken_over=row["is_taken_over"],
            )
            for id_, row in stand.items()
        }
        going = [id_ for id_, why in judged.items() if why is None]
        await replays.queue(c, going, done.queued / rate, rate)
    done.queued += len(going)
    done.left |= {id_: why for id_, why in judged.items() if why is not None}
    done.unheard_of += [id_ for id_ in ids if id_ not in stand]
