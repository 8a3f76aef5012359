"""A search of the shipped example that runs for long enough to be disturbed, and what must come of it."""

from quantuner.api.journal import Finished, History
from tests.e2e.kube import Kube, Object, condition, has_ended, is_true
from tests.e2e.tunings import EXAMPLE, configmap, example, history, told

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


def slow(kube: Kube, name: str, **spec: object) -> None:
    code = configmap("digits-task", digits=(EXAMPLE / "digits.py").read_text(), slow=SLOW)
    task = {"entrypoint": "slow:task", "args": {"passes": PASSES}, "source": {"configMap": {"name": "digits-task"}}}
    kube.apply(code, example(name, task=task, tuningCriterion=MANY_TRIALS, **spec))


def await_trials(kube: Kube, name: str, count: int) -> Object:
    def holds(body: Object) -> bool:
        return body.get("status", {}).get("trials", {}).get("completed", 0) >= count or has_ended(body)

    body = kube.await_object("qtune", name, holds, STARTED_SECONDS, f"at trial {count}")
    assert not has_ended(body), "the search ended before it could be disturbed; make it slower"
    return body


def ended(kube: Kube, name: str) -> tuple[Object, History]:
    body = kube.await_object("qtune", name, has_ended, ENDED_SECONDS, "ended")
    assert is_true("Complete")(body), condition(body, "Failed")
    return body, history(kube, name)


def is_the_examples_answer(body: Object, found: History) -> None:
    """The history is whole and in order (the reducer refuses any other), and the winner is the known one."""
    assert isinstance(found.end, Finished)
    assert body["status"]["best"]["trial"] == found.end.best
    assert body["status"]["best"]["config"]["exceptions"] == ANSWER
    assert [index for index, _, _ in told(found)] == list(range(len(found.trials)))
