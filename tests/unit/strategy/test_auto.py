"""The auto strategy: the default, then sensitivity, then basic, on one history."""

import itertools

import pytest

from quantuner.api.errors import SearchError
from quantuner.api.journal import Outcome, Selection
from quantuner.space.config import TuneConfig
from tests.unit.strategy.judged import ended
from tests.unit.strategy.ruled import (
    ONE_OPTION,
    RANKED,
    STATIC,
    asked,
    fallbacks,
    fallen,
    needing,
    never,
    ordered,
    searched,
    searching,
)


def once_each(*searches: list[TuneConfig]) -> list[TuneConfig]:
    """All configurations of the searches, each where it comes first."""
    first: dict[str, TuneConfig] = {}
    for config in itertools.chain(*searches):
        first.setdefault(config.digest, config)
    return list(first.values())


def by_options(config: TuneConfig) -> float:
    """Meets with one way to quantize alone: in fp32 no op is any better."""
    return 1.0 if {op.short() for op in config.values()} == {STATIC[3]} else 0.5


def test_a_default_that_meets_ends_the_search_at_once() -> None:
    strategy = searching(needing(), "auto")
    finished = ended(strategy)
    assert asked(strategy) == [strategy.start(100)]
    assert (finished.outcome, finished.best) == (Outcome.TARGET_MET, 1)


@pytest.mark.parametrize("needed", [("head",), ("blocks.1.a", "stem"), RANKED])
def test_after_the_default_it_searches_as_sensitivity_and_ends_with_it(needed: tuple[str, ...]) -> None:
    alone = searched(needing(*needed), "sensitivity")
    strategy = searching(needing(*needed), "auto")
    finished = ended(strategy)
    assert asked(strategy) == once_each([strategy.start(100)], alone)
    assert finished.outcome is Outcome.TARGET_MET
    assert fallbacks(asked(strategy)[(finished.best or 0) - 1 :])[0] == set(needed)
    assert strategy.selection is Selection.CHEAPEST


def test_where_sensitivity_finds_nothing_basic_follows_until_its_first_success() -> None:
    sensitive, basic = (searched(by_options, name) for name in ("sensitivity", "basic"))
    strategy = searching(by_options, "auto")
    finished = ended(strategy)
    tried = asked(strategy)
    assert tried == once_each([strategy.start(100)], sensitive, basic)
    assert (finished.outcome, finished.best, finished.accuracy) == (Outcome.TARGET_MET, len(tried), 1.0)


def test_where_nothing_meets_all_phases_are_exhausted() -> None:
    sensitive, basic = (searched(never, name, quantization=ONE_OPTION) for name in ("sensitivity", "basic"))
    strategy = searching(never, "auto", quantization=ONE_OPTION)
    finished = ended(strategy)
    assert asked(strategy) == once_each([strategy.start(100)], sensitive, basic)
    assert finished.outcome is Outcome.EXHAUSTED


@pytest.mark.parametrize("limit", [1, 2, 5, 9])
def test_the_limit_of_trials_is_that_of_all_phases_together(limit: int) -> None:
    whole = searched(by_options, "auto")
    strategy = searching(by_options, "auto", limits={"maxTrials": limit})
    finished = ended(strategy)
    assert asked(strategy) == whole[:limit]
    assert finished.outcome is Outcome.MAX_TRIALS


def test_with_a_time_limit_a_success_ends_no_phase() -> None:
    strategy = searching(needing("head"), "auto", quantization=ONE_OPTION, limits={"timeoutSeconds": 1000})
    finished = ended(strategy)
    without = searched(needing("head"), "auto", quantization=ONE_OPTION)
    tried = fallbacks(asked(strategy))
    assert tried[: len(without)] == fallbacks(without)
    assert {"stem", "head"} in tried[len(without) :]  # the recipes, which basic tries
    assert finished.outcome is Outcome.TARGET_MET


def test_a_tuning_space_that_was_set_holds_in_every_phase() -> None:
    narrow = ordered("auto", {"opNames": [{"pattern": "stem", "weight": {"dtype": ["fp32"]}}]})
    strategy = searching(never, "auto", quantization=ONE_OPTION, limits={"maxTrials": 30})
    strategy.set_tuning_space(narrow)
    ended(strategy)
    assert len(asked(strategy)) > 4
    assert all("stem" in fallen(config) for config in asked(strategy))


def test_recipes_that_were_set_with_a_tuning_space_hold_in_every_phase() -> None:
    strategy = searching(never, "auto", quantization=ONE_OPTION)
    strategy.set_tuning_space(ordered("auto", {"recipes": {"lastConvOrMatmulQuantization": False}}))
    ended(strategy)
    assert all("head" in fallen(config) for config in asked(strategy))


def test_the_strategy_itself_decides_about_a_trials_algorithms_when_its_phases_are_over() -> None:
    strategy = searching(never, "auto")
    ended(strategy)
    assert strategy.engine.algorithms is strategy


def test_arguments_reach_the_phase_that_reads_them() -> None:
    assert searched(never, "auto", kwargs={"metric": "kl"}) == searched(never, "auto", kwargs={"metric": "mse"})
    with pytest.raises(SearchError, match=r"strategyKwargs\.metric must be one of mse, kl, not 'kll'"):
        searched(never, "auto", kwargs={"metric": "kll"})
    with pytest.raises(
        SearchError, match=r"AutoTuneStrategy reads no 'metrc' \(did you mean metric\?\); it reads metric$"
    ):
        searching(never, "auto", kwargs={"metrc": "kl"})
