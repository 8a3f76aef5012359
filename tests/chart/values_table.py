"""The README's table of values, from values.yaml and its schema: `python -m tests.chart.values_table`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tests.chart.helm import CHART

README = CHART / "README.md"
MARK = "<!-- values: written by `python -m tests.chart.values_table` -->\n"


@dataclass(frozen=True)
class Value:
    """One thing that a user of the chart can set."""

    path: str
    default: Any
    description: str


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return loaded


def defaults() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return loaded


def leaves() -> list[Value]:
    """Every value, in the order of values.yaml."""
    return list(_leaves(defaults(), schema(), ""))


def _leaves(value: Any, described: dict[str, Any], path: str) -> Iterator[Value]:
    # An object without defaults of its own (affinity) is set as a whole.
    if "properties" not in described or not value:
        yield Value(path.removeprefix("."), value, described["description"])
        return
    for key, inner in value.items():
        yield from _leaves(inner, described["properties"][key], f"{path}.{key}")


def table() -> str:
    rows = [f"| `{value.path}` | `{json.dumps(value.default)}` | {value.description} |\n" for value in leaves()]
    return "| value | default | meaning |\n| --- | --- | --- |\n" + "".join(rows)


def written() -> str:
    """The table that the README has now."""
    return README.read_text().partition(MARK)[2]


if __name__ == "__main__":
    README.write_text(README.read_text().partition(MARK)[0] + MARK + table())
