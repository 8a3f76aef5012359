from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from quantuner.api.conditions import PHASES
from quantuner.controller.decide import decide
from quantuner.controller.metrics import OF_OPERATOR, OF_RESOURCES, OperatorMetrics, Table, buckets
from quantuner.controller.objects import Key
from quantuner.controller.status import compose
from tests.unit.controller.making import (
    FINISHED,
    NOW,
    SEARCHED,
    SETTINGS,
    history,
    observation,
    trial,
)

KEY = Key("ns", "digits")
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def metrics(table: Table) -> OperatorMetrics:
    return OperatorMetrics(table)


def report(table: Table, key: Key = KEY) -> None:
    seen = observation(history=history(*SEARCHED, trial(2, None), end=FINISHED))
    table.report(key, seen.tuning, seen.history, compose(seen, decide(seen, {}, SETTINGS), NOW))


def scrape(metrics: OperatorMetrics) -> Samples:
    text = generate_latest(metrics.registry).decode()
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted({"namespace": "ns", "name": "digits", **labels}.items()))]


def test_reports_what_status_and_journal_say(table: Table, metrics: OperatorMetrics) -> None:
    report(table)
    samples = scrape(metrics)
    assert value(samples, "quantuner_baseline_accuracy") == 0.98
    assert value(samples, "quantuner_target_accuracy") == pytest.approx(0.98 * 0.99)
    assert value(samples, "quantuner_best_accuracy") == 0.98
    assert value(samples, "quantuner_trials_total", outcome="complete") == 1
    assert value(samples, "quantuner_trials_total", outcome="failed") == 1
    assert value(samples, "quantuner_trials_max") == 100
    assert value(samples, "quantuner_trial_duration_seconds_count") == 2
    assert value(samples, "quantuner_trial_duration_seconds_sum") == 1.0
    assert value(samples, "quantuner_trial_duration_seconds_bucket", le="0.5") == 2
    assert value(samples, "quantuner_trial_duration_seconds_bucket", le="0.25") == 0


def test_the_phase_is_one_hot(table: Table, metrics: OperatorMetrics) -> None:
    report(table)
    samples = scrape(metrics)
    phases = {phase: value(samples, "quantuner_phase", phase=phase) for phase in PHASES}
    assert phases == {phase: float(phase == "Complete") for phase in PHASES}


def test_of_a_rejected_search_there_is_what_its_status_says(table: Table, metrics: OperatorMetrics) -> None:
    report(table)
    known = {"phase": "Running", "workers": 2, "trials": {"completed": 4, "failed": 0, "running": 2, "max": 9}}
    table.reject(KEY, known)
    samples = scrape(metrics)
    assert value(samples, "quantuner_phase", phase="Running") == 1
    assert value(samples, "quantuner_phase", phase="Complete") == 0
    assert value(samples, "quantuner_trials_total", outcome="complete") == 4
    assert value(samples, "quantuner_workers") == 2
    assert not any("trial_duration" in name for name, _ in samples)


def test_one_that_was_never_accepted_has_a_phase_alone(table: Table, metrics: OperatorMetrics) -> None:
    table.reject(KEY, {"phase": "Pending"})
    samples = scrape(metrics)
    assert value(samples, "quantuner_phase", phase="Pending") == 1
    assert {name for name, labels in samples if dict(labels).get("name")} == {"quantuner_phase"}


def test_series_of_a_deleted_resource_go_and_others_stay(table: Table, metrics: OperatorMetrics) -> None:
    report(table)
    report(table, Key("ns", "other"))
    table.forget(KEY)
    named = {dict(labels).get("name") for _, labels in scrape(metrics)}
    assert named == {None, "other"}
    table.forget(KEY)


def test_reporting_again_replaces(table: Table, metrics: OperatorMetrics) -> None:
    report(table)
    once = scrape(metrics)
    report(table)
    assert scrape(metrics) == once


@pytest.mark.parametrize(
    "seconds", ["x", None, math.nan, math.inf, 10**400, [1]], ids=["text", "none", "nan", "inf", "huge", "list"]
)
def test_what_is_no_number_costs_one_resource_its_series_and_no_other(
    table: Table, metrics: OperatorMetrics, caplog: pytest.LogCaptureFixture, seconds: Any
) -> None:
    report(table)
    report(table, Key("ns", "other"))
    seen = observation(history=history(trial(0, 0.98), dataclasses.replace(trial(1), seconds=seconds)))
    table.report(KEY, seen.tuning, seen.history, compose(seen, decide(seen, {}, SETTINGS), NOW))
    assert {dict(labels).get("name") for _, labels in scrape(metrics)} == {None, "other"}
    assert "ns/digits has no metrics" in caplog.text


def test_durations_beyond_any_number_are_infinite_together(table: Table, metrics: OperatorMetrics) -> None:
    seen = observation(
        history=history(trial(0, 0.98), *(dataclasses.replace(trial(i), seconds=10**308) for i in (1, 2)))
    )
    table.report(KEY, seen.tuning, seen.history, compose(seen, decide(seen, {}, SETTINGS), NOW))
    assert value(scrape(metrics), "quantuner_trial_duration_seconds_sum") == math.inf


def test_a_status_that_holds_no_number_costs_one_resource_its_series(table: Table, metrics: OperatorMetrics) -> None:
    table.reject(KEY, {"phase": "Running", "workers": "many"})
    assert not any(dict(labels).get("name") for _, labels in scrape(metrics))


def test_counts_of_the_operator_begin_with_zero(metrics: OperatorMetrics) -> None:
    samples = scrape(metrics)
    assert samples["quantuner_reconcile_total", (("result", "success"),)] == 0
    assert samples["quantuner_reconcile_total", (("result", "error"),)] == 0
    assert samples["quantuner_reconcile_duration_seconds_count", ()] == 0
    assert samples["quantuner_queue_depth", ()] == 0
    assert samples["quantuner_namespaces_unwatched", ()] == 0


def test_namespaces_that_cannot_be_served_are_counted(table: Table) -> None:
    assert scrape(OperatorMetrics(table, unwatched=2))["quantuner_namespaces_unwatched", ()] == 2


def test_reconciles_are_counted_and_the_queue_is_asked(metrics: OperatorMetrics) -> None:
    metrics.reconciled(True, 0.2)
    metrics.reconciled(False, 0.2)
    metrics.answered("GET", "200")
    metrics.watch(lambda: 4, lambda: 1.5)
    samples = scrape(metrics)
    assert samples["quantuner_reconcile_total", (("result", "error"),)] == 1
    assert samples["quantuner_reconcile_duration_seconds_count", ()] == 2
    assert samples["quantuner_api_requests_total", (("code", "200"), ("verb", "GET"))] == 1
    assert samples["quantuner_queue_depth", ()] == 4
    assert samples["quantuner_queue_longest_wait_seconds", ()] == 1.5


def test_the_table_of_families_is_what_is_served(table: Table, metrics: OperatorMetrics) -> None:
    report(table)
    text = generate_latest(metrics.registry).decode()
    served = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert served == {f.name: f.kind for f in (*OF_RESOURCES, *OF_OPERATOR)}


def test_the_table_of_families_is_that_of_the_design() -> None:
    page = (Path(__file__).parents[3] / "docs" / "design.md").read_text()
    rows = re.findall(r"^\| (`quantuner_.*?) \| (\w+)", page, re.MULTILINE)
    documented = {name: kind for names, kind in rows for name in re.findall(r"`(\w+)`", names)}
    assert documented == {f.name: f.kind for f in (*OF_RESOURCES, *OF_OPERATOR)}


def test_buckets_are_cumulative_and_a_bound_belongs_to_its_bucket() -> None:
    assert buckets([0.5, 1.0, 9.0], (1.0, 2.0)) == [("1.0", 2.0), ("2.0", 2.0), ("+Inf", 3.0)]
    assert buckets([], (1.0,)) == [("1.0", 0.0), ("+Inf", 0.0)]
