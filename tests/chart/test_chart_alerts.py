"""The alerts, run by Prometheus' own rule tests over series like the operator's.

Each alert once in the situation it is for, and in the healthy ones nearest to it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chart import promtool as prometheus
from tests.chart.dashboard import families
from tests.chart.design import metric_names
from tests.chart.helm import CHART, Helm, Rendered, nested
from tests.chart.promtool import PER_MINUTE, Groups

SEARCH = 'namespace="team-a",name="digits"'
OTHER_POD = f'{SEARCH},pod="restarted"'
HOUR = 60 * PER_MINUTE
DOWN, ERRORS, QUEUE = "QuantunerOperatorDown", "QuantunerReconcileErrors", "QuantunerQueueNotDrained"
NAMESPACE = "QuantunerNamespaceNotServed"
FAILED, NOT_STARTING, STALLED = "QuantunerSearchFailed", "QuantunerSearchNotStarting", "QuantunerSearchStalled"
ALERTS = [DOWN, ERRORS, QUEUE, NAMESPACE, FAILED, NOT_STARTING, STALLED]


def steady(value: int, samples: int) -> str:
    return f"{value}+0x{samples}"


def results(success: str, error: str) -> Mapping[str, str]:
    return {
        'quantuner_reconcile_total{result="success"}': success,
        'quantuner_reconcile_total{result="error"}': error,
    }


def search(phase: str, told: str, labels: str = SEARCH) -> Mapping[str, str]:
    """A search in one phase all the time."""
    phases = ("Pending", "Starting", "Running", "Suspended", "Complete", "Failed")
    return {
        **{f'quantuner_phase{{{labels},phase="{each}"}}': steady(int(each == phase), 3 * HOUR) for each in phases},
        f'quantuner_trials_total{{{labels},outcome="complete"}}': told,
        f'quantuner_trials_total{{{labels},outcome="failed"}}': steady(0, 3 * HOUR),
    }


@dataclass(frozen=True, kw_only=True)
class Case:
    """A situation and the summaries of what fires after so many minutes."""

    alert: str
    series: Mapping[str, str]
    minutes: int
    fires: str | None = None


CASES = {
    "operator never scraped": Case(
        alert=DOWN, series={"up": steady(1, HOUR)}, minutes=12, fires="The Quantuner operator is not there"
    ),
    "operator gone": Case(
        alert=DOWN,
        series={"quantuner_queue_depth": steady(0, 10 * PER_MINUTE)},
        minutes=30,
        fires="The Quantuner operator is not there",
    ),
    "operator there": Case(alert=DOWN, series={"quantuner_queue_depth": steady(0, HOUR)}, minutes=30),
    "operator restarting": Case(
        alert=DOWN,
        series={"quantuner_queue_depth": f"{steady(0, 40)} _x16 {steady(0, 40)}"},
        minutes=15,
    ),
    "every third reconcile fails": Case(
        alert=ERRORS,
        series=results("0+2x240", "0+1x240"),
        minutes=30,
        fires="The Quantuner operator fails to reconcile",
    ),
    "one conflict in fifty": Case(alert=ERRORS, series=results("0+49x240", "0+1x240"), minutes=30),
    "nothing to do": Case(alert=ERRORS, series=results("7+0x240", "0+0x240"), minutes=30),
    "queue grows": Case(
        alert=QUEUE,
        series={"quantuner_queue_depth": "1+1x240"},
        minutes=45,
        fires="The Quantuner operator does not keep up",
    ),
    "queue long but shrinking": Case(alert=QUEUE, series={"quantuner_queue_depth": "2000-1x240"}, minutes=45),
    "queue grows and is drained again": Case(alert=QUEUE, series={"quantuner_queue_depth": "0+1x30 " * 8}, minutes=45),
    "a given namespace was deleted": Case(
        alert=NAMESPACE,
        series={"quantuner_namespaces_unwatched": steady(1, HOUR)},
        minutes=30,
        fires="The Quantuner operator does not serve all of its namespaces",
    ),
    "all namespaces served": Case(
        alert=NAMESPACE, series={"quantuner_namespaces_unwatched": steady(0, HOUR)}, minutes=30
    ),
    "failed": Case(alert=FAILED, series=search("Failed", "5+0x720"), minutes=5, fires="Search team-a/digits failed"),
    "complete": Case(alert=FAILED, series=search("Complete", "5+0x720"), minutes=5),
    "pods pending": Case(
        alert=NOT_STARTING,
        series=search("Starting", "0+0x720"),
        minutes=31,
        fires="Search team-a/digits does not start",
    ),
    "pods starting": Case(alert=NOT_STARTING, series=search("Starting", "0+0x720"), minutes=20),
    "accepted, then starting, never running": Case(
        alert=NOT_STARTING,
        series={
            **search("Suspended", "0+0x720"),
            f'quantuner_phase{{{SEARCH},phase="Suspended"}}': "0+0x720",
            f'quantuner_phase{{{SEARCH},phase="Pending"}}': "1+0x60 0+0x400",
            f'quantuner_phase{{{SEARCH},phase="Starting"}}': "0+0x60 1+0x400",
        },
        minutes=31,
        fires="Search team-a/digits does not start",
    ),
    "suspended": Case(alert=NOT_STARTING, series=search("Suspended", "3+0x720"), minutes=120),
    "no trial for an hour": Case(
        alert=STALLED,
        series=search("Running", "5+0x720"),
        minutes=62,
        fires="Search team-a/digits makes no progress",
    ),
    "a trial every half hour": Case(
        alert=STALLED, series=search("Running", "0+0x120 1+0x120 2+0x120 3+0x120"), minutes=62
    ),
    "just started": Case(alert=STALLED, series=search("Running", "0+0x720"), minutes=30),
    "suspended for hours": Case(alert=STALLED, series=search("Suspended", "3+0x720"), minutes=120),
    "pending for an hour, running for ten minutes": Case(
        alert=STALLED,
        series={
            **search("Pending", "0+0x720"),
            f'quantuner_phase{{{SEARCH},phase="Pending"}}': "1+0x240 0+0x400",
            f'quantuner_phase{{{SEARCH},phase="Running"}}': "0+0x240 1+0x400",
        },
        minutes=70,
    ),
    "no trial for an hour, operator restarted meanwhile": Case(
        alert=STALLED,
        series={
            f'quantuner_phase{{{SEARCH},phase="Running"}}': "1+0x200 stale",
            f'quantuner_phase{{{OTHER_POD},phase="Running"}}': "_x204 1+0x200",
            f'quantuner_trials_total{{{SEARCH},outcome="complete"}}': "5+0x200 stale",
            f'quantuner_trials_total{{{OTHER_POD},outcome="complete"}}': "_x204 5+0x200",
        },
        minutes=70,
        fires="Search team-a/digits makes no progress",
    ),
    "a trial told while the operator restarted": Case(
        alert=STALLED,
        series={
            f'quantuner_phase{{{SEARCH},phase="Running"}}': "1+0x200 stale",
            f'quantuner_phase{{{OTHER_POD},phase="Running"}}': "_x204 1+0x200",
            f'quantuner_trials_total{{{SEARCH},outcome="complete"}}': "5+0x200 stale",
            f'quantuner_trials_total{{{OTHER_POD},outcome="complete"}}': "_x204 6+0x200",
        },
        minutes=70,
    ),
}


@pytest.fixture(scope="session")
def groups(helm: Helm) -> Groups:
    rule = helm.render(nested("metrics.prometheusRule.enabled", True)).one("PrometheusRule")
    assert rule is not None
    rules: Groups = rule["spec"]["groups"]
    return rules


@pytest.fixture(scope="session")
def rules(groups: Groups) -> list[dict[str, Any]]:
    return [rule for group in groups for rule in group["rules"]]


def only(groups: Groups, alert: str) -> Groups:
    """One alert, with its summary as the only annotation, since promtool compares them all."""
    (rule,) = (rule for group in groups for rule in group["rules"] if rule["alert"] == alert)
    return [{"name": "one", "rules": [{**rule, "annotations": {"summary": rule["annotations"]["summary"]}}]}]


def test_prometheus_takes_the_rules(promtool: Path, groups: Groups, tmp_path: Path) -> None:
    prometheus.check(promtool, groups, tmp_path)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_alert(promtool: Path, groups: Groups, case: Case, tmp_path: Path) -> None:
    # The operator's alerts are about nobody's search.
    about = {"namespace": "team-a", "name": "digits"} if "Search" in case.alert else {}
    if case.alert == FAILED:
        about["phase"] = "Failed"
    severity = "critical" if case.alert == DOWN else "warning"
    expected = [{"exp_labels": {**about, "severity": severity}, "exp_annotations": {"summary": case.fires}}]
    firing = {case.alert: expected if case.fires else []}
    prometheus.expect(promtool, only(groups, case.alert), case.series, case.minutes, firing, tmp_path)


def test_every_alert_is_tried_firing_and_quiet(rules: list[dict[str, Any]]) -> None:
    assert [rule["alert"] for rule in rules] == ALERTS
    for alert in ALERTS:
        assert {case.fires is not None for case in CASES.values() if case.alert == alert} == {True, False}


def test_readme_lists_the_alerts() -> None:
    listed = re.findall(r"^\| `(Quantuner\w+)` \|", (CHART / "README.md").read_text(), re.MULTILINE)
    assert listed == ALERTS


def test_every_alert_says_what_to_do(rules: list[dict[str, Any]]) -> None:
    for rule in rules:
        assert rule["annotations"].keys() == {"summary", "description", "remedy"}
        assert rule["labels"].keys() == {"severity"}


def test_alerts_read_known_metrics(rules: list[dict[str, Any]]) -> None:
    for rule in rules:
        assert families(rule["expr"]) <= metric_names(), rule["alert"]


def test_a_failed_search_is_not_said_to_lose_its_trials(rules: list[dict[str, Any]]) -> None:
    """docs/conditions.md: suspended and let go, it goes on from its journal."""
    remedy = rules[ALERTS.index(FAILED)]["annotations"]["remedy"]
    assert "spec.suspend to true and, when the condition Suspended is True, back to false" in remedy


def test_remedies_name_the_release(rules: list[dict[str, Any]], defaults: Rendered) -> None:
    deployment = defaults.one("Deployment")
    assert deployment is not None
    metadata = deployment["metadata"]
    errors = rules[ALERTS.index(ERRORS)]["annotations"]["remedy"]
    assert f"kubectl --namespace {metadata['namespace']} logs deployment/{metadata['name']}" in errors
