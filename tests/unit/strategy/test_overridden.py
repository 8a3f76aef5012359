"""Classes that users wrote for Neural Compressor: the reference's constructor, and entry points that return nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quantuner import options
from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.config import AccuracyCriterion, PostTrainingQuantConfig, TuningCriterion
from quantuner.engine.metrics import Evaluation
from quantuner.quantization import fit
from quantuner.strategy import BasicTuneStrategy, strategy_registry
from quantuner.strategy.overridden import made
from quantuner.strategy.registry import _strategies
from tests.unit.engine.models import Net, images, seeded
from tests.unit.strategy.judged import FP32_OUTPUT, HELD_OUT, closeness


@pytest.fixture(autouse=True)
def _registered(tmp_path: Path) -> Iterator[None]:
    before = dict(_strategies)
    for cls in (OlderTuneStrategy, HookedTuneStrategy, IdleTuneStrategy):
        strategy_registry(cls)
    options.set_workspace(tmp_path / "workspace")
    yield
    options.set_workspace(None)
    _strategies.clear()
    _strategies.update(before)


class OlderTuneStrategy(BasicTuneStrategy):
    """The constructor of Neural Compressor 2.1, which knows no eval_metric."""

    def __init__(
        self,
        model: Any,
        conf: Any,
        q_dataloader: Any = None,
        q_func: Any = None,
        eval_dataloader: Any = None,
        eval_func: Any = None,
        resume: Any = None,
        q_hooks: Any = None,
    ) -> None:
        super().__init__(model, conf, q_dataloader, q_func, eval_dataloader, eval_func, resume, q_hooks)


class HookedTuneStrategy(BasicTuneStrategy):
    """Does something around its search, and returns nothing."""

    def traverse(self) -> None:
        super().traverse()


class IdleTuneStrategy(BasicTuneStrategy):
    """Forgets to search."""

    def traverse(self) -> None:
        pass


def conf_of(strategy: str) -> PostTrainingQuantConfig:
    return PostTrainingQuantConfig(
        tuning_criterion=TuningCriterion(strategy, max_trials=2),
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=10),
    )


LOADER = [(HELD_OUT, FP32_OUTPUT)]
CLOSENESS = {"MSE": {}, "weight": [-1.0]}
BY_METRIC = {"eval_dataloader": LOADER, "eval_metric": CLOSENESS}


@pytest.mark.parametrize("judged", [{"eval_func": closeness}, BY_METRIC, {}], ids=["function", "metric", "nothing"])
def test_a_constructor_of_the_reference_is_called_with_what_it_takes(judged: dict[str, Any]) -> None:
    assert fit(seeded(Net), conf_of("older"), [images()], **judged) is not None


def test_a_metric_that_the_constructor_does_not_take_judges_all_the_same() -> None:
    strategy = made(OlderTuneStrategy, seeded(Net), conf_of("older"), q_dataloader=[images()], **BY_METRIC)
    assert isinstance(strategy.engine.judge, Evaluation)  # trials may be abandoned and divided
    assert (strategy.eval_dataloader, strategy.eval_metric) == (LOADER, CLOSENESS)  # ranks compare the data


def test_a_constructor_that_takes_the_metric_is_given_it() -> None:
    strategy = made(BasicTuneStrategy, seeded(Net), conf_of("basic"), q_dataloader=[images()], **BY_METRIC)
    assert (strategy.eval_dataloader, strategy.eval_metric, strategy.eval_func) == (LOADER, CLOSENESS, None)


def test_what_a_search_found_is_returned_where_its_traverse_returns_nothing() -> None:
    assert fit(seeded(Net), conf_of("hooked"), [images()], eval_func=closeness) is not None


def test_a_traverse_that_does_not_search_is_an_error() -> None:
    with pytest.raises(SearchError, match=r"IdleTuneStrategy .* call super\(\)'s") as raised:
        fit(seeded(Net), conf_of("idle"), [images()], eval_func=closeness)
    assert raised.value.reason == Failure.STRATEGY_RAISED
