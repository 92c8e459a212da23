"""Examples for the OpenAPI document, made from the schemas, so that they are there and valid for every model.

A schema that says `examples` is believed; the others get the plainest value that fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]  # Any: a JSON schema, or a part of it

_BY_FORMAT: Mapping[str, object] = {
    "uuid": "0195f3a0-7c1e-7b2a-9d4e-3f5a6b7c8d9e",
    "date-time": "2026-11-22T19:30:00.123Z",
    "date": "2026-11-22",
    "email": "ada@example.com",
    "uri": "https://school.example/",
    "password": "correct horse battery",
}
_BY_NAME: Mapping[str, str] = {
    "email": "ada@example.com",
    "name": "Ada Lovelace",
    "password": "correct horse battery",
    "title": "Astronomy 101",
    "text": "What is a parsec?",
}
_DEPTH = 6  # levels; a schema that contains itself ends here
_REFERENCE = "#/components/schemas/"


def example_of(schema: Json, components: Json, name: str = "", depth: int = 0) -> object:
    """Make a value that the schema allows. `components` are the schemas that references lead to."""
    if "$ref" in schema:
        target = schema["$ref"].removeprefix(_REFERENCE)
        return example_of(components[target], components, name, depth + 1)
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if choices:
        return example_of(_plainest(choices), components, name, depth)
    return _of_type(schema, components, name, depth)


def _plainest(choices: Sequence[Json]) -> Json:
    return next((choice for choice in choices if choice.get("type") != "null"), choices[0])


def _of_type(schema: Json, components: Json, name: str, depth: int) -> object:
    match schema.get("type"):
        case "object":
            return _object(schema, components, depth)
        case "array":
            return _array(schema, components, name, depth)
        case "string":
            return _string(schema, name)
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
        case "null":
            return None
    return {}


def _object(schema: Json, components: Json, depth: int) -> object:
    required = schema.get("required", ())
    fields = schema.get("properties", {}).items()
    return {
        name: example_of(field, components, name, depth + 1)
        for name, field in fields
        if name in required or depth < _DEPTH
    }


def _array(schema: Json, components: Json, name: str, depth: int) -> list[object]:
    if "prefixItems" in schema:
        return [example_of(item, components, name, depth + 1) for item in schema["prefixItems"]]
    if depth >= _DEPTH and not schema.get("minItems"):
        return []
    return [example_of(schema.get("items", {}), components, name.removesuffix("s"), depth + 1)]


def _string(schema: Json, name: str) -> object:
    text = _BY_FORMAT.get(schema.get("format", "")) or _BY_NAME.get(name) or name.replace("_", " ") or "text"
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 10_000)
    return str(text)[:longest].ljust(shortest, "x")


def _number(schema: Json) -> object:
    least = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    return max(least, min(1, schema.get("maximum", 1)))
