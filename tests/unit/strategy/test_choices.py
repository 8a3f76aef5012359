"""The space as independent choices: how many there are of what, and the configuration of a choice."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from quantuner.engine.engine import Engine
from quantuner.space.config import FP32
from quantuner.strategy import RandomTuneStrategy, TuneStrategy
from quantuner.strategy.choices import SIZE, Choices
from tests.unit.engine.models import Net, images, seeded
from tests.unit.records import tuning
from tests.unit.strategy.judged import STATIC, closeness, searching

FIRST_OFF = {"firstConvOrMatmulQuantization": False}
CONV, LINEAR = "stem.0", "head"


def strategy_on(quantization: Mapping[str, Any]) -> TuneStrategy:
    conf = tuning({"quantization": dict(quantization), "tuningCriterion": {"strategy": "random"}})
    return RandomTuneStrategy(seeded(Net), conf, [images()], eval_func=closeness)


@pytest.mark.parametrize(
    ("quantization", "dimensions"),
    [
        pytest.param({}, {CONV: 5, LINEAR: 5}, id="static: four options, and fp32"),
        pytest.param({"approach": "dynamic"}, {CONV: 2, LINEAR: 2}, id="dynamic: one option, and fp32"),
        pytest.param({"calibrationSamplingSizes": [4, 8]}, {CONV: 5, LINEAR: 5, SIZE: 2}, id="two sizes"),
        pytest.param({"recipes": FIRST_OFF}, {LINEAR: 5}, id="an op that a recipe leaves in fp32 is no choice"),
        pytest.param(
            {"opTypes": [{"pattern": "Linear", "activation": {"dtype": ["fp32"]}}]},
            {CONV: 5},
            id="nor one held in fp32",
        ),
        pytest.param(
            {"opTypes": [{"pattern": ".*", "activation": {"dtype": ["fp32"]}}]}, {}, id="a space without any choice"
        ),
    ],
)
def test_every_choice_is_there_with_its_options(quantization: dict[str, Any], dimensions: dict[str, int]) -> None:
    strategy = strategy_on(quantization)
    choices = Choices(strategy)
    assert choices.dimensions == dimensions
    every = [dict(zip(dimensions, p, strict=True)) for p in itertools.product(*map(range, dimensions.values()))]
    configs = [choices.config(picked) for picked in every]
    assert len({config.digest for config in configs}) == len(every) == choices.count


@pytest.mark.parametrize(("index", "option"), [*enumerate(STATIC), pytest.param(4, "fp32", id="fp32 is the last")])
def test_an_index_is_an_option_in_the_order_of_the_search(
    engine: Engine, tmp_path: Path, index: int, option: str
) -> None:
    config = Choices(searching(engine, tmp_path)).config({CONV: 0, LINEAR: index})
    assert {name: op.short() for name, op in config.items()} == {CONV: STATIC[0], LINEAR: option}


def test_a_choice_keeps_the_users_recipes_and_names_its_size() -> None:
    recipes = {**FIRST_OFF, "weightCorrection": True}
    strategy = strategy_on({"calibrationSamplingSizes": [4, 8], "recipes": recipes})
    config = Choices(strategy).config({LINEAR: 0, SIZE: 1})
    assert (config.calib_sampling_size, config.recipes) == (8, {"weight_correction": True})
    assert config[CONV] == FP32
