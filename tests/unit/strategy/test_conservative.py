"""The conservative strategy: from full precision, group by group, on a model with a convolution and four linears."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quantuner.api.errors import SearchError
from quantuner.api.journal import Outcome
from quantuner.space.config import TuneConfig
from quantuner.strategy import ConservativeTuneStrategy
from tests.unit.engine.models import Looked, engine_of, ids, seeded
from tests.unit.records import tuning
from tests.unit.strategy.judged import ended
from tests.unit.strategy.ruled import (
    OPS,
    STATIC,
    Rule,
    asked,
    fallbacks,
    fallen,
    needing,
    never,
    searched,
    searching,
    sets,
)


class Output(nn.Module):
    """What a recurrent layer gives, without its state."""

    def forward(self, given: tuple[torch.Tensor, object]) -> torch.Tensor:
        return given[0]


LINEAR = OPS[1:]
WITHOUT = {name: " ".join(other for other in OPS if other != name) for name in OPS}
"""Each op to all others."""


@pytest.mark.parametrize(
    ("rule", "expected", "best"),
    [
        pytest.param(needing(), sets(" ".join(LINEAR), ""), 2, id="convolutions, then with them the linears"),
        pytest.param(needing("stem"), sets(" ".join(LINEAR), "stem"), 2, id="a group that misses is reverted"),
        pytest.param(
            needing("blocks.0.b", "head"),
            sets(
                " ".join(LINEAR),
                "",  # the linears together miss: each is tried, in the order of the model
                "blocks.0.b blocks.1.a head",
                "blocks.1.a head",  # misses: blocks.0.b goes back
                "blocks.0.b head",
                "blocks.0.b",
            ),
            5,
            id="a group that misses is tried op by op, and what meets is kept",
        ),
        pytest.param(
            needing(*LINEAR),
            sets(" ".join(LINEAR), "", *(" ".join(o for o in LINEAR if o != name) for name in LINEAR)),
            1,
            id="the convolution alone can be quantized",
        ),
    ],
)
def test_what_meets_the_target_stays_quantized(rule: Rule, expected: list[frozenset[str]], best: int) -> None:
    strategy = searching(rule, "conservative")
    finished = ended(strategy)
    assert fallbacks(asked(strategy)) == expected
    assert (finished.outcome, finished.best, finished.accuracy) == (Outcome.TARGET_MET, best, 1.0)


def test_where_nothing_can_be_quantized_every_op_was_tried_and_the_most_accurate_is_reported() -> None:
    strategy = searching(needing(*OPS), "conservative")
    finished = ended(strategy)
    assert fallbacks(asked(strategy)) == sets(WITHOUT["stem"], "stem", *(WITHOUT[name] for name in LINEAR))
    assert (finished.outcome, finished.best, finished.accuracy) == (Outcome.EXHAUSTED, 1, 0.9)


def test_a_group_whose_trial_fails_is_reverted() -> None:
    def rule(config: TuneConfig) -> float | None:
        return None if "stem" not in fallen(config) else 1.0

    assert fallbacks(searched(rule, "conservative")) == sets(" ".join(LINEAR), "stem")


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_the_limit_of_trials_ends_it_although_successes_do_not(limit: int) -> None:
    strategy = searching(needing("blocks.0.b", "head"), "conservative", limits={"maxTrials": limit})
    finished = ended(strategy)
    assert (len(asked(strategy)), finished.outcome) == (limit, Outcome.MAX_TRIALS)


def test_where_lower_is_better_the_search_is_the_same() -> None:
    rule = needing("blocks.0.b", "head")

    def mirrored(config: TuneConfig) -> float:
        accuracy = rule(config)
        assert accuracy is not None
        return 2 - accuracy

    assert searched(mirrored, "conservative", accuracy={"higher_is_better": False}) == searched(rule, "conservative")


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        pytest.param(
            {"opNames": [{"pattern": "head", "activation": {"dtype": ["uint8"]}}]},
            sets(" ".join(LINEAR), ""),
            id="an op whose data type is named may fall back all the same",
        ),
        pytest.param(
            {"opTypes": [{"pattern": "Linear", "weight": {"dtype": ["fp32"]}}]},
            sets(" ".join(LINEAR)),
            id="a group that may not be quantized is none",
        ),
        pytest.param(
            {"recipes": {"firstConvOrMatmulQuantization": False, "lastConvOrMatmulQuantization": False}},
            sets("stem head"),
            id="ops that the user's recipes leave in fp32 are in no group",
        ),
    ],
)
def test_the_users_constraints_hold(quantization: Mapping[str, Any], expected: list[frozenset[str]]) -> None:
    assert fallbacks(searched(needing(), "conservative", quantization=quantization)) == expected


@pytest.mark.parametrize(
    ("approach", "short"), [("static", STATIC[0]), ("dynamic", "dynamic/asym/minmax"), ("auto", STATIC[0])]
)
def test_ops_get_their_default_with_the_first_calibration_size(approach: str, short: str) -> None:
    quantization = {"approach": approach, "calibrationSamplingSizes": [8, 64]}
    tried = searched(needing(), "conservative", quantization=quantization)
    assert {op.short() for op in tried[-1].values()} == {short}
    assert [config.calib_sampling_size for config in tried] == [8, 8]


def test_ops_of_no_other_group_are_the_last_one() -> None:
    strategy = ConservativeTuneStrategy(engine_of(seeded(Looked), loader=[ids()], eval_func=lambda _: 1.0), tuning())
    assert strategy.groups() == [["fc"], ["tokens"]]


@pytest.mark.parametrize(
    ("model", "data", "approach"),
    [
        pytest.param(nn.Sequential(nn.Embedding(10, 4)), ids(), "static", id="embeddings alone"),
        pytest.param(nn.Sequential(nn.LSTM(4, 4), Output()), torch.ones(2, 3, 4), "dynamic", id="an LSTM alone"),
    ],
)
def test_a_model_without_convolutions_and_linears_is_quantized(
    tmp_path: Path, model: nn.Module, data: torch.Tensor, approach: str
) -> None:
    engine = engine_of(model.eval(), loader=[data], eval_func=lambda _: 1.0, approach=approach)
    conf = tuning({"quantization": {"approach": approach}, "tuningCriterion": {"strategy": "conservative"}})
    strategy = ConservativeTuneStrategy(engine, conf)
    strategy.folder = tmp_path / "model"
    finished = ended(strategy)
    assert (finished.outcome, finished.best, strategy.trials_count) == (Outcome.TARGET_MET, 1, 1)
    assert strategy.winner_config is not None
    assert not fallen(strategy.winner_config)


def test_where_no_op_may_be_quantized_the_model_is_tried_as_it_is() -> None:
    quantization = {"opNames": [{"pattern": ".*", "weight": {"dtype": ["fp32"]}}]}
    assert fallbacks(searched(needing(*OPS), "conservative", quantization=quantization)) == sets(" ".join(OPS))


def test_it_reads_no_arguments() -> None:
    with pytest.raises(SearchError, match=r"ConservativeTuneStrategy reads no 'seed'; it reads none$"):
        searching(never, "conservative", kwargs={"seed": 1})
