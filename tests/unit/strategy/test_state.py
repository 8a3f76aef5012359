"""What follows from told results: the best so far, the winner so far, and what is recalled."""

import pytest

from quantuner.api.spec import AccuracyCriterion, Objective
from quantuner.api.trial import TrialResult
from quantuner.space.capability import Mode
from quantuner.space.config import OpConfig, TuneConfig
from quantuner.strategy.objectives import Objectives, Result
from quantuner.strategy.state import State
from tests.unit.records import told

DEFAULT = TuneConfig({"fc": OpConfig(Mode.STATIC)})
Told = tuple[float | None, float]
"""Accuracy, None of a failed trial, and seconds."""


def trial_config(number: int) -> TuneConfig:
    return DEFAULT.calibrated_with(number)


def state_after(results: list[Told], higher: bool = True) -> State:
    """Baseline 0.5 with a tolerable loss of 0.25, then these, as configurations 1, 2, …"""
    criterion = AccuracyCriterion("absolute", 0.25, higher)
    objectives = Objectives([Objective("performance")], criterion)
    state = State(objectives, criterion, DEFAULT, objectives.worst, re_quant=False)
    state.begin(TrialResult(accuracy=0.5, objectives={"performance": 9.0}))
    for number, (accuracy, seconds) in enumerate(results, 1):
        tell(state, number, accuracy, seconds)
    return state


def tell(state: State, number: int, accuracy: float | None, seconds: float = 1.0) -> None:
    config = trial_config(number)
    measured = {} if accuracy is None else {"performance": seconds}
    meets = accuracy is not None and state.objectives.accuracy_meet_req((accuracy, []))
    state.tell(config, told(number, accuracy, meets=meets, objectives=measured, digest=config.digest))
    state.keep_if_best(config)


def number_of(config: TuneConfig | None) -> int | None:
    return None if config is None else config.calib_sampling_size


@pytest.mark.parametrize(
    ("results", "higher", "best"),
    [
        pytest.param([], True, 0, id="before the first, the default"),
        pytest.param([(0.1, 1)], True, 1, id="the only one"),
        pytest.param([(0.1, 1), (0.2, 1), (0.15, 1)], True, 2, id="the most accurate"),
        pytest.param([(0.1, 1), (0.2, 1), (0.15, 1)], False, 1, id="the lowest where lower is better"),
        pytest.param([(0.2, 1), (0.1, 1), (0.2, 1)], True, 3, id="the later at a tie"),
        pytest.param([(0.2, 1), (0.3, 1), (0.2, 1)], False, 3, id="the later at a tie where lower is better"),
        pytest.param([(0.2, 1), (0.2, 9)], True, 2, id="the later at a tie, however slow"),
        pytest.param([(0.2, 1), (None, 1)], True, 1, id="never a failed one"),
        pytest.param([(0.2, 1), (None, 1)], False, 1, id="never a failed one where lower is better"),
        pytest.param([(None, 1), (None, 1)], True, 0, id="all failed"),
        pytest.param([(None, 1), (-3.0, 1)], True, 2, id="a poor one after a failed one"),
    ],
)
def test_the_most_accurate_is_the_best(results: list[Told], higher: bool, best: int) -> None:
    state = state_after(results, higher)
    assert number_of(state.best_config) == best
    expected = results[best - 1][0] if best else state.objectives.worst
    assert state.cur_best_acc == expected


@pytest.mark.parametrize(
    ("results", "winner", "met_at"),
    [
        pytest.param([(0.2, 1)], None, 0, id="none meets"),
        pytest.param([(0.2, 1), (0.25, 1)], 2, 2, id="exactly on target"),
        pytest.param([(0.3, 2), (0.4, 3)], 1, 1, id="a slower one does not replace it"),
        pytest.param([(0.4, 2), (0.3, 1)], 2, 1, id="a faster one does, if less accurate"),
        pytest.param([(0.3, 2), (0.3, 2)], 2, 1, id="the later of two as fast"),
        pytest.param([(0.3, 2), (0.2, 1)], 1, 1, id="a faster one that misses does not"),
        pytest.param([(None, 1), (0.3, 2), (None, 1)], 2, 2, id="failed ones do not count"),
    ],
)
def test_the_last_that_meets_with_no_objective_worse_is_the_winner(
    results: list[Told], winner: int | None, met_at: int
) -> None:
    state = state_after(results)
    assert (number_of(state.winner_config), state.metric_met_point) == (winner, met_at)
    expected = None if winner is None else Result(results[winner - 1][0] or 0.0, [results[winner - 1][1]])
    assert state.best_tune_result == expected


def test_every_told_trial_counts_the_failed_ones_too() -> None:
    state = state_after([(0.3, 1), (None, 1), (0.1, 2)])
    assert state.trials_count == 3
    assert (number_of(state.last_config), state.last_tune_result) == (3, Result(0.1, [2]))


def test_a_failed_trial_is_the_last_result_but_leaves_best_and_winner_alone() -> None:
    state = state_after([(0.3, 1), (None, 1)])
    assert (number_of(state.last_config), state.last_tune_result) == (2, Result(float("-inf"), []))
    assert (number_of(state.best_config), number_of(state.winner_config)) == (1, 1)


def test_what_is_recalled_is_the_last_again_and_costs_no_trial() -> None:
    state = state_after([(0.4, 1), (0.3, 2)])
    state.recall(trial_config(1))
    assert (number_of(state.last_config), state.last_tune_result) == (1, Result(0.4, [1]))
    assert state.objectives.val == state.last_tune_result
    assert (state.trials_count, number_of(state.best_config), number_of(state.winner_config)) == (2, 1, 1)


def test_a_tie_is_not_won_by_being_recalled() -> None:
    state = state_after([(0.2, 1), (0.2, 1)])
    state.recall(trial_config(1))
    assert number_of(state.best_config) == 2


def test_a_configuration_that_was_not_told_cannot_be_recalled() -> None:
    with pytest.raises(KeyError):
        state_after([(0.2, 1)]).recall(trial_config(2))


def test_a_winner_by_another_rule_brings_its_own_result() -> None:
    state = state_after([(0.4, 2), (0.3, 1)])
    state.win(trial_config(1))
    assert (number_of(state.winner_config), state.best_tune_result) == (1, Result(0.4, [2]))


def test_the_baseline_is_measured_before_the_first_trial_and_counts_as_none() -> None:
    state = state_after([])
    assert state.objectives.baseline == Result(0.5, [9.0])
    assert (state.trials_count, state.last_tune_result) == (0, None)
