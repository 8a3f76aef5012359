"""Values of `strategy_kwargs` that a strategy can make nothing of are refused when it is made, with their key."""

import math
import re
from typing import Any

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.config import AccuracyCriterion, PostTrainingQuantConfig
from quantuner.strategy import BasicTuneStrategy, arguments
from tests.unit.engine.models import Net, images, seeded
from tests.unit.strategy.ruled import never, searching

COUNT = "must be a whole number from 1"
WEIGHT = "must be a finite number from 0"
SEEDED = ("hawq_v2", "random", "bayesian", "tpe")


@pytest.mark.parametrize(
    ("strategy", "key", "value", "says"),
    [
        *((strategy, "seed", "x", "must be an integer, not 'x'") for strategy in SEEDED),
        *((strategy, "seed", -1, "must be in [0, 4294967295]") for strategy in SEEDED),
        *((strategy, "batch_size", value, COUNT) for strategy in ("bayesian", "tpe") for value in (0, 1.5, True)),
        *(("tpe", key, value, WEIGHT) for key in ("accuracy_weight", "latency_weight") for value in ("a", None, -1)),
        *(("tpe", "accuracy_weight", value, WEIGHT) for value in (math.nan, math.inf, True)),
        *(
            (strategy, "metric", "kll", "must be one of mse, kl, not 'kll' (did")
            for strategy in ("auto", "sensitivity")
        ),
        ("sensitivity", "metric", ["kl"], "must be one of mse, kl, not ['kl']"),
        ("mse_v2", "confidence_batches", 0, COUNT),
        ("hawq_v2", "hawq_v2_loss", "l2", "must be one of cross_entropy, mse, l1,"),
        ("hawq_v2", "hawq_v2_loss", 3, "module:function or a function, not 3"),
        ("hawq_v2", "hawq_v2_loss", "no_such_module:loss", "'no_such_module:loss', raised"),
        ("hawq_v2", "hawq_v2_loss", "math:pi", "must name a function, but math:pi is 3.14"),
    ],
)
def test_a_value_of_which_nothing_can_be_made_is_refused_at_once(
    strategy: str, key: str, value: Any, says: str
) -> None:
    with pytest.raises(SearchError, match=re.escape(says)) as raised:
        searching(never, strategy, kwargs={key: value})
    assert f"tuningCriterion.strategyKwargs.{key}" in raised.value.message
    assert raised.value.reason == Failure.TASK_INVALID


@pytest.mark.parametrize(
    ("strategy", "kwargs"),
    [
        ("tpe", {"seed": 3, "batch_size": 2, "accuracy_weight": 0, "latency_weight": 0.5}),
        ("hawq_v2", {"hawq_v2_loss": None}),
        ("hawq_v2", {"hawq_v2_loss": "l1"}),
        ("hawq_v2", {"hawq_v2_loss": max}),
        ("hawq_v2", {"hawq_v2_loss": "torch.nn.functional:l1_loss"}),
        ("sensitivity", {"metric": "kl"}),
        ("mse_v2", {"confidence_batches": 1}),
    ],
)
def test_what_a_strategy_reads_is_taken(strategy: str, kwargs: dict[str, Any]) -> None:
    assert searching(never, strategy, kwargs=kwargs).tuning.tuning_criterion.strategy_kwargs == kwargs


def test_a_count_that_is_not_given_is_the_default() -> None:
    assert arguments.count({}, "batch_size", 4) == 4
    assert arguments.count({"batch_size": 1}, "batch_size", 4) == 1


@pytest.mark.parametrize(
    ("metric", "higher", "says"),
    [
        (
            {"MSE": {}, "higher_is_better": [False]},
            True,
            "of which lower is better .*, and the accuracy criterion says that higher is; set .* to False",
        ),
        ({"topk": 1, "higher_is_better": True}, False, "of which higher is better .* in Python. to True, or give"),
        ("RMSE", True, "of which lower is better"),
        ("topk", False, "of which higher is better"),
    ],
    ids=["a loss as an accuracy", "an accuracy as a loss", "a loss by its name", "an accuracy by its name"],
)
def test_a_metric_of_another_direction_than_the_criterions_is_refused(metric: Any, higher: bool, says: str) -> None:
    with pytest.raises(SearchError, match=says) as raised:
        _judged_with(metric, higher)
    assert raised.value.reason == Failure.TASK_INVALID


@pytest.mark.parametrize(
    ("metric", "higher"),
    [
        ({"MSE": {}, "higher_is_better": [False]}, False),
        ({"MSE": {}, "higher_is_better": [False], "weight": [-1.0]}, True),
        ({"MSE": {}, "weight": [-1.0]}, True),
        ("MSE", False),
        ({"topk": 1, "MSE": {}, "weight": [0.5, 0.5]}, True),
    ],
    ids=["both lower", "turned round", "turned round by its name", "lower by its name", "a mixture that says nothing"],
)
def test_a_metric_of_the_criterions_direction_is_taken(metric: Any, higher: bool) -> None:
    assert _judged_with(metric, higher).eval_metric == metric


def _judged_with(metric: Any, higher: bool) -> BasicTuneStrategy:
    conf = PostTrainingQuantConfig(accuracy_criterion=AccuracyCriterion(higher_is_better=higher))
    batches = [(images(), images())]
    return BasicTuneStrategy(seeded(Net), conf, batches, eval_dataloader=batches, eval_metric=metric)
