"""The bayesian strategy: seeded proposals that follow the accuracy, each made once."""

import re
from typing import Any

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import Outcome
from quantuner.space.config import TuneConfig
from tests.unit.strategy.judged import ended
from tests.unit.strategy.ruled import (
    ONE_OPTION,
    OPS,
    STATIC,
    asked,
    fallbacks,
    fallen,
    losing,
    needing,
    never,
    searched,
    searching,
)

LOSSES = dict(zip((*STATIC, "fp32"), (0.1, 0.02, 0.07, 0.05, 0.0), strict=True))
"""What each option of an op costs."""
STARTUP = 10
"""Trials that are drawn before there is anything to learn from."""


def additive(config: TuneConfig) -> float:
    """Every op costs what its option does; no configuration meets the criterion."""
    return 0.9 - sum(LOSSES[op.short()] for op in config.values())


def proposed(count: int, **more: Any) -> list[TuneConfig]:
    return searched(more.pop("rule", additive), "bayesian", limits={"maxTrials": count}, **more)


def test_the_seed_decides_what_is_proposed() -> None:
    assert proposed(14, kwargs={"seed": 1}) == proposed(14, kwargs={"seed": 1})
    assert proposed(4, kwargs={"seed": 1}) != proposed(4, kwargs={"seed": 2})


def test_proposals_follow_the_accuracy() -> None:
    """Half a batch of chance would not gain as much on average."""
    accuracies = [additive(config) for config in proposed(24, kwargs={"seed": 1})]
    drawn, learned = accuracies[:12], accuracies[12:]
    assert sum(learned) / len(learned) > sum(drawn) / len(drawn) + 0.1


def test_where_lower_is_better_the_search_is_the_mirror_image() -> None:
    upward = proposed(16, kwargs={"seed": 1})
    downward = proposed(
        16, kwargs={"seed": 1}, rule=lambda config: 2 - additive(config), accuracy={"higher_is_better": False}
    )
    assert downward == upward


def test_each_configuration_is_proposed_once_until_there_is_none_left() -> None:
    strategy = searching(losing(stem=0.1), "bayesian", quantization=ONE_OPTION)
    finished = ended(strategy)
    assert len(asked(strategy)) == len(set(fallbacks(asked(strategy)))) == 2 ** len(OPS)
    assert finished.outcome is Outcome.EXHAUSTED


def test_calibration_sizes_are_a_choice_like_others() -> None:
    quantization = {**ONE_OPTION, "calibrationSamplingSizes": [8, 64], "opNames": names_in_fp32(*OPS[1:])}
    tried = searched(never, "bayesian", quantization=quantization)
    assert {(config.calib_sampling_size, "stem" in fallen(config)) for config in tried} == {
        (8, False), (8, True), (64, False), (64, True)
    }  # fmt: skip
    assert len(tried) == 4


def names_in_fp32(*names: str) -> list[dict[str, Any]]:
    return [{"pattern": name, "weight": {"dtype": ["fp32"]}} for name in names]


@pytest.mark.parametrize(("batch_size", "alike"), [(1, STARTUP), (2, STARTUP), (STARTUP + 2, STARTUP + 2)])
def test_a_batch_is_proposed_before_any_of_it_is_told(batch_size: int, alike: int) -> None:
    """So that ranks can share it: what its trials give has no influence on the rest of it."""
    kwargs = {"seed": 1, "batch_size": batch_size}
    given = proposed(STARTUP + 2, kwargs=kwargs)
    other = proposed(STARTUP + 2, kwargs=kwargs, rule=lambda config: -additive(config))
    assert given[:alike] == other[:alike]
    assert (given == other) == (alike == STARTUP + 2)


def test_nothing_is_learned_from_a_trial_that_failed_and_it_is_not_proposed_again() -> None:
    def rule(config: TuneConfig) -> float | None:
        return None if "head" in fallen(config) else additive(config)

    tried = searched(rule, "bayesian", quantization=ONE_OPTION, kwargs={"seed": 1})
    assert len(tried) == len(set(fallbacks(tried))) == 2 ** len(OPS)


def test_the_first_that_meets_ends_the_search() -> None:
    strategy = searching(needing("stem", "head"), "bayesian", quantization=ONE_OPTION, kwargs={"seed": 1})
    finished = ended(strategy)
    tried = asked(strategy)
    assert (finished.outcome, finished.best) == (Outcome.TARGET_MET, len(tried))
    assert [{"stem", "head"} <= ops for ops in fallbacks(tried)] == [*[False] * (len(tried) - 1), True]


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        pytest.param(
            {"batchsize": 1}, "reads no 'batchsize' (did you mean batch_size?); it reads seed, batch_size", id="typo"
        ),
        pytest.param({"batch_size": 0}, "batch_size must be a whole number from 1, not 0", id="a batch of none"),
        pytest.param({"batch_size": 2.5}, "batch_size must be a whole number from 1, not 2.5", id="a fraction"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(SearchError, match=re.escape(says)) as caught:
        proposed(4, kwargs=kwargs)
    assert caught.value.reason == Failure.TASK_INVALID
