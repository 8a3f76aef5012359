"""The mse_v2 strategy: one op more falls back at a time, then ops are given back, on a model of known sensitivity."""

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
    RANKED,
    STATIC,
    Rule,
    asked,
    fallbacks,
    fallen,
    heads,
    losing,
    needing,
    never,
    searched,
    searching,
    sets,
)


def test_two_by_type_then_ops_fall_back_together_the_most_sensitive_first() -> None:
    strategy = searching(never, "mse_v2")
    finished = ended(strategy)
    tried = asked(strategy)
    assert fallbacks(tried) == [frozenset(), frozenset(), *heads()]
    assert [config["head"].short() for config in tried[:2]] == [STATIC[0], STATIC[1]]
    assert finished.outcome is Outcome.EXHAUSTED


@pytest.mark.parametrize("first", [0, 1])
def test_a_success_by_type_ends_the_search(first: int) -> None:
    strategy = searching(lambda config: 1.0 if config["head"].short() == STATIC[first] else 0.5, "mse_v2")
    finished = ended(strategy)
    assert (finished.outcome, finished.best, len(asked(strategy))) == (Outcome.TARGET_MET, first + 1, first + 1)


def test_ops_of_equal_error_fall_back_in_the_order_of_the_model() -> None:
    tried = searched(never, "mse_v2", quantization=ONE_OPTION, data="zeros")
    assert fallbacks(tried) == [frozenset(), *heads(OPS)]


@pytest.mark.parametrize(
    ("kwargs", "first"),
    [
        pytest.param({"confidence_batches": 1}, RANKED[2], id="the first, in which two inputs are zero"),
        pytest.param({"confidence_batches": 2}, RANKED[0], id="both"),
        pytest.param({}, RANKED[0], id="by default both"),
    ],
)
def test_the_error_is_averaged_over_so_many_batches(kwargs: dict[str, Any], first: str) -> None:
    tried = searched(never, "mse_v2", quantization=ONE_OPTION, kwargs=kwargs, data="late", limits={"maxTrials": 2})
    assert fallbacks(tried) == sets("", first)


def test_fallback_starts_from_the_most_accurate_by_type() -> None:
    tried = searched(lambda config: 0.6 if config["stem"] == config["head"] else 0.5, "mse_v2", limits={"maxTrials": 3})
    assert tried[2] == tried[0].having({RANKED[0]: tried[2][RANKED[0]]})


def test_under_approach_auto_all_ops_are_dynamic_before_any_falls_back() -> None:
    tried = searched(never, "mse_v2", quantization={"approach": "auto"}, limits={"maxTrials": 4})
    modes = [{op.mode.value for op in config.values()} for config in tried]
    assert modes == [{"static"}, {"static"}, {"dynamic"}, {"dynamic", "fp32"}]


def test_each_calibration_size_is_searched_as_a_whole() -> None:
    """The very first configuration stays the best."""
    tried = searched(
        lambda config: 0.5 if fallen(config) or config.calib_sampling_size == 64 else 0.6,
        "mse_v2",
        quantization={**ONE_OPTION, "calibrationSamplingSizes": [8, 64]},
    )
    assert [config.calib_sampling_size for config in tried] == [8] * 6 + [64] * 6
    assert fallbacks(tried[:6]) == fallbacks(tried[6:])


@pytest.mark.parametrize("needed", [(), ("blocks.1.a",)], ids=["the default meets", "one op has to fall back"])
def test_with_a_time_limit_a_success_ends_a_size_and_the_next_is_searched(needed: tuple[str, ...]) -> None:
    sizes = {**ONE_OPTION, "calibrationSamplingSizes": [8, 64]}
    limits = {"timeoutSeconds": 1000}
    strategy = searching(needing(*needed), "mse_v2", quantization=sizes, limits=limits)
    finished = ended(strategy)
    without = searched(needing(*needed), "mse_v2", quantization=sizes)
    tried = asked(strategy)
    assert tried[: len(without)] == without
    assert {config.calib_sampling_size for config in without} == {8}
    assert [config.calib_sampling_size for config in tried[len(without) :]] == [64] * len(without)
    assert fallbacks(tried[len(without) :]) == fallbacks(without)
    assert finished.outcome is Outcome.TARGET_MET


# --- giving back

GIVEN_BACK: list[Any] = [
    pytest.param(needing(), sets(""), 1, id="the default meets: nothing falls back"),
    pytest.param(needing(RANKED[0]), sets("", RANKED[0]), 2, id="one op is all that fell back"),
    pytest.param(
        needing("blocks.1.a", "head"),
        # head fell back last and adds the least error, but without it was tried; blocks.0.a is next
        [*sets(""), *heads()[:3], *sets("blocks.1.a head", "head")],
        5,
        id="what is not needed is quantized again",
    ),
    pytest.param(
        needing("stem"),
        # each time the op of least error that was not tried before: head, then blocks.0.a, then blocks.1.a
        [*sets(""), *heads()[:4], *sets("blocks.1.a blocks.0.a stem", "blocks.1.a stem", "stem")],
        8,
        id="one after the other as long as the target is met",
    ),
    pytest.param(
        needing("blocks.1.a", "blocks.0.a", "head", "stem"),
        [*sets(""), *heads()[:4], *sets("blocks.1.a blocks.0.a stem")],
        5,
        id="the first that misses ends it",
    ),
]


@pytest.mark.parametrize(("rule", "expected", "best"), GIVEN_BACK)
def test_once_the_target_is_met_ops_are_given_back(rule: Rule, expected: list[frozenset[str]], best: int) -> None:
    strategy = searching(rule, "mse_v2", quantization=ONE_OPTION)
    finished = ended(strategy)
    assert fallbacks(asked(strategy)) == expected
    assert (finished.outcome, finished.best, finished.accuracy) == (Outcome.TARGET_MET, best, 1.0)


@pytest.mark.parametrize("limit", range(1, 9))
def test_the_limit_of_trials_ends_falling_back_and_giving_back(limit: int) -> None:
    """Of 8 trials the first 5 fall back, and the last of these meets; the others give back."""
    _, whole, _ = GIVEN_BACK[3].values
    strategy = searching(needing("stem"), "mse_v2", quantization=ONE_OPTION, limits={"maxTrials": limit})
    finished = ended(strategy)
    assert fallbacks(asked(strategy)) == whole[:limit]
    assert (finished.outcome, finished.best) == (Outcome.MAX_TRIALS, limit if limit >= 5 else 1)


def test_a_trial_that_fails_misses_the_target() -> None:
    def rule(config: TuneConfig) -> float | None:
        return None if len(fallen(config)) == 2 else needing("stem")(config)

    tried = searched(rule, "mse_v2", quantization=ONE_OPTION)
    assert fallbacks(tried) == [frozenset(), *heads()[:4], *sets("blocks.1.a blocks.0.a stem", "blocks.1.a stem")]


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        pytest.param(
            {"confidence_batch": 1}, "reads no 'confidence_batch' (did you mean confidence_batches?)", id="typo"
        ),
        pytest.param(
            {"seed": 1}, "MSE_V2TuneStrategy reads no 'seed'; it reads confidence_batches", id="of another one"
        ),
        *(
            pytest.param(
                {"confidence_batches": value},
                f"confidence_batches must be a whole number from 1, not {value!r}",
                id=name,
            )
            for value, name in ((0, "none"), (-1, "negative"), (1.5, "a fraction"), ("2", "text"), (True, "a switch"))
        ),
    ],
)
def test_arguments_that_make_no_sense_are_refused(kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(SearchError, match=re.escape(says)) as caught:
        searched(losing(stem=0.1), "mse_v2", quantization=ONE_OPTION, kwargs=kwargs)
    assert caught.value.reason == Failure.TASK_INVALID
