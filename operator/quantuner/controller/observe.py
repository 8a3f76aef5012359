"""What there is: the live objects of one tuning, read into a frozen record that `decide` judges."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantuner.api import names
from quantuner.api.conditions import ConditionType
from quantuner.api.errors import JournalError
from quantuner.api.journal import Failed, History, decode, lines_of
from quantuner.api.spec import Tuning
from quantuner.controller import build
from quantuner.controller.cluster import Cluster
from quantuner.controller.objects import CONFIGMAP, MPIJOB, POD, Key, Manifest, ObjectId, annotation, is_owned
from quantuner.controller.pods import JOB_LABEL, Pod, read


@dataclass(frozen=True)
class Refusal:
    """The API server would not do what was decided."""

    reason: str
    what: str
    """Verb and object."""
    message: str
    permanent: bool
    """Sending the same again cannot help."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One look at the cluster. The journal is read after the MPIJob, the resource before both."""

    tuning: Tuning
    admitted: Mapping[str, Any]
    """The resource, validated and defaulted."""
    status: Mapping[str, Any] = field(default_factory=dict)
    """As it stands in the resource."""
    objects: Mapping[ObjectId, Manifest] = field(default_factory=dict)
    """Of the objects that a tuning has, those that exist, whoever owns them."""
    pods: Sequence[Pod] = ()
    task_missing: bool = False
    """The ConfigMap named by task.source is not there."""
    history: History = field(default_factory=History)
    journal_error: str = ""
    """Why the journal cannot be read beyond `history`."""
    best_yaml: str | None = None
    refusal: Refusal | None = None

    def own(self, id_: ObjectId) -> Manifest | None:
        """The object, where it exists and belongs to this tuning."""
        found = self.objects.get(id_)
        return found if found is not None and is_owned(found, self.tuning.uid) else None

    @property
    def foreign(self) -> list[ObjectId]:
        """Names that this tuning needs and somebody else has."""
        return [id_ for id_ in self.objects if self.own(id_) is None]

    @property
    def mpijob(self) -> Manifest | None:
        return self.own(mpijob_id(self.tuning.name))

    @property
    def tuning_configmap(self) -> Manifest | None:
        return self.own(tuning_configmap_id(self.tuning.name))


def mpijob_id(tuning: str) -> ObjectId:
    return ObjectId(MPIJOB, names.mpijob_name(tuning))


def tuning_configmap_id(tuning: str) -> ObjectId:
    return ObjectId(CONFIGMAP, names.tuning_configmap(tuning))


def _pods_of(tuning: str) -> str:
    """A pod that somebody else has given our labels, as to reach the ranks past a NetworkPolicy, is none of them."""
    ours = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_TUNING}={tuning}"
    return f"{ours},{JOB_LABEL}={names.mpijob_name(tuning)}"


async def observe(cluster: Cluster, key: Key, body: Manifest, admitted: Mapping[str, Any]) -> Observation:
    tuning = Tuning.from_body(admitted)
    job_id = mpijob_id(key.name)
    job, pods = await asyncio.gather(
        cluster.get(MPIJOB, key.namespace, job_id.name),
        cluster.list(POD, key.namespace, _pods_of(key.name)),
    )
    # Read after the MPIJob: a job seen finished has written all it had to, so no end of a search is missed.
    objects = await _existing(cluster, key, build.support_ids(key.name))
    if job is not None:
        objects[job_id] = job
    journal = _own_data(objects, names.journal_configmap(key.name), tuning.uid)
    result = _own_data(objects, names.result_configmap(key.name), tuning.uid)
    history, journal_error = replay(lines_of(journal))
    _forgive(history, tuning, objects, body.get("status", {}))
    return Observation(
        tuning=tuning,
        admitted=admitted,
        status=body.get("status", {}),
        objects=objects,
        pods=[read(p) for p in sorted(pods, key=lambda p: str(p["metadata"]["name"]))],
        task_missing=await _task_missing(cluster, key, tuning),
        history=history,
        journal_error=journal_error,
        best_yaml=result.get(names.BEST_KEY),
    )


def is_answered(status: Mapping[str, Any], generation: int) -> bool:
    """Whether the user has changed the resource since its status says Failed, as by suspending and going on.

    By what the status says, and not by having seen `suspend`: both of its changes may come between two looks.
    """
    conditions = status.get("conditions", ())
    failed = any(c["type"] == ConditionType.FAILED and c["status"] == "True" for c in conditions)
    return failed and status.get("observedGeneration", generation) < generation


def _forgive(history: History, tuning: Tuning, objects: Mapping[ObjectId, Manifest], status: Mapping[str, Any]) -> None:
    """A failure in the journal ends a search until its user answers it."""
    configmap = objects.get(tuning_configmap_id(tuning.name))
    forgiven = int(annotation(configmap, build.ANNOTATION_FORGIVEN) or 0)
    answered = tuning.suspend or history.failures <= forgiven or is_answered(status, tuning.generation)
    if isinstance(history.end, Failed) and answered:
        history.end = None


def _own_data(objects: Mapping[ObjectId, Manifest], name: str, uid: str) -> dict[str, str]:
    found = objects.get(ObjectId(CONFIGMAP, name))
    return dict(found.get("data") or {}) if found is not None and is_owned(found, uid) else {}


async def _existing(cluster: Cluster, key: Key, ids: Sequence[ObjectId]) -> dict[ObjectId, Manifest]:
    found = await asyncio.gather(*(cluster.get(i.kind, key.namespace, i.name) for i in ids))
    return {i: manifest for i, manifest in zip(ids, found, strict=True) if manifest is not None}


async def _task_missing(cluster: Cluster, key: Key, tuning: Tuning) -> bool:
    if tuning.task.configmap is None:
        return False
    return await cluster.get(CONFIGMAP, key.namespace, tuning.task.configmap) is None


def replay(lines: Sequence[str]) -> tuple[History, str]:
    """The history as far as it can be read, and why it ends there."""
    history = History()
    for number, line in enumerate(lines):
        try:
            history.apply(decode(line))
        except JournalError as error:
            return history, f"line {number}: {error}"
    return history, ""
