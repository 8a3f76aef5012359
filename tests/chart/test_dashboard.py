"""The Grafana dashboard: every query is known to Prometheus, has data, and stands in a panel that explains it."""

import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.chart import dashboard as grafana
from tests.chart import promtool as prometheus
from tests.chart.dashboard import Query, families
from tests.chart.design import metric_families, metric_names

COLUMNS = 24

SEARCH = 'namespace="team-a",name="digits"'
PHASES = ("Pending", "Starting", "Running", "Suspended", "Complete", "Failed")
BUCKETS = (0.5, 1, 2, 5, math.inf)


def histogram(family: str, labels: str, per_scrape: Mapping[float, int]) -> Mapping[str, str]:
    """A histogram that grows by so many observations a scrape up to each bound."""
    each = per_scrape[math.inf]
    comma = "," if labels else ""
    bounds = {bound: "+Inf" if bound == math.inf else str(bound) for bound in per_scrape}
    buckets = {
        f'{family}_bucket{{{labels}{comma}le="{bounds[bound]}"}}': f"0+{more}x20 {20 * more}+0x20"
        for bound, more in per_scrape.items()
    }
    return {
        **buckets,
        f"{family}_count{{{labels}}}": f"0+{each}x20 {20 * each}+0x20",
        f"{family}_sum{{{labels}}}": f"0+{2 * each}x20 {40 * each}+0x20",
    }


# One search that ended some minutes ago, as the operator reports it: five minutes of trials, then rest.
AFTER_ONE_SEARCH: Mapping[str, str] = {
    f"quantuner_baseline_accuracy{{{SEARCH}}}": "0.98+0x40",
    f"quantuner_target_accuracy{{{SEARCH}}}": "0.97+0x40",
    f"quantuner_best_accuracy{{{SEARCH}}}": "0.95+0.001x20 0.97+0x20",
    f'quantuner_trials_total{{{SEARCH},outcome="complete"}}': "0+1x20 20+0x20",
    f'quantuner_trials_total{{{SEARCH},outcome="failed"}}': "0+0x40",
    f"quantuner_trials_running{{{SEARCH}}}": "2+0x20 0+0x20",
    f"quantuner_trials_max{{{SEARCH}}}": "100+0x40",
    f"quantuner_workers{{{SEARCH}}}": "2+0x20 0+0x20",
    **{
        f'quantuner_phase{{{SEARCH},phase="{phase}"}}': {
            "Running": "1+0x20 0+0x20",
            "Complete": "0+0x20 1+0x20",
        }.get(phase, "0+0x40")
        for phase in PHASES
    },
    **histogram("quantuner_trial_duration_seconds", SEARCH, dict(zip(BUCKETS, (0, 0, 1, 1, 1), strict=True))),
    'quantuner_reconcile_total{result="success"}': "0+3x40",
    'quantuner_reconcile_total{result="error"}': "0+0x40",
    **histogram("quantuner_reconcile_duration_seconds", "", dict(zip(BUCKETS, (2, 3, 3, 3, 3), strict=True))),
    'quantuner_api_requests_total{verb="GET",code="200"}': "0+30x40",
    "quantuner_queue_depth": "0+0x40",
    "quantuner_queue_longest_wait_seconds": "0+0x40",
    "quantuner_namespaces_unwatched": "0+0x40",
}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return grafana.load()


@pytest.fixture(scope="module")
def queries(dashboard: dict[str, Any]) -> list[Query]:
    return grafana.queries(dashboard)


@pytest.fixture(scope="module")
def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return list(grafana.panels(dashboard))


def test_queries_read_known_metrics(queries: list[Query]) -> None:
    for query in queries:
        assert families(query.expr), query
        assert families(query.expr) <= metric_names(), query


def test_every_metric_is_shown(queries: list[Query]) -> None:
    shown = set().union(*(families(query.expr) for query in queries))
    unseen = [name for name in metric_families() if not any(s == name or s.startswith(f"{name}_") for s in shown)]
    assert unseen == []


def test_families_of_an_expression() -> None:
    expr = 'sum by (le, up) (rate(a_bucket{b="c"}[5m])) / on (d) max(e offset 1h) or vector(0) and time() > f'
    assert families(expr) == {"a_bucket", "e", "f"}


def test_unknown_variable_is_an_error() -> None:
    with pytest.raises(AssertionError, match="unknown variable \\$nowhere"):
        grafana.substituted("rate(x[$nowhere])", grafana.VARIABLES)


def test_queries_have_data_after_one_search(promtool: Path, queries: list[Query], tmp_path: Path) -> None:
    """Prometheus computes each, and each gives at least one number, with the counters of a healthy system."""
    groups = [
        {
            "name": "queries",
            # No number compares with NaN: a query that only gives NaN counts as empty.
            "rules": [
                {"alert": f"query{n}", "expr": f"count(({query.expr}) > -Inf) > 0"} for n, query in enumerate(queries)
            ],
        }
    ]
    prometheus.check(promtool, groups, tmp_path)
    firing: dict[str, list[dict[str, Any]]] = {
        f"query{n}": [{"exp_labels": {}, "exp_annotations": {}}] for n in range(len(queries))
    }
    try:
        prometheus.expect(promtool, groups, AFTER_ONE_SEARCH, 8, firing, tmp_path)
    except prometheus.RefusedError as error:
        empty = [queries[int(n)] for n in re.findall(r"alertname:\s*query(\d+)", str(error))]
        pytest.fail(f"without data: {empty or error}")


def test_dashboard_can_be_imported_anywhere(dashboard: dict[str, Any], panels: list[dict[str, Any]]) -> None:
    """A stable uid so that links and upgrades find it, no database id, no data source of one Grafana."""
    assert dashboard["uid"] == "quantuner"
    assert dashboard.get("id") is None
    sources = [panel["datasource"] for panel in panels]
    sources += [target["datasource"] for panel in panels for target in panel["targets"]]
    sources += [v["datasource"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_variables(dashboard: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "name", "operator", "window"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["operator"]["definition"] == "label_values(quantuner_queue_depth, namespace)"
    # Not .+, which leaves out series without the label, as another scrape than a PodMonitor's gives.
    assert variables["operator"]["allValue"] == grafana.VARIABLES["operator"] == ".*"
    assert variables["operator"]["current"]["value"] == ["$__all"]
    assert variables["name"]["definition"] == 'label_values(quantuner_phase{namespace=~"$namespace"}, name)'


def test_rows(dashboard: dict[str, Any]) -> None:
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == ["Overview", "Search $name", "Operator"]


def test_panels_explain_themselves(panels: list[dict[str, Any]]) -> None:
    for panel in panels:
        defaults = panel["fieldConfig"]["defaults"]
        assert len(panel["description"]) > 20, panel["title"]
        assert defaults["unit"], panel["title"]
        assert defaults["thresholds"]["steps"][0]["value"] is None, panel["title"]
    titles = [panel["title"] for panel in panels]
    assert len(titles) == len(set(titles))


def test_panels_are_selected_by_the_variables(panels: list[dict[str, Any]]) -> None:
    of_operator = {name for name in metric_names() if re.search("reconcile|api_requests|queue|namespaces", name)}
    for panel in panels:
        for target in panel["targets"]:
            for name, selector in re.findall(r"\b(quantuner_\w+)(\{[^}]*\})?", target["expr"]):
                variable = "operator" if name in of_operator else "namespace"
                assert f'namespace=~"${variable}"' in selector, panel["title"]


@pytest.mark.parametrize(("chosen", "waiting"), [("quantuner", 3), ("quantuner-b", 5), ("quantuner|quantuner-b", 8)])
def test_operators_of_several_releases_are_chosen_by_their_namespace(
    promtool: Path, dashboard: dict[str, Any], chosen: str, waiting: int, tmp_path: Path
) -> None:
    found = grafana.queries(dashboard, {**grafana.VARIABLES, "operator": chosen})
    (query,) = (query for query in found if query.title == "Queue depth")
    groups = [{"name": "queries", "rules": [{"alert": "chosen", "expr": f"({query.expr}) == {waiting}"}]}]
    series = {
        'quantuner_queue_depth{namespace="quantuner",pod="quantuner-1"}': "3+0x40",
        'quantuner_queue_depth{namespace="quantuner-b",pod="quantuner-b-1"}': "5+0x40",
    }
    firing: dict[str, list[dict[str, Any]]] = {"chosen": [{"exp_labels": {}, "exp_annotations": {}}]}
    prometheus.expect(promtool, groups, series, 8, firing, tmp_path)


def test_ids_and_places_do_not_collide(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS, panel["title"]
        taken = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not taken & cells, panel["title"]
        cells |= taken


def test_targets_of_a_panel_have_their_own_letters(panels: list[dict[str, Any]]) -> None:
    for panel in panels:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters)), panel["title"]
