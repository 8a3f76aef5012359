"""What a strategy sets up for its trials: recipes, algorithms, training, the space; each in a real search."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from quantuner.api.errors import SearchError
from quantuner.config import PostTrainingQuantConfig, QuantizationAwareTrainingConfig, TuningCriterion
from quantuner.engine.engine import Engine
from quantuner.engine.recipes.scheduler import AlgorithmScheduler
from quantuner.engine.sums import scale_before_sums
from quantuner.space.config import FP32, TuneConfig
from quantuner.strategy import BasicTuneStrategy, RandomTuneStrategy, TuneStrategy
from tests.unit.engine.models import Net, images, seeded
from tests.unit.records import tuning
from tests.unit.strategy.judged import (
    STATIC,
    closeness,
    ended,
    history_of,
    judged_engine,
    searching,
)
from tests.unit.strategy.ranked import LadderTuneStrategy, rungs


def recipes_of(config: TuneConfig) -> str:
    """The alpha of smooth quant, and the ops in fp32."""
    alpha = config.recipes.get("smooth_quant_args", {}).get("alpha", "")
    return " ".join(filter(None, [str(alpha), *(name for name, op in config.items() if op == FP32)]))


# --- recipes


def test_apply_all_tuning_recipes_gives_the_second_trial_of_basic(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, recipes={}, limits={"maxTrials": 2})
    ended(strategy)
    first, second = history_of(strategy).tried
    default = strategy.start(100)
    applied = strategy.apply_all_tuning_recipes(default)
    assert (first.digest, second.digest) == (default.digest, applied.digest)
    assert recipes_of(applied) == "stem.0 head"
    body = strategy.as_dict(default)
    said = {"first_conv_or_matmul_quantization": False, "last_conv_or_matmul_quantization": False}
    assert strategy.apply_all_tuning_recipes(body) == {**strategy.as_dict(applied), "recipe_cfgs": said}
    assert strategy.as_config(strategy.apply_all_tuning_recipes(body)) == applied
    assert body == strategy.as_dict(default)  # the argument is not changed


class RecipesTuneStrategy(TuneStrategy):
    """The default, then every recipe alone."""

    def next_tune_cfg(self) -> Iterator[Any]:
        default = self.cur_best_tuning_cfg
        yield default
        yield from self.apply_recipe_one_by_one(default)


@pytest.mark.parametrize(
    ("recipes", "tried"),
    [
        pytest.param({}, ["", "stem.0", "head"], id="the first op, then the last"),
        pytest.param({"lastConvOrMatmulQuantization": True}, ["", "stem.0"], id="one is settled"),
        pytest.param(
            {"smoothQuant": True, "smoothQuantArgs": {"alphas": [0.25, 0.75]}, "firstConvOrMatmulQuantization": False},
            ["0.25 stem.0", "0.75 stem.0", "0.25 stem.0 head"],
            id="alphas, then the last op",
        ),
    ],
)
def test_apply_recipe_one_by_one_gives_a_configuration_for_every_recipe_to_try(
    engine: Engine, tmp_path: Path, recipes: dict[str, Any], tried: list[str]
) -> None:
    strategy = searching(engine, tmp_path, strategy=RecipesTuneStrategy, recipes=recipes)
    ended(strategy)
    default = strategy.start(100)
    by_digest = {config.digest: config for config in (default, *strategy.apply_recipe_one_by_one(default))}
    assert list(by_digest) == [trial.digest for trial in history_of(strategy).tried]
    assert [recipes_of(config) for config in by_digest.values()] == tried


# --- algorithms


def run(model: Any) -> torch.Tensor:
    """Outputs `(8, 3)` for the calibration data."""
    with torch.no_grad():
        output: torch.Tensor = model(images())
    return output


def test_set_param_for_pre_quantization_algos_schedules_smooth_quant_on_the_model_given(
    engine: Engine, tmp_path: Path
) -> None:
    strategy = searching(engine, tmp_path)
    scheduler, graph = AlgorithmScheduler(), engine.captured.graph
    plain = strategy.start(100)
    for config, names in ((plain, []), (plain.with_recipes({"smooth_quant": True}), ["SmoothQuant"])):
        for form in (strategy.as_dict(config), config):
            strategy.set_param_for_pre_quantization_algos(scheduler, form, graph)
            assert [type(algorithm).__name__ for algorithm in scheduler.algorithms] == names
    smoothed = scheduler()
    assert smoothed is not graph
    assert torch.allclose(run(smoothed), run(graph), atol=1e-5)


def test_set_param_for_post_quantization_algos_schedules_the_corrections_on_the_model_given(
    engine: Engine, tmp_path: Path
) -> None:
    strategy = searching(engine, tmp_path)
    config = strategy.start(100)
    scheduler, graph = AlgorithmScheduler(), engine.captured.graph
    quantized = scale_before_sums(engine.quantized(config))  # corrections come before the scales move
    bias = config.with_recipes({"fast_bias_correction": True})
    both = bias.with_recipes({"weight_correction": True})
    for tried, names in (
        (config, []),
        (both, ["FastBiasCorrection", "WeightCorrection"]),
        (bias, ["FastBiasCorrection"]),
    ):
        for form in (strategy.as_dict(tried), tried):
            strategy.set_param_for_post_quantization_algos(scheduler, form, graph, quantized)
            assert [type(algorithm).__name__ for algorithm in scheduler.algorithms] == names
    wanted = run(graph).mean(0)
    assert torch.allclose(run(scheduler()).mean(0), wanted, atol=1e-5)
    assert not torch.allclose(run(quantized).mean(0), wanted, atol=1e-5)


def shifted(origin_model: Any, q_model: Any, batches: Any) -> Any:
    """An algorithm of one's own: adds 8 to the model's output."""
    model = copy.deepcopy(q_model)
    end = model.graph.output_node()
    with model.graph.inserting_before(end):
        end.args = ((model.graph.call_function(torch.ops.aten.add.Tensor, (end.args[0][0], 8.0)),),)
    model.recompile()
    return model


class AlgorithmsTuneStrategy(LadderTuneStrategy):
    """Writes down for which trials it is asked for algorithms, and makes every quantized model worse."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.before: list[TuneConfig] = []
        self.after: list[TuneConfig] = []

    def set_param_for_pre_quantization_algos(self, algo_scheduler: Any, tune_cfg: TuneConfig, fp32_model: Any) -> None:
        super().set_param_for_pre_quantization_algos(algo_scheduler, tune_cfg, fp32_model)
        self.before.append(tune_cfg)

    def set_param_for_post_quantization_algos(
        self, algo_scheduler: Any, tune_cfg: TuneConfig, pre_optimized_model: Any, q_model: Any
    ) -> None:
        super().set_param_for_post_quantization_algos(algo_scheduler, tune_cfg, pre_optimized_model, q_model)
        algo_scheduler.append_algorithm(shifted)
        self.after.append(tune_cfg)


def test_a_strategy_may_append_algorithms_of_its_own_to_every_trial(engine: Engine, tmp_path: Path) -> None:
    plain = searching(engine, tmp_path, strategy=LadderTuneStrategy)
    ended(plain)
    strategy = searching(engine, tmp_path, strategy=AlgorithmsTuneStrategy)
    finished = ended(strategy)
    assert isinstance(strategy, AlgorithmsTuneStrategy)
    saved = rungs(strategy)[(finished.best or 0) - 1]
    assert strategy.after == [*rungs(strategy), saved]
    assert {config.digest for config in strategy.before} == {config.digest for config in rungs(strategy)}
    for worse, trial in zip(history_of(strategy).tried, history_of(plain).tried, strict=True):
        assert worse.accuracy == pytest.approx((trial.accuracy or 0) - 8.0, abs=0.01)


# --- training


def trained(folder: Path, q_func: Any, **more: Any) -> TuneStrategy:
    """A search of quantization-aware training on Net."""
    conf = QuantizationAwareTrainingConfig()
    conf.tuning_criterion.max_trials = 2
    conf.accuracy_criterion.tolerable_loss = 0.0
    strategy = BasicTuneStrategy(seeded(Net), conf, [images()], q_func, eval_func=closeness, **more)
    strategy.folder = folder / "model"
    return strategy


def test_set_q_func_has_every_trial_trained_between_its_hooks(tmp_path: Path) -> None:
    calls: list[str] = []

    def train(model: Any) -> None:
        calls.append("train")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
        (model(images()) ** 2).mean().backward()
        optimizer.step()

    hooks = {"on_train_begin": lambda _: calls.append("begin"), "on_train_end": lambda _: calls.append("end")}
    untrained = trained(tmp_path, lambda _: None)
    ended(untrained)
    strategy = trained(tmp_path, train, q_hooks=hooks)
    ended(strategy)
    assert calls == ["begin", "train", "end"] * 2  # two trials; the saved model is the one of its trial
    for one, other in zip(history_of(strategy).tried, history_of(untrained).tried, strict=True):
        assert one.digest == other.digest
        assert one.accuracy != other.accuracy


@pytest.mark.parametrize(
    ("conf", "q_func", "says"),
    [
        pytest.param(
            QuantizationAwareTrainingConfig(), None, "training needs a training function; give q_func", id="none"
        ),
        pytest.param(
            PostTrainingQuantConfig(), print, "q_func trains the model, but the approach is static", id="unused"
        ),
        pytest.param(None, None, "conf must be a PostTrainingQuantConfig", id="no configuration"),
    ],
)
def test_set_q_func_refuses_a_function_that_is_missing_or_unused(conf: Any, q_func: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        BasicTuneStrategy(seeded(Net), conf, [images()], q_func, eval_func=closeness)


# --- the space


@pytest.mark.parametrize("approach", ["static", "dynamic", "auto"])
def test_initial_tuning_cfg_is_the_first_trial(tmp_path: Path, approach: str) -> None:
    strategy = searching(judged_engine(approach)[0], tmp_path, limits={"maxTrials": 1})
    modes, items, configs = strategy.initial_tuning_cfg()
    first = "dynamic" if approach == "dynamic" else "static"
    ops = [("stem.0", "Conv2d"), ("head", "Linear")]
    assert list(modes.items()) == [(op, first) for op in ops]
    assert {mode: [item.name for item in claimed] for mode, claimed in items.items() if claimed} == {first: ops}
    assert items["bf16"] == items["fp32"] == []  # as Neural Compressor's own strategies read them
    ended(strategy)
    assert strategy.as_config(configs).digest == history_of(strategy).trials[1].digest


MINMAX = {"Linear": {"activation": {"scheme": ["asym"], "algorithm": ["minmax"]}}}


def test_set_tuning_space_replaces_constraints_and_recipes(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path)
    recipes = {"first_conv_or_matmul_quantization": True, "last_conv_or_matmul_quantization": True}
    strategy.set_tuning_space(PostTrainingQuantConfig(op_type_dict=MINMAX, recipes=recipes))
    ended(strategy)
    labels = [trial.label for trial in history_of(strategy).tried]
    assert labels[:4] == [f"Conv2d {conv}, Linear static/asym/minmax" for conv in STATIC]
    assert len(labels) == 4 + 2 + 1
    with pytest.raises(SearchError, match=r"the pattern 'Conv9d' matches none"):
        strategy.set_tuning_space(PostTrainingQuantConfig(op_type_dict={"Conv9d": MINMAX["Linear"]}))


@pytest.mark.parametrize("sizes", [(100,), (32, 64)], ids=["the default", "others"])
def test_another_tuning_space_keeps_the_sizes_that_ranges_are_made_for(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    own, other = PostTrainingQuantConfig(calibration_sampling_size=[4, 8]), PostTrainingQuantConfig(op_type_dict=MINMAX)
    other.calibration_sampling_size = sizes
    other.tuning_criterion = own.tuning_criterion = TuningCriterion("random", max_trials=2)
    strategy = RandomTuneStrategy(seeded(Net), own, [images()], eval_func=closeness)
    strategy.set_tuning_space(other)
    assert strategy.tuning_space.calib_sampling_sizes == (4, 8)
    assert strategy.best_config == strategy.start(4)
    assert strategy.best_config["head"].short() == "static/asym/minmax"
    strategy.folder = tmp_path / "model"
    assert ended(strategy).best == 1


class NarrowTuneStrategy(BasicTuneStrategy):
    """Holds the last op in fp32."""

    def set_tuning_space(self, conf: Any) -> None:
        super().set_tuning_space(
            tuning({"quantization": {"opTypes": [{"pattern": "Linear", "activation": {"dtype": ["fp32"]}}]}})
        )


def test_a_strategy_may_make_its_tuning_space_itself(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path, strategy=NarrowTuneStrategy)
    assert strategy.capability["opwise"]["head", "Linear"] == [
        {"activation": {"dtype": "fp32"}, "weight": {"dtype": "fp32"}}
    ]
    ended(strategy)
    assert {trial.label.split("Linear ")[1] for trial in history_of(strategy).tried} == {"fp32"}
