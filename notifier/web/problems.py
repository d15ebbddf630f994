"""How a refusal looks on the wire: problem details (RFC 9457) that name the field and the remedy, never a value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from notifier.errors import Conflict, Forbidden, InvalidInput, NotFound, NotifierError, Problem, TooSoon

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 5  #: seconds
MAX_ERRORS = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its name in `type`, its status and its title. `docs/reference/errors.md` explains each."""

    name: str
    status: int
    title: str

    @property
    def type(self) -> str:
        """A URN: a problem must mean the same wherever the service is installed."""
        return f"urn:notifier:problem:{self.name}"


class Kinds(Enum):
    """All of them."""

    INVALID_JSON = Kind("invalid-json", 400, "The body is not JSON that can be read.")
    UNAUTHENTICATED = Kind("unauthenticated", 401, "No valid API key came with the request.")
    FORBIDDEN = Kind("forbidden", 403, "The API key lacks a scope.")
    NOT_FOUND = Kind("not-found", 404, "There is no such thing.")
    METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "This address does not take this method.")
    TOO_SLOW = Kind("too-slow", 408, "The body did not arrive in time.")
    CONFLICT = Kind("conflict", 409, "The request contradicts what is stored.")
    TOO_LARGE = Kind("too-large", 413, "The body is too large.")
    UNSUPPORTED = Kind("unsupported-media-type", 415, "The body is of another type than this address takes.")
    INVALID_INPUT = Kind("invalid-input", 422, "Something in the request is not right; nothing of it was accepted.")
    TOO_SOON = Kind("too-soon", 429, "This was done often enough for now; nothing was done.")
    INTERNAL = Kind("internal", 500, "Something broke on our side.")
    UNAVAILABLE = Kind("unavailable", 503, "The database cannot be reached; try again.")


class Refused(HTTPException):
    """Raised where a request is refused before a use case hears of it."""

    def __init__(self, kind: Kinds, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(kind.value.status, detail, dict(headers) if headers else None)
        self.kind = kind


def answer(
    kind: Kinds, detail: str = "", errors: Sequence[Problem] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """The refusal as a response."""
    body: dict[str, object] = {"type": kind.value.type, "title": kind.value.title, "status": kind.value.status}
    if detail:
        body["detail"] = detail
    if errors:
        body["errors"] = [{"pointer": one.pointer, "detail": one.detail} for one in errors[:MAX_ERRORS]]
    return JSONResponse(body, kind.value.status, headers, media_type=MEDIA_TYPE)


def unavailable() -> Response:
    """PostgreSQL is away, or so busy that it comes to the same."""
    return answer(Kinds.UNAVAILABLE, "Nothing was lost; repeat the request.", headers={"Retry-After": str(RETRY_AFTER)})


async def on_error(request: Request, error: Exception) -> Response:
    """The answer to everything that is refused on the way, by a use case, by a form or by the framework."""
    match error:
        case InvalidInput():
            return answer(Kinds.INVALID_INPUT, "See `errors`.", error.problems)
        case Conflict():
            return answer(Kinds.CONFLICT, str(error), error.problems)
        case NotFound():
            return answer(Kinds.NOT_FOUND, str(error), error.problems)
        case Forbidden():
            return answer(Kinds.FORBIDDEN, str(error), error.problems)
        case TooSoon():
            seconds = str(math.ceil(error.wait.total_seconds()))
            return answer(Kinds.TOO_SOON, str(error), headers={"Retry-After": seconds})
        case RequestValidationError():
            return answer(Kinds.INVALID_INPUT, "See `errors`.", [explain(one) for one in error.errors()])
        case Refused():
            return answer(error.kind, error.detail, headers=error.headers)
        case StarletteHTTPException():
            kind = _BY_STATUS.get(error.status_code, Kinds.INVALID_INPUT)
            headers = {"Allow": _allowed(request)} if kind is Kinds.METHOD_NOT_ALLOWED else error.headers
            return answer(kind, _REMEDIES.get(kind, ""), headers=headers)
        case _:
            return answer(Kinds.INTERNAL)


def _allowed(request: Request) -> str:
    """Every method of this address (RFC 9110 15.5.6); the framework names those of its first route alone."""
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    routes = request.app.routes
    return ", ".join(
        method for method, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in routes)
    )


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

HANDLED: tuple[type[Exception], ...] = (NotifierError, RequestValidationError, StarletteHTTPException)

_BY_STATUS = {kind.value.status: kind for kind in Kinds}
_REMEDIES = {
    Kinds.NOT_FOUND: "No such address; /docs lists all.",
    Kinds.METHOD_NOT_ALLOWED: "See `Allow` for the methods that it takes.",
    Kinds.INVALID_JSON: "Send a JSON object in UTF-8.",
}


def explain(error: Mapping[str, object]) -> Problem:
    """One of pydantic's errors as a pointer and a remedy. Its own sentences may quote the input; ours never do."""
    location = error.get("loc")
    place = location if isinstance(location, tuple) else ()
    detail = _sentence(error)
    match place[:1]:
        case ("header",):
            return Problem("", f"the header `{place[-1]}` {detail}")
        case ("path",) | ("query",):
            return Problem("", f"`{place[-1]}` in the URL {detail}")
        case ("body",):
            place = place[1:]
    return Problem("".join(f"/{_escaped(str(part))}" for part in place), detail)


def _sentence(error: Mapping[str, object]) -> str:
    kind, context = str(error.get("type")), error.get("ctx")
    if kind in ("too_short", "too_long") and isinstance(error.get("input"), str):
        kind = f"string_{kind}"  # of a text that a validator of ours has looked at, pydantic counts items
    if kind == "value_error":  # raised by our own validators, which keep the rule
        return str(error.get("msg", "")).removeprefix("Value error, ")
    limits = {name: value for name, value in context.items() if name in _SAFE} if isinstance(context, Mapping) else {}
    return _SENTENCES.get(kind, "does not have the expected form; see /docs").format_map(limits)


_SAFE = ("max_length", "min_length", "expected", "ge", "le")  #: limits and names out of our models, never input

_SENTENCES = {
    "missing": "is missing; add it",
    "extra_forbidden": "is not a known field; remove it or mend its spelling",
    "string_type": "must be text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "list_type": "must be a list",
    "is_instance_of": "must be a list",  # what is given for a Sequence
    "sequence_str": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number with fewer digits",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "enum": "must be one of {expected}",
    "literal_error": "must be one of {expected}",
    "uuid_parsing": "is not an id; ids look like 019892f0-1c9a-7c3e-8a7b-3f1f4a0b9c1d",
    "uuid_type": "is not an id; ids look like 019892f0-1c9a-7c3e-8a7b-3f1f4a0b9c1d",
    "json_invalid": "is not JSON",
}


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")
