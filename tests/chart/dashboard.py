"""The queries of the Grafana dashboard as Prometheus gets them; the end-to-end test runs each."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.chart.helm import CHART

DASHBOARD = CHART / "dashboards" / "quantuner.json"

# What Grafana puts in for a dashboard of the last hour that shows everything. Windows are wide enough
# to hold a whole short search.
VARIABLES: Mapping[str, str] = {
    "namespace": ".+",
    "name": ".+",
    "operator": ".*",
    "window": "5m",
    "__rate_interval": "5m",
    "__interval": "15s",
    "__range": "1h",
}

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})")
_OPERATORS = {"and", "or", "unless", "bool"}
_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+),\s*\w+\)")


class Query(NamedTuple):
    """One query and the panel, or template variable, that makes it."""

    title: str
    expr: str


def load() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel, those of collapsed rows too, without the rows themselves."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def queries(dashboard: Mapping[str, Any], variables: Mapping[str, str] = VARIABLES) -> list[Query]:
    """Every query with its variables put in; of a template variable, the series that it lists labels of."""
    found = [
        Query(panel["title"], substituted(target["expr"], variables))
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            match = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert match, f"variable {variable['name']} asks for something other than label_values"
            found.append(Query(f"variable {variable['name']}", substituted(match["selector"], variables)))
    return found


def substituted(expr: str, variables: Mapping[str, str]) -> str:
    """The expression with every variable put in; an unknown one is an error, as it is in Grafana."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        assert name in variables, f"unknown variable ${name} in {expr}"
        return variables[name]

    return _VARIABLE.sub(value, expr)


def families(expr: str) -> set[str]:
    """The names of the metrics that an expression reads."""
    text = re.sub(r'"[^"]*"', "", expr)
    for part in (r"\{[^}]*\}", r"\[[^\]]*\]", r"\b(by|without|on|ignoring)\s*\([^)]*\)", r"\boffset\s+\w+"):
        text = re.sub(part, " ", text)
    # What is left are functions, which a parenthesis follows, operators, and metrics.
    names = re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", text)
    return {name for name in names if name not in _OPERATORS}
