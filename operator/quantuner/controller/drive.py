"""Brings a search to run, and keeps it running until its journal ends: the part of `decide` that acts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantuner.api.conditions import Failure, Reason
from quantuner.api.journal import Failed
from quantuner.controller import build
from quantuner.controller.job import JobState, failure_of, state_of
from quantuner.controller.mpijob import build_mpijob
from quantuner.controller.objects import Manifest, annotation, identify
from quantuner.controller.observe import Observation, mpijob_id, tuning_configmap_id
from quantuner.controller.pods import Role, Trouble, TroubleKind, launcher_words, ready_workers, worst_trouble
from quantuner.controller.settings import Settings
from quantuner.controller.symptoms import LIMITS, Ages, Symptom, lasts, patience
from quantuner.controller.verdict import STOPPED, Create, Delete, Merge, Stance, Verdict

# Launches in a row that tell no trial; then another one would not either.
FRUITLESS_LIMIT = 3
_QUEUED = "the MPIJob is suspended: it waits for whoever admits it, as a queue of Kueue; what was told is kept"
RETRY = "set suspend to true and back to false"
_MEND = f"Mend it, then {RETRY}; another image, or other resources, variables or volumes of template, need a new one"


def drive(o: Observation, ages: Ages, image: str, settings: Settings) -> Verdict:
    writes = support(o, image)
    state = state_of(o.mpijob)
    if state is JobState.TERMINATING or (state is JobState.ABSENT and o.pods):
        # Two launchers must never write one journal, and mpi-operator refuses pods of another job's name.
        return Verdict(running=_waiting(f"waiting until {_former(o)} are gone"), writes=writes)
    if state is JobState.ABSENT:
        job = build_mpijob(o.tuning, image, build.spec_hash(o.admitted), o.history, settings)
        return Verdict(running=_waiting("the MPIJob is created"), writes=(*writes, Create(job)))
    if state.is_finished():
        return _relaunch(o, state, writes)
    if annotation(o.mpijob, build.ANNOTATION_SPEC) != build.spec_hash(o.admitted):
        text = "the resource changed: ranks are started anew and go on from the journal"
        return Verdict(running=_waiting(text), writes=writes, deletes=_delete(o))
    if state is JobState.SUSPENDED and _is_elsewhere(o):
        text = "the resource names another queue: the MPIJob, which waits, is created anew"
        return Verdict(running=_waiting(text), writes=writes, deletes=_delete(o))
    return _watch(o, ages, writes)


def _is_elsewhere(o: Observation) -> bool:
    """Whether the MPIJob stands in another queue than the resource names. A queue that a webhook gave it is fine."""
    assert o.mpijob is not None
    given = o.mpijob["metadata"].get("labels", {})
    return any(given.get(key) != value for key, value in o.tuning.queue_labels.items())


def _waiting(message: str) -> Stance:
    return Stance(False, Reason.WAITING_FOR_PODS, message)


def _former(o: Observation) -> str:
    return ", ".join(p.name for p in o.pods) or "the pods of the former launch"


def _delete(o: Observation) -> tuple[Delete, ...]:
    assert o.mpijob is not None
    return (Delete(mpijob_id(o.tuning.name), o.mpijob["metadata"]["uid"]),)


def support(o: Observation, image: str) -> tuple[Create | Merge, ...]:
    """Creates what is missing and mends what differs, down to the fields that are built."""
    writes: list[Create | Merge] = []
    for wanted in build.build_support(o.tuning, o.admitted, image):
        live = o.own(identify(wanted))
        if live is None:
            writes.append(Create(wanted))
        elif not _covers(live, content := _content(wanted)):
            writes.append(Merge(identify(wanted), content))
    return tuple(writes)


def _content(wanted: Manifest) -> dict[str, Any]:
    content = {key: value for key, value in wanted.items() if key not in ("apiVersion", "kind", "metadata")}
    meta = {key: value for key, value in wanted["metadata"].items() if key in ("labels", "annotations")}
    return {**content, "metadata": meta}


def _covers(live: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(k in live and _covers(live[k], v) for k, v in wanted.items())
    return bool(live == wanted)


def _relaunch(o: Observation, state: JobState, writes: tuple[Create | Merge, ...]) -> Verdict:
    """The launcher is gone and the journal has not ended: a loss of pods, which mpirun may call success."""
    assert o.mpijob is not None
    uid: str = o.mpijob["metadata"]["uid"]
    progressed = len(o.history.trials) > int(annotation(o.mpijob, build.ANNOTATION_TRIALS) or 0)
    before = int(annotation(o.tuning_configmap, build.ANNOTATION_FRUITLESS) or 0)
    counted = annotation(o.tuning_configmap, build.ANNOTATION_COUNTED) == uid
    fruitless = before if counted else 0 if progressed else before + 1
    # A failed MPIJob is one whose launcher was started again LAUNCHER_BACKOFF_LIMIT times already.
    if fruitless >= FRUITLESS_LIMIT or (state is JobState.FAILED and not progressed and not counted):
        return Verdict(
            running=STOPPED,
            failure=Failed(reason=Failure.LAUNCHER_FAILED, message=_launcher_message(o, state, fruitless)),
        )
    if not counted:
        record = {build.ANNOTATION_FRUITLESS: str(fruitless), build.ANNOTATION_COUNTED: uid}
        writes = (*writes, Merge(tuning_configmap_id(o.tuning.name), {"metadata": {"annotations": record}}))
    text = f"the launcher ended before the search did, after {len(o.history.trials)} trials; it resumes"
    words = launcher_words(o.pods)
    stance = Stance(False, Reason.RELAUNCHING, f"{text}. It said: {words}" if words else text)
    return Verdict(running=stance, writes=writes, deletes=_delete(o))


def _launcher_message(o: Observation, state: JobState, fruitless: int) -> str:
    assert o.mpijob is not None
    failed = state is JobState.FAILED
    times = "the launcher and its retries" if failed else f"{fruitless} launches in a row"
    evidence = launcher_words(o.pods) or (failure_of(o.mpijob) if failed else "none, it exited with 0")
    return f"{times} told no trial; to try again, {RETRY}. Its last words: {evidence}"


def _watch(o: Observation, ages: Ages, writes: tuple[Create | Merge, ...]) -> Verdict:
    trouble = worst_trouble(o.pods)
    hopeless = lasts(ages, Symptom.IMAGE) or lasts(ages, Symptom.START)
    # A search that runs is not ended because a further worker cannot join it.
    if trouble is not None and hopeless and not launcher_runs(o):
        failure = Failed(reason=_reason(trouble), message=f"{trouble.text}. {_MEND}")
        return Verdict(running=STOPPED, failure=failure, deletes=_delete(o))
    return Verdict(running=running(o, ages), writes=writes, after=patience(ages))


def _reason(trouble: Trouble) -> str:
    reasons: dict[TroubleKind, str] = {
        TroubleKind.IMAGE: Failure.IMAGE_PULL_FAILED,
        TroubleKind.START: Failure.POD_REFUSED,
        TroubleKind.UNSCHEDULABLE: Reason.UNSCHEDULABLE,
    }
    return reasons[trouble.kind]


def launcher_runs(o: Observation) -> bool:
    return any(p.role == Role.LAUNCHER and p.phase == "Running" and not p.terminating for p in o.pods)


def running(o: Observation, ages: Ages) -> Stance:
    """How far the MPIJob has come that was launched."""
    ready, trouble = f"{ready_workers(o.pods)} of {o.tuning.workers} workers ready", worst_trouble(o.pods)
    if state_of(o.mpijob) is JobState.SUSPENDED:
        return Stance(False, Reason.QUEUED, _QUEUED)
    if launcher_runs(o):
        if len(o.history.launches) <= int(annotation(o.mpijob, build.ANNOTATION_LAUNCHES) or 0):
            return _waiting(f"{ready}; the launcher starts the ranks")
        return Stance(True, Reason.SEARCHING, f"{ready}; {trouble.text}" if trouble else ready)
    if lasts(ages, Symptom.SILENCE):
        return Stance(False, Failure.MPIJOB_REFUSED, _silence(o))
    if trouble is not None:
        return Stance(False, _reason(trouble), trouble.text)
    words = launcher_words(o.pods)
    if words:
        return Stance(False, Reason.RELAUNCHING, f"{ready}; the launcher ended and is started again: {words}")
    if lasts(ages, Symptom.TOO_FEW_PODS):
        return Stance(False, Failure.POD_REFUSED, f"{ready}; {_too_few(o)}")
    return _waiting(ready)


def _silence(o: Observation) -> str:
    since = f"mpi-operator has not acknowledged the MPIJob for {LIMITS[Symptom.SILENCE]:.0f} s"
    see = f"kubectl describe mpijob {o.tuning.name} -n {o.tuning.namespace}"
    return f"{since}: it is not running, or refuses it, and then says why in an event: {see}"


def _too_few(o: Observation) -> str:
    """The workers are mpi-operator's; the launcher's pod is that of a Job."""
    workers = sum(1 for p in o.pods if p.role == Role.WORKER)
    whose = f"mpijob {o.tuning.name}" if workers < o.tuning.workers else f"job {o.tuning.name}-launcher"
    see = f"kubectl describe {whose} -n {o.tuning.namespace}"
    return f"pods are not created; a quota, Pod Security or a class of template may refuse them, an event says: {see}"
