"""Short ways to make what the controller looks at."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from quantuner.api import names
from quantuner.api.journal import Failed, Finished, History, Launched, Outcome, Trial, TrialState
from quantuner.api.spec import Tuning
from quantuner.api.validation import admit
from quantuner.controller import build
from quantuner.controller.mpijob import build_mpijob
from quantuner.controller.objects import MPIJOB, Manifest, ObjectId, identify
from quantuner.controller.observe import Observation
from quantuner.controller.pods import Pod, Role, Trouble
from quantuner.controller.settings import Settings

UID = "11111111-1111-4111-8111-111111111111"
JOB_UID = "22222222-2222-4222-8222-222222222222"
NOW = "2026-11-23T12:00:00Z"
EARLIER = "2026-11-23T11:00:00Z"
IMAGE = "registry.test/tuner:1"
SETTINGS = Settings(tuner_image=IMAGE)


def resource(**spec: Any) -> dict[str, Any]:
    """An admitted QuantizationTuning named `digits`, in generation 3."""
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "digits", "namespace": "ns", "uid": UID, "generation": 3, "resourceVersion": "7"},
        "spec": {"task": {"entrypoint": "task:make"}, **spec},
    }
    return admit(body)


def tuning(**spec: Any) -> Tuning:
    return Tuning.from_body(resource(**spec))


def launched(ranks: int = 3) -> Launched:
    return Launched(search="s", model="m", ops=4, ranks=ranks, hosts=("digits-launcher", "w-0", "w-1"), time=EARLIER)


def trial(index: int, accuracy: float | None = 0.9, **more: Any) -> Trial:
    state = TrialState.FAILED if accuracy is None else TrialState.COMPLETE
    return Trial(index=index, digest=f"d{index}", state=state, accuracy=accuracy, seconds=0.5, **more)


def history(*trials: Trial, end: Finished | Failed | None = None) -> History:
    return History([launched()], list(trials), end)


FINISHED = Finished(outcome=Outcome.TARGET_MET, best=1, accuracy=0.98, artifact="/a", time=NOW)
CRASHED = Failed(reason="TaskRaised", message="the task raised", traceback="Traceback\nValueError: no", time=NOW)

SEARCHED = (trial(0, 0.98), trial(1, 0.98, meets=True))


def support(body: Mapping[str, Any]) -> dict[ObjectId, Manifest]:
    """What the operator creates before the MPIJob, as it lives in the cluster."""
    return {identify(m): m for m in build.build_support(Tuning.from_body(body), body, IMAGE)}


def job(
    body: Mapping[str, Any], *conditions: str, ended: bool = False, trials: int = 0, launches: int = 0
) -> dict[str, Any]:
    """The tuning's MPIJob with conditions of these types, made when the journal had so many trials and launches."""
    told = History([launched()] * launches, [trial(i) for i in range(trials)])
    made = build_mpijob(Tuning.from_body(body), IMAGE, build.spec_hash(body), told, SETTINGS)
    made["metadata"]["uid"] = JOB_UID
    made["status"] = {"conditions": [{"type": t, "status": "True"} for t in conditions]}
    if ended:
        made["status"]["completionTime"] = NOW
    return made


def annotated(manifests: Mapping[ObjectId, Manifest], **annotations: str) -> dict[ObjectId, Manifest]:
    """The same with further annotations on the tuning ConfigMap."""
    changed = copy.deepcopy(dict(manifests))
    configmap = next(m for i, m in changed.items() if i.name == "digits-tuning")
    configmap["metadata"]["annotations"] |= {
        f"{names.GROUP}/{name.replace('_', '-')}": value for name, value in annotations.items()
    }
    return changed


def launcher(phase: str = "Running", **more: Any) -> Pod:
    return Pod("digits-launcher-x", Role.LAUNCHER, phase, ready=phase == "Running", **more)


def worker(number: int = 0, ready: bool = True, trouble: Trouble | None = None, **more: Any) -> Pod:
    phase = "Running" if ready else "Pending"
    return Pod(f"digits-worker-{number}", Role.WORKER, phase, ready=ready, trouble=trouble, **more)


RUNNING_PODS = (launcher(), worker(0), worker(1))


def condition(type_: str, reason: str, message: str = "", status: str = "True") -> dict[str, Any]:
    return {
        "type": type_, "status": status, "reason": reason, "message": message,
        "observedGeneration": 2, "lastTransitionTime": EARLIER,
    }  # fmt: skip


def observation(body: dict[str, Any] | None = None, *, mpijob: Manifest | None = None, **more: Any) -> Observation:
    """Everything in place for a launch; `mpijob` adds it, other arguments replace fields."""
    admitted = resource() if body is None else body
    objects = dict(more.pop("objects", support(admitted)))
    if mpijob is not None:
        objects[ObjectId(MPIJOB, "digits")] = mpijob
    return Observation(tuning=Tuning.from_body(admitted), admitted=admitted, objects=objects, **more)
