"""The basic strategy on a real model: one convolution and one linear, static: 16 + 2 + 1 trials."""

from pathlib import Path
from typing import Any

import pytest

from quantuner.api.journal import Outcome
from quantuner.engine.engine import Engine
from tests.unit.strategy.judged import (
    STATIC,
    WHOLE,
    Judge,
    distance,
    ended,
    history_of,
    is_quantized,
    judged_engine,
    searching,
)
from tests.unit.strategy.ruled import (
    ONE_OPTION,
    UNTRIED,
    fallbacks,
    fallen,
    heads,
    losing,
    never,
    searched,
    sets,
)


def test_the_stages_in_order(engine: Engine, tmp_path: Path) -> None:
    strategy = searching(engine, tmp_path)
    finished = ended(strategy)
    trials = history_of(strategy).trials
    by_type = [f"Conv2d {conv}, Linear {linear}" for conv in STATIC for linear in STATIC]
    assert [t.label for t in trials] == [
        "fp32 baseline",
        *by_type,
        *(t.label for t in trials[17:]),
    ]
    assert len(trials) == WHOLE + 1
    assert finished.outcome is Outcome.EXHAUSTED
    accuracies = [t.accuracy for t in trials[1:] if t.accuracy is not None]
    assert finished.accuracy == max(accuracies)


def test_fallback_starts_from_the_best_so_far_and_ties_go_to_the_later(
    engine: Engine, judge: Judge, tmp_path: Path
) -> None:
    judge.rule = lambda model: 0.5 if is_quantized(model) else 1.0
    strategy = searching(engine, tmp_path)
    finished = ended(strategy)
    labels = [t.label for t in history_of(strategy).trials[16:]]
    last = STATIC[-1]
    assert labels == [
        f"Conv2d {last}, Linear {last}",
        f"Conv2d {last}, Linear fp32",
        f"Conv2d fp32, Linear {last}",
        "Conv2d fp32, Linear fp32",
    ]
    assert strategy.best_config.label(engine.types, 60) == "Conv2d fp32, Linear fp32"
    assert finished.best == 1  # in the record a tie goes to the earlier


def test_ops_whose_fallback_failed_are_not_accumulated(engine: Engine, judge: Judge, tmp_path: Path) -> None:
    def rule(model: object) -> float:
        if judge.calls == 1 + 17:  # the baseline, then trial 17: the linear alone
            raise ValueError("no")
        return 0.5 if is_quantized(model) else 1.0

    judge.rule = rule
    strategy = searching(engine, tmp_path)
    ended(strategy)
    assert len(history_of(strategy).tried) == WHOLE - 1
    assert history_of(strategy).trials[17].error.endswith("ValueError: no")


def test_dynamic_has_one_configuration_before_fallback(tmp_path: Path) -> None:
    engine, _ = judged_engine("dynamic")
    strategy = searching(engine, tmp_path)
    ended(strategy)
    assert history_of(strategy).trials[1].label == "Conv2d dynamic/asym/minmax, Linear dynamic/asym/minmax"
    assert len(history_of(strategy).tried) == 1 + 2 + 1


def test_auto_tries_dynamic_after_static(tmp_path: Path) -> None:
    engine, judge = judged_engine("auto")
    judge.rule = lambda model: 0.5 if is_quantized(model) else 1.0
    strategy = searching(engine, tmp_path)
    ended(strategy)
    labels = [t.label for t in history_of(strategy).tried]
    assert labels[16] == "Conv2d dynamic/asym/minmax, Linear dynamic/asym/minmax"
    assert labels[17] == "Conv2d dynamic/asym/minmax, Linear fp32"  # a tie: the later is the base
    assert len(labels) == 16 + 1 + 2 + 1


@pytest.mark.parametrize("meets_from", [1, 6, 17, 19])
def test_the_first_that_meets_the_target_wins(engine: Engine, judge: Judge, tmp_path: Path, meets_from: int) -> None:
    judge.rule = lambda model: 1.0 if not is_quantized(model) or judge.calls > meets_from else 0.5
    strategy = searching(engine, tmp_path)
    finished = ended(strategy)
    assert (finished.outcome, finished.best) == (Outcome.TARGET_MET, meets_from)
    assert [t.index for t in history_of(strategy).trials if t.meets] == [meets_from]
    assert len(history_of(strategy).tried) == meets_from
    assert judge.calls == 1 + meets_from + 1  # baseline, trials, and the saved model


def test_where_lower_is_better_the_search_is_the_mirror_image(engine: Engine, judge: Judge, tmp_path: Path) -> None:
    upward = searching(engine, tmp_path)
    ended(upward)
    judge.rule = distance
    downward = searching(engine, tmp_path, accuracy={"higherIsBetter": False})
    finished = ended(downward)
    assert [t.digest for t in history_of(downward).trials] == [t.digest for t in history_of(upward).trials]
    assert finished.best == min((t for t in history_of(downward).tried), key=lambda t: (t.accuracy, t.index)).index


# --- what each stage asks for, on a model of five ops (`ruled.py`)


def test_between_the_first_and_the_second_by_type_all_tuned_recipes_are_tried() -> None:
    tried = searched(never, "basic", limits={"maxTrials": 4})
    assert fallbacks(tried) == sets("", "stem head", "", "")
    assert [(config["stem"].short(), config["blocks.0.a"].short()) for config in tried] == [
        (STATIC[0], STATIC[0]),
        ("fp32", STATIC[0]),
        (STATIC[0], STATIC[1]),
        (STATIC[0], STATIC[2]),
    ]


@pytest.mark.parametrize(
    ("recipes", "expected"),
    [
        pytest.param({}, sets("", "stem head", "stem", "head"), id="both are open"),
        pytest.param({"lastConvOrMatmulQuantization": True}, sets("", "stem"), id="the last is settled"),
        pytest.param(UNTRIED["recipes"], sets(""), id="both are settled"),
        pytest.param(
            {"lastConvOrMatmulQuantization": False}, sets("head", "stem head"), id="the last stays in fp32 throughout"
        ),
    ],
)
def test_recipes_are_tried_together_and_then_one_by_one(recipes: Any, expected: list[frozenset[str]]) -> None:
    """The default is the most accurate, so that what follows starts from it."""
    default = expected[0]
    tried = searched(
        lambda config: 0.6 if fallen(config) == default else 0.5,
        "basic",
        quantization={**ONE_OPTION, "recipes": recipes},
        limits={"maxTrials": len(expected)},
    )
    assert fallbacks(tried) == expected


def test_smooth_quants_alphas_come_first_and_the_best_stays() -> None:
    recipes = {"smoothQuant": True, "smoothQuantArgs": {"alphas": [0.2, 0.8, 0.5]}, **UNTRIED["recipes"]}
    tried = searched(
        lambda config: 0.6 if config.recipes["smooth_quant_args"]["alpha"] == 0.8 else 0.5,
        "basic",
        quantization={"recipes": recipes},
        limits={"maxTrials": 6},
    )
    assert [config.recipes["smooth_quant_args"]["alpha"] for config in tried] == [0.2, 0.8, 0.5, 0.8, 0.8, 0.8]
    assert [config["head"].short() for config in tried] == [*[STATIC[0]] * 3, *STATIC[1:]]


def test_fallback_goes_by_block_then_alone_from_the_output_side_then_together_the_most_accurate_first() -> None:
    rule = losing(stem=0.3, blocks_0_b=0.2, head=0.1, blocks_1_a=0.05, blocks_0_a=0.01)
    tried = searched(rule, "basic", quantization={**ONE_OPTION, **UNTRIED})
    assert fallbacks(tried) == sets(
        "",
        "blocks.1.a",
        "blocks.1.a blocks.0.b blocks.0.a",
        "head",  # blocks.1.a alone was tried as a block
        "blocks.0.b",
        "blocks.0.a",
        "stem",
        "stem blocks.0.b",
        "stem blocks.0.b head",
        "stem blocks.0.b head blocks.1.a",
        "stem blocks.0.b head blocks.1.a blocks.0.a",
    )


def test_equal_accuracies_are_accumulated_from_the_output_side() -> None:
    tried = searched(lambda config: 0.5 if fallen(config) else 0.6, "basic", quantization={**ONE_OPTION, **UNTRIED})
    assert fallbacks(tried[-4:]) == heads(("head", "blocks.1.a", "blocks.0.b", "blocks.0.a", "stem"))[1:]


def test_the_whole_search_is_repeated_for_each_calibration_size_but_the_recipes_together() -> None:
    """The very first configuration stays the best."""
    tried = searched(
        lambda config: 0.5 if fallen(config) or config.calib_sampling_size == 64 else 0.6,
        "basic",
        quantization={**ONE_OPTION, "calibrationSamplingSizes": [8, 64]},
    )
    eight, more = ([fallen(config) for config in tried if config.calib_sampling_size == size] for size in (8, 64))
    assert [config.calib_sampling_size for config in tried] == [8] * len(eight) + [64] * len(more)
    assert eight[:4] == sets("", "stem head", "stem", "head")
    assert more == [ops for ops in eight if ops != {"stem", "head"}]
