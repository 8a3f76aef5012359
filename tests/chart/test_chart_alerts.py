"""The alerts, run by Prometheus' own rule tests over series like the operator's.

Each alert once in the situation it is for, and in the healthy ones nearest to it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chart import promtool as prometheus
from tests.chart.dashboard import families
from tests.chart.design import metric_names
from tests.chart.helm import CHART, NAME, NAMESPACE, RELEASE, Helm, Object, Rendered, merged, nested
from tests.chart.promtool import PER_MINUTE, Groups

SEARCH = 'namespace="team-a",name="digits"'
OTHER_POD = f'{SEARCH},pod="restarted"'
POD = f"{NAME}-5d8f7c9b64-x7k2p"
NEXT_POD = f"{NAME}-5d8f7c9b64-abcde"


def scraped(pod: str, address: str) -> str:
    """What a PodMonitor adds to every series of a pod."""
    return f'pod="{pod}",container="operator",instance="{address}:8080",job="{NAMESPACE}/{NAME}"'


# What it adds to the series of this release's operator, and of others in the same Prometheus.
OWN = f'namespace="{NAMESPACE}",{scraped(POD, "10.0.0.1")}'
NEXT = f'namespace="{NAMESPACE}",{scraped(NEXT_POD, "10.0.0.2")}'  # after this release's operator has got another pod
SEARCH_BEFORE, SEARCH_AFTER = f"{SEARCH},{scraped(POD, '10.0.0.1')}", f"{SEARCH},{scraped(NEXT_POD, '10.0.0.2')}"
OTHER = f'namespace="elsewhere",pod="{POD}"'  # a release of the same name
BESIDE = f'namespace="{NAMESPACE}",pod="{NAME}-b-5d8f7c9b64-x7k2p"'  # a release whose name goes on
HOUR = 60 * PER_MINUTE
DOWN, RESTARTS = "QuantunerOperatorDown", "QuantunerOperatorRestarts"
ERRORS, QUEUE = "QuantunerReconcileErrors", "QuantunerQueueNotDrained"
NAMESPACE_ALERT = "QuantunerNamespaceNotServed"
FAILED, NOT_STARTING, STALLED = "QuantunerSearchFailed", "QuantunerSearchNotStarting", "QuantunerSearchStalled"
ALERTS = [DOWN, RESTARTS, ERRORS, QUEUE, NAMESPACE_ALERT, FAILED, NOT_STARTING, STALLED]
SEARCH_LABELS = {"namespace": "team-a", "name": "digits"}
OPERATOR_LABELS = {"namespace": NAMESPACE, "deployment": NAME}


def steady(value: int, samples: int) -> str:
    return f"{value}+0x{samples}"


def queue(values: str, labels: str = OWN) -> Mapping[str, str]:
    return {f"quantuner_queue_depth{{{labels}}}": values}


def waits(values: str, labels: str = OWN) -> Mapping[str, str]:
    return {f"quantuner_queue_longest_wait_seconds{{{labels}}}": values}


def crashing(times: int, labels: str = OWN, up: int = 3, away: int = 19) -> Mapping[str, str]:
    """The start time of a process that lives for `up` scrapes and is away for `away`, and the queue that it has."""
    gap = f"stale _x{away}" if away else ""
    started = " ".join(f"{1000 * n}+0x{up} {gap}" for n in range(1, times + 1))
    return {f"process_start_time_seconds{{{labels}}}": started, **queue(f"0+0x{up} {gap} " * times, labels)}


def started(values: str, labels: str = OWN) -> Mapping[str, str]:
    return {f"process_start_time_seconds{{{labels}}}": values}


def unwatched(values: str, labels: str = OWN) -> Mapping[str, str]:
    return {f"quantuner_namespaces_unwatched{{{labels}}}": values}


def results(success: str, error: str, labels: str = OWN) -> Mapping[str, str]:
    return {
        f'quantuner_reconcile_total{{{labels},result="success"}}': success,
        f'quantuner_reconcile_total{{{labels},result="error"}}': error,
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
    values: Object = field(default_factory=dict)
    """Of the chart, beside the switch of the alerts."""


ENABLED = nested("metrics.prometheusRule.enabled", True)
SERVES_IT: Object = {"watchNamespaces": ["team-a", "team-b"]}
SERVES_OTHERS: Object = {"watchNamespaces": ["team", "team-ab"]}

CASES = {
    "operator never scraped": Case(
        alert=DOWN, series={"up": steady(1, HOUR)}, minutes=12, fires="The Quantuner operator is not there"
    ),
    "operator gone": Case(
        alert=DOWN,
        series=queue(steady(0, 10 * PER_MINUTE)),
        minutes=30,
        fires="The Quantuner operator is not there",
    ),
    "operator there": Case(alert=DOWN, series=queue(steady(0, HOUR)), minutes=30),
    "operator gone, others there": Case(
        alert=DOWN,
        series={**queue(steady(0, HOUR), OTHER), **queue(steady(0, HOUR), BESIDE)},
        minutes=30,
        fires="The Quantuner operator is not there",
    ),
    "operator restarting": Case(
        alert=DOWN,
        series=queue(f"{steady(0, 40)} _x16 {steady(0, 40)}"),
        minutes=15,
    ),
    "operator crashes after a minute, for hours": Case(
        alert=RESTARTS,
        series=crashing(60),
        minutes=300,
        fires="The Quantuner operator starts again and again",
    ),
    "operator crashes every ten minutes, and is back at the next scrape": Case(
        alert=RESTARTS,
        series=crashing(12, up=39, away=0),
        minutes=100,
        fires="The Quantuner operator starts again and again",
    ),
    "operator crashed again and again until an hour ago": Case(
        alert=RESTARTS,
        series=started(" ".join(f"{n}+0x3 stale _x19" for n in range(10)) + f" 9{steady(0, 2 * HOUR)}"),
        minutes=125,
    ),
    "operator installed": Case(alert=RESTARTS, series=started(f"_x40 {steady(7, HOUR)}"), minutes=30),
    "operator rolled out": Case(
        alert=RESTARTS,
        series={
            **started("7+0x100 stale"),
            **started("_x105 3000+0x200", NEXT),
        },
        minutes=60,
    ),
    "node of the operator drained": Case(
        alert=RESTARTS,
        series={
            **started("7+0x100 stale"),
            **started("_x120 3000+0x200", NEXT),
        },
        minutes=60,
    ),
    "others crash again and again": Case(
        alert=RESTARTS,
        series={
            **started(steady(7, HOUR)),
            **crashing(10, OTHER),
            **crashing(10, BESIDE),
        },
        minutes=60,
    ),
    "every third reconcile fails": Case(
        alert=ERRORS,
        series=results("0+2x240", "0+1x240"),
        minutes=30,
        fires="The Quantuner operator fails to reconcile",
    ),
    "every third reconcile fails, others' are many and well": Case(
        alert=ERRORS,
        series={
            **results("0+2x240", "0+1x240"),
            **results("0+1000x240", "0+0x240", OTHER),
            **results("0+1000x240", "0+0x240", BESIDE),
        },
        minutes=30,
        fires="The Quantuner operator fails to reconcile",
    ),
    "others' reconciles fail": Case(
        alert=ERRORS,
        series={
            **results("0+2x240", "0+0x240"),
            **results("0+0x240", "0+9x240", OTHER),
            **results("0+0x240", "0+9x240", BESIDE),
        },
        minutes=30,
    ),
    "one conflict in fifty": Case(alert=ERRORS, series=results("0+49x240", "0+1x240"), minutes=30),
    "nothing to do": Case(alert=ERRORS, series=results("7+0x240", "0+0x240"), minutes=30),
    "every resource waits for minutes, as many as ever": Case(
        alert=QUEUE,
        series={**waits(steady(200, HOUR)), **queue(steady(190, HOUR))},
        minutes=45,
        fires="The Quantuner operator does not keep up",
    ),
    "waits get longer": Case(
        alert=QUEUE,
        series=waits("1+1x240"),
        minutes=45,
        fires="The Quantuner operator does not keep up",
    ),
    "queue long after a start, and drained": Case(
        alert=QUEUE, series={**waits("0+15x20 0+0x220"), **queue("2000-100x20 0+0x220")}, minutes=12
    ),
    "queue never empty, nobody waits for long": Case(
        alert=QUEUE, series={**waits(steady(3, HOUR)), **queue("1+1x240")}, minutes=45
    ),
    "others' resources wait": Case(
        alert=QUEUE,
        series={**waits("0+0x240"), **waits(steady(200, HOUR), OTHER), **waits(steady(200, HOUR), BESIDE)},
        minutes=45,
    ),
    "a given namespace was deleted": Case(
        alert=NAMESPACE_ALERT,
        series=unwatched(steady(1, HOUR)),
        minutes=30,
        fires="The Quantuner operator does not serve all of its namespaces",
    ),
    "a given namespace was deleted, operator restarted since": Case(
        alert=NAMESPACE_ALERT,
        series={**unwatched("1+0x60 stale"), **unwatched("_x64 1+0x200", NEXT)},
        minutes=30,
        fires="The Quantuner operator does not serve all of its namespaces",
    ),
    "all namespaces served": Case(alert=NAMESPACE_ALERT, series=unwatched(steady(0, HOUR)), minutes=30),
    "a given namespace of others was deleted": Case(
        alert=NAMESPACE_ALERT,
        series={
            **unwatched(steady(0, HOUR)),
            **unwatched(steady(1, HOUR), OTHER),
            **unwatched(steady(1, HOUR), BESIDE),
        },
        minutes=30,
    ),
    "failed": Case(alert=FAILED, series=search("Failed", "5+0x720"), minutes=5, fires="Search team-a/digits failed"),
    "failed, in a namespace that is served": Case(
        alert=FAILED,
        series=search("Failed", "5+0x720"),
        minutes=5,
        fires="Search team-a/digits failed",
        values=SERVES_IT,
    ),
    "failed, in a namespace of another release": Case(
        alert=FAILED, series=search("Failed", "5+0x720"), minutes=5, values=SERVES_OTHERS
    ),
    **{
        f"failed, {when} the operator has got another pod": Case(
            alert=FAILED,
            series={
                f'quantuner_phase{{{SEARCH_BEFORE},phase="Failed"}}': "1+0x40 stale",
                f'quantuner_phase{{{SEARCH_AFTER},phase="Failed"}}': "_x46 1+0x200",
            },
            minutes=minutes,
            fires="Search team-a/digits failed",
        )
        for when, minutes in {"before": 9, "while": 11, "after": 20}.items()
    },
    "failed, then deleted": Case(
        alert=FAILED, series={f'quantuner_phase{{{SEARCH_BEFORE},phase="Failed"}}': "1+0x40 stale"}, minutes=16
    ),
    "complete": Case(alert=FAILED, series=search("Complete", "5+0x720"), minutes=5),
    "pods pending": Case(
        alert=NOT_STARTING,
        series=search("Starting", "0+0x720"),
        minutes=31,
        fires="Search team-a/digits does not start",
    ),
    "pods pending, in a namespace of another release": Case(
        alert=NOT_STARTING, series=search("Starting", "0+0x720"), minutes=31, values=SERVES_OTHERS
    ),
    "pods pending, of two pods of the operator the old one not yet forgotten": Case(
        alert=NOT_STARTING,
        series={
            f'quantuner_phase{{{SEARCH_BEFORE},phase="Pending"}}': "1+0x124",
            f'quantuner_phase{{{SEARCH_AFTER},phase="Pending"}}': "_x125 1+0x200",
        },
        minutes=33,
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
    "no trial for an hour, in a namespace of another release": Case(
        alert=STALLED, series=search("Running", "5+0x720"), minutes=62, values=SERVES_OTHERS
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


def rendered(helm: Helm, values: Object, release: str = RELEASE) -> Groups:
    rule = helm.render(merged(ENABLED, values), release).one("PrometheusRule")
    assert rule is not None
    found: Groups = rule["spec"]["groups"]
    return found


@pytest.fixture(scope="session")
def groups(helm: Helm) -> Groups:
    return rendered(helm, {})


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
def test_alert(promtool: Path, helm: Helm, case: Case, tmp_path: Path) -> None:
    # An alert is about a search, or about the operator of one release.
    about = SEARCH_LABELS if "Search" in case.alert else OPERATOR_LABELS
    severity = "critical" if case.alert in (DOWN, RESTARTS) else "warning"
    expected = [{"exp_labels": {**about, "severity": severity}, "exp_annotations": {"summary": case.fires}}]
    firing = {case.alert: expected if case.fires else []}
    alert = only(rendered(helm, case.values), case.alert)
    prometheus.expect(promtool, alert, case.series, case.minutes, firing, tmp_path)


@pytest.mark.parametrize("letters", [*range(44, 51), 53])
def test_pods_of_a_long_name_are_known_as_well(promtool: Path, helm: Helm, letters: int, tmp_path: Path) -> None:
    """Kubernetes cuts what it makes a pod's name of at 58 characters, and adds five."""
    release = "quantuner".ljust(letters, "r")
    deployment = helm.render(release=release).one("Deployment")
    assert deployment is not None
    pod = f"{deployment['metadata']['name']}-5d8f7c9b64-"[:58] + "x7k2p"
    series = queue(steady(0, HOUR), f'namespace="{NAMESPACE}",pod="{pod}"')
    prometheus.expect(promtool, only(rendered(helm, {}, release), DOWN), series, 30, {DOWN: []}, tmp_path)


def test_a_crash_loop_is_reported_though_the_operator_is_never_down(
    promtool: Path, groups: Groups, tmp_path: Path
) -> None:
    series = crashing(60)
    prometheus.expect(promtool, only(groups, DOWN), series, 300, {DOWN: []}, tmp_path)
    fires = {
        "exp_labels": {**OPERATOR_LABELS, "severity": "critical"},
        "exp_annotations": {"summary": "The Quantuner operator starts again and again"},
    }
    for minutes in (30, 120, 300):  # whether it is there at that time or not
        for later in (0, 3):
            alert = only(groups, RESTARTS)
            prometheus.expect(promtool, alert, series, minutes + later, {RESTARTS: [fires]}, tmp_path)


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
        of_operator = set() if "Search" in rule["alert"] else OPERATOR_LABELS.keys()
        assert rule["labels"].keys() == {"severity", *of_operator}


def test_alerts_read_known_metrics(rules: list[dict[str, Any]]) -> None:
    for rule in rules:
        assert families(rule["expr"]) <= metric_names() | {"process_start_time_seconds"}, rule["alert"]


def test_a_failed_search_is_not_said_to_lose_its_trials(rules: list[dict[str, Any]]) -> None:
    """docs/conditions.md: suspended and let go, it goes on from its journal."""
    remedy = rules[ALERTS.index(FAILED)]["annotations"]["remedy"]
    assert "spec.suspend to true and, when the condition Suspended is True, back to false" in remedy


def test_logs_are_shown_whole(rules: list[dict[str, Any]]) -> None:
    """By a selector kubectl shows ten lines of each pod, and not of which pod."""
    commands = [found for rule in rules for found in re.findall(r"logs [^/]*--selector", rule["annotations"]["remedy"])]
    assert commands
    assert all("--tail=-1 --prefix" in command for command in commands)


def test_remedies_name_the_release(rules: list[dict[str, Any]], defaults: Rendered) -> None:
    deployment = defaults.one("Deployment")
    assert deployment is not None
    metadata = deployment["metadata"]
    errors = rules[ALERTS.index(ERRORS)]["annotations"]["remedy"]
    assert f"kubectl --namespace {metadata['namespace']} logs deployment/{metadata['name']}" in errors
