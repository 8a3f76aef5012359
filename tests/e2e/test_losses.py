"""What the cluster takes away while a search runs: it resumes, and its answer stays.

Surviving every loss without delay is the distributed room's promise; here it is enough that no loss ends in
a false success and that nothing told is told twice.
"""

import pytest

from tests.e2e.disturbed import await_trials, ended, is_the_undisturbed_answer, slow
from tests.e2e.kube import Kube, Object
from tests.e2e.steady import await_launch

pytestmark = pytest.mark.cluster


def test_a_lost_worker_pod_does_not_end_in_a_false_success(kube: Kube) -> None:
    slow(kube, "loss", seconds=1)
    await_trials(kube, "loss", 5)
    kube.run("delete", "pod", "loss-worker-1", "--force", "--grace-period=0")
    body, found = ended(kube, "loss")
    assert len(found.launches) >= 2, "the ranks were not started again"
    is_the_undisturbed_answer(body, found)


def test_a_lost_launcher_pod_is_followed_by_another_one(kube: Kube) -> None:
    slow(kube, "launcher", seconds=1)
    await_trials(kube, "launcher", 5)
    (pod,) = kube.items("pods", "-l", "training.kubeflow.org/job-role=launcher")
    kube.run("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
    body, found = ended(kube, "launcher")
    assert len(found.launches) >= 2
    is_the_undisturbed_answer(body, found)


def test_a_search_whose_lost_pod_finds_no_room_goes_on_smaller_and_grows_when_there_is_room(kube: Kube) -> None:
    slow(kube, "room", seconds=5)
    await_trials(kube, "room", 2)
    keep_out(kube, pods=3)
    kube.run("delete", "pod", "room-worker-1", "--force", "--grace-period=0")
    await_launch(kube, "room", 2)
    kube.run("delete", "resourcequota", "no-room")
    body, found = ended(kube, "room")
    assert [launch.ranks for launch in found.launches] == [3, 2, 3]
    is_the_undisturbed_answer(body, found)


def keep_out(kube: Kube, pods: int) -> None:
    """A quota that has no room for one more than the pods that are there, once it has counted them."""
    hard = {"pods": str(pods - 1)}
    kube.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-room"}, "spec": {"hard": hard}},
    )

    def has_counted(quota: Object) -> bool:
        return bool(quota.get("status", {}).get("used", {}).get("pods") == str(pods))

    kube.await_object("resourcequota", "no-room", has_counted, "counted")
