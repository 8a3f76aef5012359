"""The mse strategy: ops ranked by the error of their own output, on a model whose ranking is known."""

import pytest

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

ALONE = sets(*RANKED)


@pytest.mark.parametrize("quantized", [1, 3, 5])
def test_there_are_as_many_trials_by_type_as_quantized_ops_and_five_at_most(quantized: int) -> None:
    kept = [{"pattern": name, "weight": {"dtype": ["fp32"]}} for name in OPS[quantized:]]
    tried = searched(never, "mse", quantization={"opNames": kept} if kept else {})
    by_type = [config for config in tried if fallen(config) == set(OPS[quantized:])]
    assert tried[: len(by_type)] == by_type
    assert len(by_type) == min(quantized, 5)
    assert by_type[0]["stem"].short() == STATIC[0]


def test_ops_fall_back_alone_in_the_order_of_their_outputs_error() -> None:
    tried = searched(losing(stem=0.1), "mse", quantization=ONE_OPTION)
    assert fallbacks(tried)[:6] == [frozenset(), *ALONE]


def test_ops_of_equal_error_fall_back_in_the_order_of_the_model() -> None:
    tried = searched(never, "mse", quantization=ONE_OPTION, data="zeros")
    assert fallbacks(tried)[:6] == [frozenset(), *sets(*OPS)]


def test_together_the_most_accurate_falls_back_first_whatever_its_error_was() -> None:
    rule = losing(stem=0.3, blocks_0_b=0.2, head=0.1, blocks_1_a=0.05, blocks_0_a=0.01)
    tried = searched(rule, "mse", quantization=ONE_OPTION)
    assert fallbacks(tried)[6:] == heads(("stem", "blocks.0.b", "head", "blocks.1.a", "blocks.0.a"))[1:]


def test_equally_accurate_ops_are_accumulated_in_the_order_of_their_error() -> None:
    tried = searched(lambda config: 0.5 if fallen(config) else 0.6, "mse", quantization=ONE_OPTION)
    assert fallbacks(tried)[6:] == heads(RANKED)[1:]


def test_an_op_whose_trial_failed_is_not_accumulated() -> None:
    def rule(config: TuneConfig) -> float | None:
        return None if fallen(config) == {"head"} else 0.5

    tried = searched(rule, "mse", quantization=ONE_OPTION)
    assert tried[-1] == tried[0].having({name: tried[2]["blocks.0.a"] for name in OPS if name != "head"})


def test_where_lower_is_better_the_search_is_the_same() -> None:
    rule = losing(stem=0.3, blocks_0_b=0.2, head=0.1, blocks_1_a=0.05, blocks_0_a=0.01)
    upward = searched(rule, "mse", quantization=ONE_OPTION)
    downward = searched(
        lambda config: 2 - rule(config), "mse", quantization=ONE_OPTION, accuracy={"higher_is_better": False}
    )
    assert downward == upward


def test_fallback_starts_from_the_most_accurate_by_type_the_later_at_a_tie() -> None:
    tried = searched(lambda config: 0.6 if config["head"].short() == STATIC[1] else 0.5, "mse")
    bases = [config.having({name: tried[1][name] for name in fallen(config)}) for config in tried[5:]]
    assert {config.digest for config in bases} == {tried[1].digest}
    tied = searched(never, "mse")
    assert [config["stem"].short() for config in tied[4:6]] == [STATIC[1], STATIC[1]]


def test_under_approach_auto_all_ops_are_dynamic_before_any_falls_back() -> None:
    tried = searched(never, "mse", quantization={"approach": "auto"}, limits={"maxTrials": 7})
    modes = [{op.mode.value for op in config.values()} for config in tried]
    assert modes == [*[{"static"}] * 5, {"dynamic"}, {"dynamic", "fp32"}]
    assert fallen(tried[6]) == {RANKED[0]}


def test_each_calibration_size_is_searched_as_a_whole() -> None:
    """The very first configuration stays the best."""
    tried = searched(
        lambda config: 0.5 if fallen(config) or config.calib_sampling_size == 64 else 0.6,
        "mse",
        quantization={**ONE_OPTION, "calibrationSamplingSizes": [8, 64]},
    )
    sizes = [config.calib_sampling_size for config in tried]
    assert sizes == [8] * 10 + [64] * 10
    assert fallbacks(tried[:10]) == fallbacks(tried[10:])


@pytest.mark.parametrize(
    ("rule", "outcome", "best", "trials"),
    [
        pytest.param(needing(), Outcome.TARGET_MET, 1, 1, id="the default meets"),
        pytest.param(needing("head"), Outcome.TARGET_MET, 4, 4, id="one op has to fall back"),
        pytest.param(needing("head", "stem"), Outcome.TARGET_MET, 7, 7, id="two have to"),
        pytest.param(
            losing(stem=0.1), Outcome.EXHAUSTED, 5, 10, id="none meets, and the first of the best is reported"
        ),
    ],
)
def test_the_first_that_meets_ends_the_search(rule: Rule, outcome: Outcome, best: int, trials: int) -> None:
    strategy = searching(rule, "mse", quantization=ONE_OPTION)
    finished = ended(strategy)
    assert (finished.outcome, finished.best, len(asked(strategy))) == (outcome, best, trials)


def test_it_reads_no_arguments() -> None:
    with pytest.raises(SearchError, match=r"MSETuneStrategy reads no 'metric'; it reads none$"):
        searching(never, "mse", kwargs={"metric": "mse"})
