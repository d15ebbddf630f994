"""The page at /docs: every route with its scopes, fields and examples, made of the OpenAPI document.

Without scripts and without anything from elsewhere: it opens in a closed network, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d9dde3, #3a4048); --soft: light-dark(#f5f6f8, #1d2127);
  --text: light-dark(#1c2430, #e6e9ee); --faint: light-dark(#566072, #9aa4b2); --accent: light-dark(#0b57d0, #8ab4f8); }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 5rem; font: 16px/1.55 system-ui, sans-serif;
  color: var(--text); background: light-dark(#fff, #14171b) }
h1 { font-size: 1.8rem; margin: 0 0 .5rem } h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem }
h3 { font-size: 1rem; margin: 0 } h4 { font-size: .85rem; margin: 1.25rem 0 .35rem; color: var(--faint) }
section { border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.1rem; margin: 0 0 1rem }
code, pre { font: .86rem/1.5 ui-monospace, monospace } pre { overflow-x: auto; padding: .8rem; margin: 0;
  border-radius: 8px; background: var(--soft) }
.method { color: var(--accent); font-weight: 700; margin-right: .5rem }
.scopes { color: var(--faint); font-size: .9rem }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
td { border-top: 1px solid var(--line); padding: .35rem .6rem .35rem 0; vertical-align: top }
td:nth-child(2) { color: var(--faint); white-space: nowrap } a { color: var(--accent) }
"""


def page(document: Schema) -> str:
    """The whole page."""
    info = document["info"]
    about = "".join(f"<p>{_prose(part)}</p>" for part in info["description"].split("\n\n"))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])} API</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><h1>{escape(info['title'])} API</h1>{about}"
        '<p>The same for programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"{''.join(_groups(document))}</body></html>"
    )


def _groups(document: Schema) -> Iterator[str]:
    group = None
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if group != (group := operation["tags"][0]):
                yield f"<h2>{escape(group)}</h2>"
            yield _operation(document, f"{method.upper()}", path, operation)


def _operation(document: Schema, method: str, path: str, operation: Schema) -> str:
    scopes = " or ".join(f"<code>{escape(scope)}</code>" for scope in operation["x-scopes"])
    about = "".join(f"<p>{_prose(part)}</p>" for part in operation["description"].split("\n\n"))
    parameters = [
        (one["name"], f"{one['in']}, required" if one["required"] else one["in"], one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    parts = [_table("Parameters", parameters)]
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(document, content.get("schema", {}))
        parts += [_table(f"Body: {media_type}", _fields(document, schema)), _example(content, schema)]
    for status, answer in operation["responses"].items():
        for media_type, content in answer.get("content", {}).items():
            if status[0] == "2" and (schema := _resolved(document, content.get("schema", {}))):
                parts.append(_table(f"Answer {status}: {media_type}", _fields(document, {**schema, "required": ()})))
    return (
        f'<section id="{escape(operation["operationId"])}"><h3><span class="method">{method}</span>'
        f'<code>{escape(path)}</code></h3><p class="scopes">Scope: {scopes}</p>{about}{"".join(parts)}</section>'
    )


def _fields(document: Schema, schema: Schema) -> list[tuple[str, str, str]]:
    required = schema.get("required", ())
    return [
        (name, _type(document, one) + (", required" if name in required else ""), one.get("description", ""))
        for name, one in schema.get("properties", {}).items()
    ]


def _type(document: Schema, schema: Schema) -> str:
    """A field's type in a few words: `list of {id, channel}`."""
    if "anyOf" in schema:
        return " or ".join(_type(document, one) for one in schema["anyOf"])
    resolved = _resolved(document, schema)
    if "enum" in resolved:
        return " | ".join(map(str, resolved["enum"]))
    if resolved.get("type") == "array":
        return f"list of {_type(document, resolved.get('items', {}))}"
    if "properties" in resolved:
        return "{" + ", ".join(resolved["properties"]) + "}"
    return str(resolved.get("format") or resolved.get("type", "any"))


def _resolved(document: Schema, schema: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    found: Schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _table(title: str, rows: list[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{_prose(text)}</td></tr>"
        for name, kind, text in rows
    )
    return f"<h4>{escape(title)}</h4><table>{cells}</table>" if rows else ""


def _example(content: Schema, schema: Schema) -> str:
    example = content.get("example") or next(iter(schema.get("examples", ())), None)
    if example is None:
        return ""
    text = example if isinstance(example, str) else json.dumps(example, indent=2)
    return f"<h4>Example</h4><pre>{escape(text)}</pre>"


def _prose(text: str) -> str:
    """Text with `code` in it."""
    pieces = escape(text, quote=False).split("`")
    return "".join(f"<code>{piece}</code>" if position % 2 else piece for position, piece in enumerate(pieces))
