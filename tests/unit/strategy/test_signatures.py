"""The surface of a strategy: every member with its parameters, every attribute with what it is at first, defaults."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest

from quantuner import Task
from quantuner.api.spec import Objective
from quantuner.config import PostTrainingQuantConfig, QuantizationAwareTrainingConfig
from quantuner.engine.engine import Engine
from quantuner.strategy import (
    AutoTuneStrategy,
    BasicTuneStrategy,
    TuneStrategy,
    strategies,
    strategy_class,
    strategy_registry,
)
from tests.unit.engine.models import Net, images, seeded
from tests.unit.records import tuning
from tests.unit.strategy.judged import FP32_OUTPUT, HELD_OUT, closeness

MEMBERS: dict[str, tuple[str, ...] | None] = {
    "evaluation_result": None,
    "next_tune_cfg": (),
    "distributed_next_tune_cfg_lst": ("comm",),
    "meet_acc_req": ("eval_res",),
    "master_worker_handle": ("comm",),
    "slave_worker_handle": ("comm",),
    "distributed_traverse": (),
    "apply_all_tuning_recipes": ("tune_cfg",),
    "apply_recipe_one_by_one": ("tune_cfg",),
    "set_param_for_pre_quantization_algos": ("algo_scheduler", "tune_cfg", "fp32_model"),
    "set_param_for_post_quantization_algos": ("algo_scheduler", "tune_cfg", "pre_optimized_model", "q_model"),
    "traverse": (),
    "initial_tuning_cfg": (),
    "show_baseline_info": (),
    "initial_best_acc": (),
    "set_tuning_space": ("conf",),
    "setup_resume": ("resume",),
    "set_q_func": (),
    "update_best_op_tuning_cfg": ("op_tuning_cfg",),
    "deploy_config": (),
    "stop": ("timeout", "trials_count"),
}
"""Member to its parameters; None is a property."""
CONSTRUCTOR = {
    "model": inspect.Parameter.empty,
    "conf": inspect.Parameter.empty,
    "q_dataloader": None,
    "q_func": None,
    "eval_dataloader": None,
    "eval_func": None,
    "resume": None,
    "q_hooks": None,
}
"""Parameter to its default, in this order."""
EVERY_STRATEGY = pytest.mark.parametrize("cls", [TuneStrategy, *map(strategy_class, strategies())])


def parameters_of(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(function).parameters.items() if name != "self"}


@pytest.mark.parametrize(("member", "parameters"), MEMBERS.items(), ids=MEMBERS)
def test_every_member_is_there_with_its_parameters_and_says_what_it_does(
    member: str, parameters: tuple[str, ...] | None
) -> None:
    found = inspect.getattr_static(TuneStrategy, member)
    assert isinstance(found, property) == (parameters is None)
    if parameters is not None:
        assert parameters_of(found) == dict.fromkeys(parameters, inspect.Parameter.empty)
    assert len((found.__doc__ or "").split()) > 4


@EVERY_STRATEGY
def test_every_strategy_is_called_in_the_same_way(cls: type[TuneStrategy]) -> None:
    for member, parameters in MEMBERS.items():
        if parameters is not None:
            assert tuple(parameters_of(getattr(cls, member))) == parameters
    assert parameters_of(cls.__init__) == {**CONSTRUCTOR, "eval_metric": None}


def test_the_registry_takes_a_class() -> None:
    assert list(inspect.signature(strategy_registry).parameters) == ["cls"]
    assert strategy_registry.__doc__


# --- attributes

MODEL, BATCHES = seeded(Net), [images()]


@pytest.fixture(scope="module")
def untold() -> TuneStrategy:
    """A strategy that was made from objects and has searched nothing."""
    return BasicTuneStrategy(MODEL, PostTrainingQuantConfig(domain="cv"), BATCHES, eval_func=closeness)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("model", MODEL),
        ("calib_dataloader", BATCHES),
        ("eval_func", closeness),
        ("eval_dataloader", None),
        ("eval_metric", None),
        ("q_func", None),
        ("q_hooks", {}),
        ("framework", "pytorch"),
        ("tune_data", {}),
        ("tuning_history", []),
        ("baseline", None),
        ("last_tune_result", None),
        ("last_tune_cfg", None),
        ("best_tune_result", None),
        ("best_tuning_cfg", None),
        ("best_qmodel", None),
        ("cur_best_acc", -math.inf),
        ("re_quant", False),
        ("trials_count", 0),
        ("tuning_times", 0),
        ("metric_met_point", 0),
        ("end", None),
        ("elapsed()", 0.0),
    ],
)
def test_before_the_search_every_attribute_has_its_first_value(
    untold: TuneStrategy, attribute: str, value: object
) -> None:
    found = getattr(untold, attribute.removesuffix("()"))
    assert (found() if attribute.endswith("()") else found) == value


def test_a_strategy_that_trains_holds_what_it_trains_with() -> None:
    hooks = {"on_train_begin": print}
    conf = QuantizationAwareTrainingConfig()
    trained = BasicTuneStrategy(MODEL, conf, BATCHES, q_func=print, eval_func=closeness, q_hooks=hooks)
    assert (trained.q_func, trained.q_hooks) == (print, hooks)


def test_a_strategy_holds_what_it_is_made_of(untold: TuneStrategy) -> None:
    assert isinstance(untold.engine, Engine)
    assert untold.algo_scheduler is untold.engine.scheduler
    assert untold.conf is untold.config
    assert untold.objectives.representation == ["performance"]
    assert set(untold.capability) == {"opwise", "optypewise", "recipes_ops"}
    assert (
        list(untold.capability["opwise"])
        == list(untold.tuning_space.op_items)
        == [("stem.0", "Conv2d"), ("head", "Linear")]
    )
    (static, fp32) = untold.capability["opwise"]["head", "Linear"]
    assert untold.capability["optypewise"]["Linear"] == [static, fp32]
    assert (static["activation"]["quant_mode"], fp32["activation"]["dtype"]) == ("static", "fp32")
    assert list(untold.cur_best_tuning_cfg) == [*untold.tuning_space.op_items, "calib_sampling_size", "recipe_cfgs"]


# --- defaults


@pytest.mark.parametrize(
    ("conf", "approach"),
    [(PostTrainingQuantConfig(), "static"), (QuantizationAwareTrainingConfig(), "qat")],
    ids=["post-training", "training"],
)
def test_a_configuration_that_says_nothing_searches_with_these(conf: Any, approach: str) -> None:
    q_func = print if approach == "qat" else None
    tuning = BasicTuneStrategy(MODEL, conf, BATCHES, q_func, eval_func=closeness).tuning
    quantization, criterion, accuracy = tuning.quantization, tuning.tuning_criterion, tuning.accuracy_criterion
    assert (quantization.approach, quantization.quant_level, tuning.strategy) == (approach, "auto", "auto")
    assert (quantization.calibration_sampling_sizes, quantization.recipes) == ((100,), {})
    assert (quantization.op_types, quantization.op_names, quantization.reduce_range) == ((), (), False)
    assert (criterion.timeout_seconds, criterion.max_trials) == (0, 100)
    assert criterion.objectives == (Objective("performance"),)
    assert (accuracy.criterion, accuracy.tolerable_loss, accuracy.higher_is_better) == ("relative", 0.01, True)


# --- what a strategy is made of, where it is given an engine, as a rank's main gives one

BY_METRIC: dict[str, Any] = {"eval_dataloader": [(HELD_OUT, FP32_OUTPUT)], "eval_metric": {"MSE": {}, "weight": [-1.0]}}
DATA = ("calib_dataloader", "eval_func", "eval_dataloader", "eval_metric")


@pytest.mark.parametrize("judged", [{"eval_func": closeness}, BY_METRIC], ids=["by a function", "by a metric"])
@pytest.mark.parametrize("cls", [BasicTuneStrategy, AutoTuneStrategy])
def test_a_strategy_on_an_engine_has_the_tasks_data(cls: type[TuneStrategy], judged: dict[str, Any]) -> None:
    task = Task(model=MODEL, calib_dataloader=BATCHES, **judged)
    strategy = cls(Engine(task, tuning({}).quantization, ("accuracy",)), tuning({}))
    for name in DATA:
        assert getattr(strategy, name) is getattr(task, name)


def test_phases_of_auto_have_what_it_was_made_of() -> None:
    made = AutoTuneStrategy(MODEL, PostTrainingQuantConfig(), BATCHES, **BY_METRIC)
    phase = made._phase(BasicTuneStrategy)
    assert [getattr(phase, name) for name in DATA] == [getattr(made, name) for name in DATA]
    assert phase.eval_func is None
