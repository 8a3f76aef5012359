"""A strategy that comes with the task's code searches on the cluster."""

import pytest

from quantuner.api.journal import Finished
from tests.e2e.kube import Kube, condition, has_ended, is_true
from tests.e2e.tunings import EXAMPLE, configmap, example, history

pytestmark = pytest.mark.cluster

OWN = '''
"""The digits example, searched by a strategy of its own: blocks of the network fall back, all tried together."""

import digits
from quantuner.space.config import FP32
from quantuner.strategy import TuneStrategy, strategy_registry

task = digits.task


@strategy_registry
class BlocksTuneStrategy(TuneStrategy):
    accepts = ("blocks",)

    def stages(self):
        base = self.start(self.tuning_space.calib_sampling_sizes[0])
        blocks = self.tuning.tuning_criterion.strategy_kwargs["blocks"]
        yield [base.having({op: FP32 for op in base if op.startswith(block)}) for block in blocks]
        best = self.best_config
        yield [best.having({op: FP32 for op in base if op.startswith(block)}) for block in blocks]
'''
NEVER_MET = {"accuracyCriterion": {"criterion": "absolute", "tolerableLoss": -1.0}}
"""On some processors one of the first three trials would end the search."""


def test_the_tasks_own_strategy_searches_on_the_pods(kube: Kube) -> None:
    code = configmap("digits-task", digits=(EXAMPLE / "digits.py").read_text(), own=OWN)
    task = {"entrypoint": "own:task", "source": {"configMap": {"name": "digits-task"}}}
    criterion = {"strategy": "blocks", "strategyKwargs": {"blocks": ["first", "middle", "last"]}}
    kube.apply(code, example("own", task=task, tuningCriterion=criterion, **NEVER_MET))
    body = kube.await_object("qtune", "own", has_ended, "ended")
    assert is_true("Complete")(body), condition(body, "Failed")
    found = history(kube, "own")
    assert isinstance(found.end, Finished)
    assert [launch.ranks for launch in found.launches] == [3]
    assert {trial.rank for trial in found.tried} <= {1, 2}  # one may try all before the other begins
    labels = [trial.label for trial in found.tried]
    blocks = ["first.conv2", "middle.conv2", "last.conv2"]
    assert [block in label for block, label in zip(blocks, labels, strict=False)] == [True] * len(blocks)
    # Which of these is the best, and so what more falls back with it, depends on the processor.
    assert all("fp32" in label for label in labels)
    assert len(labels) > len(blocks)
    assert body["status"]["best"]["trial"] == found.end.best
