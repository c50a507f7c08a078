"""Records as JSON documents: the printed JSON and its JSON Schema come from the same types.

A field whose JSON name is a Python keyword is annotated with that name: `Annotated[str, Key("from")]`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

SCHEMA: Literal[1] = 1


def Key(name: str) -> Any:  # noqa: N802 - an annotation
    """Return the annotation that names a field in JSON."""
    from pydantic import Field

    return Field(serialization_alias=name)


def document(record: Any) -> dict[str, Any]:
    """Return the JSON object of a record, with the number of the schema."""
    kind: Any = type(record)
    content: dict[str, Any] = _listed(_adapter(kind).dump_python(record, by_alias=True, warnings=False))
    return {"schema": SCHEMA, **content}


def schema_of(record: Any) -> dict[str, Any]:
    """Return the JSON Schema of `document`. Every key is always printed, so every key is required."""
    schema: dict[str, Any] = _adapter(record).json_schema(mode="serialization", by_alias=True)
    for part in (schema, *schema.get("$defs", {}).values()):
        if "properties" in part:
            part["required"] = list(part["properties"])
    schema["properties"] = {"schema": {"const": SCHEMA}} | schema["properties"]
    schema["required"].insert(0, "schema")
    return schema


def _listed(value: Any) -> Any:
    """Return the value with lists instead of tuples, as in JSON."""
    if isinstance(value, dict):
        return {key: _listed(inner) for key, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, list | tuple) else value


@cache
def _adapter(record: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(record)
