"""The operator process against a real API server and mpi-operator; the test writes journals as a launcher would.

Covered: creation, status, every way a search ends or is interrupted, deletion, metrics, and least privilege (the
process has `access.rules`). Left out: pods that run (tests/e2e).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantuner.api.journal import Failed, Finished, Launched, Outcome, Record, Trial, TrialState, encode, line_key
from quantuner.controller.mpijob import CONTAINER_SECURITY, POD_SECURITY
from tests.e2e.kube import Kube, Object, condition, is_true
from tests.e2e.patience import eventually
from tests.operator.access import write_kubeconfig
from tests.operator.process import OperatorProcess

pytestmark = pytest.mark.cluster

NAME = "digits"
QUEUE = "kueue.x-k8s.io/queue-name"
OWNED = "configmaps,serviceaccounts,roles,rolebindings,mpijobs"
SELECTOR = ("-l", f"quantuner.dev/tuning={NAME}")


def resource(**spec: Any) -> Object:
    return {
        "apiVersion": "quantuner.dev/v1alpha1",
        "kind": "QuantizationTuning",
        "metadata": {"name": NAME},
        "spec": {"task": {"entrypoint": "task:make"}, **spec},
    }


def launched() -> Launched:
    hosts = ("a", "b", "c")
    return Launched(search="s", model="m", ops=4, ranks=3, hosts=hosts, time="2026-11-23T12:00:00Z")


def trial(index: int, accuracy: float | None, **more: Any) -> Trial:
    state = TrialState.FAILED if accuracy is None else TrialState.COMPLETE
    return Trial(index=index, digest=f"d{index}", state=state, accuracy=accuracy, seconds=0.5, **more)


FINISHED = Finished(outcome=Outcome.TARGET_MET, best=2, accuracy=0.975, artifact="/a", time="2026-11-23T12:01:00Z")
SEARCH = (launched(), trial(0, 0.98), trial(1, None, error="RuntimeError: no kernel"), trial(2, 0.975, meets=True))


def tell(kube: Kube, *records: Record, start: int = 0) -> None:
    data = {line_key(start + i): encode(record) for i, record in enumerate(records)}
    kube.run("patch", "configmap", f"{NAME}-journal", "--type=merge", "-p", json.dumps({"data": data}))


def change(kube: Kube, **spec: Any) -> None:
    kube.run("patch", "qtune", NAME, "--type=merge", "-p", json.dumps({"spec": spec}))


def await_tuning(kube: Kube, holds: Any, what: str) -> Object:
    return kube.await_object("qtune", NAME, holds, what)


def reason(type_: str, wanted: str) -> Any:
    return lambda body: condition(body, type_).get("reason") == wanted


def await_job(kube: Kube, but: str = "") -> Object:
    """The tuning's MPIJob, another one than that of uid `but`."""
    return kube.await_object("mpijob", NAME, lambda job: job["metadata"]["uid"] != but, "created")


def events(kube: Kube, reason_: str) -> list[Object]:
    return kube.items("events", "--field-selector", f"involvedObject.kind=QuantizationTuning,reason={reason_}")


def test_a_resource_gets_its_objects_and_a_status(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource())
    body = await_tuning(kube, reason("Running", "WaitingForPods"), "starting")
    await_job(kube)

    names = sorted(f"{o['kind']}/{o['metadata']['name']}" for o in kube.items(OWNED, *SELECTOR))
    assert names == [
        "ConfigMap/digits-journal", "ConfigMap/digits-result", "ConfigMap/digits-tuning", "MPIJob/digits",
        "Role/digits-tuner", "RoleBinding/digits-tuner", "ServiceAccount/digits-tuner",
    ]  # fmt: skip
    assert body["status"]["phase"] == "Starting"
    assert body["status"]["observedGeneration"] == 1
    assert "finalizers" not in body["metadata"]
    assert "annotations" not in kube.get("configmap", f"{NAME}-journal")["metadata"]
    ranks_read = yaml.safe_load(kube.get("configmap", f"{NAME}-tuning")["data"]["tuning.yaml"])
    assert ranks_read["spec"]["tuningCriterion"]["maxTrials"] == 100


def test_mpi_operator_accepts_the_mpijob_and_pod_security_its_pods(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource(workers=2))
    await_job(kube)
    selector = ("-l", f"quantuner.dev/tuning={NAME},training.kubeflow.org/job-role=worker")
    eventually(lambda: len(kube.items("pods", *selector)) == 2, "two worker pods")
    job = kube.await_object("mpijob", NAME, lambda j: bool(j.get("status", {}).get("conditions")), "acknowledged")
    assert job["status"]["conditions"][0]["type"] == "Created"


@pytest.fixture
def runtime_class(kube: Kube) -> Iterator[str]:
    """Pods that name one which is not there are refused."""
    name = f"{kube.namespace}-sandbox"
    kube.apply(
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": "never-there"}
    )
    yield name
    kube.run("delete", "runtimeclass", name)


def test_what_shared_clusters_want_reaches_the_pods(kube: Kube, operator: OperatorProcess, runtime_class: str) -> None:
    """As mpi-operator's schema lets it through. A scheduler that is not there leaves the pods alone."""
    mine = {"matchLabels": {"quantuner.dev/tuning": NAME}}
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": mine}
    apart = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", "labelSelector": mine}]}
    spec = {
        "affinity": {"podAntiAffinity": apart},
        "topologySpreadConstraints": [spread],
        "priorityClassName": "system-cluster-critical",
        "schedulerName": "never-there",
        "runtimeClassName": runtime_class,
    }
    labels, annotations = {"team": "a"}, {"sidecar.istio.io/inject": "false"}
    kube.apply(resource(workers=2, template={**spec, "labels": labels, "annotations": annotations}))
    templates = [replicas["template"] for replicas in await_job(kube)["spec"]["mpiReplicaSpecs"].values()]
    eventually(lambda: len(kube.items("pods", *SELECTOR)) == 2, "two worker pods, found by our label")
    pods = kube.items("pods", *SELECTOR)
    for made in (*templates, *pods):
        assert spec.items() <= made["spec"].items()
        assert labels.items() <= made["metadata"]["labels"].items()
        assert annotations.items() <= made["metadata"]["annotations"].items()
    assert {pod["metadata"]["labels"]["training.kubeflow.org/job-role"] for pod in pods} == {"worker"}


def test_the_journal_becomes_status_metrics_and_events(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource())
    await_job(kube)
    tell(kube, *SEARCH)
    body = await_tuning(kube, lambda b: b["status"].get("trials", {}).get("failed") == 1, "three trials told")
    assert body["status"]["baseline"]["accuracy"] == 0.98
    assert body["status"]["best"]["trial"] == 2

    tell(kube, FINISHED, start=len(SEARCH))
    body = await_tuning(kube, is_true("Complete"), "complete")
    assert (body["status"]["phase"], condition(body, "TargetMet")["status"]) == ("Complete", "True")
    assert body["status"]["completionTime"] == FINISHED.time

    label = f'name="{NAME}",namespace="{kube.namespace}"'
    metrics = operator.metrics()
    assert f"quantuner_best_accuracy{{{label}}} 0.975" in metrics
    assert f'quantuner_phase{{{label},phase="Complete"}} 1.0' in metrics
    assert len(events(kube, "TargetMet")) == 1
    assert "RuntimeError: no kernel" in events(kube, "TrialsFailed")[0]["message"]


def test_a_failure_in_the_journal_shows_its_traceback_in_describe(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource())
    await_job(kube)
    traceback = "Traceback (most recent call last):\n" + "  File x\n" * 400 + "ValueError: labels are 0..8"
    tell(kube, launched(), Failed(reason="TaskRaised", message="task:make raised ValueError", traceback=traceback))
    body = await_tuning(kube, is_true("Failed"), "failed")
    assert (body["status"]["phase"], condition(body, "Failed")["reason"]) == ("Failed", "TaskRaised")
    described = kube.run("describe", "qtune", NAME)
    assert "ValueError: labels are 0..8" in described
    assert "task:make raised ValueError" in described


def test_a_failed_search_goes_on_when_its_resource_is_changed(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource())
    first = await_job(kube)["metadata"]["uid"]
    tell(kube, *SEARCH, Failed(reason="EvaluationFailed", message="a typo"))
    await_tuning(kube, is_true("Failed"), "failed")
    change(kube, workers=1)
    await_job(kube, but=first)
    body = await_tuning(kube, lambda b: not is_true("Failed")(b), "no longer failed")
    assert body["status"]["best"]["trial"] == 2


def test_a_job_that_a_queue_holds_back_is_queued(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply({**resource(), "metadata": {"name": NAME, "labels": {QUEUE: "team-a"}}})
    job = await_job(kube)
    assert job["metadata"]["labels"][QUEUE] == "team-a"
    for suspend, wanted in ((True, "Queued"), (False, "WaitingForPods")):
        hold_back(kube, suspend)
        await_tuning(kube, reason("Running", wanted), wanted)


def test_a_job_that_waits_goes_to_the_queue_that_its_resource_names_now(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply({**resource(), "metadata": {"name": NAME, "labels": {QUEUE: "typo"}}})
    mistaken = await_job(kube)["metadata"]["uid"]
    hold_back(kube, True)
    await_tuning(kube, reason("Running", "Queued"), "Queued")
    kube.run("label", "qtune", NAME, f"{QUEUE}=team-a", "--overwrite")
    assert await_job(kube, but=mistaken)["metadata"]["labels"][QUEUE] == "team-a"


def test_a_pod_of_somebody_else_with_our_labels_keeps_nothing_from_starting(
    kube: Kube, operator: OperatorProcess
) -> None:
    labels = {"app.kubernetes.io/managed-by": "quantuner", "quantuner.dev/tuning": NAME}
    container = {"name": "debug", "image": "localhost/never-there:1", "securityContext": CONTAINER_SECURITY}
    spec = {"containers": [container], "securityContext": POD_SECURITY}
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "debug", "labels": labels}, "spec": spec})
    kube.apply(resource())
    await_job(kube)


def hold_back(kube: Kube, suspend: bool) -> None:
    """As Kueue does."""
    patch = json.dumps({"spec": {"runPolicy": {"suspend": suspend}}})
    kube.run("patch", "mpijob", NAME, "--type=merge", "-p", patch)


POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: NAMESPACE}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [kubeflow.org], apiVersions: ["*"], operations: [CREATE], resources: [mpijobs]}]
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAMESPACE}}
  validations: [{expression: "false", message: no team label}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: NAMESPACE}
spec: {policyName: NAMESPACE, validationActions: [Deny]}
"""


@pytest.fixture
def denying(kube: Kube, admin: Kube) -> Iterator[Callable[[], None]]:
    """A policy by which the namespace has no MPIJob; called, it is withdrawn."""
    parts = list(yaml.safe_load_all(POLICY.replace("NAMESPACE", kube.namespace)))

    def withdraw() -> None:
        for part in reversed(parts):
            admin.run("delete", part["kind"], part["metadata"]["name"], "--ignore-not-found")

    admin.apply(*parts)
    spec: Object = {"mpiReplicaSpecs": {}}
    probe = json.dumps(
        {"apiVersion": "kubeflow.org/v2beta1", "kind": "MPIJob", "metadata": {"name": "probe"}, "spec": spec}
    )
    create = ("create", "--dry-run=server", "-f", "-")
    eventually(lambda: "no team label" in kube.run(*create, stdin=probe, ok=False), "the policy acts")
    yield withdraw
    withdraw()


def test_what_a_policy_denies_is_tried_until_it_is_allowed(
    kube: Kube, operator: OperatorProcess, denying: Callable[[], None]
) -> None:
    kube.apply(resource())
    body = await_tuning(kube, reason("Accepted", "MPIJobRefused"), "denied")
    assert "no team label" in condition(body, "Accepted")["message"]
    assert condition(body, "Failed")["status"] == "False"
    denying()
    await_job(kube)
    await_tuning(kube, is_true("Accepted"), "accepted")


def test_suspending_ends_the_pods_and_going_on_keeps_the_journal(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource())
    first = await_job(kube)["metadata"]["uid"]
    tell(kube, *SEARCH)
    change(kube, suspend=True)
    body = await_tuning(kube, is_true("Suspended"), "suspended")
    assert body["status"]["phase"] == "Suspended"
    assert body["status"]["best"]["trial"] == 2
    # mpi-operator, whose cache lags behind, may create a pod for the MPIJob that is gone: it is collected.
    eventually(lambda: not kube.items("mpijobs,pods", *SELECTOR), "nothing runs")

    change(kube, suspend=False)
    job = await_job(kube, but=first)
    assert job["metadata"]["annotations"]["quantuner.dev/trials-at-launch"] == "3"
    assert len(kube.get("configmap", f"{NAME}-journal")["data"]) == len(SEARCH)


def test_more_workers_replace_the_mpijob_and_nothing_else(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource(workers=1))
    first = await_job(kube)["metadata"]["uid"]
    tell(kube, *SEARCH)
    change(kube, workers=2, tuningCriterion={"maxTrials": 7})
    job = await_job(kube, but=first)
    assert job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"] == 2
    ranks_read = yaml.safe_load(kube.get("configmap", f"{NAME}-tuning")["data"]["tuning.yaml"])
    assert ranks_read["spec"]["tuningCriterion"]["maxTrials"] == 7
    assert len(kube.get("configmap", f"{NAME}-journal")["data"]) == len(SEARCH)


def test_a_change_after_the_end_does_nothing(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource())
    uid = await_job(kube)["metadata"]["uid"]
    tell(kube, *SEARCH, FINISHED)
    await_tuning(kube, is_true("Complete"), "complete")
    change(kube, workers=5)
    body = await_tuning(kube, lambda b: b["status"]["observedGeneration"] == 2, "seen")
    assert body["status"]["phase"] == "Complete"
    assert kube.get("mpijob", NAME)["metadata"]["uid"] == uid


def succeed(kube: Kube) -> None:
    """What mpi-operator says when mpirun exits 0, as it does after losing a pod."""
    time = "2026-11-23T12:00:00Z"
    ended = {"type": "Succeeded", "status": "True", "reason": "x", "lastTransitionTime": time, "lastUpdateTime": time}
    patch = {"status": {"completionTime": time, "conditions": [ended]}}
    kube.run("patch", "mpijob", NAME, "--subresource=status", "--type=merge", "-p", json.dumps(patch))


def test_succeeded_without_an_ended_journal_is_a_relaunch_and_thrice_for_nothing_a_failure(
    kube: Kube, operator: OperatorProcess
) -> None:
    kube.apply(resource(workers=1))
    uid = await_job(kube)["metadata"]["uid"]
    for _ in range(2):
        succeed(kube)
        uid = await_job(kube, but=uid)["metadata"]["uid"]
    tell(kube, launched(), trial(0, 0.98))  # progress: the count begins anew
    succeed(kube)
    uid = await_job(kube, but=uid)["metadata"]["uid"]
    for _ in range(2):
        succeed(kube)
        uid = await_job(kube, but=uid)["metadata"]["uid"]
    succeed(kube)
    body = await_tuning(kube, is_true("Failed"), "given up")
    assert condition(body, "Failed")["reason"] == "LauncherFailed"
    assert "3 launches in a row told no trial" in condition(body, "Failed")["message"]
    assert body["status"]["baseline"]["accuracy"] == 0.98


def test_a_missing_task_configmap_is_waited_for(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource(task={"entrypoint": "task:make", "source": {"configMap": {"name": "code"}}}))
    body = await_tuning(kube, reason("Accepted", "TaskConfigMapMissing"), "waiting")
    assert body["status"]["phase"] == "Pending"
    assert len(events(kube, "TaskConfigMapMissing")) == 1
    kube.run("create", "configmap", "code", "--from-literal=task.py=")
    await_job(kube)
    await_tuning(kube, is_true("Accepted"), "accepted")


@pytest.mark.parametrize("name", [f"{NAME}-journal", f"{NAME}-result"])
def test_a_foreign_object_of_our_name_is_left_alone(kube: Kube, operator: OperatorProcess, name: str) -> None:
    kube.run("create", "configmap", name, "--from-literal=a=b")
    kube.apply(resource())
    body = await_tuning(kube, reason("Accepted", "NameConflict"), "in conflict")
    assert f"ConfigMap {name} exists already" in condition(body, "Accepted")["message"]
    assert kube.get("configmap", name)["data"] == {"a": "b"}
    assert not kube.items("mpijobs")


def test_what_the_api_server_refuses_is_a_failure_with_its_words(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource(template={"volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "huge"}}]}))
    body = await_tuning(kube, is_true("Failed"), "failed")
    assert condition(body, "Failed")["reason"] == "MPIJobRefused"
    assert "emptyDir.sizeLimit" in condition(body, "Failed")["message"]
    assert not kube.items("mpijobs")


def test_what_is_nested_too_deep_is_invalid_and_keeps_nobody_else_waiting(
    kube: Kube, operator: OperatorProcess
) -> None:
    levels = 1_500  # more than Python reads by itself
    body = {**resource(task={"entrypoint": "task:make", "args": {"a": "@"}}), "metadata": {"name": "deep"}}
    # Not by way of Python's own JSON, here as in what is asked below.
    kube.run("create", "-f", "-", stdin=json.dumps(body).replace('"@"', "[" * levels + "]" * levels))

    def accepted(field: str) -> str:
        path = f"{{.status.conditions[?(@.type=='Accepted')].{field}}}"
        return kube.run("get", "qtune", "deep", "-o", f"jsonpath={path}")

    eventually(lambda: accepted("reason") == "Invalid", "the deep one is refused")
    assert "spec.task.args: holds objects and lists more than 50 deep" in accepted("message")
    operator.kill()  # what is there already comes by another way than what is added
    operator.wait()
    operator.start()
    kube.apply(resource())
    await_job(kube)
    assert operator.is_running()
    assert "Traceback" not in operator.log()


def test_a_line_of_a_journal_that_is_no_record_costs_no_other_search_its_metrics(
    kube: Kube, operator: OperatorProcess
) -> None:
    other = {**resource(suspend=True), "metadata": {"name": "other"}}
    kube.apply(resource(), other)
    await_job(kube)
    line = encode(trial(0, 0.98)).replace('"seconds":0.5', '"seconds":"x"')
    data = {line_key(0): encode(launched()), line_key(1): line}
    kube.run("patch", "configmap", f"{NAME}-journal", "--type=merge", "-p", json.dumps({"data": data}))
    body = await_tuning(kube, is_true("Failed"), "failed")
    assert "seconds must be a finite number" in condition(body, "Failed")["message"]
    series = f'quantuner_phase{{name="other",namespace="{kube.namespace}",phase="Suspended"}} 1.0'
    eventually(lambda: series in operator.metrics(), "the other one is scraped")


def test_a_clash_of_the_template_is_said(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource(template={"env": [{"name": "PRTE_MCA_plm_ssh_args", "value": "-p 1"}]}))
    body = await_tuning(kube, is_true("Failed"), "failed")
    assert condition(body, "Failed")["reason"] == "TemplateConflict"
    assert not kube.items("mpijobs")


def test_an_image_that_cannot_be_pulled_fails_and_leaves_nothing_running(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource(workers=1))
    body = await_tuning(kube, reason("Running", "ImagePullFailed"), "no image")
    assert body["status"]["phase"] == "Starting"
    body = await_tuning(kube, is_true("Failed"), "given up")
    assert condition(body, "Failed")["reason"] == "ImagePullFailed"
    assert "never-there" in condition(body, "Failed")["message"]
    eventually(lambda: not kube.items("mpijobs,pods", *SELECTOR), "nothing runs")
    assert kube.get("configmap", f"{NAME}-journal")


def test_deleting_the_resource_leaves_nothing(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource())
    await_job(kube)
    tell(kube, *SEARCH)
    await_tuning(kube, lambda b: "best" in b["status"], "told")
    kube.run("delete", "qtune", NAME, "--wait=true")
    eventually(lambda: not kube.items(f"{OWNED},pods", *SELECTOR), "nothing is left")
    eventually(lambda: f'name="{NAME}"' not in operator.metrics(), "its series are gone")


def test_a_deletion_is_not_worked_against(kube: Kube, operator: OperatorProcess) -> None:
    kube.apply(resource())
    await_job(kube)
    kube.run("delete", "qtune", NAME, "--cascade=foreground", "--wait=true")
    # mpi-operator may create a pod for what it has not yet seen go, which is collected then.
    eventually(lambda: not kube.items(f"{OWNED},pods", *SELECTOR), "nothing is left")


def test_stops_cleanly_and_says_it_is_well_before(kube: Kube, operator: OperatorProcess) -> None:
    operator.await_health()
    assert operator.stop() == 0
    assert "Traceback" not in operator.log()


def test_a_namespace_that_it_may_not_list_does_not_keep_it_from_the_others(
    kube: Kube, token: str, tmp_path: Path
) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "operator.conf", kube.kubeconfig, token)
    operator = OperatorProcess(kubeconfig, kube.namespace, tmp_path / "log", "--namespace", "gone")
    operator.start()
    try:
        kube.apply(resource())
        await_job(kube)
        assert "quantuner_namespaces_unwatched 1.0" in operator.metrics()
        assert "namespace gone is not served" in operator.log()
    finally:
        assert operator.stop() == 0
