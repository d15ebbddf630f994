"""What an answer means, and when to ask again: decided once for both clients."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import httpx

from notifier.client.calls import Call
from notifier.client.errors import Problem, Refused, Unreachable

T = TypeVar("T")

RETRIED = frozenset({408, 425, 429})  #: and all from 500 on, also those that only a proxy gives, such as 524
FIRST_WAIT, LONGEST_WAIT = 0.25, 20.0  #: seconds


@dataclass(frozen=True, slots=True)
class Again:
    """Ask once more after `wait` seconds."""

    wait: float


def judge(call: Call[T], tried: int, tries: int, answer: httpx.Response | httpx.RequestError) -> T | Again:
    """What an answer means. Every call is safe to repeat: sends carry keys, the others say how things shall be."""
    status = answer.status_code if isinstance(answer, httpx.Response) else 0
    if isinstance(answer, httpx.Response) and (answer.is_success or _was_removed_before(call, tried, status)):
        with suppress(ValueError):  # a success that is not the service's own comes from something in between
            return call.read(answer)
    elif isinstance(answer, httpx.Response) and status < 500 and status not in RETRIED:
        raise Refused(_problem(answer))
    if tried < tries:
        return Again(_wait(tried, answer))
    if isinstance(answer, httpx.Response) and status in RETRIED:
        raise Refused(_problem(answer))
    raise Unreachable(f"The service did not take it in {tries} tries: {_what(answer)}.", call.key)


def _was_removed_before(call: Call[T], tried: int, status: int) -> bool:
    """What is not there when it is asked for again was removed by the try whose answer got lost."""
    return call.method == "DELETE" and tried > 1 and status == httpx.codes.NOT_FOUND


def _what(answer: httpx.Response | httpx.RequestError) -> str:
    if not isinstance(answer, httpx.Response):
        return type(answer).__name__
    return f"answered {answer.status_code}" + (", but not as it does" if answer.is_success else "")


def _wait(tried: int, answer: httpx.Response | httpx.RequestError) -> float:
    """As long as the service asks for, else doubling, spread so that callers do not come back all at once."""
    backoff: float = min(LONGEST_WAIT, FIRST_WAIT * 2**tried) * random.uniform(0.5, 1)
    asked = answer.headers.get("Retry-After", "") if isinstance(answer, httpx.Response) else ""
    return min(LONGEST_WAIT, max(float(asked), backoff)) if asked.isdecimal() else backoff


def _problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValueError:
        return Problem(status=response.status_code, title=response.reason_phrase)
