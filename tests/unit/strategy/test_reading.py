"""What a strategy may read of its search, and what it may ask of a result; each in a real search."""

import copy
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.config import PostTrainingQuantConfig
from quantuner.engine.engine import Engine
from quantuner.space.config import FP32, TuneConfig
from quantuner.strategy import BasicTuneStrategy
from quantuner.strategy.objectives import Result
from tests.unit.engine.models import Net, images, seeded
from tests.unit.strategy.judged import HELD_OUT, Judge, closeness, distance, ended, history_of, searching
from tests.unit.strategy.ranked import LadderTuneStrategy, rungs

TWO: dict[str, Any] = {"limits": {"maxTrials": 2}}


class WeighingTuneStrategy(LadderTuneStrategy):
    """Measures a model of its own between two trials."""

    weighed: Result

    def stages(self) -> Iterator[list[TuneConfig]]:
        first, second, *_ = rungs(self)
        yield [first]
        self.model = self.engine.quantized(first)
        self.weighed = self.evaluation_result
        yield [second]


def test_evaluation_result_measures_the_model_of_the_moment(engine: Engine, judge: Judge, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, strategy=WeighingTuneStrategy)
    ended(strategy)
    assert isinstance(strategy, WeighingTuneStrategy)
    assert strategy.weighed.accuracy == history_of(strategy).trials[1].accuracy
    assert len(strategy.weighed.objectives) == 1
    calls = judge.calls
    strategy.model = engine.task.model
    assert [strategy.evaluation_result.accuracy for _ in range(2)] == [1.0, 1.0]
    assert judge.calls == calls + 2  # nothing is kept


def test_evaluation_result_evaluates_as_a_trial_does_and_leaves_the_users_model_alone() -> None:
    model = seeded(Net).train()
    before = copy.deepcopy(model.state_dict())
    strategy = BasicTuneStrategy(model, PostTrainingQuantConfig(), [images()], eval_func=closeness)
    assert strategy.evaluation_result.accuracy == strategy.engine.baseline().accuracy == 1.0
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def smoothing(alpha: Any) -> dict[str, Any]:
    return {"smooth_quant": True, "smooth_quant_args": {"alpha": alpha}}


def test_a_configuration_of_several_alphas_is_refused_at_once(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path)
    body = strategy.cur_best_tuning_cfg
    with pytest.raises(SearchError, match=r"recipe_cfgs has alphas \[0.1, 0.2\], and a trial takes one") as raised:
        strategy.as_config({**body, "recipe_cfgs": smoothing([0.1, 0.2])})
    assert raised.value.reason == Failure.CONFIGURATION_INVALID
    for alpha in ([0.5], np.float64(0.5)):
        config = strategy.as_config({**body, "recipe_cfgs": smoothing(alpha)})
        assert config.plain() == strategy.as_config({**body, "recipe_cfgs": smoothing(0.5)}).plain()
        assert type(config.recipes["smooth_quant_args"]["alpha"]) is float


@pytest.mark.parametrize(
    ("criterion", "accuracy", "meets"),
    [
        pytest.param({"criterion": "absolute", "tolerableLoss": 0.25}, 0.75, True, id="on target"),
        pytest.param({"criterion": "absolute", "tolerableLoss": 0.25}, 0.7499, False, id="below"),
        pytest.param({"tolerableLoss": 0.25}, 0.75, True, id="relative"),
        pytest.param({"criterion": "absolute", "tolerableLoss": 0.25, "higherIsBetter": False}, 1.25, True, id="lower"),
        pytest.param(
            {"criterion": "absolute", "tolerableLoss": 0.25, "higherIsBetter": False}, 1.26, False, id="above"
        ),
    ],
)
def test_meet_acc_req_compares_any_result_with_the_baseline_and_makes_it_the_last(
    engine: Engine, tmp_path: Path, criterion: dict[str, Any], accuracy: float, meets: bool
) -> None:
    strategy = searching(engine, tmp_path, accuracy=criterion, limits={"maxTrials": 1})
    ended(strategy)
    assert strategy.baseline is not None
    assert strategy.baseline.accuracy == 1.0
    assert strategy.meet_acc_req((accuracy, [9.0])) is meets  # type: ignore[arg-type]  # a plain tuple will do
    assert strategy.last_tune_result == Result(accuracy, [9.0])
    assert strategy.trials_count == 1


def test_update_best_op_tuning_cfg_keeps_the_better_and_at_a_tie_the_later(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, **TWO)
    ended(strategy)
    worst, tied, better = rungs(strategy)[:3]
    best = strategy.cur_best_acc
    for config, accuracy, kept in ((worst, best - 0.1, False), (tied, best, True), (better, best + 0.1, True)):
        strategy.meet_acc_req(Result(accuracy, [1.0]))
        told = strategy.update_best_op_tuning_cfg(strategy.as_dict(config))
        assert (told == (accuracy, strategy.as_dict(config))) is kept
        assert told == (strategy.cur_best_acc, strategy.cur_best_tuning_cfg)
    assert strategy.update_best_op_tuning_cfg(worst)[0] == best + 0.1  # the last result is that of the best


def test_update_best_op_tuning_cfg_leaves_all_as_it_is_before_a_result(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path)
    default = strategy.cur_best_tuning_cfg
    other = strategy.best_config.having({"head": FP32})
    assert strategy.update_best_op_tuning_cfg(other) == (-math.inf, default)


def test_show_baseline_info_logs_the_baseline_and_keeps_its_rows(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = searching(engine, tmp_path, limits={"maxTrials": 1})
    with pytest.raises(RuntimeError, match="not measured yet; traverse"):
        strategy.show_baseline_info()
    with caplog.at_level(logging.INFO):
        ended(strategy)
    seconds = history_of(strategy).trials[0].objectives["performance"]
    assert strategy.tune_data == {"baseline": [1.0], "Accuracy": [1.0], "performance": [seconds]}
    assert f"fp32 baseline: Accuracy 1, performance {seconds:.6g}" in caplog.messages


@pytest.mark.parametrize(("rule", "higher", "first"), [(closeness, True, -math.inf), (distance, False, math.inf)])
def test_initial_best_acc_is_what_every_accuracy_beats(
    engine: Engine, judge: Judge, tmp_path: Path, rule: Any, higher: bool, first: float
) -> None:
    judge.rule = rule
    strategy = searching(engine, tmp_path, accuracy={"higherIsBetter": higher}, limits={"maxTrials": 1})
    assert strategy.initial_best_acc() == strategy.cur_best_acc == first
    ended(strategy)
    assert strategy.cur_best_acc == history_of(strategy).trials[1].accuracy


class DemandingTuneStrategy(LadderTuneStrategy):
    """Takes no configuration for the best that is worse than this."""

    def initial_best_acc(self) -> float:
        return 0.9965

    def next_tune_cfg(self) -> Iterator[Any]:
        self.bests: list[TuneConfig] = []
        for config in rungs(self):
            yield self.as_dict(config)
            self.bests.append(self.best_config)


def test_a_strategy_may_begin_with_a_best_accuracy_of_its_own(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, strategy=DemandingTuneStrategy)
    default = strategy.best_config
    ended(strategy)
    assert isinstance(strategy, DemandingTuneStrategy)
    assert strategy.bests == [default] * 3 + [rungs(strategy)[3]] * 2


class ReadingTuneStrategy(LadderTuneStrategy):
    """Writes down what it can read whenever it is asked."""

    def next_tune_cfg(self) -> Iterator[Any]:
        self.read: list[tuple[Any, ...]] = []
        for config in rungs(self):
            yield self.as_dict(config)
            last = self.last_tune_cfg
            self.read.append((self.trials_count, self.tuning_times, self.last_tune_result, last, self.metric_met_point))


def test_between_two_configurations_a_strategy_reads_what_was_told(engine: Engine, tmp_path: Path) -> None:
    criterion = {"criterion": "absolute", "tolerableLoss": 0.0036}  # met from the fourth on
    strategy = searching(engine, tmp_path, strategy=ReadingTuneStrategy, accuracy=criterion)
    strategy.re_quant = True
    ended(strategy)
    assert isinstance(strategy, ReadingTuneStrategy)
    told = [(t.index, t.index, (t.accuracy, [t.objectives["performance"]])) for t in history_of(strategy).tried]
    configs = [strategy.as_dict(config) for config in rungs(strategy)]
    assert strategy.read == [(*told[i], configs[i], 4 if i >= 3 else 0) for i in range(5)]


def test_the_winner_is_read_as_configuration_result_and_model(engine: Engine, tmp_path: Path) -> None:
    criterion = {"criterion": "absolute", "tolerableLoss": 0.005}
    strategy = searching(engine, tmp_path, strategy=LadderTuneStrategy, accuracy=criterion)
    finished = ended(strategy)
    winner = history_of(strategy).trials[finished.best or 0]
    assert strategy.end is finished
    assert strategy.best_tune_result == (winner.accuracy, [winner.objectives["performance"]])
    assert strategy.best_tuning_cfg == strategy.as_dict(rungs(strategy)[1])
    model: Any = strategy.best_qmodel
    assert model is not None
    assert closeness(model) == winner.accuracy
    assert tuple(model(HELD_OUT).shape) == (16, 3)
    assert model.q_config["ops"]["head"]["mode"] == "static"


def test_without_a_winner_there_is_none_to_read(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, **TWO)
    ended(strategy)
    assert (strategy.best_tune_result, strategy.best_tuning_cfg, strategy.best_qmodel) == (None, None, None)
    assert strategy.cur_best_acc > 0.99


def test_dicts_that_are_read_are_the_readers_own(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, **TWO)
    ended(strategy)
    for attribute in ("cur_best_tuning_cfg", "last_tune_cfg"):
        before = getattr(strategy, attribute)
        getattr(strategy, attribute).clear()
        assert getattr(strategy, attribute) == before != {}


def test_a_configuration_is_the_same_in_both_forms(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path)
    config = rungs(strategy)[0]
    body = strategy.as_dict(config)
    assert strategy.as_config(body) == config
    assert strategy.as_config(config) is config
    assert body["head", "Linear"].get_state()["activation"]["algorithm"] == "minmax"


def test_what_was_told_of_a_configuration_is_known(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, strategy=LadderTuneStrategy, accuracy={"tolerableLoss": 0.005})
    ended(strategy)
    missed, met, *untold = rungs(strategy)
    assert [strategy.has_told(config) for config in (missed, met, untold[0])] == [True, True, False]
    assert [strategy.meets(config) for config in (missed, met, untold[0])] == [False, True, False]
    assert strategy.accuracy_of(met) == history_of(strategy).trials[2].accuracy
    assert [trial.index for trial in strategy.tuning_history] == [0, 1, 2]


class BroadcastingTuneStrategy(LadderTuneStrategy):
    """Takes the master's best, as Neural Compressor's strategies do between two stages."""

    def distributed_next_tune_cfg_lst(self, comm: Any) -> Iterator[list[Any]]:
        first, second, *_ = rungs(self)
        yield [self.as_dict(first)]
        self.cur_best_tuning_cfg = comm.bcast(self.cur_best_tuning_cfg, root=0)
        self.cur_best_tuning_cfg = None
        yield [self.as_dict(second)]


def test_the_best_may_be_set_to_what_it_is(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, strategy=BroadcastingTuneStrategy)
    ended(strategy)
    assert strategy.best_config == rungs(strategy)[1]


def test_the_best_cannot_be_set_to_another(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path)
    other = strategy.as_dict(rungs(strategy)[0])
    with pytest.raises(AttributeError, match="is the most accurate configuration told and cannot be another; "):
        strategy.cur_best_tuning_cfg = other


@pytest.mark.parametrize(
    "name",
    [
        "baseline",
        "best_qmodel",
        "best_tune_result",
        "best_tuning_cfg",
        "capability",
        "cur_best_acc",
        "evaluation_result",
        "last_tune_cfg",
        "last_tune_result",
        "metric_met_point",
        "trials_count",
        "tuning_history",
        "tuning_times",
    ],
)
def test_what_follows_from_the_search_cannot_be_set_and_says_so(engine: Engine, tmp_path: Path, name: str) -> None:
    strategy = searching(engine, tmp_path)
    with pytest.raises(AttributeError, match=f"BasicTuneStrategy.{name} follows .* cannot be set; leave the"):
        setattr(strategy, name, None)
