"""The hawq_v2 strategy: cumulative fallback by the curvature of the loss, on a model whose curvature is known."""

from typing import Any

import pytest

from quantuner.api.errors import SearchError
from quantuner.api.journal import Outcome
from tests.unit.strategy.judged import ended
from tests.unit.strategy.ruled import (
    ONE_OPTION,
    OPS,
    RANKED,
    Rule,
    asked,
    fallbacks,
    fallen,
    heads,
    losing,
    needing,
    never,
    of_the_head,
    searched,
    searching,
)

HEAD_FIRST = ("head", "stem", "blocks.0.a", "blocks.0.b", "blocks.1.a")


@pytest.mark.parametrize(
    ("kwargs", "ranking"),
    [
        pytest.param({}, RANKED, id="by default the loss that fits the targets"),
        pytest.param({"hawq_v2_loss": "mse"}, RANKED, id="a loss by its name"),
        pytest.param(
            {"hawq_v2_loss": of_the_head}, HEAD_FIRST, id="the user's function; ops it ignores as in the model"
        ),
        pytest.param(
            {"hawq_v2_loss": f"{of_the_head.__module__}:of_the_head"}, HEAD_FIRST, id="the user's function by its name"
        ),
        pytest.param({"seed": 7}, RANKED, id="another seed"),
    ],
)
def test_after_the_default_ever_more_ops_fall_back_the_highest_trace_first(kwargs: Any, ranking: Any) -> None:
    strategy = searching(never, "hawq_v2", kwargs=kwargs)
    finished = ended(strategy)
    assert fallbacks(asked(strategy)) == [frozenset(), *heads(ranking)]
    assert finished.outcome is Outcome.EXHAUSTED


def test_equal_traces_fall_back_in_the_order_of_the_model() -> None:
    assert fallbacks(searched(never, "hawq_v2", data="zeros")) == [frozenset(), *heads(OPS)]


def test_where_lower_is_better_the_order_is_the_same() -> None:
    tried = searched(lambda _: 2.0, "hawq_v2", accuracy={"higher_is_better": False})
    assert fallbacks(tried) == [frozenset(), *heads()]


def test_all_but_the_ops_that_fell_back_have_their_default() -> None:
    first, *others = searched(never, "hawq_v2")
    assert first == searching(never, "basic").start(100)
    for config in others:
        assert config == first.having({name: config[name] for name in fallen(config)})


def test_ops_that_may_not_fall_back_are_left_out() -> None:
    names = [
        {"pattern": RANKED[0], "activation": {"dtype": ["uint8", "bf16"]}},  # no fp32
        {"pattern": RANKED[1], "weight": {"dtype": ["fp32"]}},  # nothing else
    ]
    tried = searched(never, "hawq_v2", quantization={"opNames": names, "precisions": ["bf16", "fp32"]})
    off = frozenset({RANKED[1]})
    assert fallbacks(tried) == [off, *(off | head for head in heads(RANKED[2:]))]


def test_where_nothing_can_fall_back_the_loss_is_not_asked_for() -> None:
    asked_of = list[Any]()

    def loss(output: Any, target: Any) -> Any:
        asked_of.append(target)
        return of_the_head(output, target)

    all_fp32 = {"opTypes": [{"pattern": ".*", "weight": {"dtype": ["fp32"]}}]}
    tried = searched(never, "hawq_v2", quantization=all_fp32, kwargs={"hawq_v2_loss": loss})
    assert (fallbacks(tried), asked_of) == ([frozenset(OPS)], [])


def test_only_the_first_calibration_size_is_searched() -> None:
    tried = searched(never, "hawq_v2", quantization={**ONE_OPTION, "calibrationSamplingSizes": [8, 64]})
    assert [config.calib_sampling_size for config in tried] == [8] * 6


@pytest.mark.parametrize(
    ("rule", "best", "trials"),
    [
        pytest.param(needing(), 1, 1, id="the default meets"),
        pytest.param(needing("head"), 4, 4, id="the third op is the one"),
        pytest.param(needing(*OPS), 6, 6, id="none may be quantized"),
    ],
)
def test_the_first_that_meets_ends_the_search(rule: Rule, best: int, trials: int) -> None:
    strategy = searching(rule, "hawq_v2")
    finished = ended(strategy)
    assert (finished.outcome, finished.best, len(asked(strategy))) == (Outcome.TARGET_MET, best, trials)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        pytest.param({"hawq_loss": "mse"}, r"reads no 'hawq_loss' \(did you mean hawq_v2_loss\?\)", id="key"),
        pytest.param({"hawq_v2_loss": "msee"}, "hawq_v2_loss must be one of cross_entropy, mse, l1,", id="loss"),
    ],
)
def test_a_loss_that_is_not_there_is_refused(kwargs: Any, says: str) -> None:
    with pytest.raises(SearchError, match=says):
        searched(losing(stem=0.1), "hawq_v2", kwargs=kwargs)
