"""Precisions that ops fall back to: one space on all ranks and in every launch, decided by rank 0's processor."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import History
from quantuner.api.spec import Quantization
from quantuner.engine.engine import Engine
from quantuner.space.capability import Mode
from quantuner.strategy import BasicTuneStrategy, TuneStrategy
from quantuner.strategy.recording import launch
from quantuner.strategy.reporting import report
from tests.unit.engine.models import ALL_PRECISIONS, Net, engine_of, seeded
from tests.unit.strategy.judged import ended, history_of, searching
from tests.unit.strategy.ranked import on_ranks

ASKED = Quantization(precisions=("bf16", "fp32"))
FAST: Mapping[str, Any] = {"avx512_bf16": True, "cpu_name": "new"}
SLOW: Mapping[str, Any] = {"avx512_f": True, "cpu_name": "old"}


def engine_on(processor: Mapping[str, Any], quantization: Quantization = ASKED) -> Engine:
    return Engine(engine_of(seeded(Net)).task, quantization, ("performance",), processor)


def setups(*processors: Mapping[str, Any]) -> tuple[list[TuneStrategy], list[Any]]:
    """A strategy for each rank after they set up together, and what each rank got of it."""
    made = [searching(engine_on(processor), Path()) for processor in processors]
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
    first, again = (searching(engine_on(processor), tmp_path) for processor in (before, now))
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
    strategy = searching(engine_on(FAST, replace(ASKED, precisions=ALL_PRECISIONS)), tmp_path)
    strategy.engine.calibrate()
    finished = ended(strategy)
    (said,) = history_of(strategy).launches
    why = "fp16: new has none of avx512_fp16, amx_fp16, fp16_arith"
    assert (said.precisions, said.left_out) == ("bf16", why)
    assert report(history_of(strategy), finished)["precisions"] == {"offered": ["fp32", "bf16"], "left_out": why}
    assert why in caplog.text


def test_a_search_that_asks_for_none_says_none(tmp_path: Path) -> None:
    strategy = searching(engine_on(SLOW, Quantization()), tmp_path)
    strategy.engine.calibrate()
    finished = ended(strategy)
    (said,) = history_of(strategy).launches
    assert (said.precisions, said.left_out) == ("", "")
    assert report(history_of(strategy), finished)["precisions"] == {"offered": ["fp32"], "left_out": ""}


def test_basic_falls_back_to_bf16_then_fp16_then_fp32(tmp_path: Path) -> None:
    engine = engine_of(seeded(Net), precisions=ALL_PRECISIONS)
    engine.calibrate()
    strategy = searching(engine, tmp_path, accuracy={"tolerableLoss": -1}, strategy=BasicTuneStrategy)
    ended(strategy)
    labels = [trial.label for trial in history_of(strategy).tried][16:]
    for number, precision in enumerate(("bf16", "fp16", "fp32")):
        head, stem, both = labels[3 * number : 3 * number + 3]
        assert precision in head
        assert "head" in head or "Linear" in head
        assert precision in stem
        assert both in (f"Conv2d {precision}, Linear {precision}",)
