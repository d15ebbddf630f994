"""What a run of `bench campaign` used: CPU by component, and the most memory that a worker had."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import psutil

EVERY = 0.1  #: seconds between two looks at memory


@dataclass(slots=True)
class Used:
    """Filled when the block ends."""

    cpu: dict[str, float] = field(default_factory=dict)  #: seconds by component
    rss: int = 0  #: bytes: the most that one of the watched processes had at any look


@asynccontextmanager
async def metered(components: Mapping[str, Sequence[psutil.Process]], watched: str) -> AsyncIterator[Used]:
    """Measure what happens in the block; the memory is that of the component `watched`."""
    used = Used()
    before = {name: cpu(processes) for name, processes in components.items()}
    watching = asyncio.create_task(_watch(components[watched], used))
    try:
        yield used
    finally:
        watching.cancel()
    used.cpu = {name: cpu(processes) - before[name] for name, processes in components.items()}


def cpu(processes: Sequence[psutil.Process]) -> float:
    """Seconds so far of these and of all that they started: what has ended counts with whoever waited for it."""
    return sum(_with_children(process) for process in processes)


def _with_children(process: psutil.Process) -> float:
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it ended just now, and its parent has its time
            total += sum(one.cpu_times()[:4])
    return total


async def _watch(processes: Sequence[psutil.Process], used: Used) -> None:
    while True:
        used.rss = max(used.rss, *(process.memory_info().rss for process in processes))
        await asyncio.sleep(EVERY)
