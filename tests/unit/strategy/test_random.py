"""The random strategy: seeded, uniform, and never the same configuration twice."""

from collections import Counter
from collections.abc import Iterator

import pytest

from quantuner.api.errors import SearchError
from quantuner.api.journal import Outcome
from quantuner.options import options, set_random_seed
from quantuner.space.config import TuneConfig
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
)


@pytest.fixture(autouse=True)
def _keep_the_global_seed() -> Iterator[None]:
    before = options().random_seed
    yield
    set_random_seed(before)


def drawn(count: int, seed: int | None = None) -> list[TuneConfig]:
    kwargs = {} if seed is None else {"seed": seed}
    return searched(never, "random", kwargs=kwargs, limits={"maxTrials": count})


def test_the_seed_decides_what_is_drawn() -> None:
    assert drawn(12, seed=3) == drawn(12, seed=3)
    assert drawn(12, seed=3) != drawn(12, seed=4)
    assert drawn(6, seed=3) == drawn(12, seed=3)[:6]


def test_without_a_seed_of_its_own_it_takes_the_global_one() -> None:
    set_random_seed(3)
    assert drawn(12) == drawn(12, seed=3)
    set_random_seed(4)
    assert drawn(12) == drawn(12, seed=4)


def test_every_option_of_every_op_is_drawn_about_equally_often() -> None:
    """500 of 3125 configurations: each of five options of an op is expected 100 times."""
    tried = drawn(500, seed=0)
    for name in OPS:
        counts = Counter(config[name].short() for config in tried)
        assert set(counts) == {*STATIC, "fp32"}
        assert all(70 <= count <= 130 for count in counts.values()), counts


def test_each_configuration_is_drawn_once_until_there_is_none_left() -> None:
    quantization = {**ONE_OPTION, "calibrationSamplingSizes": [8, 64]}
    (stage,) = searching(never, "random", quantization=quantization).stages()
    configs = list(stage)
    pairs = {(config.calib_sampling_size, fallen(config)) for config in configs}
    assert len(pairs) == len(configs) == 2 * 2 ** len(OPS)
    strategy = searching(never, "random", quantization=quantization)
    finished = ended(strategy)
    assert (finished.outcome, asked(strategy)) == (Outcome.EXHAUSTED, configs)


def test_an_op_that_has_one_option_keeps_it() -> None:
    quantization = {**ONE_OPTION, "opNames": [{"pattern": "head", "weight": {"dtype": ["fp32"]}}]}
    tried = searched(never, "random", quantization=quantization)
    assert len(tried) == 2**4
    assert all("head" in fallen(config) for config in tried)


def test_where_there_is_nothing_to_choose_the_default_is_tried() -> None:
    fixed = [{"pattern": ".*", "activation": {"dtype": ["fp32"]}}]
    tried = searched(never, "random", quantization={"opTypes": fixed})
    assert [{op.short() for op in config.values()} for config in tried] == [{"fp32"}]


def test_the_first_that_meets_ends_the_search() -> None:
    whole = fallbacks(searched(never, "random", quantization=ONE_OPTION, kwargs={"seed": 0}))
    first = next(number for number, ops in enumerate(whole, 1) if {"stem", "head"} <= ops)
    strategy = searching(needing("stem", "head"), "random", quantization=ONE_OPTION, kwargs={"seed": 0})
    finished = ended(strategy)
    assert (finished.outcome, finished.best) == (Outcome.TARGET_MET, first)
    assert fallbacks(asked(strategy)) == whole[:first]


def test_a_key_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(SearchError, match=r"RandomTuneStrategy reads no 'sed' \(did you mean seed\?\); it reads seed$"):
        searching(never, "random", kwargs={"sed": 1})
