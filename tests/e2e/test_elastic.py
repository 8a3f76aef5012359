"""What the user changes while a search runs, and pods that are told to end: it goes on from all that was told."""

import json

import pytest

from tests.e2e.disturbed import await_trials, ended, is_the_undisturbed_answer, slow
from tests.e2e.kube import Kube, Object, is_true
from tests.e2e.tunings import history

pytestmark = pytest.mark.cluster


def change(kube: Kube, name: str, **spec: object) -> None:
    kube.run("patch", "qtune", name, "--type=merge", "-p", json.dumps({"spec": spec}))


def pod_of(kube: Kube, name: str, role: str) -> Object:
    """The first pod of this role."""
    selector = f"quantuner.dev/tuning={name},training.kubeflow.org/job-role={role}"
    return kube.items("pods", "-l", selector)[0]


def test_suspend_keeps_what_was_told_and_more_workers_go_on_from_there(kube: Kube) -> None:
    slow(kube, "elastic", seconds=1, workers=1)
    await_trials(kube, "elastic", 3)
    change(kube, "elastic", suspend=True)
    kube.await_object("qtune", "elastic", is_true("Suspended"), "suspended")
    kube.await_end("mpijob/elastic")
    kube.await_end("pod/elastic-worker-0")
    kept = len(history(kube, "elastic").tried)
    assert kept >= 3

    change(kube, "elastic", suspend=False, workers=2)
    body, found = ended(kube, "elastic")
    assert [launch.ranks for launch in found.launches] == [2, 3]
    assert {trial.rank for trial in found.tried} == {1, 2}  # the second pod, too, in these half a minute
    is_the_undisturbed_answer(body, found)


def test_a_running_search_goes_on_at_another_size_and_elsewhere(kube: Kube) -> None:
    """Slots change, and the threads of a rank do not: its results would differ in their last bits."""
    slow(kube, "size", workers=1)
    await_trials(kube, "size", 3)
    where = {"labels": {"team": "b"}, "nodeSelector": {"kubernetes.io/os": "linux"}}
    change(kube, "size", workers=2, slotsPerWorker=2, template=where)
    body, found = ended(kube, "size")
    pod = pod_of(kube, "size", "launcher")
    assert (pod["metadata"]["labels"]["team"], pod["spec"]["nodeSelector"]) == ("b", where["nodeSelector"])
    assert [launch.ranks for launch in found.launches] == [2, 5]
    assert {launch.threads for launch in found.launches} == {1}
    assert len(set(found.launches[-1].hosts)) == 3
    is_the_undisturbed_answer(body, found)


@pytest.mark.parametrize("role", ["launcher", "worker"])
def test_a_pod_that_is_told_to_end_loses_nothing_that_was_told(kube: Kube, role: str) -> None:
    """As a drain of its node does: SIGTERM, and time to end."""
    name = f"drained-{role}"
    slow(kube, name, seconds=1)
    told = await_trials(kube, name, 5)["status"]["trials"]["completed"]
    kube.run("delete", "pod", pod_of(kube, name, role)["metadata"]["name"], "--wait=true")
    assert len(history(kube, name).tried) >= told
    body, found = ended(kube, name)
    assert len(found.launches) >= 2
    is_the_undisturbed_answer(body, found)
