"""An operator replays what has failed: which messages may go to the gate once more."""

from __future__ import annotations

from enum import StrEnum

from notifier.domain.messages import State


class Left(StrEnum):
    """Why a message is left as it is; the value is for the operator."""

    UNKNOWN = "nobody knows whether the provider took it: a repeat could arrive twice"
    NOT_FAILED = "only what has failed is replayed"
    EXPIRED = "it has expired meanwhile"
    CALLED_BACK = "product code has cancelled its notification"
    TAKEN_OVER = "another channel has taken its place"


def why_left(state: State, *, has_expired: bool, is_called_back: bool, is_taken_over: bool) -> Left | None:
    """None: it may be queued. `is_taken_over`: another channel of its route went, or is about to."""
    if state is State.UNKNOWN:
        return Left.UNKNOWN
    if state is not State.FAILED:
        return Left.NOT_FAILED
    if has_expired:
        return Left.EXPIRED
    if is_called_back:
        return Left.CALLED_BACK
    return Left.TAKEN_OVER if is_taken_over else None
