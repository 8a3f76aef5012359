import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.timeline import Ending, Kind, LaunchSpans, Span
from quantuner.api.utilization import Gap, by_rank, offsets, one_at_a_time, utilization


def span(rank: int, start: float, end: float, kind: str = Kind.TRIAL) -> Span:
    return Span(rank, kind, 1, "", start, end, Ending.TOLD)


def launch(ranks: int, *spans: Span, ended: float | None = None, began: float = 0.0) -> LaunchSpans:
    return LaunchSpans(began=began, ranks=ranks, spans=list(spans), ended=ended)


SETUP = [span(0, 0, 2, Kind.SETUP), span(1, 0, 1, Kind.SETUP), span(2, 0, 1, Kind.SETUP)]
RUN = launch(
    3, *SETUP, span(1, 2, 5), span(2, 2, 4), span(1, 5, 6), span(2, 7, 8), span(0, 8, 10, Kind.VERIFY), ended=10.0
)


def test_a_run_with_known_figures() -> None:
    found = utilization([RUN])
    assert found.wall == 10.0
    assert found.ranks == (0.4, 0.5, 0.4)
    assert found.overall == pytest.approx(13 / 30)
    assert found.trials == pytest.approx(1 - (3 + 2) / 12)
    assert found.first_trial == 2.0
    assert found.longest_gap == Gap(2, 4.0, 3.0)


def test_the_master_is_not_idle_where_it_only_masters() -> None:
    assert utilization([launch(2, span(1, 0, 4))]).longest_gap is None
    assert utilization([launch(2, span(1, 0, 4), span(0, 0, 1))]).longest_gap == Gap(0, 1.0, 3.0)


def test_a_rank_without_any_trial_is_idle_from_the_first_to_the_last() -> None:
    assert utilization([launch(3, span(1, 1, 4), ended=9.0)]).longest_gap == Gap(2, 1.0, 3.0)


def test_an_abandoned_trial_that_was_heard_of_late_leaves_the_figures_as_they_were() -> None:
    late = Span(2, Kind.TRIAL, 9, "", 9.0, 9.5, Ending.ABANDONED)
    found = utilization([launch(3, *RUN.spans, late, ended=10.0)])
    assert (found.trials, found.longest_gap) == (utilization([RUN]).trials, utilization([RUN]).longest_gap)


def test_what_overlaps_is_counted_once() -> None:
    assert utilization([launch(1, span(0, 0, 3), span(0, 1, 2), span(0, 2, 4), ended=8.0)]).ranks == (0.5,)


def test_launches_of_unlike_size_and_the_time_between_them() -> None:
    first = launch(3, span(1, 0, 2), span(2, 0, 4), ended=4.0)
    second = launch(2, span(1, 1, 4), began=100.0)
    found = utilization([first, second])
    assert found.wall == 8.0
    assert found.ranks == (0.0, 5 / 8, 1.0)
    assert found.overall == 9 / 20


def test_a_first_trial_may_come_in_a_later_launch() -> None:
    assert utilization([launch(2, ended=5.0), launch(2, span(1, 2, 3), began=10.0)]).first_trial == 12.0


def test_nothing_recorded() -> None:
    assert utilization([]).overall == 0.0
    assert utilization([launch(2)]).ranks == (0.0, 0.0)
    assert utilization([launch(2)]).first_trial is None
    assert utilization([launch(2)]).trials is None


def test_a_clock_that_was_set_back() -> None:
    assert offsets([launch(1, ended=10.0, began=100.0), launch(1, began=50.0), launch(1, began=200.0)]) == [0, 10, 100]


times = st.tuples(st.integers(0, 50), st.integers(0, 20))


@given(st.lists(times, max_size=20))
def test_a_rank_does_one_thing_at_a_time(drawn: list[tuple[int, int]]) -> None:
    spans = by_rank(span(0, start, start + length) for start, length in drawn)[0]
    cut = one_at_a_time(spans)
    assert [s.start for s in cut] == [s.start for s in spans]
    for one, following in itertools.pairwise(cut):
        assert one.start <= one.end <= following.start
    seconds = {second for s in spans for second in range(int(s.start), int(s.end))}
    assert utilization([launch(1, *spans, ended=100.0)]).overall == pytest.approx(len(seconds) / 100)
