"""Strategies by name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import quantuner.strategy
from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.engine import Engine
from quantuner.strategy import TuneStrategy, strategies, strategy_class, strategy_registry
from quantuner.strategy.registry import _strategies
from tests.unit.strategy.judged import ended, searching
from tests.unit.strategy.ranked import LadderTuneStrategy


@pytest.fixture(autouse=True)
def _forget_what_tests_register() -> Iterator[None]:
    before = dict(_strategies)
    yield
    _strategies.clear()
    _strategies.update(before)


def test_the_name_is_what_stands_before_tune_strategy_in_lower_case() -> None:
    @strategy_registry
    class MyOwnTuneStrategy:
        pass

    assert strategy_class("myown") is MyOwnTuneStrategy


SHIPPED = [
    "auto",
    "basic",
    "bayesian",
    "conservative",
    "exhaustive",
    "hawq_v2",
    "mse",
    "mse_v2",
    "random",
    "sensitivity",
    "tpe",
]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_strategy_is_registered_by_its_name(name: str) -> None:
    found = strategy_class(name)
    assert found.__name__.lower() == f"{name}tunestrategy"
    assert issubclass(found, TuneStrategy)
    assert found in vars(quantuner.strategy).values()


def test_names_are_listed_sorted_with_those_of_ones_own() -> None:
    before = strategies()
    assert set(before) >= set(SHIPPED)
    assert strategy_registry(type("AardvarkTuneStrategy", (), {})).__name__ == "AardvarkTuneStrategy"
    assert strategies() == ["aardvark", *before]


def test_a_class_is_registered_unchanged_and_searches_by_its_name(engine: Engine, tmp_path: Path) -> None:
    class MineTuneStrategy(LadderTuneStrategy):
        """A strategy of one's own."""

    assert strategy_registry(MineTuneStrategy) is MineTuneStrategy
    strategy = searching(engine, tmp_path, strategy=strategy_class("mine"))
    assert ended(strategy).best == 4


@pytest.mark.parametrize("name", ["Mine", "TuneStrategy", "TuneStrategyMine"])
def test_another_class_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"must end in TuneStrategy, as MyTuneStrategy; it is {name}$"):
        strategy_registry(type(name, (), {}))


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'basic' is quantuner\.strategy\.basic\.BasicTuneStrategy already"):
        strategy_registry(type("BasicTuneStrategy", (), {}))


def test_a_module_that_is_imported_anew_replaces_its_own() -> None:
    once, again = (type("NewTuneStrategy", (), {}) for _ in range(2))
    strategy_registry(once)
    assert strategy_registry(again) is again
    assert strategy_class("new") is again


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("basc", "'basc' is not known (did you mean basic?). Known: auto, basic, bayesian, conservative, "),
        ("zzz", "tpe. A strategy of your own is registered by strategy_registry"),
        ("sigopt", "'sigopt' stood on a closed service that has ended; use bayesian (a Gaussian process) or tpe"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(name: str, says: str) -> None:
    with pytest.raises(SearchError) as caught:
        strategy_class(name)
    assert caught.value.reason == Failure.UNKNOWN_STRATEGY
    assert says in caught.value.message
