"""What can go wrong between product code and the service. No text here repeats what was sent."""

from __future__ import annotations

from notifier.client.answers import Answer


class FieldError(Answer):
    """One mistake: where (JSON pointer), and what to do."""

    pointer: str
    detail: str


class Problem(Answer):
    """Why the service refused (RFC 9457)."""

    type: str = "about:blank"
    title: str = ""
    status: int
    detail: str = ""
    errors: tuple[FieldError, ...] = ()


class NotifierError(Exception):
    """Something did not work. The text names fields and remedies, never what was sent."""


class Forged(NotifierError):
    """A webhook that the service did not send, not to this endpoint, or not just now: answer it 401 and do nothing."""


class Refused(NotifierError):
    """The service refused; asking the same again will not help."""

    def __init__(self, problem: Problem) -> None:
        lines = [f"{problem.status} {problem.title} {problem.detail}".strip()]
        super().__init__(
            "\n".join([*lines, *(f"  {error.pointer or '/'}: {error.detail}" for error in problem.errors)])
        )
        self.problem = problem


class Unreachable(NotifierError):
    """The service could not be asked, or did not answer well, however often. With the same key it is safe to go on."""

    def __init__(self, why: str, idempotency_key: str | None) -> None:
        super().__init__(why)
        self.idempotency_key = idempotency_key
