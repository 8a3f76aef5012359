"""Metrics: a table of families, and what each resource contributes to them at a scrape."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from quantuner.api.conditions import PHASES
from quantuner.api.journal import History, TrialState
from quantuner.api.kinds import is_finite
from quantuner.api.spec import Tuning
from quantuner.controller.objects import Key

logger = logging.getLogger(__name__)

RESOURCE = ("namespace", "name")
# A trial of a small CNN takes some tenths of a second, one of a large model minutes.
TRIAL_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
RECONCILE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class Family:
    name: str
    """As it is scraped."""
    kind: str
    help: str
    labels: tuple[str, ...] = RESOURCE


BASELINE = Family("quantuner_baseline_accuracy", "gauge", "Accuracy of the fp32 model.")
BEST = Family("quantuner_best_accuracy", "gauge", "Accuracy of the best configuration so far.")
TARGET = Family("quantuner_target_accuracy", "gauge", "Accuracy at which the criterion is just met.")
TRIALS = Family("quantuner_trials_total", "counter", "Trials told, but the baseline.", (*RESOURCE, "outcome"))
RUNNING = Family("quantuner_trials_running", "gauge", "Trials under way when the last one was told.")
MAXIMUM = Family("quantuner_trials_max", "gauge", "Trials after which the search ends.")
WORKERS = Family("quantuner_workers", "gauge", "Worker pods that are ready.")
DURATION = Family("quantuner_trial_duration_seconds", "histogram", "Quantizing and evaluating a trial.")
PHASE = Family("quantuner_phase", "gauge", "1 for the phase that the resource is in.", (*RESOURCE, "phase"))
RECONCILES = Family("quantuner_reconcile_total", "counter", "Reconciles that ended.", ("result",))
RECONCILE_SECONDS = Family("quantuner_reconcile_duration_seconds", "histogram", "A reconcile.", ())
REQUESTS = Family(
    "quantuner_api_requests_total", "counter", "Requests to the API server, but watches.", ("verb", "code")
)
DEPTH = Family("quantuner_queue_depth", "gauge", "Resources that wait to be reconciled.", ())
LONGEST_WAIT = Family(
    "quantuner_queue_longest_wait_seconds",
    "gauge",
    "Seconds for which the resource that has waited longest has been due.",
    (),
)
UNWATCHED = Family("quantuner_namespaces_unwatched", "gauge", "Given namespaces that cannot be served.", ())

OF_RESOURCES = (BASELINE, BEST, TARGET, TRIALS, RUNNING, MAXIMUM, WORKERS, DURATION, PHASE)
OF_OPERATOR = (RECONCILES, RECONCILE_SECONDS, REQUESTS, DEPTH, LONGEST_WAIT, UNWATCHED)

Sample = tuple[Family, tuple[str, ...], float]
"""Family, further label values, value."""


@dataclass(frozen=True)
class Row:
    """What one resource contributes."""

    samples: tuple[Sample, ...]
    durations: tuple[float, ...] | None
    """Of its trials; None where they are not known."""

    def is_sound(self) -> bool:
        return all(is_finite(value) for _, _, value in self.samples) and all(map(is_finite, self.durations or ()))


class Table:
    """Rows by resource: replaced as a whole, gone with the resource. Read by the scrape's thread."""

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}

    def report(self, key: Key, tuning: Tuning, history: History, status: Mapping[str, Any]) -> None:
        durations = tuple(t.seconds for t in history.tried)
        self._keep(key, Row((*_samples(status), *_target(tuning, status)), durations))

    def reject(self, key: Key, status: Mapping[str, Any]) -> None:
        """Of a resource that cannot be read there is what its status says, before a restart as after it."""
        self._keep(key, Row(tuple(_samples(status)), None))

    def _keep(self, key: Key, row: Row) -> None:
        """One value that is no number would fail the scrape of all resources."""
        if row.is_sound():
            self._rows[key] = row
        else:
            logger.warning("%s has no metrics: its status or journal holds what is no finite number", key)
            self.forget(key)

    def forget(self, key: Key) -> None:
        self._rows.pop(key, None)

    def rows(self) -> list[tuple[Key, Row]]:
        return list(self._rows.items())


def _samples(status: Mapping[str, Any]) -> Iterator[Sample]:
    """What the status alone determines; one that was rejected from the start has little more than a phase."""
    baseline, best, trials = status.get("baseline"), status.get("best"), status.get("trials")
    if baseline is not None:
        yield BASELINE, (), baseline["accuracy"]
    if best is not None:
        yield BEST, (), best["accuracy"]
    if trials is not None:
        yield TRIALS, (TrialState.COMPLETE.value,), trials["completed"]
        yield TRIALS, (TrialState.FAILED.value,), trials["failed"]
        yield RUNNING, (), trials["running"]
        yield MAXIMUM, (), trials["max"]
    if "workers" in status:
        yield WORKERS, (), status["workers"]
    for phase in PHASES:
        yield PHASE, (phase,), float(status["phase"] == phase)


def _target(tuning: Tuning, status: Mapping[str, Any]) -> Iterator[Sample]:
    if "baseline" in status:
        yield TARGET, (), tuning.accuracy_criterion.target(status["baseline"]["accuracy"])


class Resources(Collector):
    """Computes the families of resources at each scrape."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def collect(self) -> Iterable[Metric]:
        rows = self._table.rows()
        metrics = {family: _metric(family) for family in OF_RESOURCES}
        for key, row in rows:
            for family, labels, value in row.samples:
                metric = metrics[family]
                assert isinstance(metric, (CounterMetricFamily, GaugeMetricFamily))
                metric.add_metric([*key, *labels], value)
            if row.durations is None:
                continue
            histogram = metrics[DURATION]
            assert isinstance(histogram, HistogramMetricFamily)
            histogram.add_metric(list(key), buckets(row.durations, TRIAL_BUCKETS), sum(map(float, row.durations)))
        return metrics.values()


def _metric(family: Family) -> Metric:
    if family.kind == "counter":
        return CounterMetricFamily(family.name.removesuffix("_total"), family.help, labels=family.labels)
    if family.kind == "histogram":
        return HistogramMetricFamily(family.name, family.help, labels=family.labels)
    return GaugeMetricFamily(family.name, family.help, labels=family.labels)


def buckets(values: Iterable[float], bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    """Cumulative counts up to each bound and to +Inf."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    names = [*(str(bound) for bound in bounds), "+Inf"]
    return list(zip(names, map(float, accumulate(counts)), strict=True))


class OperatorMetrics:
    """The operator's own families, and the registry that is served."""

    def __init__(self, table: Table, unwatched: int = 0) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(Resources(table))
        self._count = Counter(RECONCILES.name, RECONCILES.help, RECONCILES.labels, registry=self.registry)
        self._seconds = Histogram(
            RECONCILE_SECONDS.name, RECONCILE_SECONDS.help, registry=self.registry, buckets=RECONCILE_BUCKETS
        )
        self._requests = Counter(REQUESTS.name, REQUESTS.help, REQUESTS.labels, registry=self.registry)
        self._depth = Gauge(DEPTH.name, DEPTH.help, registry=self.registry)
        self._wait = Gauge(LONGEST_WAIT.name, LONGEST_WAIT.help, registry=self.registry)
        Gauge(UNWATCHED.name, UNWATCHED.help, registry=self.registry).set(unwatched)
        for result in ("success", "error"):
            self._count.labels(result)  # an alert needs the zero before the first error

    def reconciled(self, success: bool, seconds: float) -> None:
        self._count.labels("success" if success else "error").inc()
        self._seconds.observe(seconds)

    def answered(self, verb: str, code: str) -> None:
        self._requests.labels(verb, code).inc()

    def watch(self, depth: Callable[[], int], longest_wait: Callable[[], float]) -> None:
        self._depth.set_function(lambda: float(depth()))
        self._wait.set_function(longest_wait)
