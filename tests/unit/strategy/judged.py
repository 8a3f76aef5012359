"""A real engine whose evaluation function each test chooses, and a search on it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from quantuner.api.journal import Finished, History, Trial
from quantuner.engine.engine import Engine
from quantuner.strategy import BasicTuneStrategy, TuneStrategy
from tests.unit.engine.models import Net, engine_of, images, seeded
from tests.unit.records import tuning

HELD_OUT = images(16, seed=2)
Rule = Callable[[Any], Any]

STATIC = ("static/asym/kl", "static/asym/minmax", "static/sym/kl", "static/sym/minmax")
UNTRIED = {"firstConvOrMatmulQuantization": True, "lastConvOrMatmulQuantization": True}
"""Settles the recipes: Net's ops are its first and its last, so that both recipes together leave nothing quantized."""
WHOLE = 19
"""Trials of a basic static search on Net that never meets its target: 16 by type, 2 alone, 1 accumulated."""


class Judge:
    """An evaluation function that asks the rule of the moment, counts its calls and keeps what it found."""

    def __init__(self) -> None:
        self.rule: Rule = closeness
        self.calls = 0
        self.values: list[Any] = []

    def __call__(self, model: Any) -> Any:
        self.calls += 1
        self.values.append(self.rule(model))
        return self.values[-1]


def closeness(model: Any) -> float:
    """1 for the fp32 model's outputs, less the farther away: no quantized configuration gives 1."""
    return 1.0 - distance(model)


def distance(model: Any) -> float:
    """0 for the fp32 model's outputs, more the farther away."""
    with torch.no_grad():
        return float((model(HELD_OUT) - FP32_OUTPUT).abs().mean())


with torch.no_grad():
    FP32_OUTPUT = seeded(Net)(HELD_OUT)


def is_quantized(model: Any) -> bool:
    return not isinstance(model, Net)


def judged_engine(approach: str = "static") -> tuple[Engine, Judge]:
    judge = Judge()
    engine = engine_of(seeded(Net), eval_func=judge, approach=approach)
    engine.calibrate()
    judge.calls = 0
    return engine, judge


def searching(
    engine: Engine,
    folder: Path,
    *,
    resume: History | None = None,
    accuracy: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    strategy: type[TuneStrategy] = BasicTuneStrategy,
    recipes: Mapping[str, Any] = UNTRIED,
) -> TuneStrategy:
    """A strategy ready to traverse; by default no configuration but fp32's meets, and no recipe is tried."""
    conf = tuning(
        {
            "quantization": {"approach": engine.quantization.approach, "recipes": dict(recipes)},
            "accuracyCriterion": {"tolerableLoss": 0, **(accuracy or {})},
            "tuningCriterion": {"strategy": "basic", **(limits or {})},
        }
    )
    made = strategy(engine, conf, resume=resume)
    made.folder = folder / "model"
    return made


def history_of(strategy: TuneStrategy) -> History:
    return strategy.recorder.history


def essence(trials: list[Trial]) -> list[tuple[int, str, float | None, bool, str]]:
    """What must be the same for any number of ranks and any interruption."""
    return [(t.index, t.digest, t.accuracy, t.meets, t.label) for t in trials]


def ended(strategy: TuneStrategy) -> Finished:
    finished = strategy.traverse()
    assert finished is not None
    assert finished.best is not None
    return finished
