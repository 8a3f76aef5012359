"""The tpe strategy: a loss of accuracy and modelled speed, and seeded proposals that lower it."""

import math
from typing import Any

import pytest

from quantuner.api.errors import SearchError
from quantuner.api.journal import Outcome
from quantuner.api.spec import AccuracyCriterion
from quantuner.space.config import TuneConfig
from quantuner.strategy.tpe import PENALTY, Loss
from tests.unit.strategy.judged import ended
from tests.unit.strategy.ruled import (
    ONE_OPTION,
    OPS,
    asked,
    fallbacks,
    fallen,
    losing,
    needing,
    never,
    searched,
    searching,
)

ONE_PERCENT = AccuracyCriterion(tolerable_loss=0.005)
LOWER = AccuracyCriterion(tolerable_loss=0.005, higher_is_better=False)
ANY = {"tolerable_loss": 0.9}
LONG = {"timeoutSeconds": 1000}
"""No success ends the search: with a time limit it goes on for a faster one."""


# --- the loss


@pytest.mark.parametrize(
    ("criterion", "accuracy", "baseline", "cost", "loss"),
    [
        pytest.param(ONE_PERCENT, 0.8, 0.8, 1.0, 10.0, id="as fast as fp32"),
        pytest.param(ONE_PERCENT, 0.8, 0.8, 0.5, 0.0, id="twice as fast"),
        pytest.param(ONE_PERCENT, 0.8, 0.8, 0.25, -10.0, id="four times as fast"),
        pytest.param(ONE_PERCENT, 0.9, 0.8, 0.5, 0.0, id="more accurate than fp32 is no better than as accurate"),
        pytest.param(ONE_PERCENT, 0.796, 0.8, 0.5, 0.0, id="a loss on the target costs nothing"),
        pytest.param(ONE_PERCENT, 0.792, 0.8, 0.5, PENALTY + 10, id="one of a percent misses it"),
        pytest.param(ONE_PERCENT, 0.792, 0.8, 0.25, PENALTY, id="speed makes up for a percent, not for the penalty"),
        pytest.param(LOWER, 0.796, 0.8, 0.5, 0.0, id="where lower is better less is no loss"),
        pytest.param(LOWER, 0.808, 0.8, 0.5, PENALTY + 10, id="where lower is better more is"),
        pytest.param(ONE_PERCENT, -0.808, -0.8, 0.5, PENALTY + 10, id="a negative baseline"),
        pytest.param(ONE_PERCENT, -0.01, 0.0, 0.5, PENALTY + 10, id="from a baseline of 0 the loss itself counts"),
    ],
)
def test_the_loss_grows_with_latency_and_with_an_accuracy_below_the_target(
    criterion: AccuracyCriterion, accuracy: float, baseline: float, cost: float, loss: float
) -> None:
    assert math.isclose(Loss(criterion)(accuracy, baseline, cost), loss, rel_tol=1e-9, abs_tol=1e-9)


def test_the_weights_count_accuracy_and_latency_but_not_the_penalty() -> None:
    assert math.isclose(Loss(ONE_PERCENT, accuracy_weight=3)(0.792, 0.8, 0.5), PENALTY + 30)
    assert math.isclose(Loss(ONE_PERCENT, latency_weight=3)(0.792, 0.8, 1.0), PENALTY + 10 + 30)
    assert math.isclose(Loss(ONE_PERCENT, latency_weight=0)(0.8, 0.8, 1.0), 0.0, abs_tol=1e-9)


@pytest.mark.parametrize("perplexity", [1e3, 1e6, 1e300])
def test_a_perplexity_that_explodes_has_a_finite_loss_above_all_others(perplexity: float) -> None:
    loss = Loss(LOWER)
    assert math.isfinite(loss(perplexity, 8.0, 0.25))
    assert loss(perplexity, 8.0, 0.25) > loss(80.0, 8.0, 1.0)


# --- the search


def proposed(count: int, **more: Any) -> list[TuneConfig]:
    limits = {"maxTrials": count, **more.pop("limits", {})}
    return searched(more.pop("rule", losing(stem=0.1, head=0.2)), "tpe", limits=limits, **more)


def test_the_seed_decides_what_is_proposed() -> None:
    assert proposed(24, kwargs={"seed": 1}) == proposed(24, kwargs={"seed": 1})
    assert proposed(4, kwargs={"seed": 1}) != proposed(4, kwargs={"seed": 2})


def test_where_every_accuracy_will_do_proposals_become_faster() -> None:
    """Although most of what the estimator proposes it has proposed before."""
    strategy = searching(losing(), "tpe", accuracy=ANY, limits={"maxTrials": 100, **LONG}, kwargs={"seed": 1})
    ended(strategy)
    costs = [strategy.engine.cost(config) for config in asked(strategy)]
    assert sum(costs[60:]) / 40 < sum(costs[:10]) / 10 - 0.05


def test_where_speed_does_not_count_proposals_become_more_accurate() -> None:
    rule = losing(**{name.replace(".", "_"): 0.1 for name in OPS})
    tried = proposed(100, rule=rule, kwargs={"seed": 1, "latency_weight": 0})
    accuracies = [rule(config) for config in tried]
    assert sum(accuracies[60:]) / 40 > sum(accuracies[:10]) / 10 + 0.1


@pytest.mark.parametrize("weight", ["accuracy_weight", "latency_weight"])
def test_the_weights_of_the_resource_are_read(weight: str) -> None:
    given, weighted = (proposed(40, kwargs={"seed": 1, **kwargs}) for kwargs in ({}, {weight: 0}))
    assert given[:12] == weighted[:12]  # nothing was learned before
    assert given != weighted


def test_each_configuration_is_proposed_once_until_there_is_none_left() -> None:
    strategy = searching(losing(stem=0.1), "tpe", quantization=ONE_OPTION)
    finished = ended(strategy)
    assert len(asked(strategy)) == len(set(fallbacks(asked(strategy)))) == 2 ** len(OPS)
    assert finished.outcome is Outcome.EXHAUSTED


def test_a_trial_that_failed_is_not_proposed_again() -> None:
    def rule(config: TuneConfig) -> float | None:
        return None if "head" in fallen(config) else 0.5

    tried = searched(rule, "tpe", quantization=ONE_OPTION)
    assert len(tried) == len(set(fallbacks(tried))) == 2 ** len(OPS)


def test_the_first_that_meets_ends_the_search() -> None:
    strategy = searching(needing("stem", "head"), "tpe", quantization=ONE_OPTION, kwargs={"seed": 1})
    finished = ended(strategy)
    tried = asked(strategy)
    assert (finished.outcome, finished.best) == (Outcome.TARGET_MET, len(tried))
    assert [{"stem", "head"} <= ops for ops in fallbacks(tried)] == [*[False] * (len(tried) - 1), True]


def test_a_key_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(SearchError, match=r"reads no 'acuracy_weight' \(did you mean accuracy_weight\?\)"):
        searching(never, "tpe", kwargs={"acuracy_weight": 1})


def test_of_several_wrong_values_the_first_given_is_told() -> None:
    wrong = {"seed": -1, "batch_size": 0, "accuracy_weight": -1, "latency_weight": -1}
    for first in wrong:
        with pytest.raises(SearchError, match=first):
            searching(never, "tpe", kwargs={first: wrong[first], **wrong})
