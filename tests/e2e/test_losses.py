"""What the cluster takes away and the user changes while a search runs: it resumes, and its answer stays.

Surviving every loss without delay is the distributed room's promise; here it is enough that no loss ends in
a false success and that nothing told is told twice.
"""

import pytest

from quantuner.api.journal import Finished, History
from tests.e2e.kube import Kube, Object, condition, has_ended, is_true
from tests.e2e.tunings import EXAMPLE, configmap, example, history, told

pytestmark = pytest.mark.cluster

# The example with more to compute: a search that is still running when something happens to it.
SLOW = '''
"""The digits example with an evaluation that takes its time."""

import dataclasses

import digits


def task(passes: int):
    fast = digits.task()

    def accuracy(model):
        for number in range(passes):  # other images in each pass: nothing of the one before serves it
            for images, _ in fast.calib_dataloader:
                model(images + number)
        return fast.eval_func(model)

    return dataclasses.replace(fast, eval_func=accuracy)
'''
PASSES = 25
MANY_TRIALS = {"strategy": "basic", "maxTrials": 60}
ANSWER = {"stem.0": "fp32", "first.conv2": "fp32", "last.conv2": "fp32"}
"""What the winner of that search leaves unquantized."""
STARTED_SECONDS = 120.0
ENDED_SECONDS = 300.0


def _slow(kube: Kube, name: str, **spec: object) -> None:
    code = configmap("digits-task", digits=(EXAMPLE / "digits.py").read_text(), slow=SLOW)
    task = {"entrypoint": "slow:task", "args": {"passes": PASSES}, "source": {"configMap": {"name": "digits-task"}}}
    kube.apply(code, example(name, task=task, tuningCriterion=MANY_TRIALS, **spec))


def _await_trials(kube: Kube, name: str, count: int) -> Object:
    def holds(body: Object) -> bool:
        return body.get("status", {}).get("trials", {}).get("completed", 0) >= count or has_ended(body)

    body = kube.await_object("qtune", name, holds, STARTED_SECONDS, f"at trial {count}")
    assert not has_ended(body), "the search ended before it could be disturbed; make it slower"
    return body


def _ended(kube: Kube, name: str) -> tuple[Object, History]:
    body = kube.await_object("qtune", name, has_ended, ENDED_SECONDS, "ended")
    assert is_true("Complete")(body), condition(body, "Failed")
    return body, history(kube, name)


def test_a_lost_worker_pod_does_not_end_in_a_false_success(kube: Kube) -> None:
    _slow(kube, "loss")
    _await_trials(kube, "loss", 5)
    kube.run("delete", "pod", "loss-worker-1", "--force", "--grace-period=0")
    body, found = _ended(kube, "loss")
    assert len(found.launches) >= 2, "the ranks were not started again"
    _is_the_examples_answer(body, found)


def test_a_lost_launcher_pod_is_followed_by_another_one(kube: Kube) -> None:
    _slow(kube, "launcher")
    _await_trials(kube, "launcher", 5)
    (pod,) = kube.items("pods", "-l", "training.kubeflow.org/job-role=launcher")
    kube.run("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
    body, found = _ended(kube, "launcher")
    assert len(found.launches) >= 2
    _is_the_examples_answer(body, found)


def test_suspend_keeps_what_was_told_and_more_workers_go_on_from_there(kube: Kube) -> None:
    _slow(kube, "elastic", workers=1)
    _await_trials(kube, "elastic", 3)
    kube.run("patch", "qtune", "elastic", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    kube.await_object("qtune", "elastic", is_true("Suspended"), STARTED_SECONDS, "suspended")
    for kind in ("mpijob/elastic", "pod/elastic-worker-0"):
        kube.run("wait", "--for=delete", kind, "--timeout=60s")
    kept = len(history(kube, "elastic").tried)
    assert kept >= 3

    kube.run("patch", "qtune", "elastic", "--type=merge", "-p", '{"spec":{"suspend":false,"workers":2}}')
    body, found = _ended(kube, "elastic")
    assert [launch.ranks for launch in found.launches] == [2, 3]
    _is_the_examples_answer(body, found)


def _is_the_examples_answer(body: Object, found: History) -> None:
    """The history is whole and in order (the reducer refuses any other), and the winner is the known one."""
    assert isinstance(found.end, Finished)
    assert body["status"]["best"]["trial"] == found.end.best
    assert body["status"]["best"]["config"]["exceptions"] == ANSWER
    assert [index for index, _, _ in told(found)] == list(range(len(found.trials)))
