"""What to do about an observation: pure and total, success before exhaustion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quantuner.api import names
from quantuner.api.conditions import ConditionType, Failure, Reason
from quantuner.api.journal import Failed
from quantuner.controller import build, drive
from quantuner.controller.job import JobState, state_of
from quantuner.controller.mpijob import clashes
from quantuner.controller.objects import CONFIGMAP, TUNING, annotation, controller_of
from quantuner.controller.observe import Observation, is_answered, mpijob_id, tuning_configmap_id
from quantuner.controller.settings import Settings
from quantuner.controller.symptoms import Ages, Symptom, lasts, patience
from quantuner.controller.verdict import STOPPED, Delete, Merge, Stance, Verdict

# Objects of users carry none of our labels, so no watch tells when one appears.
POLL_SECONDS = 5.0


def decide(o: Observation, ages: Ages, settings: Settings) -> Verdict:
    verdict = _decide(o, ages, settings)
    if o.refusal is None or not _is_unforgiven(o):
        return verdict
    # Else the status would no longer say that a failure was answered, which is written nowhere.
    refused = Stance(False, o.refusal.reason, f"{o.refusal.what}: {o.refusal.message}")
    return replace(verdict, accepted=refused, unseen=True)


def _is_unforgiven(o: Observation) -> bool:
    """Whether a failure that the user has answered still counts, since the answer could not be written down."""
    answered = o.tuning.suspend or is_answered(o.status, o.tuning.generation)
    return answered and bool(_forgive(o))


def _decide(o: Observation, ages: Ages, settings: Settings) -> Verdict:
    # The journal alone ends a search; nothing that happens afterwards takes it back.
    if o.history.end is not None:
        return _ended(o, ages)
    if _condition(o, ConditionType.COMPLETE) is not None:
        return Verdict(keep=True, running=_OVER, deletes=_delete_job(o))
    # Before failures: suspending is how a user lets the operator try again what it gave up.
    if o.tuning.suspend:
        return _suspend(o)
    failed = _condition(o, ConditionType.FAILED)
    if is_answered(o.status, o.tuning.generation):
        forgiving = _forgive(o)
        verdict = _search(_as_written(o, forgiving), ages, settings)
        return replace(verdict, writes=(*forgiving, *verdict.writes))
    if failed is not None:
        return _fail(o, failed["reason"], failed["message"])
    return _search(o, ages, settings)


def _search(o: Observation, ages: Ages, settings: Settings) -> Verdict:
    """Of one that has neither ended nor failed."""
    if o.journal_error:
        return _unreadable(o)
    if o.refusal is not None:
        return _refused(o, ages)
    problems = clashes(o.tuning)
    if problems:
        return _fail(o, Failure.TEMPLATE_CONFLICT, f"{'; '.join(problems)}. {_ANEW}")
    image = image_of(o, settings)
    obstacle = _obstacle(o, image)
    if obstacle is not None:
        return Verdict(accepted=obstacle, running=_NOT_STARTED, after=POLL_SECONDS)
    assert image is not None  # else it was the obstacle
    return drive.drive(o, ages, image, settings)


# Nothing was told yet, and the CRD lets nobody edit most of a template.
_ANEW = "Delete this resource and apply the corrected one"
_OVER = Stance(False, Reason.FINISHED, "the search has ended")
_NOT_STARTED = Stance(False, Reason.WAITING_FOR_PODS, "not started: see Accepted")


def image_of(o: Observation, settings: Settings) -> str | None:
    """The user's, else the one this search began with, else the operator's default, which may change."""
    return o.tuning.image or annotation(o.tuning_configmap, build.ANNOTATION_IMAGE) or settings.tuner_image


def _condition(o: Observation, type_: ConditionType) -> Mapping[str, Any] | None:
    """The condition as it stands in the resource, where it is True."""
    found = (c for c in o.status.get("conditions", ()) if c["type"] == type_ and c["status"] == "True")
    return next(found, None)


def _ended(o: Observation, ages: Ages) -> Verdict:
    # The launcher ends by itself and leaves its log; only one that hangs is ended here.
    deletes = _delete_job(o) if lasts(ages, Symptom.LINGERING) else ()
    stance = STOPPED if isinstance(o.history.end, Failed) else _OVER
    return Verdict(running=stance, deletes=deletes, after=patience(ages))


def _delete_job(o: Observation) -> tuple[Delete, ...]:
    """Ends the pods of a job that may still run; a finished one keeps its logs."""
    state = state_of(o.mpijob)
    if o.mpijob is None or state.is_finished() or state is JobState.TERMINATING:
        return ()
    return (Delete(mpijob_id(o.tuning.name), o.mpijob["metadata"]["uid"]),)


def _suspend(o: Observation) -> Verdict:
    if o.mpijob is None and not o.pods:
        stance = Stance(True, Reason.SUSPENDED, "no pod runs; set suspend to false to go on from the journal")
    else:
        stance = Stance(False, Reason.SUSPENDED, f"ending {len(o.pods)} pods")
    deletes: tuple[Delete, ...] = ()
    if o.mpijob is not None and state_of(o.mpijob) is not JobState.TERMINATING:
        deletes = (Delete(mpijob_id(o.tuning.name), o.mpijob["metadata"]["uid"]),)
    running = Stance(False, Reason.SUSPENDED, "spec.suspend is true")
    return Verdict(running=running, suspended=stance, writes=_forgive(o), deletes=deletes)


def _forgive(o: Observation) -> tuple[Merge, ...]:
    """What failed before the user acted no longer counts."""
    forgiven = str(o.history.failures) if o.history.failures else None
    over = o.mpijob["metadata"]["uid"] if o.mpijob is not None and state_of(o.mpijob).is_finished() else None
    wanted = {build.ANNOTATION_FRUITLESS: None, build.ANNOTATION_COUNTED: over, build.ANNOTATION_FORGIVEN: forgiven}
    changed = {key: value for key, value in wanted.items() if annotation(o.tuning_configmap, key) != value}
    if o.tuning_configmap is None or not changed:
        return ()
    return (Merge(tuning_configmap_id(o.tuning.name), {"metadata": {"annotations": changed}}),)


def _as_written(o: Observation, merges: tuple[Merge, ...]) -> Observation:
    """As it will be seen when annotations are merged."""
    objects = dict(o.objects)
    for merge in merges:
        meta = objects[merge.target]["metadata"]
        annotations = {**meta.get("annotations", {}), **merge.patch["metadata"]["annotations"]}
        objects[merge.target] = {**objects[merge.target], "metadata": {**meta, "annotations": annotations}}
    return replace(o, objects=objects)


def _fail(o: Observation, reason: str, message: str) -> Verdict:
    return Verdict(running=STOPPED, failure=Failed(reason=reason, message=message), deletes=_delete_job(o))


def _unreadable(o: Observation) -> Verdict:
    """Ranks that search read it well enough: a later version may write what this operator does not know."""
    text = f"ConfigMap {names.journal_configmap(o.tuning.name)} cannot be read, {o.journal_error}"
    if drive.launcher_runs(o):
        note = "the search runs on, and its end cannot be seen before this is mended"
        return Verdict(running=Stance(True, Failure.JOURNAL_MISMATCH, f"{text}; {note}"))
    remedy = f"restore it, or install the version of Quantuner that wrote it, then {drive.RETRY}"
    return _fail(o, Failure.JOURNAL_MISMATCH, f"{text}; {remedy}")


def _refused(o: Observation, ages: Ages) -> Verdict:
    assert o.refusal is not None
    message = f"{o.refusal.what}: {o.refusal.message}"
    if o.refusal.permanent:
        return _fail(o, Failure.MPIJOB_REFUSED, f"the API server refuses what is asked for: {message}")
    running = _NOT_STARTED if o.mpijob is None else drive.running(o, ages)
    return Verdict(accepted=Stance(False, o.refusal.reason, message), running=running)


def _obstacle(o: Observation, image: str | None) -> Stance | None:
    """What keeps the resource from being acted on, until somebody changes it."""
    if o.foreign:
        return Stance(False, Failure.NAME_CONFLICT, _conflict(o))
    if image is None:
        text = "set spec.image in a new resource, or give the operator a default with --tuner-image"
        return Stance(False, Failure.IMAGE_MISSING, f"no tuner image is known: {text}")
    if o.task_missing and o.mpijob is None:
        missing = f"{CONFIGMAP.kind} {o.tuning.task.configmap} of spec.task.source is not in namespace "
        text = f"{missing}{o.tuning.namespace}; create it and the search starts"
        return Stance(False, Failure.TASK_CONFIGMAP_MISSING, text)
    return None


def _conflict(o: Observation) -> str:
    id_ = o.foreign[0]
    owner = controller_of(o.objects[id_])
    if owner is not None and (owner["kind"], owner["name"]) == (TUNING.kind, o.tuning.name):
        return f"{id_} belongs to a deleted resource of the same name; waiting until it is gone"
    whose = f"belongs to {owner['kind']} {owner['name']}" if owner else "belongs to nobody"
    return f"{id_} exists already and {whose}; remove it, or create this resource under another name"
