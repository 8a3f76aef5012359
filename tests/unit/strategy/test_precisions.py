"""Precisions that ops fall back to: one space on all ranks and in every launch, decided by rank 0's processor."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import History, Outcome
from quantuner.api.spec import Quantization
from quantuner.engine.engine import Engine
from quantuner.space.capability import PRECISIONS, Mode
from quantuner.space.config import OpConfig, TuneConfig
from quantuner.strategy import TuneStrategy
from quantuner.strategy.recording import launch
from quantuner.strategy.reporting import report
from tests.unit.engine.models import ALL_PRECISIONS, Net, engine_of, seeded
from tests.unit.strategy.judged import ended, history_of
from tests.unit.strategy.judged import searching as judged
from tests.unit.strategy.ranked import on_ranks
from tests.unit.strategy.ruled import OPS, RANKED, UNTRIED, Rule, asked, never, searched, searching

ASKED = Quantization(precisions=("bf16", "fp32"))
FAST: Mapping[str, Any] = {"avx512_bf16": True, "cpu_name": "new"}
SLOW: Mapping[str, Any] = {"avx512_f": True, "cpu_name": "old"}


def engine_on(processor: Mapping[str, Any], quantization: Quantization = ASKED) -> Engine:
    return Engine(engine_of(seeded(Net)).task, quantization, ("performance",), processor)


def setups(*processors: Mapping[str, Any]) -> tuple[list[TuneStrategy], list[Any]]:
    """A strategy for each rank after they set up together, and what each rank got of it."""
    made = [judged(engine_on(processor), Path()) for processor in processors]
    return made, on_ranks(len(made), lambda comm: made[comm.rank].share_setup(comm))


def modes_of(strategy: TuneStrategy) -> list[Mode]:
    (modes,) = {tuple(c.modes) for c in strategy.tuning_space.capabilities}
    assert all(tuple(c.modes) == modes for c in strategy.engine.space)
    return list(modes)


def test_ranks_of_one_kind_search_what_rank_0_offers() -> None:
    made, answers = setups(FAST, FAST, FAST)
    assert answers == [None] * 3
    assert [modes_of(strategy) for strategy in made] == [[Mode.STATIC, Mode.BF16, Mode.FP32]] * 3


def test_a_rank_that_could_do_more_searches_what_rank_0_offers() -> None:
    made, answers = setups(SLOW, FAST, SLOW)
    assert answers == [None] * 3
    assert [modes_of(strategy) for strategy in made] == [[Mode.STATIC, Mode.FP32]] * 3


def test_a_rank_that_cannot_do_what_rank_0_offers_is_refused_everywhere_with_the_difference() -> None:
    _, answers = setups(FAST, FAST, SLOW)
    assert all(isinstance(answer, SearchError) for answer in answers)
    assert {answer.reason for answer in answers} == {Failure.RANKS_DIFFER}
    (said,) = {answer.message for answer in answers}
    assert said.startswith("rank 0 offers bf16, but here old has none of avx512_bf16, ")
    assert said.endswith("or add bf16 to quantization.excludedPrecisions (on rank 2)")


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        pytest.param(FAST, SLOW, "was 'bf16' and is now ''", id="lost"),
        pytest.param(SLOW, FAST, "was '' and is now 'bf16'", id="gained"),
    ],
)
def test_a_search_is_not_resumed_in_another_space(
    tmp_path: Path, before: Mapping[str, Any], now: Mapping[str, Any], difference: str
) -> None:
    first, again = (judged(engine_on(processor), tmp_path) for processor in (before, now))
    first.engine.calibrate()
    ended(first)
    known = history_of(first)
    again.setup_resume(History(launches=known.launches, trials=known.trials))
    again.engine.calibrate()
    with pytest.raises(SearchError, match=difference) as caught:
        launch(again)
    assert caught.value.reason == Failure.JOURNAL_MISMATCH


def test_a_launch_and_the_report_say_what_is_offered_and_what_is_left_out_and_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = judged(engine_on(FAST, replace(ASKED, precisions=ALL_PRECISIONS)), tmp_path)
    strategy.engine.calibrate()
    finished = ended(strategy)
    (said,) = history_of(strategy).launches
    why = "fp16: new has none of avx512_fp16, amx_fp16, fp16_arith"
    assert (said.precisions, said.left_out) == ("bf16", why)
    assert report(history_of(strategy), finished, 0.0)["precisions"] == {"offered": ["fp32", "bf16"], "left_out": why}
    assert why in caplog.text


def test_a_search_that_asks_for_none_says_none(tmp_path: Path) -> None:
    strategy = judged(engine_on(SLOW, Quantization()), tmp_path)
    strategy.engine.calibrate()
    finished = ended(strategy)
    (said,) = history_of(strategy).launches
    assert (said.precisions, said.left_out) == ("", "")
    assert report(history_of(strategy), finished, 0.0)["precisions"] == {"offered": ["fp32"], "left_out": ""}


# --- falling back

HALVES = {**UNTRIED, "precisions": list(ALL_PRECISIONS)}
FALLING_BACK = pytest.mark.parametrize("strategy", ["basic", "mse", "mse_v2", "sensitivity", "conservative"])


def high(config: TuneConfig) -> dict[str, Mode]:
    """Ops that are not quantized, and their precision."""
    return {name: op.mode for name, op in config.items() if op.mode.is_precision}


def needing_at_least(precision: Mode, *names: str) -> Rule:
    """As good as the baseline with these ops in this precision or a later one."""
    enough = PRECISIONS[PRECISIONS.index(precision) :]
    return lambda config: 1.0 if all(config[name].mode in enough for name in names) else 0.9


@FALLING_BACK
@pytest.mark.parametrize("precisions", [["fp32", "bf16"], ["fp16", "fp32"], list(ALL_PRECISIONS)], ids=str)
def test_where_nothing_meets_all_precisions_are_tried_one_after_the_other(strategy: str, precisions: list[str]) -> None:
    tried = [high(config) for config in searched(never, strategy, quantization={**UNTRIED, "precisions": precisions})]
    used = [set(modes.values()) for modes in tried if modes]
    assert all(len(modes) == 1 for modes in used)  # never two in one configuration
    order = [mode for (mode,), _ in itertools.groupby(tuple(modes) for modes in used)]
    assert order == [mode for mode in PRECISIONS if mode in precisions]


@FALLING_BACK
def test_each_precision_is_tried_as_fp32_alone_is(strategy: str) -> None:
    alone = [set(high(config)) for config in searched(never, strategy, quantization=UNTRIED) if high(config)]
    tried = [high(config) for config in searched(never, strategy, quantization=HALVES)]
    for precision in PRECISIONS:
        assert [set(modes) for modes in tried if precision in modes.values()] == alone


@FALLING_BACK
@pytest.mark.parametrize("enough", PRECISIONS)
def test_the_first_precision_that_meets_wins_and_later_ones_are_not_tried(strategy: str, enough: Mode) -> None:
    rule = needing_at_least(enough, RANKED[0])
    made = searching(rule, strategy, quantization=HALVES)
    finished = ended(made)
    assert finished.outcome is Outcome.TARGET_MET
    tried = asked(made)
    winner = tried[(finished.best or 0) - 1]
    assert winner[RANKED[0]].mode is enough
    later = PRECISIONS[PRECISIONS.index(enough) + 1 :]
    assert not any(mode in later for config in tried for mode in high(config).values())


def test_an_op_that_lacks_a_precision_begins_in_the_next_one() -> None:
    only_fp32 = {"opNames": [{"pattern": "head", "weight": {"dtype": ["int8", "fp32"]}}]}
    first = searched(never, "conservative", quantization={**HALVES, **only_fp32}, limits={"maxTrials": 1})[0]
    assert high(first) == {**dict.fromkeys(OPS[1:-1], Mode.BF16), "head": Mode.FP32}


def test_an_op_in_bf16_is_modelled_as_cheaper_and_smaller_than_in_fp32() -> None:
    strategy = searching(never, "sensitivity", quantization=HALVES)
    start = strategy.start(100)
    costs = [strategy.engine.cost(start.having({"head": OpConfig(mode)})) for mode in PRECISIONS]
    assert costs[0] == costs[1] < costs[2]
    sizes = [strategy.engine.size(start.having({"head": OpConfig(mode)})) for mode in PRECISIONS]
    assert sizes[0] == sizes[1] < sizes[2]
