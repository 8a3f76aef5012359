"""Figures of losses, from timelines made by hand."""

import pytest

from benchmarks.recovery_spans import repeated, seconds_of_a_lost_rank
from quantuner.api.journal import Launched, Trial, TrialState, encode
from quantuner.api.timeline import Ending, Kind, LaunchSpans, Span

BEGAN = 1000.0


def span(rank: int, index: int, start: float, end: float, outcome: Ending = Ending.TOLD, part: str = "") -> Span:
    kind = Kind.PART if part else Kind.TRIAL if index else Kind.BASELINE
    return Span(rank, kind, index, part, start, end, outcome)


def launch(*spans: Span) -> LaunchSpans:
    return LaunchSpans(began=BEGAN, ranks=3, spans=list(spans))


def lines(*told_in_each_launch: int) -> list[str]:
    """A journal of so many trials after each launch, the first one's baseline included."""
    record = Launched(search="s", model="m", ops=1, ranks=3, hosts=("a", "b", "c"), time="2026-01-01T00:00:00Z")
    found: list[str] = []
    index = 0
    for count in told_in_each_launch:
        found.append(encode(record))
        for _ in range(count):
            found.append(encode(Trial(index=index, digest=str(index), state=TrialState.COMPLETE, accuracy=1.0)))
            index += 1
    return found


def test_a_lost_rank_costs_what_it_had_done_and_what_the_others_idled() -> None:
    seen = launch(
        span(1, 1, 0.0, 1.0),
        span(2, 2, 0.0, 1.5, Ending.LOST),  # killed at 0.75, noticed at 1.5
        span(1, 2, 1.25, 2.25),
        span(1, 3, 2.25, 3.25),
    )
    assert seconds_of_a_lost_rank(seen, BEGAN + 0.75) == pytest.approx(0.75 + 0.25)


def test_two_that_go_on_share_what_is_left() -> None:
    seen = launch(span(1, 1, 0.0, 2.0), span(2, 2, 0.0, 2.0), span(3, 3, 0.0, 1.0, Ending.LOST), span(1, 3, 2.0, 4.0))
    # From 1 to 4 rank 1 works for three seconds and rank 2 for one: it idles for two.
    assert seconds_of_a_lost_rank(seen, BEGAN + 1.0) == pytest.approx(1.0 + 2.0 / 2)


def test_a_dead_rank_whose_last_result_came_after_the_kill_is_none_that_idles() -> None:
    seen = launch(
        span(2, 2, 0.0, 1.0),
        span(2, 3, 1.0, 1.5, Ending.LOST),
        span(1, 1, 0.0, 2.0),
        span(1, 3, 2.0, 4.0),
    )
    assert seconds_of_a_lost_rank(seen, BEGAN + 0.75) == pytest.approx(0.0)


def test_a_rank_that_is_killed_after_the_last_trial_measures_nothing() -> None:
    with pytest.raises(ValueError, match="kill it earlier"):
        seconds_of_a_lost_rank(launch(span(1, 1, 0.0, 1.0)), BEGAN + 2.0)


def test_trials_that_were_not_told_before_a_launch_are_not_repeated() -> None:
    first = launch(span(0, 0, 0.0, 1.0), span(1, 1, 1.0, 2.0), span(2, 2, 1.0, 2.0, Ending.LOST))
    second = launch(span(1, 2, 0.0, 1.0), span(2, 3, 0.0, 1.0))
    assert repeated(lines(2, 2), [first, second]) == 0


def test_trials_told_by_an_earlier_launch_are_repeated_by_a_later_one() -> None:
    second = launch(span(0, 0, 0.0, 1.0), span(1, 1, 1.0, 2.0), span(2, 2, 1.0, 2.0))
    assert repeated(lines(2, 1), [second]) == 2  # the first launch's timeline ended with its launcher


def test_a_trial_that_begins_after_its_first_result_is_repeated_and_a_duplicate_is_not() -> None:
    duplicate = Span(2, Kind.DUPLICATE, 1, "", 0.5, 1.5, Ending.ABANDONED)
    assert repeated(lines(2), [launch(span(1, 1, 0.0, 1.0), duplicate)]) == 0
    assert repeated(lines(2), [launch(span(1, 1, 0.0, 1.0), span(2, 1, 1.25, 2.0))]) == 1


def test_shares_of_one_trial_are_one_evaluation() -> None:
    shares = launch(span(1, 1, 0.0, 1.0, part="1/2"), span(2, 1, 0.5, 1.5, part="2/2"))
    assert repeated(lines(2), [shares]) == 0
