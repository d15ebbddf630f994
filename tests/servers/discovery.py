"""Google's discovery document of FCM v1 as a JSON schema that knows no field but its own."""

import json
from pathlib import Path

import jsonschema

DOCUMENT = json.loads((Path(__file__).parent.parent / "data" / "fcm" / "fcm.v1.json").read_text("utf-8"))
SEND = DOCUMENT["resources"]["projects"]["resources"]["messages"]["methods"]["send"]
FORMATS = {
    "google-duration": {"pattern": r"^\d+(\.\d{1,9})?s$"},
    "google-datetime": {"pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$"},
}


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def schema_of(name: str) -> dict:
    """Each field may be spelt in both ways that Google's JSON allows."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": f"#/$defs/{name}",
        "$defs": {each: _convert(schema) for each, schema in DOCUMENT["schemas"].items()},
    }


def violations(value: object, name: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema_of(name))
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(value)]


def _convert(schema: dict) -> dict:
    if "$ref" in schema:
        return {"$ref": f"#/$defs/{schema['$ref']}"}
    match schema["type"]:
        case "any":
            return {}
        case "array":
            return {"type": "array", "items": _convert(schema["items"])}
        case "object" if "additionalProperties" in schema:
            return {"type": "object", "additionalProperties": _convert(schema["additionalProperties"])}
        case "object":
            fields = {name: _convert(inner) for name, inner in schema["properties"].items()}
            both = fields | {snake(name): inner for name, inner in fields.items()}
            return {"type": "object", "properties": both, "additionalProperties": False}
        case "string" if "enum" in schema:
            # Google's parser takes an enum's name in any case; its SDK writes Android's priority in lower case.
            return {"type": "string", "enum": [*schema["enum"], *(name.lower() for name in schema["enum"])]}
        case kind:
            return {"type": kind} | FORMATS.get(schema.get("format"), {})
