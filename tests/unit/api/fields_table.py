"""The reference of the resource's fields in docs/api.md, from the CRD: `python -m tests.unit.api.fields_table`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantuner.api.validation import crd

DOCUMENT = Path(__file__).parents[3] / "docs" / "api.md"
MARK = "<!-- fields: written by `python -m tests.unit.api.fields_table` -->\n"
HEADER = "| field | type | default | meaning |\n| --- | --- | --- | --- |\n"

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """One thing that stands in a resource."""

    path: str
    """As `env[].name`, from where the asking began."""
    schema: Schema
    required: bool


def parts() -> dict[str, Schema]:
    """spec and status. kubectl itself describes apiVersion, kind and metadata."""
    properties = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return {part: properties[part] for part in ("spec", "status")}


def own(schema: Schema) -> list[Field]:
    required = schema.get("required", ())
    return [Field(name, sub, name in required) for name, sub in schema.get("properties", {}).items()]


def below(schema: Schema, path: str = "", seen: set[int] | None = None) -> Iterator[Field]:
    """Every field inside, after the one that holds it; of lists with the same entries, by a YAML alias, the first's."""
    seen = set() if seen is None else seen
    for field in own(schema):
        here = f"{path}{field.path}"
        yield Field(here, field.schema, field.required)
        yield from below(field.schema, f"{here}.", seen)
        entries = field.schema.get("items", {})
        if id(entries) not in seen:
            seen.add(id(entries))
            yield from below(entries, f"{here}[].", seen)


def reference() -> str:
    return "".join(_part(name, schema) for name, schema in parts().items())


def _part(name: str, schema: Schema) -> str:
    """A table of its own fields, and one for each of them that has fields."""
    sections = {field.path: field for field in own(schema) if own(_inside(field.schema))}
    rows = [
        _row(field, f"[`{field.path}`](#{name}{field.path.lower()})" if field.path in sections else "")
        for field in own(schema)
    ]
    text = f"\n## {name}\n{schema['description']}\n\n{HEADER}{''.join(rows)}"
    for path, field in sections.items():
        prefix = f"{path}[]." if "items" in field.schema else ""
        text += f"\n### {name}.{path}\n{HEADER}{''.join(map(_row, below(_inside(field.schema), prefix)))}"
    return text


def _inside(schema: Schema) -> Schema:
    entries: Schema = schema.get("items", schema)
    return entries


def _row(field: Field, link: str = "") -> str:
    default = "required" if field.required else f"`{json.dumps(field.schema['default'])}`" if _shows(field) else ""
    cells = (link or f"`{field.path}`", _type(field.schema), default, field.schema["description"])
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def _shows(field: Field) -> bool:
    """An object's default is that of its fields."""
    return "default" in field.schema and not own(field.schema)


def _type(schema: Schema) -> str:
    if "enum" in schema:
        *others, last = dict.fromkeys(f"`{value}`" for value in schema["enum"])  # 1 and "1" mean the same
        return f"{', '.join(others)} or {last}" if others else last
    if "x-kubernetes-int-or-string" in schema:
        return f"integer{_bounds(schema)}, or string"
    if schema.get("type") == "array":
        most = f" of up to {schema['maxItems']}" if "maxItems" in schema else ""
        return f"list{most}: {_type(schema['items'])}"
    if "type" in schema.get("additionalProperties", {}) or "anyOf" in schema.get("additionalProperties", {}):
        return f"map: {_type(schema['additionalProperties'])}"
    return "time" if schema.get("format") == "date-time" else f"{schema['type']}{_bounds(schema)}"


def _bounds(schema: Schema) -> str:
    if "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    return f" from {schema['minimum']}" if "minimum" in schema else ""


def written() -> str:
    """The reference that the document has now."""
    return DOCUMENT.read_text().partition(MARK)[2]


if __name__ == "__main__":
    DOCUMENT.write_text(DOCUMENT.read_text().partition(MARK)[0] + MARK + reference())
