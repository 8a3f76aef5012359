"""The basic strategy on a real model: one convolution and one linear, static: 16 + 2 + 1 trials."""

from pathlib import Path

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
