"""Does a result meet the criterion, and is it no worse than another one.

Matrix: both criteria by both directions by the sign of the baseline, each just inside, exactly on and just outside
its target; then every objective's direction. Left out: weights, which choose among results (test_selection.py).
"""

import math
from collections.abc import Sequence

import pytest

from quantuner.api.spec import AccuracyCriterion, Objective
from quantuner.api.trial import TrialResult
from quantuner.strategy.objectives import Objectives, Result

RELATIVE = AccuracyCriterion("relative", 0.25)
ABSOLUTE = AccuracyCriterion("absolute", 0.25)
RELATIVE_LOSS = AccuracyCriterion("relative", 0.25, higher_is_better=False)
ABSOLUTE_LOSS = AccuracyCriterion("absolute", 0.25, higher_is_better=False)


def objectives_of(criterion: AccuracyCriterion, baseline: float | None, *names: str) -> Objectives:
    made = Objectives([Objective(name) for name in names], criterion)
    made.baseline = None if baseline is None else Result(baseline, [])
    return made


@pytest.mark.parametrize(
    ("criterion", "baseline", "target"),
    [
        pytest.param(RELATIVE, 0.5, 0.375, id="a quarter of the baseline"),
        pytest.param(ABSOLUTE, 0.5, 0.25, id="a quarter"),
        pytest.param(RELATIVE_LOSS, 0.5, 0.625, id="lower is better: a quarter of the baseline above"),
        pytest.param(ABSOLUTE_LOSS, 0.5, 0.75, id="lower is better: a quarter above"),
        pytest.param(RELATIVE, -2.0, -2.5, id="a negative baseline: still a loss"),
        pytest.param(ABSOLUTE, -2.0, -2.25, id="a negative baseline, absolute"),
        pytest.param(RELATIVE_LOSS, -2.0, -1.5, id="a negative baseline, lower is better"),
        pytest.param(ABSOLUTE_LOSS, -2.0, -1.75, id="a negative baseline, lower is better, absolute"),
        pytest.param(RELATIVE, 0.0, 0.0, id="a baseline of zero has nothing to lose"),
        pytest.param(AccuracyCriterion("relative", 0.0), 0.5, 0.5, id="no loss"),
        pytest.param(AccuracyCriterion("absolute", -0.25), 0.5, 0.75, id="a negative loss asks for a gain"),
    ],
)
def test_an_accuracy_meets_the_criterion_from_the_target_on_and_on_the_target(
    criterion: AccuracyCriterion, baseline: float, target: float
) -> None:
    objectives = objectives_of(criterion, baseline)
    worse, better = (-math.inf, math.inf) if criterion.higher_is_better else (math.inf, -math.inf)
    answers = []
    for accuracy in (math.nextafter(target, worse), target, math.nextafter(target, better)):
        objectives.val = Result(accuracy, [])
        met = {objectives.accuracy_meet_req((accuracy, [])), objectives.accuracy_meets(), objectives.compare(None)}
        answers.append(met)
    assert answers == [{False}, {True}, {True}]


@pytest.mark.parametrize(("higher", "worst"), [(True, -math.inf), (False, math.inf)])
def test_a_failed_trial_has_the_worst_accuracy_and_never_meets(higher: bool, worst: float) -> None:
    objectives = objectives_of(AccuracyCriterion("absolute", 1e308, higher), 0.5, "performance")
    failed = objectives.result(TrialResult(accuracy=None, error="no"))
    assert failed == Result(worst, [])
    objectives.val = failed
    assert (objectives.accuracy_meet_req(failed), objectives.compare(None)) == (False, False)
    assert objectives.compare(Result(0.5, [1.0])) is False


def test_a_result_has_the_configured_objectives_in_their_order() -> None:
    objectives = objectives_of(RELATIVE, 0.5, "modelsize", "performance")
    measured = TrialResult(accuracy=0.25, objectives={"performance": 1.0, "footprint": 2.0, "modelsize": 3.0})
    assert objectives.result(measured) == (0.25, [3.0, 1.0])
    assert objectives.representation == ["modelsize", "performance"]


@pytest.mark.parametrize(
    ("names", "higher", "last", "value", "no_worse"),
    [
        pytest.param(("performance",), True, [2.0], [1.0], True, id="faster"),
        pytest.param(("performance",), True, [2.0], [2.0], True, id="as fast"),
        pytest.param(("performance",), True, [2.0], [3.0], False, id="slower"),
        pytest.param(("modelsize",), True, [2.0], [1.0], True, id="smaller"),
        pytest.param(("footprint",), False, [2.0], [3.0], False, id="more memory, whatever accuracy's direction"),
        pytest.param(("accuracy",), True, [0.8], [0.9], True, id="more accurate"),
        pytest.param(("accuracy",), True, [0.8], [0.8], False, id="as accurate is no gain"),
        pytest.param(("accuracy",), False, [0.8], [0.8], True, id="as low a loss"),
        pytest.param(("accuracy",), False, [0.8], [0.9], False, id="a higher loss"),
        pytest.param(("performance", "modelsize"), True, [2.0, 2.0], [1.0, 2.0], True, id="two, one of them better"),
        pytest.param(("performance", "modelsize"), True, [2.0, 2.0], [1.0, 3.0], False, id="two, one of them worse"),
    ],
)
def test_a_result_that_meets_replaces_another_where_no_objective_is_worse(
    names: Sequence[str], higher: bool, last: list[float], value: list[float], no_worse: bool
) -> None:
    objectives = objectives_of(AccuracyCriterion("absolute", 1.0, higher), 0.5, *names)
    objectives.val = Result(0.5, value)
    assert objectives.compare(Result(0.5, last)) is no_worse
    assert objectives.compare(None) is True


def test_better_objectives_do_not_make_up_for_the_accuracy() -> None:
    objectives = objectives_of(RELATIVE, 0.5, "performance")
    objectives.val = Result(0.25, [1.0])
    assert objectives.compare(Result(0.5, [2.0])) is False


def test_a_baseline_may_be_given_where_results_are_compared() -> None:
    objectives = objectives_of(RELATIVE, None)
    objectives.val = Result(0.4, [])
    assert objectives.compare(None, Result(0.5, [])) is True
    assert objectives.compare(None, Result(0.6, [])) is False
    assert objectives.compare(None) is False  # the last one given stays


def test_nothing_meets_before_there_is_a_result_and_nothing_is_judged_before_the_baseline() -> None:
    objectives = objectives_of(RELATIVE, 0.5)
    assert (objectives.accuracy_meets(), objectives.compare(None)) == (False, False)
    with pytest.raises(RuntimeError, match="the baseline is measured before a result is judged"):
        objectives_of(RELATIVE, None).accuracy_meet_req((0.5, []))
