"""Events on the resource, for `kubectl describe`: pure, from what the status said to what it will say.

They are posted before the status is written and named after what they tell and of which generation, so that a crash in
between neither loses nor doubles one, and what happens again after the user's change is told again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantuner.api.conditions import ConditionType, Failure, Reason, shorten
from quantuner.api.journal import Failed, Trial
from quantuner.api.spec import digest
from quantuner.controller.objects import EVENT, TUNING, Manifest
from quantuner.controller.observe import Observation

COMPONENT = "quantuner"
MESSAGE_BYTES = 1024  # events.k8s.io's limit
HEAD_BYTES = 500  # of those, for the message before a traceback

NORMAL, WARNING = "Normal", "Warning"

# Conditions that are no failure of the search, and yet somebody has to act.
_WARN_REASONS = {
    Failure.TASK_CONFIGMAP_MISSING, Failure.NAME_CONFLICT, Failure.IMAGE_MISSING, Failure.IMAGE_PULL_FAILED,
    Failure.POD_REFUSED, Failure.MPIJOB_REFUSED, Reason.UNSCHEDULABLE, Reason.INVALID, Reason.REFUSED,
    Reason.RELAUNCHING,
}  # fmt: skip


def build_events(o: Observation, status: Mapping[str, Any], now: str) -> list[dict[str, Any]]:
    meta = {"name": o.tuning.name, "namespace": o.tuning.namespace, "uid": o.tuning.uid}
    body = {"metadata": {**meta, "generation": o.tuning.generation}}
    found = [*transitions(o.status, status, o.history.end), *_failed_trials(o, status)]
    return [build_event(body, type_, reason, text, now) for type_, reason, text in found]


def transitions(old: Mapping[str, Any], new: Mapping[str, Any], end: object = None) -> Iterator[tuple[str, str, str]]:
    """Type, reason and message of each event that leads from one status to the other."""
    before = {c["type"]: c for c in old.get("conditions", ())}
    for c in new.get("conditions", ()):
        was = before.get(c["type"], {})
        became_true = c["status"] == "True" and was.get("status") != "True"
        if c["type"] == ConditionType.FAILED and became_true:
            traceback = end.traceback if isinstance(end, Failed) else ""
            yield WARNING, c["reason"], with_tail(c["message"], traceback)
        elif c["type"] in (ConditionType.COMPLETE, ConditionType.RUNNING) and became_true:
            yield NORMAL, c["reason"], c["message"]
        elif c["status"] == "False" and c["reason"] in _WARN_REASONS and c["reason"] != was.get("reason"):
            yield WARNING, c["reason"], c["message"]


def _failed_trials(o: Observation, status: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """At the first failed trial, the 10th, the 100th …: not one of each."""
    before = o.status.get("trials", {}).get("failed", 0)
    now = status.get("trials", {}).get("failed", 0)
    threshold = 1
    while threshold <= now:
        if before < threshold:
            last: Trial = [t for t in o.history.tried if t.accuracy is None][-1]
            text = f"{now} of {len(o.history.tried)} trials failed so far"
            yield WARNING, "TrialsFailed", f"{text}; trial {last.index} on rank {last.rank}: {last.error}"
        threshold *= 10


def with_tail(message: str, traceback: str) -> str:
    """The message and as much of the traceback's end as an event holds: the error itself stands there."""
    if not traceback:
        return message
    head = message.encode()[:HEAD_BYTES].decode(errors="ignore")
    room = MESSAGE_BYTES - len(f"{head}\n…".encode())
    tail = traceback.strip().encode()[-room:].decode(errors="ignore")
    return f"{head}\n{'' if tail == traceback.strip() else '…'}{tail}"


def build_event(body: Manifest, type_: str, reason: str, message: str, now: str) -> dict[str, Any]:
    meta = body["metadata"]
    text = shorten(message, MESSAGE_BYTES).encode()[:MESSAGE_BYTES].decode(errors="ignore")
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {
            "name": f"{meta['name']}.{digest([meta['uid'], meta.get('generation'), reason, text])}",
            "namespace": meta["namespace"],
        },
        "involvedObject": {
            "apiVersion": TUNING.api_version,
            "kind": TUNING.kind,
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "type": type_,
        "reason": str(reason),
        "message": text,
        "source": {"component": COMPONENT},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
