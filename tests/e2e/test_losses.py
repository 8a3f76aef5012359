"""What the cluster takes away while a search runs: it resumes, and its answer stays.

Surviving every loss without delay is the distributed room's promise; here it is enough that no loss ends in
a false success and that nothing told is told twice.
"""

import pytest

from tests.e2e.disturbed import await_trials, ended, is_the_undisturbed_answer, slow
from tests.e2e.kube import Kube

pytestmark = pytest.mark.cluster


def test_a_lost_worker_pod_does_not_end_in_a_false_success(kube: Kube) -> None:
    slow(kube, "loss")
    await_trials(kube, "loss", 5)
    kube.run("delete", "pod", "loss-worker-1", "--force", "--grace-period=0")
    body, found = ended(kube, "loss")
    assert len(found.launches) >= 2, "the ranks were not started again"
    is_the_undisturbed_answer(body, found)


def test_a_lost_launcher_pod_is_followed_by_another_one(kube: Kube) -> None:
    slow(kube, "launcher")
    await_trials(kube, "launcher", 5)
    (pod,) = kube.items("pods", "-l", "training.kubeflow.org/job-role=launcher")
    kube.run("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
    body, found = ended(kube, "launcher")
    assert len(found.launches) >= 2
    is_the_undisturbed_answer(body, found)
