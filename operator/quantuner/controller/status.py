"""The status of a resource: composed from an observation and a verdict, written by one function."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from quantuner.api import names
from quantuner.api.conditions import ConditionType, condition, merge, phase_of
from quantuner.api.journal import Failed, History
from quantuner.api.result import end_conditions, search_status
from quantuner.controller.cluster import Cluster
from quantuner.controller.objects import TUNING, Key, Manifest
from quantuner.controller.observe import Observation
from quantuner.controller.pods import ready_workers
from quantuner.controller.verdict import Stance, Verdict

logger = logging.getLogger(__name__)


def compose(o: Observation, verdict: Verdict, now: str) -> dict[str, Any]:
    """The whole status. `now` enters only where something changes."""
    if verdict.keep:
        return {**o.status, "observedGeneration": o.tuning.generation}
    if verdict.unseen:
        return _accepted(o.status, verdict.accepted, o.status.get("observedGeneration", 0), now)
    history = _with_failure(o, verdict, now)
    ref = {"name": names.result_configmap(o.tuning.name), "key": names.BEST_KEY}
    generation = o.tuning.generation
    new = [
        _as_condition(ConditionType.ACCEPTED, verdict.accepted, generation, now),
        _as_condition(ConditionType.RUNNING, verdict.running, generation, now),
        _as_condition(ConditionType.SUSPENDED, verdict.suspended, generation, now),
        *end_conditions(o.tuning, history, now),
    ]
    conditions = merge(o.status.get("conditions", ()), new)
    return {
        "observedGeneration": generation,
        "phase": phase_of(conditions),
        "workers": ready_workers(o.pods),
        **_searched(o, history, ref, searching=verdict.running.status),
        "conditions": conditions,
    }


def _searched(o: Observation, history: History, ref: Mapping[str, str], *, searching: bool) -> dict[str, Any]:
    found = search_status(o.tuning, history, o.best_yaml, ref)
    if not searching:  # the journal's last line was written while trials ran
        found["trials"] = {**found["trials"], "running": 0}
    return found


def rejected(body: Manifest, stance: Stance, now: str) -> dict[str, Any]:
    """The status of a resource that cannot be read: whatever was known stays."""
    return _accepted(body.get("status", {}), stance, body["metadata"].get("generation", 0), now)


def _accepted(old: Mapping[str, Any], stance: Stance, generation: int, now: str) -> dict[str, Any]:
    """The old status, but for one condition."""
    accepted = _as_condition(ConditionType.ACCEPTED, stance, generation, now)
    others = [c for c in old.get("conditions", ()) if c["type"] != ConditionType.ACCEPTED]
    conditions = [*merge(old.get("conditions", ()), [accepted]), *others]
    return {**old, "observedGeneration": generation, "phase": phase_of(conditions), "conditions": conditions}


def _with_failure(o: Observation, verdict: Verdict, now: str) -> History:
    found = verdict.failure
    if found is None:
        return o.history
    since = o.status.get("completionTime", now)
    end = Failed(reason=found.reason, message=found.message, time=since)
    return History(o.history.launches, o.history.trials, end)


def _as_condition(type_: ConditionType, stance: Stance, generation: int, now: str) -> dict[str, Any]:
    return condition(type_, stance.status, stance.reason, stance.message, generation, now)


async def write(cluster: Cluster, key: Key, body: Manifest, status: Mapping[str, Any]) -> bool:
    """The only writer of a status. Returns whether there was something to write.

    Raises `ConflictError` where the resource changed since `body` was read: what was composed may be stale.
    """
    old = body.get("status", {})
    if dict(status) == old:
        return False
    patch = {
        "metadata": {"resourceVersion": body["metadata"]["resourceVersion"]},
        "status": difference(old, status),
    }
    answer = await cluster.merge(TUNING, key.namespace, key.name, patch, subresource="status")
    lost = list(dropped(status, answer.get("status", {}), "status"))
    if lost:
        logger.warning(
            "%s: the API server dropped %s: its CRD is older than this operator; apply this version's",
            key,
            ", ".join(lost),
        )
    return True


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch from `old` to `new`."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            below = difference(before, value)
            patch |= {key: below} if below else {}
        elif key not in old or before != value:
            patch[key] = value
    return patch


def dropped(sent: Mapping[str, Any], answer: Mapping[str, Any], path: str) -> Iterator[str]:
    """Fields that were sent and are not in the answer as they were sent."""
    for key, value in sent.items():
        here = f"{path}.{key}"
        if isinstance(value, Mapping) and isinstance(answer.get(key), Mapping):
            yield from dropped(value, answer[key], here)
        elif answer.get(key) != value:
            yield here
