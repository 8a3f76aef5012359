"""Which trial wins under each rule, and the Pareto front.

Matrix: three rules (first, cheapest, objectives) by one or two objectives and both directions of accuracy. Left out:
weighted objectives with the cheapest rule, which does not read objectives.
"""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.journal import Finished, History, Outcome, Selection, Trial
from quantuner.api.selection import _column, best, best_result, choose, pareto_front
from quantuner.api.spec import AccuracyCriterion, Objective
from tests.unit.records import TIME, launched, told, tuning

OBJECTIVES = (Objective("performance"),)
HIGHER, LOWER = AccuracyCriterion(), AccuracyCriterion(higher_is_better=False)


def timed(index: int, seconds: float, accuracy: float = 0.9, *, meets: bool = True) -> Trial:
    return told(index, accuracy, meets=meets, objectives={"performance": seconds, "accuracy": accuracy})


@pytest.mark.parametrize(
    ("told_after_baseline", "higher_is_better", "best"),
    [
        pytest.param([], True, None, id="nothing told"),
        pytest.param([told(1, None)], True, None, id="only failures"),
        pytest.param([told(1, 0.5), told(2, 0.7), told(3, 0.6)], True, 2, id="the most accurate"),
        pytest.param([told(1, 0.5), told(2, 0.3), told(3, 0.4)], False, 2, id="the lowest where lower is better"),
        pytest.param([told(1, 0.5), told(2, 0.5)], True, 1, id="the earlier at a tie"),
        pytest.param([told(1, -0.5), told(2, -0.2)], True, 2, id="negative accuracies"),
        pytest.param([told(1, 0.0), told(2, -0.2)], True, 1, id="zero is an accuracy"),
        pytest.param([told(1, 0.5), told(2, 0.9, meets=True), told(3, 0.95, meets=True)], True, 2, id="first to meet"),
        pytest.param([told(1, 0.99), told(2, 0.9, meets=True)], True, 2, id="meeting beats accuracy"),
        pytest.param([told(1, None), told(2, 0.1)], True, 2, id="a failure is never best"),
    ],
)
def test_the_first_that_meets_wins_else_the_most_accurate(
    told_after_baseline: list[Trial], higher_is_better: bool, best: int | None
) -> None:
    criterion = AccuracyCriterion(higher_is_better=higher_is_better)
    found = choose([told(0, 0.9), *told_after_baseline], Selection.FIRST, OBJECTIVES, criterion)
    assert (found.index if found else None) == best


@pytest.mark.parametrize("objectives", [OBJECTIVES, (Objective("performance"), Objective("accuracy"))])
def test_a_time_limit_that_is_set_after_trials_were_abandoned_leaves_these_out(
    objectives: tuple[Objective, ...],
) -> None:
    trials = [timed(0, 2.0, meets=False), told(1, 0.5, bound=True), timed(2, 1.0)]
    assert choose(trials, Selection.OBJECTIVES, objectives, HIGHER) is trials[2]


def test_the_cheapest_that_meets_wins_where_a_strategy_refines() -> None:
    trials = [told(0, 0.9), told(1, 0.9, cost=0.1), *(told(i, 0.9, meets=True, cost=1 / i) for i in (2, 3, 4))]
    found = choose([*trials, told(5, 0.9, meets=True, cost=0.25)], Selection.CHEAPEST, OBJECTIVES, HIGHER)
    assert found is trials[4]  # the earlier of two equally cheap


@pytest.mark.parametrize(
    ("seconds", "winner"),
    [([1.0, 2.0, 3.0], 1), ([3.0, 2.0, 1.0], 3), ([2.0, 3.0, 1.0], 3), ([1.0, 1.0, 2.0], 2)],
    ids=["never better", "always better", "better in the end", "the later at a tie"],
)
def test_with_a_time_limit_the_last_wins_that_is_no_slower(seconds: list[float], winner: int) -> None:
    trials = [timed(0, 9.0), *(timed(i, s) for i, s in enumerate(seconds, 1))]
    found = choose(trials, Selection.OBJECTIVES, OBJECTIVES, HIGHER)
    assert found is trials[winner]


def test_accuracy_as_an_objective_must_rise() -> None:
    trials = [timed(0, 1, 0.99), timed(1, 1, 0.9), timed(2, 1, 0.9), timed(3, 1, 0.95)]
    found = choose(trials, Selection.OBJECTIVES, (Objective("accuracy"),), HIGHER)
    assert found is trials[3]
    assert choose(trials[:3], Selection.OBJECTIVES, (Objective("accuracy"),), HIGHER) is trials[1]


def test_weights_decide_between_objectives() -> None:
    fast = timed(1, 1.0, 0.90)
    accurate = timed(2, 2.0, 0.98)
    trials = [timed(0, 4.0, 1.0), fast, accurate]
    for weights, winner in (((3.0, 1.0), fast), ((1.0, 3.0), accurate)):
        objectives = (Objective("performance", weights[0]), Objective("accuracy", weights[1]))
        assert choose(trials, Selection.OBJECTIVES, objectives, HIGHER) is winner


def test_one_that_misses_the_criterion_never_wins_by_its_objectives() -> None:
    trials = [timed(0, 4.0), timed(1, 0.1, 0.1, meets=False), timed(2, 3.0)]
    both = (Objective("performance"), Objective("accuracy"))
    assert choose(trials, Selection.OBJECTIVES, both, HIGHER) is trials[2]


def test_a_zero_objective_does_not_divide() -> None:
    trials = [timed(0, 0.0), timed(1, 0.0), timed(2, 1.0)]
    assert best_result(trials[1:], (Objective("performance"), Objective("accuracy")), HIGHER) is trials[1]


def test_an_accuracy_of_zero_does_not_outweigh_the_differences_of_others() -> None:
    objectives = (Objective("accuracy", 0.95), Objective("performance", 0.05))
    trials = [timed(0, 4.0), timed(1, 1.0, 0.815), timed(2, 1.01, 0.9)]
    criterion = AccuracyCriterion(tolerable_loss=0.1)
    assert choose(trials, Selection.OBJECTIVES, objectives, criterion) is trials[2]
    failed = timed(3, 1.005, 0.0, meets=False)
    assert choose([*trials, failed], Selection.OBJECTIVES, objectives, criterion) is trials[2]


def test_an_objective_that_is_rounded_to_zero_does_not_outweigh_the_others() -> None:
    objectives = (Objective("performance"), Objective("accuracy"))
    trials = [timed(0, 9.0), timed(1, 1.0, 0.5), timed(2, 0.9, 0.6), timed(3, 0.0, 0.4)]
    assert choose(trials[:3], Selection.OBJECTIVES, objectives, HIGHER) is trials[2]
    assert choose(trials, Selection.OBJECTIVES, (objectives[0], Objective("accuracy", 2)), HIGHER) is trials[2]


criteria = st.builds(AccuracyCriterion, st.sampled_from(["relative", "absolute"]), st.just(0.5), st.booleans())
accuracies = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8)


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=8), criteria, st.sampled_from([0.01, 1.0, 1e30]))
def test_with_all_the_weight_on_accuracy_the_most_accurate_wins(
    found: list[int], criterion: AccuracyCriterion, scale: float
) -> None:
    trials = [timed(i, 1.0 + i, scale * a) for i, a in enumerate([1, *found])]
    winner = choose(trials, Selection.OBJECTIVES, (Objective("accuracy"), Objective("performance", 0)), criterion)
    best_accuracy = (max if criterion.higher_is_better else min)(scale * a for a in found)
    assert winner is not None
    assert winner.accuracy == best_accuracy


@given(accuracies, criteria)
def test_the_column_of_accuracies_has_their_order_and_lies_between_0_and_1(
    found: list[float], criterion: AccuracyCriterion
) -> None:
    column = _column(found, "accuracy", criterion)
    assert max(column) == 1
    assert all(0 <= scaled <= 1 for scaled in column)
    for one, scaled in zip(found, column, strict=True):
        for other, beside in zip(found, column, strict=True):
            assert scaled >= beside or not criterion.better(one, than=other)


def test_the_last_launch_says_the_rule() -> None:
    trials = [told(0, 0.9), told(1, 0.9, meets=True, cost=0.5), told(2, 0.9, meets=True, cost=0.25)]
    launches = [launched(), launched(selection=Selection.CHEAPEST)]
    assert best(tuning(), History(launches=launches[:1], trials=trials)) is trials[1]
    assert best(tuning(), History(launches=launches, trials=trials)) is trials[2]


def test_a_search_that_has_finished_says_which_trial_won() -> None:
    """A strategy may begin to refine when its launch is recorded already."""
    trials = [told(0, 0.9), told(1, 0.9, meets=True, cost=0.5), told(2, 0.9, meets=True, cost=0.25)]
    end = Finished(outcome=Outcome.TARGET_MET, best=2, accuracy=0.9, artifact="", time=TIME)
    assert best(tuning(), History(launches=[launched()], trials=trials, end=end)) is trials[2]
    assert best(tuning(), History(launches=[launched()], end=replace(end, best=None))) is None


points = st.lists(
    st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.sampled_from([0.25, 0.5, 1.0]), st.sampled_from([1.0, 2.0])),
    max_size=8,
)


@pytest.mark.parametrize("winner", [99, -1, 0, 1], ids=["beyond the last", "negative", "the baseline", "a failed one"])
def test_a_winner_that_cannot_be_one_is_not_believed(winner: int) -> None:
    end = Finished(outcome=Outcome.MAX_TRIALS, best=winner, accuracy=0.9, artifact="", time=TIME)
    found = History([launched()], [told(0, 0.9), told(1, None), told(2, 0.8)], end)
    chosen = best(tuning(), found)
    assert chosen is not None
    assert chosen.index == 2


@given(points, st.booleans())
def test_the_front_holds_exactly_what_nothing_beats(found: list[tuple[float, float, float]], higher: bool) -> None:
    trials = [told(i, a, cost=c, size=s) for i, (a, c, s) in enumerate(found)]
    front = pareto_front(trials, HIGHER if higher else LOWER)
    sign = 1 if higher else -1

    def beats(one: Trial, other: Trial) -> bool:
        at_least = sign * one.accuracy >= sign * other.accuracy and one.cost <= other.cost and one.size <= other.size  # type: ignore[operator]
        return at_least and (one.accuracy, one.cost, one.size) != (other.accuracy, other.cost, other.size)

    assert [t.cost for t in front] == sorted(t.cost for t in front)
    for trial in trials:
        beaten = any(beats(other, trial) for other in trials)
        equal = any((t.accuracy, t.cost, t.size) == (trial.accuracy, trial.cost, trial.size) for t in front)
        assert equal != beaten
    assert len({(t.accuracy, t.cost, t.size) for t in front}) == len(front)


def test_a_long_front_is_thinned_and_keeps_its_ends() -> None:
    trials = [told(i, i / 100, cost=i / 100) for i in range(1, 101)]
    front = pareto_front(trials, HIGHER, limit=16)
    assert (len(front), front[0].index, front[-1].index) == (16, 1, 100)


def test_failed_trials_are_not_on_the_front() -> None:
    assert pareto_front([told(0, 0.9), told(1, None, cost=0.1)], HIGHER)[0].index == 0
