"""The exhaustive strategy: the whole product over the ops, the last op fastest."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest

from quantuner.api.errors import SearchError
from quantuner.api.journal import Outcome
from quantuner.strategy import search
from tests.unit.strategy.judged import ended
from tests.unit.strategy.ruled import (
    ONE_OPTION,
    OPS,
    STATIC,
    asked,
    fallbacks,
    fallen,
    needing,
    never,
    searched,
    searching,
    sets,
)

PRODUCT = [
    frozenset(name for name, falls in zip(OPS, picked, strict=True) if falls)
    for picked in itertools.product((False, True), repeat=len(OPS))
]
"""Every set of ops in fp32, the last op switched fastest."""

TWO_OPTIONS = {"opTypes": [{"pattern": ".*", "activation": {"algorithm": ["kl"]}}]}
"""Leaves every op two schemes and fp32."""


def test_quantized_options_come_first_the_last_op_fastest() -> None:
    tried = searched(never, "exhaustive", limits={"maxTrials": 18})
    spelled = [tuple(config[name].short() for name in OPS) for config in tried]
    assert spelled == list(itertools.islice(itertools.product(STATIC, repeat=len(OPS)), 18))


def test_then_every_set_of_ops_falls_back_and_the_search_is_exhausted() -> None:
    strategy = searching(never, "exhaustive", quantization=ONE_OPTION)
    finished = ended(strategy)
    assert fallbacks(asked(strategy)) == PRODUCT
    assert finished.outcome is Outcome.EXHAUSTED


def test_both_are_repeated_for_every_calibration_size() -> None:
    quantization = {**ONE_OPTION, "calibrationSamplingSizes": [8, 64]}
    tried = searched(never, "exhaustive", quantization=quantization)
    assert [(config.calib_sampling_size, fallen(config)) for config in tried] == [
        *((size, frozenset[str]()) for size in (8, 64)),
        *((size, ops) for size in (8, 64) for ops in PRODUCT[1:]),
    ]


@pytest.mark.parametrize(
    ("quantization", "kept", "sets_tried"),
    [
        pytest.param({"recipes": {"firstConvOrMatmulQuantization": False}}, "stem", 16, id="a recipe that is off"),
        pytest.param({"opNames": [{"pattern": "head", "weight": {"dtype": ["fp32"]}}]}, "head", 16, id="an op name"),
    ],
)
def test_an_op_that_the_user_keeps_in_fp32_stays_there(
    quantization: Mapping[str, Any], kept: str, sets_tried: int
) -> None:
    tried = searched(never, "exhaustive", quantization={**ONE_OPTION, **quantization})
    assert len(set(fallbacks(tried))) == len(tried) == sets_tried
    assert all(kept in fallen(config) for config in tried)


@pytest.mark.parametrize(
    "held",
    [
        pytest.param({"recipes": {"lastConvOrMatmulQuantization": False}}, id="with an op that stays in fp32"),
        pytest.param(
            {"opNames": [{"pattern": r"blocks\..*|head", "activation": {"dtype": ["fp32"]}}]},
            id="behind ops that stay in fp32",
        ),
    ],
)
def test_it_does_not_end_before_the_last_set_however_many_options_come_before(
    held: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "REPEATS_LIMIT", 1)
    tried = searched(never, "exhaustive", quantization={**TWO_OPTIONS, **held}, limits={"maxTrials": 300})
    free = [3] * 4 if "recipes" in held else [3]
    assert len({config.digest for config in tried}) == len(tried) == math.prod(free)


@pytest.mark.parametrize(
    ("ops", "best"),
    [("", 1), ("head", 2), ("blocks.1.a head", 4), ("stem", 17), (" ".join(OPS), 32)],
    ids=["none", "the last op", "the last two", "the first op", "all"],
)
def test_the_first_that_meets_ends_the_search(ops: str, best: int) -> None:
    strategy = searching(needing(*ops.split()), "exhaustive", quantization=ONE_OPTION)
    finished = ended(strategy)
    assert (finished.outcome, finished.best, len(asked(strategy))) == (Outcome.TARGET_MET, best, best)
    assert fallbacks(asked(strategy)[-1:]) == sets(ops)


def test_it_reads_no_arguments() -> None:
    with pytest.raises(SearchError, match=r"ExhaustiveTuneStrategy reads no 'seed'; it reads none$"):
        searching(never, "exhaustive", kwargs={"seed": 1})
