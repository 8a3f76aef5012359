"""When a search ends: at its first success, at its trials, at its time, whichever is first, on any number of ranks.

The ladder's trials take ten seconds each by its own clock, and their accuracies are known: of five, the first, the
second and the fourth are better than all before them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import Finished, History, Outcome
from quantuner.engine.engine import Engine
from quantuner.space.capability import Mode
from quantuner.space.config import TuneConfig
from quantuner.space.op_tuning_config import OpTuningConfig
from quantuner.strategy import TuneStrategy
from tests.unit.strategy.judged import Judge, ended, essence, history_of, searching
from tests.unit.strategy.ranked import LadderTuneStrategy, accurate_engine, rungs, searched

Measured = tuple[Engine, Judge, list[float]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """An engine, its judge, and the accuracies of the ladder: the baseline's first."""
    engine, judge = accurate_engine()
    strategy = climbing(engine, tmp_path_factory.mktemp("ladder"), loss=0)
    ended(strategy)
    accuracies = [t.accuracy for t in history_of(strategy).trials if t.accuracy is not None]
    records = [i for i in range(1, 6) if accuracies[i] > max(accuracies[1:i], default=0)]
    assert (accuracies[0], records) == (1.0, [1, 2, 4])
    return engine, judge, accuracies


def climbing(
    engine: Engine, folder: Path, loss: float, strategy: type[TuneStrategy] = LadderTuneStrategy, **limits: Any
) -> TuneStrategy:
    criterion = {"criterion": "absolute", "tolerableLoss": loss}
    objectives = {"objectives": [{"name": "accuracy"}]}
    return searching(engine, folder, strategy=strategy, accuracy=criterion, limits={**objectives, **limits})


NEVER, ANY = 0, 3
"""Trials whose accuracy is the target: the baseline's, which none reaches, and the least, which all reach."""


@pytest.mark.parametrize("ranks", [pytest.param(0, id="in series"), pytest.param(3, id="on three ranks")])
@pytest.mark.parametrize(
    ("target", "limits", "outcome", "told", "best"),
    [
        pytest.param(ANY, {}, "target-met", 1, 1, id="the first trial meets"),
        pytest.param(2, {}, "target-met", 2, 2, id="the second meets"),
        pytest.param(4, {}, "target-met", 4, 4, id="the fourth meets"),
        pytest.param(NEVER, {}, "exhausted", 5, 4, id="none meets"),
        pytest.param(NEVER, {"maxTrials": 1}, "max-trials", 1, 1, id="one trial allowed"),
        pytest.param(4, {"maxTrials": 3}, "max-trials", 3, 2, id="the trial that would meet is not allowed"),
        pytest.param(4, {"maxTrials": 4}, "target-met", 4, 4, id="the last allowed trial meets"),
        pytest.param(ANY, {"timeoutSeconds": 10}, "timeout", 1, 1, id="time for one"),
        pytest.param(ANY, {"timeoutSeconds": 30}, "timeout", 3, 2, id="all meet, time for three, the second is best"),
        pytest.param(ANY, {"timeoutSeconds": 31}, "timeout", 4, 4, id="the trial under way ends after the time"),
        pytest.param(ANY, {"timeoutSeconds": 99}, "target-met", 5, 4, id="all meet, time for more than there are"),
        pytest.param(2, {"timeoutSeconds": 99}, "target-met", 5, 4, id="two meet, time to find the better"),
        pytest.param(4, {"timeoutSeconds": 30}, "timeout", 3, 2, id="none meets in time"),
        pytest.param(ANY, {"timeoutSeconds": 20, "maxTrials": 3}, "timeout", 2, 2, id="time before trials"),
        pytest.param(ANY, {"timeoutSeconds": 40, "maxTrials": 3}, "max-trials", 3, 2, id="trials before time"),
        pytest.param(ANY, {"timeoutSeconds": 30, "maxTrials": 3}, "max-trials", 3, 2, id="both at once"),
    ],
)
def test_a_search_ends_by_the_first_rule_that_holds_and_never_a_trial_later(
    measured: Measured,
    tmp_path: Path,
    target: int,
    limits: dict[str, Any],
    outcome: str,
    told: int,
    best: int,
    ranks: int,
) -> None:
    engine, judge, accuracies = measured
    judge.values.clear()
    loss = accuracies[0] - accuracies[target]
    strategy = searched(lambda: climbing(engine, tmp_path, loss, **limits), ranks, seed=told)
    end = strategy.end
    assert isinstance(end, Finished)
    assert (end.outcome, strategy.trials_count, end.best) == (outcome, told, best)
    assert [t.accuracy for t in history_of(strategy).trials] == accuracies[: told + 1]
    met = accuracies[best] >= accuracies[target]
    assert strategy.best_tune_result == ((accuracies[best], [accuracies[best]]) if met else None)
    evaluated = judge.values[1:-1]  # without the baseline, and the saved model
    if ranks:  # an idle rank may try an allowed trial a second time
        allowed = limits.get("maxTrials", len(accuracies) - 1)
        assert set(accuracies[1 : told + 1]) <= set(evaluated) <= set(accuracies[1 : allowed + 1])
    else:
        assert evaluated == accuracies[1 : told + 1]


class PonderingTuneStrategy(LadderTuneStrategy):
    """Takes a hundred seconds to decide on its second stage."""

    pondered = 0.0

    def stages(self) -> Iterator[list[TuneConfig]]:
        first, second, *_ = rungs(self)
        yield [first]
        self.pondered = 100.0
        yield [second]

    def elapsed(self) -> float:
        return super().elapsed() + self.pondered


def test_no_trial_begins_when_the_strategy_itself_took_the_time_that_was_left(
    measured: Measured, tmp_path: Path
) -> None:
    strategy = climbing(measured[0], tmp_path, 0, PonderingTuneStrategy, timeoutSeconds=60)
    assert (ended(strategy).outcome, strategy.trials_count) == (Outcome.TIMEOUT, 1)


class RestlessTuneStrategy(LadderTuneStrategy):
    """Goes on after a success, until it has seen enough."""

    refines = True

    def stages(self) -> Iterator[list[TuneConfig]]:
        for config in rungs(self):
            self.re_quant = self.trials_count < 3
            yield [config]


def test_a_strategy_that_refines_says_itself_when_a_success_ends_the_search(measured: Measured, tmp_path: Path) -> None:
    strategy = climbing(measured[0], tmp_path, 1, RestlessTuneStrategy)
    assert (ended(strategy).outcome, strategy.trials_count) == (Outcome.TARGET_MET, 4)


def test_of_a_strategy_that_refines_the_cheapest_wins_with_its_own_result(measured: Measured, tmp_path: Path) -> None:
    engine, _, accuracies = measured
    strategy = climbing(engine, tmp_path, 1, RestlessTuneStrategy)
    assert ended(strategy).best == 1  # all cost the same, and the fourth is the most accurate
    assert strategy.best_tune_result == (accuracies[1], [accuracies[1]])
    assert strategy.winner_config == rungs(strategy)[0]
    assert strategy.cur_best_acc == accuracies[4]


class KeepingTuneStrategy(TuneStrategy):
    """Neural Compressor's conservative loop, as its users write it: from fp32, one op more at a time."""

    def next_tune_cfg(self) -> Iterator[Any]:
        self.re_quant = True
        _, _, quantized = self.initial_tuning_cfg()
        kept = {(name, type_): OpTuningConfig(name, type_, "fp32", self.tuning_space) for name, type_ in quantized}
        yield kept
        for op in quantized:
            tried = {**kept, op: quantized[op]}
            yield tried
            if self.objectives.accuracy_meets():
                kept = tried
        self.re_quant = False


def test_a_strategy_that_sets_re_quant_ends_with_the_cheapest_like_one_that_refines(
    measured: Measured, tmp_path: Path
) -> None:
    """As in Neural Compressor, where under `re_quant` the last success is the best, whatever its speed."""
    strategy = climbing(measured[0], tmp_path, 1, KeepingTuneStrategy)
    end = ended(strategy)
    assert (end.outcome, strategy.trials_count, end.best) == (Outcome.TARGET_MET, 3, 3)
    assert strategy.winner_config is not None
    assert [op.mode for op in strategy.winner_config.values()] == [Mode.STATIC, Mode.STATIC]
    resumed = climbing(measured[0], tmp_path, 1, KeepingTuneStrategy)
    resumed.setup_resume(history_of(strategy))
    assert ended(resumed).best == 3


class SatisfiedTuneStrategy(LadderTuneStrategy):
    """Ends by a rule of its own."""

    def stop(self, timeout: float, trials_count: int) -> bool:
        return self.cur_best_acc > 0.996 or super().stop(timeout, trials_count)


@pytest.mark.parametrize("ranks", [0, 3])
def test_a_strategy_may_stop_by_a_rule_of_its_own(measured: Measured, tmp_path: Path, ranks: int) -> None:
    strategy = searched(lambda: climbing(measured[0], tmp_path, 0, SatisfiedTuneStrategy), ranks)
    assert strategy.end is not None
    assert (strategy.end.outcome, strategy.trials_count) == (Outcome.STOPPED, 2)


class PatientTuneStrategy(LadderTuneStrategy):
    """Ends after a trial that was no better: its rule remembers what it was asked after."""

    seen, bad = 0.0, 0

    def stop(self, timeout: float, trials_count: int) -> bool:
        accuracy = self.last_tune_result.accuracy if self.last_tune_result else 0.0
        self.bad = 0 if accuracy > self.seen else self.bad + 1
        self.seen = max(self.seen, accuracy)
        return self.bad == 1 or super().stop(timeout, trials_count)


@pytest.mark.parametrize("told", [0, 1, 2, 3])
def test_a_rule_that_remembers_ends_a_resumed_search_where_it_ends_a_whole_one(
    measured: Measured, tmp_path: Path, told: int
) -> None:
    """Of the third trial alone the rule would say that it is better than nothing."""
    whole = climbing(measured[0], tmp_path, 0, PatientTuneStrategy)
    end = ended(whole)
    assert (end.outcome, whole.trials_count) == (Outcome.STOPPED, 3)
    resumed = climbing(measured[0], tmp_path, 0, PatientTuneStrategy)
    resumed.setup_resume(History(launches=history_of(whole).launches, trials=history_of(whole).trials[: told + 1]))
    again = ended(resumed)
    assert essence(history_of(resumed).trials) == essence(history_of(whole).trials)
    assert (again.outcome, again.best) == (end.outcome, end.best)


class RaisingTuneStrategy(LadderTuneStrategy):
    """Its rule has a mistake."""

    def stop(self, timeout: float, trials_count: int) -> bool:
        return bool(self.tune_data["patience"])


def test_a_rule_that_raises_ends_the_search_with_its_line(measured: Measured, tmp_path: Path) -> None:
    """It would raise after every relaunch, too."""
    with pytest.raises(
        SearchError, match=r"RaisingTuneStrategy raised at test_stopping.py:\d+ in stop: KeyError"
    ) as caught:
        climbing(measured[0], tmp_path, 0, RaisingTuneStrategy).traverse()
    assert caught.value.reason == Failure.STRATEGY_RAISED


class OneRungTuneStrategy(LadderTuneStrategy):
    """Asks once."""

    def stages(self) -> Iterator[list[TuneConfig]]:
        yield rungs(self)[:1]


@pytest.mark.parametrize(
    ("timeout", "trials", "met", "re_quant", "stops"),
    [
        pytest.param(0, 1, False, False, False, id="nothing yet"),
        pytest.param(0, 1, True, False, True, id="a success"),
        pytest.param(0, 1, True, True, False, id="a success, but there is more to quantize"),
        pytest.param(0, 3, False, False, True, id="all trials"),
        pytest.param(0, 3, True, True, True, id="all trials, however much there is to quantize"),
        pytest.param(99, 1, True, False, False, id="a success, with time left"),
        pytest.param(10, 1, False, False, True, id="no time left"),
        pytest.param(99, 3, True, False, True, id="time left, but no trial"),
    ],
)
def test_stop_answers_for_the_trials_and_the_timeout_that_it_is_given(
    measured: Measured, tmp_path: Path, timeout: float, trials: int, met: bool, re_quant: bool, stops: bool
) -> None:
    strategy = climbing(measured[0], tmp_path, 1 if met else 0, OneRungTuneStrategy, maxTrials=3)
    ended(strategy)
    strategy.re_quant = re_quant
    assert strategy.stop(timeout, trials) is stops
