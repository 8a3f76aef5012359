"""Every row of the failure table, as far as the operator decides it.

Rows: where the search stands (nothing yet, job in each of its states, ended) × what is wrong (resource,
names, images, pods, mpi-operator, journal). Left out: what needs a server (tests/operator).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from quantuner.api.spec import Tuning
from quantuner.controller import build
from quantuner.controller.decide import decide
from quantuner.controller.mpijob import build_mpijob
from quantuner.controller.observe import Observation, Refusal
from quantuner.controller.pods import Trouble, TroubleKind
from quantuner.controller.settings import Settings
from quantuner.controller.status import compose
from quantuner.controller.symptoms import LIMITS, Ages, Symptom
from quantuner.controller.verdict import Create, Delete, Merge, Verdict
from tests.unit.controller.making import (
    CRASHED,
    EARLIER,
    FINISHED,
    IMAGE,
    JOB_UID,
    NOW,
    RUNNING_PODS,
    SEARCHED,
    SETTINGS,
    annotated,
    condition,
    history,
    job,
    launcher,
    observation,
    resource,
    support,
    trial,
    worker,
)

PULL = Trouble(TroubleKind.IMAGE, "pod digits-worker-0: ErrImagePull: no such host")
CRASH_LOOP = Trouble(TroubleKind.START, "pod digits-worker-0: CrashLoopBackOff: back-off")
NO_NODE = Trouble(TroubleKind.UNSCHEDULABLE, "pod digits-worker-0: 0/1 nodes are available")
SUSPENDED = resource(suspend=True)
FROM_CONFIGMAP = resource(task={"entrypoint": "task:make", "source": {"configMap": {"name": "code"}}})
LONG = {symptom: limit + 1 for symptom, limit in LIMITS.items()}
FAILED_BEFORE = {"conditions": [condition("Failed", "ImagePullFailed", "no such host")], "completionTime": EARLIER}
COMPLETE_BEFORE = {"phase": "Complete", "conditions": [condition("Complete", "TargetMet")]}


def queued(name: str) -> dict[str, Any]:
    body = resource()
    return {**body, "metadata": {**body["metadata"], "labels": {"kueue.x-k8s.io/queue-name": name}}}


@dataclass(frozen=True)
class Case:
    seen: Observation
    phase: str
    want: dict[str, str]
    """Condition type to its reason, those that matter."""
    message: str = ""
    """Part of some condition's message."""
    creates: tuple[str, ...] = ()
    """Kinds."""
    deletes: bool = False
    """The MPIJob, by its uid."""
    ages: Ages = field(default_factory=dict)
    settings: Settings = SETTINGS


def running(*pods: Any, **more: Any) -> Observation:
    """A job that mpi-operator has taken on, with these pods."""
    body = more.pop("body", resource())
    return observation(body, mpijob=job(body, "Created", "Running"), pods=pods, **more)


def ended(kind: str, *, before: int = 0, **more: Any) -> Observation:
    """A finished job that was launched after `before` trials."""
    return observation(mpijob=job(resource(), "Created", kind, ended=True, trials=before), **more)


CASES = {
    "a new resource: everything is created, the MPIJob last": Case(
        observation(objects={}), "Starting", {"Running": "WaitingForPods", "Accepted": "Accepted"},
        creates=("ConfigMap", "ConfigMap", "ConfigMap", "ServiceAccount", "Role", "RoleBinding", "MPIJob"),
    ),
    "killed between two creates: only the rest is created": Case(
        observation(objects=dict(list(support(resource()).items())[:4])), "Starting", {},
        creates=("Role", "RoleBinding", "MPIJob"),
    ),
    "the MPIJob is there and its pods come up": Case(
        running(worker(0), worker(1, ready=False)), "Starting", {"Running": "WaitingForPods"}, "1 of 2 workers"
    ),
    "the launcher runs, its ranks do not yet": Case(
        running(*RUNNING_PODS), "Starting", {"Running": "WaitingForPods"}, "starts the ranks"
    ),
    "a later launcher runs, whose ranks do not yet": Case(
        observation(
            mpijob=job(resource(), "Created", "Running", trials=1, launches=1), pods=RUNNING_PODS,
            history=history(trial(0)),
        ), "Starting", {"Running": "WaitingForPods"}, "starts the ranks",
    ),
    "a queue holds the job back": Case(
        observation(mpijob=job(resource(), "Created", "Suspended"), history=history(trial(0))), "Starting",
        {"Running": "Queued"}, "a queue of Kueue",
    ),
    "it waits in a queue that the resource no longer names": Case(
        observation(queued("team-a"), mpijob=job(queued("typo"), "Created", "Suspended"), history=history(trial(0))),
        "Starting", {"Running": "WaitingForPods"}, "names another queue", deletes=True,
    ),
    "it waits in the queue that the resource names": Case(
        observation(queued("team-a"), mpijob=job(queued("team-a"), "Created", "Suspended")), "Starting",
        {"Running": "Queued"},
    ),
    "it was given a queue by a webhook": Case(
        observation(mpijob=job(queued("default"), "Created", "Suspended")), "Starting", {"Running": "Queued"}
    ),
    "it was admitted by a queue that the resource no longer names: what runs is let run": Case(
        observation(queued("team-a"), mpijob=job(queued("typo"), "Created", "Running"), pods=RUNNING_PODS), "Starting",
        {"Running": "WaitingForPods"},
    ),
    "ranks search": Case(
        running(*RUNNING_PODS, history=history(trial(0))), "Running", {"Running": "Searching"}, "2 of 2 workers"
    ),
    "a Role that somebody emptied is mended": Case(
        running(
            *RUNNING_PODS,
            objects={i: {**m, "rules": []} if i.kind.kind == "Role" else m for i, m in support(resource()).items()},
        ), "Starting", {}, creates=("merge Role",),
    ),
    "the journal finished: complete, whatever the job says": Case(
        ended("Failed", history=history(*SEARCHED, end=FINISHED)), "Complete",
        {"Complete": "TargetMet", "TargetMet": "TargetMet", "Running": "Finished"}, "baseline 0.98",
    ),
    "the journal finished while the job still runs: its launcher ends by itself": Case(
        running(*RUNNING_PODS, history=history(*SEARCHED, end=FINISHED)), "Complete", {"Complete": "TargetMet"},
        ages={Symptom.LINGERING: 1.0},
    ),
    "the journal finished and the launcher hangs": Case(
        running(*RUNNING_PODS, history=history(*SEARCHED, end=FINISHED)), "Complete", {"Complete": "TargetMet"},
        ages=LONG, deletes=True,
    ),
    "the journal failed: its reason and message": Case(
        ended("Succeeded", history=history(end=CRASHED)), "Failed", {"Failed": "TaskRaised", "Complete": "Stopped"},
        "the task raised",
    ),
    "finished and suspended: finished": Case(
        observation(SUSPENDED, history=history(*SEARCHED, end=FINISHED)), "Complete", {"Suspended": "NotSuspended"}
    ),
    "complete before, and the journal is gone: the status stands": Case(
        observation(status=COMPLETE_BEFORE), "Complete", {"Complete": "TargetMet"}
    ),
    "suspended while it runs: the job is ended": Case(
        observation(SUSPENDED, mpijob=job(SUSPENDED, "Created", "Running"), pods=RUNNING_PODS), "Starting",
        {"Running": "Suspended"}, "ending 3 pods", deletes=True,
    ),
    "suspended and the pods are gone": Case(
        observation(SUSPENDED), "Suspended", {"Suspended": "Suspended"}, "go on from the journal"
    ),
    "suspended forgets what failed, so that it is tried again": Case(
        observation(
            SUSPENDED, status=FAILED_BEFORE,
            objects=annotated(support(SUSPENDED), fruitless_launches="3", last_counted="x"),
        ), "Suspended", {"Failed": "NoFailure"}, creates=("merge ConfigMap",),
    ),
    "failed before: stays so, and what runs is ended": Case(
        running(*RUNNING_PODS, status=FAILED_BEFORE), "Failed", {"Failed": "ImagePullFailed"}, "no such host",
        deletes=True,
    ),
    "failed before, and the resource was changed since: tried again, as if it had been suspended": Case(
        observation(
            status={**FAILED_BEFORE, "observedGeneration": 2},
            objects=annotated(support(resource()), fruitless_launches="3", last_counted="x"),
        ), "Starting", {"Running": "WaitingForPods", "Failed": "NoFailure"}, creates=("merge ConfigMap", "MPIJob"),
    ),
    "a launcher that failed too often was answered, and the operator killed before it deleted the job": Case(
        ended("Failed", objects=annotated(support(resource()), last_counted=JOB_UID)), "Starting",
        {"Running": "Relaunching", "Failed": "NoFailure"}, deletes=True,
    ),
    "failed before and nothing runs: nothing is launched": Case(
        observation(status=FAILED_BEFORE), "Failed", {"Failed": "ImagePullFailed"}
    ),
    "the journal is damaged": Case(
        running(worker(0), worker(1), journal_error="line 3: not JSON"), "Failed", {"Failed": "JournalMismatch"},
        "ConfigMap digits-journal cannot be read, line 3", deletes=True,
    ),
    "the journal is of a later version, and ranks search: they are let be": Case(
        running(*RUNNING_PODS, history=history(trial(0)), journal_error="line 3: format 2"), "Running",
        {"Running": "JournalMismatch", "Failed": "NoFailure"}, "the search runs on",
    ),
    "the journal is of a later version, and its launcher has ended": Case(
        ended("Succeeded", journal_error="line 3: format 2"), "Failed", {"Failed": "JournalMismatch"},
        "install the version of Quantuner that wrote it",
    ),
    "workers changed: the ConfigMap follows, the job is replaced": Case(
        observation(
            resource(workers=5), objects=support(resource()), mpijob=job(resource(), "Created", "Running"),
            pods=RUNNING_PODS,
        ), "Starting", {"Running": "WaitingForPods"}, "go on from the journal", ("merge ConfigMap",), deletes=True,
    ),
    "the former job is still going": Case(
        observation(
            mpijob={**job(resource()), "metadata": {**job(resource())["metadata"], "deletionTimestamp": NOW}},
            pods=(worker(0, terminating=True),),
        ), "Starting", {"Running": "WaitingForPods"}, "until digits-worker-0 are gone",
    ),
    "the former job is gone, a pod of it is not: two launchers never share a journal": Case(
        observation(pods=(launcher(terminating=True),)), "Starting", {}, "until digits-launcher-x are gone"
    ),
    "a pod was lost, mpirun exited 0, trials were told: relaunched": Case(
        ended("Succeeded", before=1, history=history(trial(0), trial(1))), "Starting",
        {"Running": "Relaunching", "Complete": "InProgress"}, "after 2 trials", ("merge ConfigMap",), deletes=True,
    ),
    "counted before a crash: not counted again": Case(
        ended(
            "Succeeded", before=1, history=history(trial(0), trial(1)),
            objects=annotated(support(resource()), fruitless_launches="1", last_counted=JOB_UID),
        ), "Starting", {"Running": "Relaunching"}, deletes=True,
    ),
    "launches that tell nothing: given up": Case(
        ended(
            "Succeeded", objects=annotated(support(resource()), fruitless_launches="2", last_counted="other"),
            pods=(launcher("Succeeded", last_words="Error (exit code 1): no hosts", ended=NOW),),
        ), "Failed", {"Failed": "LauncherFailed"}, "3 launches in a row told no trial",
    ),
    "the launcher failed too often: its last words": Case(
        ended("Failed", pods=(launcher("Failed", last_words="Error (exit code 1): ImportError: x", ended=NOW),)),
        "Failed", {"Failed": "LauncherFailed"}, "ImportError: x",
    ),
    "the launcher failed too often, but told trials before: relaunched": Case(
        ended("Failed", history=history(trial(0))), "Starting", {"Running": "Relaunching"},
        creates=("merge ConfigMap",), deletes=True,
    ),
    "a failed job that can be taken back (evicted): waited for": Case(
        observation(mpijob=job(resource(), "Created", "Failed")), "Starting", {"Failed": "NoFailure"}
    ),
    "no image anywhere": Case(
        observation(objects={}), "Pending", {"Accepted": "ImageMissing"}, "--tuner-image", settings=Settings()
    ),
    "the operator's default image changed: a search keeps the one it began with": Case(
        observation(), "Starting", {}, creates=("MPIJob",), settings=Settings(tuner_image="registry.test/tuner:2")
    ),
    "the task ConfigMap is missing: waits": Case(
        observation(FROM_CONFIGMAP, objects={}, task_missing=True), "Pending", {"Accepted": "TaskConfigMapMissing"},
        "ConfigMap code of spec.task.source is not in namespace ns; create it",
    ),
    "the task ConfigMap went away under a running search: it runs on": Case(
        running(*RUNNING_PODS, body=FROM_CONFIGMAP, task_missing=True, history=history(trial(0))), "Running", {}
    ),
    "a foreign MPIJob has the name": Case(
        observation(mpijob={"metadata": {"name": "digits", "uid": "z"}}), "Pending", {"Accepted": "NameConflict"},
        "MPIJob digits exists already and belongs to nobody",
    ),
    "a foreign ConfigMap has the name": Case(
        observation(objects={
            i: {"metadata": {"ownerReferences": [{"controller": True, "kind": "Deployment", "name": "d", "uid": "z"}]}}
            for i in list(support(resource()))[1:2]
        }), "Pending", {"Accepted": "NameConflict"}, "belongs to Deployment d; remove it",
    ),
    "an object of a deleted namesake": Case(
        observation(objects={
            i: {"metadata": {"ownerReferences": [
                {"controller": True, "kind": "QuantizationTuning", "name": "digits", "uid": "z"}]}}
            for i in list(support(resource()))[:1]
        }), "Pending", {"Accepted": "NameConflict"}, "waiting until it is gone",
    ),
    "the template sets one of our variables": Case(
        observation(resource(template={"env": [{"name": "PRTE_MCA_plm_ssh_args", "value": "-p 1"}]})), "Failed",
        {"Failed": "TemplateConflict"},
        "PRTE_MCA_plm_ssh_args, which Quantuner sets itself; remove it. Delete this resource",
    ),
    "an image cannot be pulled, for some seconds": Case(
        running(worker(0, False, PULL), worker(1, False)), "Starting", {"Running": "ImagePullFailed"}, "no such host",
        ages={Symptom.IMAGE: 5.0},
    ),
    "an image cannot be pulled": Case(
        running(worker(0, False, PULL), worker(1, False)), "Failed", {"Failed": "ImagePullFailed"},
        "no such host. Mend it, then set suspend to true and back to false; another image, or other",
        ages={Symptom.IMAGE: 61.0}, deletes=True,
    ),
    "one further worker cannot pull: the search runs on": Case(
        running(*RUNNING_PODS, worker(2, False, PULL), history=history(trial(0))), "Running",
        {"Running": "Searching"}, "no such host", ages=LONG,
    ),
    "a container cannot start": Case(
        running(worker(0, False, CRASH_LOOP), worker(1)), "Failed", {"Failed": "PodRefused"}, "CrashLoopBackOff",
        ages=LONG, deletes=True,
    ),
    "no node takes a pod: never given up": Case(
        running(worker(0, False, NO_NODE), worker(1)), "Starting", {"Running": "Unschedulable"}, "0/1 nodes",
        ages={},
    ),
    "the launcher crashed and its Job starts it again": Case(
        running(worker(0), worker(1), launcher("Failed", last_words="OOMKilled (exit code 137)", ended=NOW)),
        "Starting", {"Running": "Relaunching"}, "started again: OOMKilled",
    ),
    "pods are not created": Case(
        running(worker(0)), "Starting", {"Running": "PodRefused"}, "kubectl describe mpijob digits -n ns",
        ages={Symptom.TOO_FEW_PODS: 61.0},
    ),
    "the launcher's pod is not created": Case(
        running(worker(0), worker(1)), "Starting", {"Running": "PodRefused"},
        "kubectl describe job digits-launcher -n ns", ages={Symptom.TOO_FEW_PODS: 61.0},
    ),
    "mpi-operator says nothing yet": Case(
        observation(mpijob=job(resource())), "Starting", {"Running": "WaitingForPods"}, ages={Symptom.SILENCE: 1.0}
    ),
    "mpi-operator says nothing": Case(
        observation(mpijob=job(resource())), "Starting", {"Running": "MPIJobRefused"}, "for 30 s",
        ages={Symptom.SILENCE: 31.0},
    ),
    "the API server refuses an object for good": Case(
        observation(refusal=Refusal("MPIJobRefused", "create MPIJob digits", "cpu: bad", permanent=True)),
        "Failed", {"Failed": "MPIJobRefused"}, "create MPIJob digits: cpu: bad",
    ),
    "the API server refuses an object for now": Case(
        observation(refusal=Refusal("Refused", "create Role digits-tuner", "quota", permanent=False)),
        "Pending", {"Accepted": "Refused", "Failed": "NoFailure"}, "quota",
    ),
    "a change of a running search's object is refused: it runs on": Case(
        running(
            *RUNNING_PODS, history=history(trial(0)),
            refusal=Refusal("Refused", "change ConfigMap digits-tuning", "policy", permanent=False),
        ), "Running", {"Accepted": "Refused", "Running": "Searching"}, "policy",
    ),
}  # fmt: skip


def kinds(verdict: Verdict) -> tuple[str, ...]:
    found = []
    for write in verdict.writes:
        if isinstance(write, Create):
            found.append(str(write.manifest["kind"]))
        else:
            assert isinstance(write, Merge)
            found.append(f"merge {write.target.kind.kind}")
    return tuple(found)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_decides(case: Case) -> None:
    verdict = decide(case.seen, case.ages, case.settings)
    status = compose(case.seen, verdict, NOW)
    conditions = {c["type"]: c for c in status["conditions"]}

    assert status["phase"] == case.phase
    assert {t: conditions[t]["reason"] for t in case.want} == case.want
    assert case.message in "\n".join(c["message"] for c in conditions.values())
    assert kinds(verdict) == case.creates
    assert [d.uid for d in verdict.deletes] == [JOB_UID] * case.deletes
    assert all(isinstance(d, Delete) for d in verdict.deletes)
    assert verdict.after > 0


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_tells_the_same_a_second_time(case: Case) -> None:
    """What is told does not change when it is told again later, except that a journal's loss keeps all."""
    first = compose(case.seen, decide(case.seen, case.ages, case.settings), NOW)
    again = replace(case.seen, status=first)
    later = compose(again, decide(again, case.ages, case.settings), "2026-11-23T13:00:00Z")

    assert later == first


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"workers": 5}, id="more workers"),
        pytest.param({"workers": 1}, id="fewer workers"),
        pytest.param({"slotsPerWorker": 4}, id="more slots"),
        pytest.param({"runLauncherAsWorker": True}, id="the launcher works, too"),
        pytest.param({"tuningCriterion": {"maxTrials": 7}}, id="another number of trials"),
        pytest.param({"tuningCriterion": {"timeoutSeconds": 60}}, id="a time limit"),
        pytest.param({"workers": 3, "slotsPerWorker": 2, "tuningCriterion": {"maxTrials": 9}}, id="several at once"),
    ],
)
def test_a_changed_search_ends_its_ranks_and_goes_on_as_changed(change: dict[str, Any]) -> None:
    """Old job, its deletion, its last pods, the new job: two launchers never share the journal meanwhile."""
    body, told = resource(**change), history(trial(0), trial(1), trial(2))
    runs = observation(
        body,
        objects=support(resource()),
        mpijob=job(resource(), "Created", "Running"),
        pods=RUNNING_PODS,
        history=told,
    )
    verdict = decide(runs, {}, SETTINGS)
    assert ([d.uid for d in verdict.deletes], kinds(verdict)) == ([JOB_UID], ("merge ConfigMap",))

    going = {**job(resource()), "metadata": {**job(resource())["metadata"], "deletionTimestamp": NOW}}
    ending: dict[str, Any] = {"history": told, "pods": (launcher(terminating=True), worker(0, terminating=True))}
    for seen in (observation(body, mpijob=going, **ending), observation(body, **ending)):
        verdict = decide(seen, {}, SETTINGS)
        assert (kinds(verdict), verdict.deletes) == ((), ())

    (created,) = decide(observation(body, history=told), {}, SETTINGS).writes
    assert isinstance(created, Create)
    assert created.manifest == build_mpijob(Tuning.from_body(body), IMAGE, build.spec_hash(body), told, SETTINGS)
    assert created.manifest["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"] == change.get("workers", 2)
    assert created.manifest["spec"]["slotsPerWorker"] == change.get("slotsPerWorker", 1)


def test_a_change_of_a_search_whose_launcher_has_just_ended_is_taken_up_by_the_relaunch() -> None:
    body = resource(workers=5)
    seen = observation(
        body,
        mpijob=job(resource(), "Created", "Succeeded", ended=True, trials=1),
        history=history(trial(0), trial(1)),
    )
    assert [d.uid for d in decide(seen, {}, SETTINGS).deletes] == [JOB_UID]
    (created,) = decide(observation(body, history=seen.history), {}, SETTINGS).writes
    assert isinstance(created, Create)
    assert created.manifest["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"] == 5


def test_a_failed_launcher_is_tried_again_when_the_resource_was_changed_since() -> None:
    told = {"conditions": [condition("Failed", "LauncherFailed", "no hosts")], "observedGeneration": 2}
    verdict = decide(ended("Failed", status=told), {}, SETTINGS)
    (forgiving,) = verdict.writes
    assert isinstance(forgiving, Merge)
    assert forgiving.patch["metadata"]["annotations"] == {"quantuner.dev/last-counted": JOB_UID}
    assert [d.uid for d in verdict.deletes] == [JOB_UID]
    unchanged = decide(ended("Failed", status={**told, "observedGeneration": 3}), {}, SETTINGS)
    assert unchanged.failure is not None


def test_keeps_the_image_the_search_began_with() -> None:
    verdict = decide(observation(), {}, Settings(tuner_image="registry.test/tuner:2"))
    created = verdict.writes[-1]
    assert isinstance(created, Create)
    launcher_pod = created.manifest["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]
    assert launcher_pod["containers"][0]["image"] == IMAGE


def test_a_failure_keeps_its_time() -> None:
    seen = observation(status=FAILED_BEFORE)
    assert compose(seen, decide(seen, {}, SETTINGS), NOW)["completionTime"] == EARLIER
