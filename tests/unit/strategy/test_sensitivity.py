"""The sensitivity strategy: the smallest head of a ranking that meets, then as few ops of it as will do."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.errors import SearchError
from quantuner.api.journal import Outcome
from quantuner.space import samplers
from quantuner.space.config import TuneConfig
from quantuner.strategy.sensitivity import PROBES, around, between, gallop, predicted_size
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
    needing,
    never,
    searched,
    searching,
    sets,
)

# --- sizes to try


def found(count: int, least: int, first: int) -> tuple[int, int]:
    """The size of a meeting set that the search ends with, and its stages, where sets of `least` and more meet."""
    low, high, stages = 0, count + 1, 0
    sizes = around(first, count)
    while sizes:
        stages += 1
        high = min([high, *(size for size in sizes if size >= least)])
        low = max([low, *(size for size in sizes if size < high)])
        sizes = between(low, high) if high <= count else gallop(count, beyond=low)
    return high, stages


counts = st.integers(1, 500)


@given(st.data(), counts)
def test_the_least_size_that_meets_is_found_exactly_wherever_the_search_begins(data: st.DataObject, count: int) -> None:
    least = data.draw(st.integers(1, count + 1), label="least")  # count + 1: none meets
    first = data.draw(st.integers(1, count), label="first")
    size, stages = found(count, least, first)
    assert size == least
    assert stages <= 2 + math.ceil(math.log(count, 2**PROBES)) + math.ceil(math.log(count, PROBES + 1)) + 1


@given(st.data(), counts)
def test_sizes_between_two_are_inside_and_spread_evenly(data: st.DataObject, count: int) -> None:
    low = data.draw(st.integers(0, count - 1))
    sizes = between(low, count)
    assert len(sizes) == min(PROBES, count - low - 1)
    gaps = [b - a for a, b in itertools.pairwise([low, *sizes, count])]
    assert min(gaps) >= 1
    assert max(gaps) <= math.ceil((count - low) / (PROBES + 1)) + (count - low <= PROBES)


@given(st.data(), counts)
def test_galloping_doubles_and_ends_at_the_last_size(data: st.DataObject, count: int) -> None:
    beyond = data.draw(st.integers(0, count))
    sizes = gallop(count, beyond)
    assert (sizes == []) == (beyond == count)
    for before, size in itertools.pairwise([beyond, *sizes]):
        assert size == min(count, max(1, 2 * before))
    assert len(sizes) == PROBES or [beyond, *sizes][-1] == count


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(-1, 1))
def test_the_predicted_size_is_the_least_that_leaves_no_more_than_may_be_kept(errors: list[float], kept: float) -> None:
    ranked = sorted(errors, reverse=True)
    size = predicted_size(ranked, kept)
    allowed, rounding = max(kept, 0) ** 2 * sum(ranked), 1e-9 * sum(ranked)
    assert 1 <= size <= len(ranked)
    assert sum(ranked[size:]) <= allowed + rounding
    assert size == 1 or sum(ranked[size - 1 :]) >= allowed - rounding


@pytest.mark.parametrize(
    ("size", "count", "sizes"),
    [(4, 9, [4, 2, 8]), (1, 5, [1, 2]), (3, 5, [3, 1]), (5, 5, [5, 2]), (1, 1, [1]), (2, 4, [2, 1, 4]), (1, 0, [])],
)
def test_around_the_predicted_size_are_half_and_twice_of_it(size: int, count: int, sizes: list[int]) -> None:
    assert around(size, count) == sizes


# --- the search


def test_it_begins_with_the_options_that_distort_each_ops_own_output_least_the_earlier_at_a_tie() -> None:
    strategy = searching(never, "sensitivity", limits={"maxTrials": 1})
    candidates = samplers.op_wise_candidates(strategy.tuning_space.capabilities)
    start = strategy.start(100)
    errors = [
        strategy.engine.probes.own_errors(start.having({name: options[number] for name, options in candidates.items()}))
        for number in range(4)
    ]
    least = {name: min(range(4), key=lambda number: errors[number][name]) for name in OPS}
    strategy.traverse()
    assert asked(strategy) == [start.having({name: candidates[name][least[name]] for name in OPS})]
    assert set(least.values()) == {0, 1}  # so that an op keeps its default, and one does not


@pytest.mark.parametrize("needed", range(1, 6))
def test_the_smallest_head_of_the_ranking_that_meets_is_found_for_every_size(needed: int) -> None:
    """As many of the most sensitive ops as needed have to be in fp32, so that none can be given back."""
    strategy = searching(needing(*RANKED[:needed]), "sensitivity")
    finished = ended(strategy)
    tried = fallbacks(asked(strategy))
    winner = heads()[needed - 1]
    assert (finished.outcome, finished.best) == (Outcome.TARGET_MET, tried.index(winner) + 1)
    assert set(heads()[max(0, needed - 2) : needed]) <= set(tried)


@pytest.mark.parametrize(
    ("loss", "sizes"),
    [
        pytest.param(0.06, [1, 2, 4, 5], id="over half of the loss may stay: one op, or two"),
        pytest.param(0.04, [2, 1, 4, 5], id="two ops, one or four"),
        pytest.param(0.02, [3, 1, 5], id="three ops or one"),
        pytest.param(0.0, [5, 2], id="no loss may stay: all ops, or half of them"),
    ],
)
def test_the_first_sizes_are_around_the_one_that_the_errors_predict(loss: float, sizes: list[int]) -> None:
    """Quantized as they are the ops lose 0.1; no set meets, so that ever larger ones follow."""
    tried = searched(lambda _: 0.9, "sensitivity", accuracy={"tolerable_loss": loss})
    assert fallbacks(tried) == [frozenset(), *(frozenset(RANKED[:size]) for size in sizes)]


@pytest.mark.parametrize(("accuracy", "sizes"), [(1.0, [5, 2]), (1.02, [1, 2, 4, 5])], ids=["no loss", "a gain"])
def test_more_than_the_baseline_may_be_asked_for(accuracy: float, sizes: list[int]) -> None:
    tried = searched(lambda _: accuracy, "sensitivity", accuracy={"tolerable_loss": -0.05})
    assert [len(ops) for ops in fallbacks(tried)] == [0, *sizes]


def test_where_the_first_trial_fails_one_op_is_tried_first() -> None:
    tried = searched(lambda config: 0.5 if fallen(config) else None, "sensitivity")
    assert [len(ops) for ops in fallbacks(tried)] == [0, 1, 2, 4, 5]


def test_ops_of_equal_error_rank_in_the_order_of_the_model() -> None:
    tried = searched(lambda _: 0.9, "sensitivity", data="zeros")
    assert set(fallbacks(tried)) - {frozenset()} <= set(heads(OPS))
    assert len(tried) > 2


@pytest.mark.parametrize(
    ("rule", "given_back", "winner"),
    [
        pytest.param(
            needing("blocks.1.a", "head"),
            # from the head of three: by compute, head (was tried), blocks.0.a, blocks.1.a; then from the two left
            sets("blocks.1.a head", "blocks.0.a head", "head"),
            "blocks.1.a head",
            id="one op is free",
        ),
        pytest.param(
            needing("stem"),
            # from the head of four: head, blocks.0.a and blocks.1.a alone, all free; two of them, all three of them
            sets(
                "blocks.1.a blocks.0.a stem",
                "blocks.1.a head stem",
                "blocks.0.a head stem",
                "blocks.1.a stem",
                "stem",
            ),
            "stem",
            id="several are, together too",
        ),
        pytest.param(
            lambda config: 1.0 if len(fallen(config)) >= 3 else 0.9,
            # from the head of three nothing can be given back
            sets("blocks.1.a head", "blocks.0.a head"),
            "blocks.1.a blocks.0.a head",
            id="none is",
        ),
        pytest.param(
            lambda config: 1.0 if "stem" in fallen(config) and len(fallen(config)) >= 3 else 0.9,
            # each alone is free, two together are not: the first of them is given back, then nothing more
            sets(
                "blocks.1.a blocks.0.a stem",
                "blocks.1.a head stem",
                "blocks.0.a head stem",
                "blocks.1.a stem",
                "stem",
                "blocks.0.a stem",
            ),
            "blocks.1.a blocks.0.a stem",
            id="several are, but not together",
        ),
    ],
)
def test_ops_are_given_back_alone_and_together_most_compute_first(
    rule: Rule, given_back: list[frozenset[str]], winner: str
) -> None:
    strategy = searching(rule, "sensitivity")
    finished = ended(strategy)
    tried = fallbacks(asked(strategy))
    new = [ops for ops in tried if ops and ops not in heads()]
    assert new == given_back
    assert fallbacks(asked(strategy)[(finished.best or 0) - 1 :])[:1] == sets(winner)
    assert finished.outcome is Outcome.TARGET_MET


@pytest.mark.parametrize(
    ("rule", "outcome", "best", "trials"),
    [
        pytest.param(needing(), Outcome.TARGET_MET, 1, 1, id="nothing has to fall back"),
        pytest.param(lambda _: 0.9, Outcome.EXHAUSTED, 1, 3, id="no set meets"),
    ],
)
def test_it_ends_without_giving_back(rule: Rule, outcome: Outcome, best: int, trials: int) -> None:
    strategy = searching(rule, "sensitivity")
    finished = ended(strategy)
    assert (finished.outcome, finished.best, len(asked(strategy))) == (outcome, best, trials)


@pytest.mark.parametrize("limit", range(1, 11))
def test_the_limit_of_trials_ends_the_search_at_any_point(limit: int) -> None:
    whole = searched(needing("stem"), "sensitivity")
    strategy = searching(needing("stem"), "sensitivity", limits={"maxTrials": limit})
    finished = ended(strategy)
    assert asked(strategy) == whole[:limit]
    assert finished.outcome is Outcome.MAX_TRIALS


def test_the_next_calibration_size_is_searched_where_the_first_has_no_success() -> None:
    def rule(config: TuneConfig) -> float:
        return 1.0 if config.calib_sampling_size == 64 and fallen(config) else 0.9

    quantization = {**ONE_OPTION, "calibrationSamplingSizes": [8, 64, 32]}
    tried = searched(rule, "sensitivity", quantization=quantization)
    sizes = [config.calib_sampling_size for config in tried]
    assert sizes == [8] * sizes.count(8) + [64] * sizes.count(64)
    assert fallbacks(tried)[-1] == {RANKED[0]}


@pytest.mark.parametrize("metric", ["mse", "kl"])
def test_the_errors_metric_can_be_chosen(metric: str) -> None:
    tried = searched(never, "sensitivity", kwargs={"metric": metric})
    assert fallbacks(tried) == [frozenset(), frozenset(OPS), frozenset(RANKED[:2])]


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        pytest.param({"metrc": "kl"}, r"reads no 'metrc' \(did you mean metric\?\); it reads metric$", id="key"),
        pytest.param({"metric": "kll"}, r"strategyKwargs\.metric must be one of mse, kl, not 'kll'", id="metric"),
    ],
)
def test_a_metric_that_is_not_there_is_refused(kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(SearchError, match=says):
        searched(never, "sensitivity", kwargs=kwargs)
