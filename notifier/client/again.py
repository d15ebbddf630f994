"""What an answer means, and when to ask again: decided once for both clients."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TypeVar

import httpx

from notifier.client.calls import Call
from notifier.client.errors import Problem, Refused, Unreachable

T = TypeVar("T")

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
FIRST_WAIT, LONGEST_WAIT = 0.25, 20.0  #: seconds


@dataclass(frozen=True, slots=True)
class Again:
    """Ask once more after `wait` seconds."""

    wait: float


def judge(call: Call[T], tried: int, tries: int, answer: httpx.Response | httpx.TransportError) -> T | Again:
    """What an answer means. Every call is safe to repeat: sends carry keys, the others say how things shall be."""
    if isinstance(answer, httpx.Response) and answer.is_success:
        return call.read(answer)
    if isinstance(answer, httpx.Response) and answer.status_code not in RETRIED:
        raise Refused(_problem(answer))
    if tried < tries:
        return Again(_wait(tried, answer))
    if isinstance(answer, httpx.Response) and answer.status_code < 500:
        raise Refused(_problem(answer))
    what = f"answered {answer.status_code}" if isinstance(answer, httpx.Response) else type(answer).__name__
    raise Unreachable(f"The service did not take it in {tries} tries: {what}.", call.key)


def _wait(tried: int, answer: httpx.Response | httpx.TransportError) -> float:
    """As long as the service asks for, else doubling, spread so that callers do not come back all at once."""
    backoff: float = min(LONGEST_WAIT, FIRST_WAIT * 2**tried) * random.uniform(0.5, 1)
    asked = answer.headers.get("Retry-After", "") if isinstance(answer, httpx.Response) else ""
    return min(LONGEST_WAIT, max(float(asked), backoff)) if asked.isdecimal() else backoff


def _problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValueError:
        return Problem(status=response.status_code, title=response.reason_phrase)
