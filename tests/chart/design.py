"""The metrics of docs/design.md, which operator, dashboard and alerts have in common."""

import re
from functools import cache

from tests.chart.helm import REPOSITORY

DESIGN = REPOSITORY / "docs" / "design.md"
_ROW = re.compile(r"^\|(?P<names>[^|]*`quantuner_[^|]*)\|\s*(?P<type>\w+)", re.MULTILINE)
_PARTS = {"histogram": ("_bucket", "_sum", "_count")}


@cache
def metric_families() -> dict[str, str]:
    """Type by family, from the table of the section Metrics."""
    section = DESIGN.read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    found = {name: row["type"] for row in _ROW.finditer(section) for name in re.findall(r"`(\w+)`", row["names"])}
    assert found, f"no table of metrics in {DESIGN}"
    return found


def metric_names() -> set[str]:
    """The names under which Prometheus stores them."""
    return {name + part for name, type_ in metric_families().items() for part in _PARTS.get(type_, ("",))}
