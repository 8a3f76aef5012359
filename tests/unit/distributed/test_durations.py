"""What follows from how long trials took."""

from __future__ import annotations

import pytest

from quantuner.distributed.durations import Durations
from quantuner.distributed.protocol import Known, Limits, Pace


def durations(baseline: float | None = None, **trials: list[float]) -> Durations:
    made = Durations(Limits())
    made.expect(Known(baseline, trials))
    return made


def test_nothing_is_expected_before_anything_is_known() -> None:
    made = durations()
    assert (made.pace(""), made.pace("trains"), made.slow(""), made.typical, made.paces) == (None, None, None, None, {})


@pytest.mark.parametrize(
    ("baseline", "trial", "pace"),
    [
        (1.0, None, Pace(1.0, 60.0)),
        (8.0, None, Pace(8.0, 80.0)),
        (8.0, 3.0, Pace(3.0, 80.0)),  # it evaluates the same data: a quick trial is one whose values were kept
        (8.0, 30.0, Pace(30.0, 300.0)),
        (None, 30.0, Pace(30.0, 300.0)),
    ],
)
def test_trials_may_take_ten_times_the_longest_or_the_baseline(
    baseline: float | None, trial: float | None, pace: Pace
) -> None:
    made = durations(baseline)
    if trial is not None:
        made.learn("", trial)
        made.learn("", trial)
        made.learn("", trial / 100)
    assert made.pace("") == pace


def test_what_did_not_run_to_its_end_counts_for_how_much_work_fills_a_moment_alone() -> None:
    made = durations(100.0)
    made.learn("", 0.5, whole=False)
    made.learn("trains", 5000.0, whole=False)
    made.learn("", 0.5, whole=False)
    assert made.paces == {"": Pace(100.0, 1000.0)}
    assert made.typical == 0.5
    assert made.slow("") is None


def test_kinds_are_apart_and_the_baseline_is_a_floor_for_each() -> None:
    made = durations(5.0, trains=[400.0, 300.0, 200.0], quick=[1.0])
    assert made.paces == {"": Pace(5.0, 60.0), "trains": Pace(300.0, 4000.0), "quick": Pace(1.0, 60.0)}
    assert made.pace("other") is None
    assert (made.slow("trains"), made.slow("quick"), made.slow("")) == (600.01, 2.01, None)


def test_a_trial_is_slow_beside_the_median_of_its_kind_and_not_beside_the_baseline() -> None:
    made = durations(1000.0)
    for seconds in (1.0, 3.0, 50.0):
        made.learn("", seconds)
    assert made.slow("") == pytest.approx(6.01)


def test_medians_are_of_the_last_trials_and_the_longest_of_all() -> None:
    made = durations()
    made.learn("", 70.0)
    for _ in range(300):
        made.learn("", 1.0)
    made.learn("", 2.0)
    assert made.typical == 1.0
    assert made.pace("") == Pace(1.0, 700.0)
