"""What data a template takes: its JSON Schema, compiled once, and each mistake as a pointer with a remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from notifier.errors import Problem, TemplateError

RESERVED = frozenset(
    {
        *("subject", "locale", "direction", "sender", "postal_address", "topic", "words"),
        *("unsubscribe_url", "preferences_url", "stop_text"),
        *(
            "loop",
            "self",
            "super",
            "caller",
            "varargs",
            "kwargs",
            "true",
            "false",
            "none",
            "not",
            "and",
            "or",
            "in",
            "is",
        ),
    }
)
"""Names that a template finds filled by Notifier or by Jinja: no data may pose as them."""

PROPERTY = re.compile(r"[a-z][a-z0-9_]*")
MAX_PROBLEMS = 20
_TOO_DEEP = "is nested too deeply; flatten it"


class Schema:
    """A template's data contract. Regular expressions run in linear time; nothing is ever fetched."""

    def __init__(self, text: str, path: str) -> None:
        self.document = _parsed(text, path)
        _closed(self.document, path)
        for name in self.properties:
            _usable(name, path)
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                self.document, validate_formats=True, retriever=_refuse, pattern_options=jsonschema_rs.RegexOptions()
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise TemplateError(f"{path}: {_first_line(error)}") from None

    @property
    def properties(self) -> frozenset[str]:
        """The names that a template may use."""
        return frozenset(self.document.get("properties", {}))

    @property
    def required(self) -> frozenset[str]:
        """The names that are always there."""
        return frozenset(self.document.get("required", []))

    def problems(self, data: Mapping[str, Any], pointer: str, *, partly: bool = False) -> list[Problem]:
        """Everything that is wrong with the data, each with its place below `pointer`; never a value (I5).

        `partly`: what is missing at the top is no mistake, as it comes from elsewhere.
        """
        if unusable := _unusable(data):
            return [Problem(pointer, unusable)]
        problems: list[Problem] = []
        try:
            for error in self._validator.iter_errors(data):
                if partly and error.kind.name == "required" and not error.instance_path:
                    continue
                problems += _explain(error, pointer)
                if len(problems) >= MAX_PROBLEMS:
                    break
        except ValueError:  # the validator's own limit, 255 levels
            return [Problem(pointer, _TOO_DEEP)]
        return problems[:MAX_PROBLEMS]


def parse_object(text: str, path: str) -> dict[str, Any]:
    """A JSON object out of a template's file."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise TemplateError(f"{path}: {error}") from None
    if not isinstance(document, dict):
        raise TemplateError(f"{path}: must be a JSON object")
    return document


_parsed = parse_object


def _closed(document: dict[str, Any], path: str) -> None:
    if document.get("type") != "object" or document.get("additionalProperties") is not False:
        raise TemplateError(
            f'{path}: must say "type": "object" and "additionalProperties": false, so that a misspelt field is noticed'
        )


def _usable(name: str, path: str) -> None:
    if name in RESERVED:
        raise TemplateError(f"{path}: `{name}` is filled by Notifier; name the property otherwise")
    if not PROPERTY.fullmatch(name):
        raise TemplateError(f"{path}: `{name}` cannot stand in a template; use lower case letters, digits and _")


def _unusable(data: Mapping[str, Any]) -> str | None:
    """JSON admits text that neither a database nor a mail can hold."""
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False)
        text.encode()
    except RecursionError:
        return _TOO_DEEP
    except UnicodeEncodeError:
        return "holds half of a surrogate pair; send well-formed Unicode"
    except (TypeError, ValueError):
        return "must be plain JSON: objects, lists, text, finite numbers, true, false and null"
    if "\\u0000" in text and _has_nul(data):
        return "holds a NUL character; remove it"
    return None


def _has_nul(value: object) -> bool:
    match value:
        case str():
            return "\0" in value
        case Mapping():
            return any(_has_nul(key) or _has_nul(item) for key, item in value.items())
        case list():
            return any(_has_nul(item) for item in value)
        case _:
            return False


def _explain(error: jsonschema_rs.ValidationError, pointer: str) -> list[Problem]:
    here = pointer + "".join(f"/{_escaped(part)}" for part in error.instance_path)
    kind = error.kind.as_dict()
    match error.kind.name:
        case "additionalProperties" | "unevaluatedProperties":
            return [
                Problem(f"{here}/{_escaped(name)}", "is not known to this template; remove it or correct its name")
                for name in kind["unexpected"]
            ]
        case "required":
            return [Problem(f"{here}/{_escaped(kind['property'])}", "is missing; this template needs it")]
        case keyword:
            return [Problem(here, _remedy(keyword, kind))]


def _remedy(keyword: str, kind: Mapping[str, Any]) -> str:
    """A sentence made of the schema's own words, which are no data."""
    limit = kind.get("limit")
    match keyword:
        case "type":
            return f"must be of type {' or '.join(sorted(kind['types']))}"
        case "enum":
            return f"must be one of {json.dumps(kind['options'], ensure_ascii=False)}"
        case "const":
            return f"must be {json.dumps(kind['expected_value'], ensure_ascii=False)}"
        case "pattern":
            return f"must match the pattern {kind['pattern']}"
        case "format":
            return f"must be a valid {kind['format']}"
        case "minLength" | "maxLength":
            return f"must have at {keyword[:3]} {limit} characters".replace("at min", "at least").replace(
                "at max", "at most"
            )
        case "minItems" | "maxItems":
            return f"must have at {keyword[:3]} {limit} items".replace("at min", "at least").replace(
                "at max", "at most"
            )
        case "minimum":
            return f"must be {limit} or more"
        case "maximum":
            return f"must be {limit} or less"
        case _:
            return f"does not keep the schema's rule `{keyword}`"


def _escaped(part: object) -> str:
    """RFC 6901 section 3."""
    return str(part).replace("~", "~0").replace("/", "~1")


def _refuse(uri: str) -> Any:
    raise ValueError(f"a schema may not refer to other documents ({uri})")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
